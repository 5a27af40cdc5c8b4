//! Workflows through the lock: the same before and after what happens to the container, a clear word
//! where they cannot be run, and never a hang.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lockproof_model::{event::Event, report::ReplayOutcome};
use lockproof_probe::{keys::Keys, message::Request};
use lockproof_replay::{Ending, source::Source, store};
use lockproof_testcontainers::{ComfyUi, RunningComfyUi};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    command::{Lockproof, Ran},
    gate::{Gate, block_on},
    suite::{Suite, patience, suite},
};

/// The workflows of this repository.
fn workflows() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("workflows")
}

/// Those that every ComfyUI can run.
const MODEL_FREE: [&str; 3] = ["blend-editor.json", "blend.json", "colours.json"];

#[rstest]
fn replays_are_the_same_before_and_after_four_events(suite: Suite) {
    let subject = suite
        .subject("replays")
        .volume("nodes", suite.custom_nodes())
        .volume("login", suite.login())
        .volume("venv", &suite.venv)
        .keeps_data(&suite);
    let all = [Event::Restart, Event::Kill, Event::Recreate, Event::DownUp];
    let outcome = Gate::of(subject).events(all).replays([workflows().join("*.json").display().to_string()]).run();
    let replays = &outcome.subject().replays;
    for event in [Event::Installed].into_iter().chain(all) {
        let of_event: Vec<_> = replays.iter().filter(|replay| replay.event == event).collect();
        assert_eq!(of_event.len(), 7, "{event}\n{}", outcome.told());
        for replay in of_event {
            let model_free = MODEL_FREE.contains(&replay.name.as_str());
            let skipped = replay.outcome == ReplayOutcome::Skipped && !model_free;
            assert!(replay.outcome == ReplayOutcome::Same || skipped, "{event}: {replay:?}");
            // A real server that has the models gives what nothing is stored of, and is compared later.
            let told = [".safetensors", "there is nothing to compare with"];
            let says_why = replay.why.as_ref().is_some_and(|why| told.iter().any(|told| why.contains(told)));
            assert!(!skipped || says_why, "{replay:?}");
        }
    }
    if outcome.event(Event::Installed).expected == suite.installed {
        assert_eq!(outcome.report.exit_code, 0, "{}", outcome.told());
    }
}

/// A server of the lab that tests talk to.
struct Lab {
    server: RunningComfyUi,
    url: String,
    keys: Option<Keys>,
}

impl Lab {
    async fn open() -> Self {
        let server = ComfyUi::lab().await.expect("the lab").start().await.expect("it starts");
        let url = server.base_url().await.expect("it runs");
        Self { server, url, keys: None }
    }

    async fn locked() -> Self {
        let mut lab = Self::open().await;
        lab.server.install_lab_login().await.expect("it is installed");
        lab.keys = Some(lab.server.mint().await.expect("a token"));
        lab.url = lab.server.base_url().await.expect("it runs");
        lab
    }

