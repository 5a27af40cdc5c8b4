//! Notebooks: executed for real on the lab, compared, watched at the server's side.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use lockproof::notebook::{self, CellEnding, Ending, Limits, Outcome, Progress, Request, Runner};
use lockproof_deploy::engine::{Engine, Run, sweep::Whose};
use lockproof_model::finding::Rule;
use lockproof_probe::keys::Keys;
use lockproof_testcontainers::{ComfyUi, RunningComfyUi};
use rstest::rstest;
use serde_json::{Value, json};

use crate::{
    gate::block_on,
    suite::{Suite, patience},
};

/// Where our own notebooks and their helper lie.
fn workflows() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it lies below").join("workflows")
}

/// A lab, locked or open, with notebooks in a directory of their own.
struct Bench {
    engine: Engine,
    run: Run,
    comfyui: RunningComfyUi,
    keys: Option<Keys>,
    directory: tempfile::TempDir,
    is_lab: bool,
}

/// What a client is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Token,
    None,
    Wrong,
}

impl Bench {
    async fn begin(locked: bool) -> Self {
        // It blocks, which a thread that drives tasks must not.
        let suite = tokio::task::spawn_blocking(Suite::of_this_run).await.expect("it can be read");
        let is_lab = suite.is_lab();
        let image = ComfyUi::image(&suite.image)
            .with_cmd(suite.command)
            .with_startup_timeout(patience(180))
            .with_stop_timeout(Duration::from_secs(1));
        let mut comfyui = image.start().await.unwrap_or_else(|e| panic!("{e}"));
        let keys = if locked {
            comfyui.install_plugin(&suite.plugin, Some(&suite.wheels)).await.unwrap_or_else(|e| panic!("{e}"));
            Some(comfyui.mint().await.expect("a token"))
        } else {
            None
        };
        let directory = tempfile::tempdir().expect("a directory");
        let engine = Engine::connect().await.expect("an engine");
        let bench = Self { engine, run: Run::new(), comfyui, keys, directory, is_lab };
        std::fs::copy(workflows().join("comfyui_client.py"), bench.at("comfyui_client.py")).expect("copied");
        bench
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn token(&self, client: Client) -> Option<String> {
        match client {
            // An open server takes any.
            Client::Token => Some(self.keys.as_ref().map_or("a-token-of-nobody", Keys::token).to_owned()),
            Client::None => None,
            Client::Wrong => Some("a-wrong-token".to_owned()),
        }
    }

    async fn request(&self, path: PathBuf) -> Request {
        Request {
            path,
            subject: "lab".to_owned(),
            event: None,
            url: self.comfyui.base_url().await.expect("an address"),
            ca: None,
            insecure: false,
            token: self.token(Client::Token),
            env: [].into(),
            parameters: serde_json::Map::new(),
            runner: Runner::Container { engine: self.engine.clone(), run: self.run.clone(), network: None },
            limits: Limits { cell: patience(60), notebook: patience(120) },
            reference: None,
            update: false,
            keep: Some(self.at("kept.ipynb")),
            progress: None,
        }
    }

    /// A notebook with these code cells: the source and what is stored as printed.
    fn write(&self, name: &str, cells: &[(&str, &str)]) -> PathBuf {
        let cells: Vec<Value> = cells
            .iter()
            .map(|(source, printed)| {
                let outputs = match *printed {
                    "" => json!([]),
                    text => json!([{ "output_type": "stream", "name": "stdout", "text": text }]),
                };
                json!({ "cell_type": "code", "metadata": {}, "execution_count": 1, "source": source, "outputs": outputs })
            })
            .collect();
        let notebook = json!({ "nbformat": 4, "nbformat_minor": 2, "metadata": {}, "cells": cells });
        let path = self.at(name);
        std::fs::write(&path, notebook.to_string()).expect("written");
        path
    }

    async fn replay(&self, cells: &[(&str, &str)]) -> Outcome {
        let request = self.request(self.write("a.ipynb", cells)).await;
        notebook::replay(&request).await.unwrap_or_else(|e| panic!("{e}"))
    }

    async fn end(self) {
        let left = self.engine.leftovers(Whose::Run(self.run.id())).await.expect("the engine says");
        assert!(left.is_empty(), "a replay leaves nothing behind: {left:?}");
        self.comfyui.remove().await.expect("it is removed");
    }
}

fn rules(outcome: &Outcome) -> Vec<Rule> {
    outcome.findings.iter().map(|finding| finding.rule).collect()
}

/// What became of each cell, in a word.
fn endings(outcome: &Outcome) -> Vec<&'static str> {
    let word = |ending: &CellEnding| match ending {
        CellEnding::Same => "same",
        CellEnding::Changed(_) => "changed",
        CellEnding::Raised(_) => "raised",
        CellEnding::TimedOut(_) => "timed out",
        CellEnding::KernelDied => "died",
        CellEnding::NotReached => "not reached",
    };
    outcome.cells.iter().map(|cell| word(&cell.ending)).collect()
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Progress for Told {
    fn cell(&self, number: usize, all: usize, title: &str) {
        self.0.lock().expect("one test").push(format!("{number}/{all} {title}"));
    }
}

/// The cell that holds the parameters is nobody's own, and what goes wrong in it counts all the same.
#[test]
fn an_error_in_the_injected_parameters_is_a_failure() {
    block_on(async {
        let bench = Bench::begin(false).await;
        let injected = json!({ "cell_type": "code", "metadata": { "tags": ["injected-parameters"] },
            "execution_count": null, "source": "n = undefined_name", "outputs": [] });
        let notebook = json!({ "nbformat": 4, "nbformat_minor": 2, "metadata": {}, "cells": [injected] });
        let path = bench.at("injected.ipynb");
        std::fs::write(&path, notebook.to_string()).expect("written");
        let outcome = notebook::replay(&bench.request(path).await).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(outcome.ending, Ending::Failed);
        assert!(outcome.why.contains("injected parameters") && outcome.why.contains("NameError"), "{}", outcome.why);
        bench.end().await;
    });
}

/// The runner that is killed is no time-out: its memory may have been all that there was.
#[test]
fn a_runner_that_is_killed_is_said_to_be() {
    block_on(async {
        let bench = Bench::begin(false).await;
        let outcome = bench.replay(&[("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)", "")]).await;
        assert_eq!(outcome.ending, Ending::Failed);
        assert!(outcome.why.contains("the runner exited"), "{}", outcome.why);
        bench.end().await;
    });
}

/// The point of it all: our notebooks, on the same token, before and after what happens to the
/// container, give what they hold. With `LOCKPROOF_UPDATE_NOTEBOOKS=1` they are given it first.
#[test]
fn our_notebooks_give_what_they_hold_before_and_after_a_restart() {
    block_on(async {
        let mut bench = Bench::begin(true).await;
        let mut replayed = 0;
        for round in ["installed", "restart"] {
            if round == "restart" {
                bench.comfyui.restart().await.expect("it restarts");
            }
            for name in ["text_to_image", "image_editing", "batch"] {
                let path = workflows().join("notebooks").join(format!("{name}.ipynb"));
                let mut request = bench.request(path).await;
                request.update = round == "installed" && std::env::var_os("LOCKPROOF_UPDATE_NOTEBOOKS").is_some();
                let outcome = notebook::replay(&request).await.unwrap_or_else(|e| panic!("{e}"));
                assert_eq!(outcome.findings, [], "{name} after {round}");
                replayed += 1;
                // A real server need not have the models of the one that names some.
                if name == "text_to_image" && outcome.ending == Ending::Skipped && !bench.is_lab {
                    assert!(outcome.why.starts_with("the server has no model"), "{}", outcome.why);
                    continue;
                }
                assert_eq!((outcome.ending, outcome.why.as_str()), (Ending::Same, ""), "{name} after {round}");
                assert!(outcome.traffic.with_token > 2 && outcome.traffic.anonymous == 0, "{:?}", outcome.traffic);
            }
        }
        assert_eq!(replayed, 6);
        bench.end().await;
    });
}

#[test]
fn each_cell_is_compared_and_a_changed_one_is_found() {
    block_on(async {
        let bench = Bench::begin(true).await;
        let told = Arc::new(Told::default());
        let path = bench.write(
            "a.ipynb",
            &[
                ("# one\nprint('a', 1 + 1)", "a 2\n"),
                ("import time; print(f'{time.time()} s')", "1.5 s\n"),
                ("print('b')", "c\n"),
                ("", ""),
            ],
        );
        let mut request = bench.request(path.clone()).await;
        request.token = None;
        request.progress = Some(told.clone());
        let outcome = notebook::replay(&request).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(endings(&outcome), ["same", "same", "changed", "same"]);
        assert_eq!(outcome.ending, Ending::Changed);
        insta::assert_snapshot!(outcome.why, @"cell 3 (`print('b')`): stdout: line 1: stored `c`, now `b`");
        assert_eq!(rules(&outcome), [Rule::ReplayChanged]);
        assert_eq!(
            *told.0.lock().expect("one test"),
            ["1/4 # one", "2/4 import time; print(f'{time.time()} s')", "3/4 print('b')"]
        );
        // Against an earlier replay, it is the same; and stored, it is the same from then on.
        request.reference = outcome.executed;
        assert_eq!(notebook::replay(&request).await.expect("it runs").ending, Ending::Same);
        (request.reference, request.update) = (None, true);
        assert_eq!(notebook::replay(&request).await.expect("it runs").ending, Ending::Same);
        request.update = false;
        assert_eq!(notebook::replay(&request).await.expect("it runs").ending, Ending::Same);
        let stored: Value = serde_json::from_str(&std::fs::read_to_string(&path).expect("read")).expect("JSON");
        assert_eq!(stored["nbformat_minor"], 2, "the format stays what it was");
        bench.end().await;
    });
}

#[rstest]
#[case::an_error("1 / 0", &["same", "raised", "not reached"], "ZeroDivisionError: division by zero")]
#[case::a_kernel_that_dies("import os; os._exit(1)", &["same", "died", "not reached"], "the kernel died")]
#[case::a_cell_without_end("while True: pass", &["same", "timed out", "not reached"], "timed out after 2 s")]
fn what_keeps_a_notebook_from_its_end_is_told_with_its_cell(
    #[case] source: &str,
    #[case] expected: &[&str],
    #[case] told: &str,
) {
    block_on(async {
        let bench = Bench::begin(false).await;
        let mut request = bench.request(bench.write("a.ipynb", &[("x = 1", ""), (source, ""), ("x", "")])).await;
        (request.token, request.limits.cell) = (None, Duration::from_secs(2));
        let outcome = notebook::replay(&request).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((outcome.ending, endings(&outcome).as_slice()), (Ending::Failed, expected), "{}", outcome.why);
        assert!(outcome.why.starts_with("cell 2") && outcome.why.contains(told), "{}", outcome.why);
        assert_eq!(rules(&outcome), [Rule::ReplayFailed]);
        bench.end().await;
    });
}

#[test]
fn a_notebook_as_a_whole_has_a_time_limit() {
    block_on(async {
        let bench = Bench::begin(false).await;
        let sleep = ("import time; time.sleep(2)", "");
        let mut request = bench.request(bench.write("a.ipynb", &[sleep, sleep, sleep, sleep])).await;
        (request.token, request.limits.notebook) = (None, Duration::from_secs(3));
        let outcome = notebook::replay(&request).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(endings(&outcome)[0], "same");
        assert!(outcome.why.contains("the notebook timed out after 3 s"), "{}", outcome.why);
        bench.end().await;
    });
}

#[test]
fn parameters_reach_the_kernel_as_papermill_gives_them() {
    block_on(async {
        let bench = Bench::begin(false).await;
        let path = bench.write("a.ipynb", &[("n, text, more = 1, 'a', None", ""), ("print(n, repr(text), more)", "")]);
        let mut raw: Value = serde_json::from_str(&std::fs::read_to_string(&path).expect("read")).expect("JSON");
        raw["cells"][0]["metadata"]["tags"] = json!(["parameters"]);
        raw["cells"][1]["outputs"] = json!([{ "output_type": "stream", "name": "stdout", "text": "2 'it\\'s \"ü\"\\n' {'k': [True, None, 1.5]}\n" }]);
        std::fs::write(&path, raw.to_string()).expect("written");
        let mut request = bench.request(path).await;
        request.token = None;
        let values = json!({ "n": 2, "text": "it's \"ü\"\n", "more": { "k": [true, null, 1.5] } });
        request.parameters = values.as_object().expect("an object").clone();
        let outcome = notebook::replay(&request).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((outcome.ending, outcome.why.as_str()), (Ending::Same, ""));
        assert_eq!(outcome.cells.len(), 2, "the injected cell is not compared");
        bench.end().await;
    });
}

/// The run records at the server's side with what credential each request came, a web socket's
/// upgrade among them.
#[test]
fn a_notebook_that_gets_on_without_the_token_is_found() {
    const HEAD: &str = "import os, urllib.request as r\nurl, token = os.environ['COMFYUI_URL'], os.environ['COMFYUI_API_TOKEN']\n\
                        def ask(path, **headers):\n    try:\n        return r.urlopen(r.Request(url + path, headers=headers)).status\n    \
                        except r.HTTPError as e:\n        return e.code";
    block_on(async {
        let bench = Bench::begin(true).await;
        let good =
            bench.replay(&[(HEAD, ""), ("print(ask('/queue', Authorization='Bearer ' + token))", "200\n")]).await;
        assert_eq!((good.ending, rules(&good)), (Ending::Same, vec![]), "{}", good.why);
        let bad = bench
            .replay(&[
                (HEAD, ""),
                ("print(ask('/queue', Authorization='Bearer ' + token))", "200\n"),
                ("print(ask('/queue'), ask('/queue', Authorization='Bearer x'))", "401 401\n"),
                ("import urllib.parse\nprint(ask('/queue?token=' + urllib.parse.quote(token)))", "200\n"),
            ])
            .await;
        assert_eq!((bad.ending, rules(&bad)), (Ending::Same, vec![Rule::ReplayTokenUnused]), "{}", bad.why);
        let traffic = &bad.traffic;
        assert_eq!((traffic.with_token, traffic.anonymous, traffic.with_another, traffic.in_query), (1, 1, 1, 1));
        assert_eq!(traffic.first_without.as_deref(), Some("GET /queue"));
        let silent = bench.replay(&[("x = 1", "")]).await;
        assert_eq!(rules(&silent), [Rule::ReplayTokenUnused]);
        let socket = "import websocket\nws = websocket.create_connection(url.replace('http', 'ws') + '/ws?clientId=a', \
                      header=['Authorization: Bearer ' + token], timeout=10)\nprint(ws.recv()[:17])\nws.close()";
        let socket = bench.replay(&[(HEAD, ""), (socket, "{\"type\": \"status\"\n")]).await;
        assert_eq!((socket.ending, socket.why.as_str()), (Ending::Same, ""));
        assert_eq!((socket.traffic.with_token, socket.traffic.anonymous), (1, 0));
        bench.end().await;
    });
}

#[test]
fn neither_the_kept_notebook_nor_what_is_told_holds_the_token() {
    block_on(async {
        let bench = Bench::begin(true).await;
        let token = bench.token(Client::Token).expect("it has one");
        let outcome = bench
            .replay(&[(
                "import os\nprint(os.environ['COMFYUI_API_TOKEN'])\nraise ValueError(os.environ['COMFYUI_API_TOKEN'])",
                "",
            )])
            .await;
        let kept = std::fs::read_to_string(outcome.kept.as_ref().expect("it is kept")).expect("read");
        assert!(kept.contains("<redacted>") && !kept.contains(&token), "{kept}");
        assert!(!format!("{:?} {:?} {}", outcome.cells, outcome.findings, outcome.why).contains(&token));
        let path = bench.write(
            "b.ipynb",
            &[(&format!("t = '{token}'\nos.environ['COMFYUI_API_KEY'] = t\nu = 'http://127.0.0.1:8188'"), "")],
        );
        let outcome = notebook::replay(&bench.request(path).await).await.expect("it runs");
        let told: Vec<String> = outcome
            .findings
            .iter()
            .map(|f| format!("{} {}: {} ({})", f.severity, f.rule, f.message, f.evidence.join("; ")))
            .collect();
        let told = told.join("\n");
        // Neither all of it nor, in a line that was cut off, its beginning.
        assert!(!told.contains(&token[..12]), "{told}");
        insta::assert_snapshot!(told);
        bench.end().await;
    });
}

/// Graceful degradation: works, or a clear error; never a hang or a silent empty result.
#[rstest]
fn a_client_works_or_says_what_is_wrong_with_its_token(
    #[values(false, true)] locked: bool,
    #[values(Client::Token, Client::None, Client::Wrong)] client: Client,
) {
    block_on(async {
        let bench = Bench::begin(locked).await;
        let (told, works) = match (locked, client) {
            (false, _) | (true, Client::Token) => ("", true),
            (true, Client::None) => {
                ("AuthenticationError: the server wants a token (401 at POST /upload/image)", false)
            }
            (true, Client::Wrong) => {
                ("AuthenticationError: the server refuses the token (401 at POST /upload/image)", false)
            }
        };
        // The notebook.
        let mut request = bench.request(workflows().join("notebooks/image_editing.ipynb")).await;
        request.token = bench.token(client);
        let outcome = notebook::replay(&request).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(outcome.ending == Ending::Same, works, "{}", outcome.why);
        assert!(outcome.why.contains(told), "{}", outcome.why);
        // The helper by itself, as a script, with the token in a `.env`.
        let said = helper(&bench, client).await;
        assert_eq!(said.starts_with("done"), works, "{said}");
        assert!(said.contains(told.split(" (401").next().unwrap_or_default()), "{said}");
        assert!(!said.contains("Traceback") && !said.contains("a-wrong-token"), "{said}");
        bench.end().await;
    });
}

async fn helper(bench: &Bench, client: Client) -> String {
    let program = "import comfyui_client as c\ntry:\n  w={'1':{'class_type':'EmptyImage','inputs':{'width':8,'height':8,\
                   'batch_size':1,'color':0}},'2':{'class_type':'SaveImage','inputs':{'images':['1',0],'filename_prefix':'x'}}}\n  \
                   print('done', len(c.ComfyUI().run(w)))\nexcept c.ComfyUIError as e:\n  print(f'{type(e).__name__}: {e}')";
    let url = bench.comfyui.base_url().await.expect("an address");
    let token = bench.token(client).map_or(String::new(), |token| format!("COMFYUI_API_TOKEN='{token}'\n"));
    std::fs::write(bench.at(".env"), format!("COMFYUI_URL={url}\n{token}")).expect("written");
    let output = tokio::process::Command::new("python3")
        .args(["-c", program])
        .current_dir(bench.directory.path())
        .env_remove("COMFYUI_URL")
        .env_remove("COMFYUI_API_TOKEN")
        .output()
        .await
        .expect("there is a Python");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_server_that_is_gone_is_told_and_nothing_hangs() {
    block_on(async {
        let mut bench = Bench::begin(false).await;
        let mut request = bench.request(workflows().join("notebooks/batch.ipynb")).await;
        request.token = None;
        bench.comfyui.stop().await.expect("it stops");
        let outcome = notebook::replay(&request).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(outcome.ending, Ending::Failed);
        assert!(
            outcome.why.contains("ServerUnreachable") && outcome.why.contains("does not answer"),
            "{}",
            outcome.why
        );
        bench.end().await;
    });
}

#[test]
fn what_the_server_lacks_makes_a_notebook_skipped() {
    block_on(async {
        let bench = Bench::begin(true).await;
        for (needs, why) in [
            (
                json!({ "models": ["diffusion_models/none.safetensors"] }),
                "the server has no model diffusion_models/none.safetensors",
            ),
            (json!({ "custom_nodes": ["NoSuchNode"] }), "the server has no node NoSuchNode"),
            (json!({ "gpu": true }), "the server has no GPU"),
        ] {
            let path = bench.write("a.ipynb", &[("1 / 0", "")]);
            let mut raw: Value = serde_json::from_str(&std::fs::read_to_string(&path).expect("read")).expect("JSON");
            raw["metadata"]["lockproof"] = json!({ "needs": needs });
            std::fs::write(&path, raw.to_string()).expect("written");
            let outcome = notebook::replay(&bench.request(path).await).await.unwrap_or_else(|e| panic!("{e}"));
            assert_eq!((outcome.ending, outcome.why.as_str()), (Ending::Skipped, why));
        }
        bench.end().await;
    });
}

/// With the user's own Python, where it has what is needed; without it, an error that says so.
#[test]
fn a_python_of_this_machine_runs_it_or_says_what_it_lacks() {
    block_on(async {
        let bench = Bench::begin(true).await;
        let python = std::env::var("LOCKPROOF_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let has = std::process::Command::new(&python)
            .args(["-c", "import nbclient, ipykernel"])
            .output()
            .is_ok_and(|output| output.status.success());
        let mut request = bench.request(workflows().join("notebooks/batch.ipynb")).await;
        request.runner = Runner::Python(python.into());
        match notebook::replay(&request).await {
            Ok(outcome) => assert_eq!((has, outcome.ending), (true, Ending::Same), "{}", outcome.why),
            Err(e) => assert!(!has && e.to_string().contains("the Python module"), "{e}"),
        }
        request.runner = Runner::Python("/no/such/python".into());
        assert!(notebook::replay(&request).await.expect_err("there is none").to_string().contains("cannot run"));
        bench.end().await;
    });
}