    async fn json(&self, target: &str) -> Value {
        let answer = self.server.send(&Request::get(target)).await.expect("it answers");
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    /// Waits until the queue is as it should be.
    async fn wait_for(&self, running: usize, pending: usize) {
        let deadline = tokio::time::Instant::now() + patience(60);
        loop {
            let queue = self.json("/queue").await;
            let count = |key: &str| queue[key].as_array().map_or(0, Vec::len);
            if (count("queue_running"), count("queue_pending")) == (running, pending) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "not {running} and {pending}: {queue}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn replay(url: &str, files: impl IntoIterator<Item = PathBuf>) -> Lockproof {
    let files = files.into_iter().map(|path| path.display().to_string());
    Lockproof::new(["replay", "--url", url].map(str::to_owned)).args(files)
}

/// What was said, with what varies redacted.
fn said(ran: &Ran, url: &str) -> String {
    let seconds = regex_lite::Regex::new(r"\d+\.\d s").expect("a pattern");
    let text = ran.said().replace(url, "[url]").replace(&workflows().display().to_string(), "[workflows]");
    seconds.replace_all(&text, "[time]").into_owned()
}

#[rstest]
fn with_and_without_a_token_it_works_or_says_why_not(#[from(suite)] _suite: Suite) {
    let mut table = String::new();
    for locked in [false, true] {
        let lab = block_on(async { if locked { Lab::locked().await } else { Lab::open().await } });
        let right = lab.keys.as_ref().map_or_else(|| "any-token".to_owned(), |keys| keys.token().to_owned());
        for (client, token) in
            [("with the token", Some(right.as_str())), ("without", None), ("with a wrong one", Some("$2b$12$wrong"))]
        {
            let mut command = replay(&lab.url, [workflows().join("colours.json")]);
            if let Some(token) = token {
                command = command.env("COMFYUI_API_TOKEN", token);
            }
            let ran = command.run();
            let server = if locked { "locked" } else { "open" };
            table.push_str(&format!("# {server}, {client}\n{}\n\n", said(&ran, &lab.url)));
        }
    }
    insta::assert_snapshot!(table.trim_end());
}

#[test]
fn a_server_that_is_not_there_is_told_at_once() {
    // Nobody listens there: the port was ours a moment ago.
    let url = block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        format!("http://{}", listener.local_addr().expect("it has an address"))
    });
    let ran = replay(&url, [workflows().join("colours.json")]).run();
    ran.ends_with(3);
    insta::assert_snapshot!(said(&ran, &url));
}

/// Copies a workflow and what lies beside it.
fn copied(name: &str, to: &Path) -> PathBuf {
    let from = workflows().join(name);
    let stored = store::directory(&from);
    let there = to.join(stored.file_name().expect("it has a name"));
    std::fs::create_dir_all(&there).expect("it is made");
    for entry in std::fs::read_dir(&stored).expect("it is stored") {
        let entry = entry.expect("it can be read");
        std::fs::copy(entry.path(), there.join(entry.file_name())).expect("it is copied");
    }
    std::fs::copy(&from, to.join(name)).expect("it is copied");
    to.join(name)
}

#[rstest]
fn one_changed_pixel_is_found_and_shown(#[from(suite)] _suite: Suite) {
    let lab = block_on(Lab::open());
    let directory = tempfile::tempdir().expect("a directory");
    let workflow = copied("colours.json", directory.path());
    let picture = store::directory(&workflow).join("3-images-0.png");
    let mut pixels = image::open(&picture).expect("a picture").to_rgb8();
    pixels.get_pixel_mut(13, 7).0[2] ^= 1;
    pixels.save(&picture).expect("it is written");

    let keep = directory.path().join("kept");
    let again = || replay(&lab.url, [workflow.clone()]).args(["--keep".to_owned(), keep.display().to_string()]);
    let ran = again().args(["--report", "json=report.json"]).run();
    ran.ends_with(1);
    assert!(ran.stdout.contains("1 of 3072 pixels differ"), "{}", ran.stdout);
    assert!(ran.stdout.contains("between (13, 7) and (13, 7)"), "{}", ran.stdout);
    let report = ran.report();
    assert_eq!(report.subjects[0].replays[0].outcome, ReplayOutcome::Changed);
    assert_eq!(report.findings[0].rule.id(), "replay/changed");
    let shown = image::open(keep.join("colours/3-images-0.png")).expect("it is kept").to_rgb8();
    assert_eq!(shown.dimensions(), (3 * 64 + 2 * 4, 48), "stored, new, difference");

    again().args(["--tolerance", "0.0001"]).run().ends_with(0);
    again().args(["--update"]).run().ends_with(0);
    assert!(again().run().ends_with(0).stdout.starts_with("same"));
}

/// A workflow that runs for `steps` of five milliseconds, in the lab.
fn long(directory: &Path, steps: u32) -> PathBuf {
    let text = std::fs::read_to_string(workflows().join("qwen-text-to-image.json")).expect("it is there");
    let mut prompt: Value = serde_json::from_str(&text).expect("JSON");
    prompt["9"]["inputs"]["steps"] = json!(steps);
    let path = directory.join("long.json");
    std::fs::write(&path, prompt.to_string()).expect("it is written");
    path
}

#[rstest]
fn what_takes_too_long_is_called_off_wherever_it_is(#[from(suite)] _suite: Suite) {
    let lab = block_on(Lab::open());
    let directory = tempfile::tempdir().expect("a directory");
    let workflow = long(directory.path(), 9000);
    let ran = replay(&lab.url, [workflow.clone()]).args(["--timeout", "2s"]).run();
    ran.ends_with(1);
    assert!(
        ran.stdout.contains("timed out after 2 s: node 9 (KSampler) was running; the run was cancelled"),
        "{}",
        ran.stdout
    );
    block_on(lab.wait_for(0, 0));

    // One that waits behind another does not wait for ever, and only its own is called off.
    let other = replay(&lab.url, [workflow.clone()]).begin();
    block_on(lab.wait_for(1, 0));
    let ran = replay(&lab.url, [workflow]).args(["--timeout", "2s"]).run();
    ran.ends_with(1);
    assert!(ran.stdout.contains("it was waiting in the queue (1 ahead)"), "{}", ran.stdout);
    block_on(lab.wait_for(1, 0));
    // Ctrl-C interrupts the server's run, too.
    other.signal("INT");
    let ran = other.end();
    ran.ends_with(130);
    assert!(ran.stderr.contains("the run on the server was cancelled"), "{}", ran.stderr);
    block_on(lab.wait_for(0, 0));
}

#[rstest]
fn a_server_that_dies_in_mid_run_is_told(#[from(suite)] _suite: Suite) {
    let mut lab = block_on(Lab::open());
    let directory = tempfile::tempdir().expect("a directory");
    let running = replay(&lab.url, [long(directory.path(), 9000)]).begin();
    block_on(async {
        lab.wait_for(1, 0).await;
        lab.server.kill().await.expect("it dies");
    });
    let ran = running.end();
    ran.ends_with(1);
    assert!(ran.stdout.contains("the server stopped answering during the run"), "{}", ran.stdout);
    assert!(ran.stdout.contains("node 9 (KSampler) was running"), "{}", ran.stdout);
}

/// What a way to a server does to what comes by.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// There are no web sockets, as behind some proxies.
    NoWebSockets,
    /// The answer to a prompt is lost.
    PromptUnanswered,
    /// From a prompt on, nothing goes on.
    HangsFromPromptOn,
}

async fn way(to: SocketAddr, way: Way) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("it has an address"));
    let hangs = Arc::new(AtomicBool::new(false));
    let served = tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(carry(client, to, way, hangs.clone()));
        }
    });
    (url, served)
}

async fn carry(client: TcpStream, to: SocketAddr, way: Way, hangs: Arc<AtomicBool>) {
    let Ok(server) = TcpStream::connect(to).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let prompted = AtomicBool::new(false);
    let asked = async {
        let mut part = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_client.read(&mut part).await {
            // A connection is used for one request after the other.
            if part.starts_with(b"POST /prompt") {
                prompted.store(true, Ordering::SeqCst);
                hangs.fetch_or(way == Way::HangsFromPromptOn, Ordering::SeqCst);
            }
            if way == Way::NoWebSockets && part.starts_with(b"GET /ws") {
                return true;
            }
            if hangs.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            if to_server.write_all(&part[..read]).await.is_err() {
                break;
            }
        }
        false
    };
    let answered = async {
        let mut part = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_server.read(&mut part).await {
            let lost = way == Way::PromptUnanswered && prompted.load(Ordering::SeqCst);
            if !lost && to_client.write_all(&part[..read]).await.is_err() {
                break;
            }
        }
        false
    };
    let refused = tokio::select! {
        refused = asked => refused,
        ended = answered => ended,
    };
    if refused {
        let refused = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let _gone = to_client.write_all(refused).await;
    }
}

#[rstest]
fn without_a_web_socket_the_history_is_asked(#[from(suite)] _suite: Suite) {
    let lab = block_on(Lab::open());
    let to = lab.url.strip_prefix("http://").and_then(|a| a.parse().ok()).expect("an address");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads can be had");
    let (url, _served) = runtime.block_on(way(to, Way::NoWebSockets));
    let ran = replay(&url, [workflows().join("colours.json"), workflows().join("blend-editor.json")]).run();
    ran.ends_with(0);
    assert!(ran.stdout.ends_with("lockproof: 2 same (exit 0)\n"), "{}", ran.stdout);
}

#[rstest]
fn what_was_never_answered_is_called_off_or_said_to_go_on(#[from(suite)] _suite: Suite) {
    let lab = block_on(Lab::open());
    let to = lab.url.strip_prefix("http://").and_then(|a| a.parse().ok()).expect("an address");
    let directory = tempfile::tempdir().expect("a directory");
    let workflow = long(directory.path(), 9000);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads can be had");

    let (url, _served) = runtime.block_on(way(to, Way::PromptUnanswered));
    let ran = replay(&url, [workflow.clone()]).args(["--timeout", "2s"]).run();
    ran.ends_with(1);
    assert!(ran.stdout.contains("timed out after 2 s: no node had started; the run was cancelled"), "{}", ran.stdout);
    block_on(lab.wait_for(0, 0));

    let interrupted = replay(&url, [workflow.clone()]).begin();
    block_on(lab.wait_for(1, 0));
    interrupted.signal("INT");
    let ran = interrupted.end();
    ran.ends_with(130);
    assert!(ran.stderr.contains("the run on the server was cancelled"), "{}", ran.stderr);
    block_on(lab.wait_for(0, 0));

    // Nor is a server that hangs waited for without an end.
    let (url, _served) = runtime.block_on(way(to, Way::HangsFromPromptOn));
    let begun = std::time::Instant::now();
    let ran = replay(&url, [workflow]).args(["--timeout", "2s"]).run();
    ran.ends_with(1);
    assert!(ran.stdout.contains("the server did not answer: the run may continue"), "{}", ran.stdout);
    assert!(begun.elapsed() < patience(20), "{:?}", begun.elapsed());
}

#[rstest]
fn what_is_wrong_with_a_workflow_is_told_by_node_and_input(#[from(suite)] _suite: Suite) {
    let lab = block_on(Lab::open());
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, value: &Value| {
        let path = directory.path().join(name);
        std::fs::write(&path, value.to_string()).expect("it is written");
        path
    };
    let node = |class: &str, inputs: Value| json!({ "class_type": class, "inputs": inputs });
    let save = |from: &str| node("SaveImage", json!({ "images": [from, 0], "filename_prefix": "wrong" }));
    let wrong = [
        write("1-unknown.json", &json!({ "1": node("EmptyImge", json!({})), "2": save("1") })),
        write(
            "2-range.json",
            &json!({
                "1": node("EmptyImage", json!({ "width": 0, "height": "tall", "color": 1.5e9 })), "2": save("1"),
            }),
        ),
        write(
            "3-model.json",
            &json!({
                "1": node("VAELoader", json!({ "vae_name": "qwen_image_va.safetensors" })),
                "2": node("KSampler", json!({ "seed": 1, "steps": 1, "cfg": 1, "sampler_name": "eulr", "scheduler": "simple", "denoise": 1, "model": ["9", 0], "positive": ["1", 0] })),
                "3": node("VAEDecode", json!({ "samples": ["2", 0], "vae": ["1", 0] })),
                "4": save("3"),
            }),
        ),
        write(
            "4-nothing.json",
            &json!({ "1": node("EmptyImage", json!({ "width": 1, "height": 1, "batch_size": 1, "color": 0 })) }),
        ),
        write(
            "5-editor.json",
            &json!({ "nodes": [
            { "id": 1, "type": "workflow>Upscaler", "title": "Mine", "mode": 0 },
            { "id": 2, "type": "SaveImage", "inputs": [{ "name": "images", "type": "IMAGE", "link": 1 }], "widgets_values": ["x"] },
            { "id": 3, "type": "Power Lora Loader (rgthree)", "outputs": [{ "type": "MODEL", "links": [1] }] },
            { "id": 4, "type": "Some Panel (nobody)" },
        ], "links": [[1, 3, 0, 2, 0, "IMAGE"]] }),
        ),
        // The server itself finds this one: it is no picture.
        write("6-fails.json", &json!({ "1": node("LoadImage", json!({ "image": "no-picture.png" })), "2": save("1") })),
    ];
    std::fs::write(directory.path().join("no-picture.png"), "text").expect("it is written");
    std::fs::write(directory.path().join("6-fails.lockproof.yaml"), "inputs: [no-picture.png]").expect("it is written");
    let ran = replay(&lab.url, wrong).run();
    ran.ends_with(1);
    let mut settings = ran.redacted();
    settings.add_filter(r#"File "[^"]+", line \d+"#, "File [place]");
    settings.bind(|| insta::assert_snapshot!(said(&ran, &lab.url)));
}

#[rstest]
fn what_the_server_lacks_is_skipped_and_never_passed(#[from(suite)] _suite: Suite) {
    let lab = block_on(Lab::open());
    let directory = tempfile::tempdir().expect("a directory");
    let workflow = copied("colours.json", directory.path());
    let beside = workflow.with_extension("lockproof.yaml");
    std::fs::write(
        beside,
        "needs: { gpu: true, custom_nodes: [ComfyUI-KJNodes], models: [vae/qwen_image_vae.safetensors, vae/other.pt] }",
    )
    .expect("it is written");
    let ran = replay(&lab.url, [workflow]).run();
    ran.ends_with(4);
    insta::assert_snapshot!(said(&ran, &lab.url));
}

#[rstest]
fn a_picture_that_the_server_saved_is_a_workflow(#[from(suite)] _suite: Suite) {
    let lab = block_on(Lab::open());
    replay(&lab.url, [workflows().join("colours.json")]).run().ends_with(0);
    let directory = tempfile::tempdir().expect("a directory");
    let picture = directory.path().join("saved.png");
    block_on(async {
        let answer = lab.server.send(&Request::get("/view?filename=colours_00001_.png&subfolder=lockproof")).await;
        std::fs::write(&picture, answer.expect("it is there").body).expect("it is written");
    });
    assert_eq!(Source::read(&picture).expect("it carries one").name, "saved.png");
    let ran = replay(&lab.url, [picture]).args(["--update"]).run();
    assert!(ran.ends_with(0).stdout.starts_with(Ending::Stored.name()), "{}", ran.stdout);
}

#[rstest]
fn a_subject_is_brought_up_for_a_replay_and_taken_down(suite: Suite) {
    let subject = suite.subject("lent");
    let file = lockproof_model::config::ConfigFile { subjects: vec![subject.0], ..Default::default() };
    let files = MODEL_FREE.map(|name| workflows().join(name).display().to_string());
    let ran = Lockproof::new(["replay", "--subject", "lent"])
        .file("lockproof.yaml", &serde_json::to_string(&file).expect("it can be written"))
        .args(files)
        .run();
    ran.ends_with(0);
    assert!(ran.stdout.ends_with("lockproof: 3 same (exit 0)\n"), "{}", ran.stdout);
}
