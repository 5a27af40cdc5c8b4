//! Runs the kernel with the runner script, in a container or with a local Python.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use super::{
    Limits, Progress, Runner,
    file::{Prepared, is_compared, title},
    stage::Stage,
};
use lockproof_deploy::{
    engine::{
        Engine, Run,
        archive::{Ownership, Tarball},
        container::{Attachment, ContainerSpec},
    },
    lab,
};
use lockproof_model::{
    error::{Error, Result},
    read, secret,
};

const SCRIPT: &str = include_str!("runner.py");
/// The working directory in the container.
const WORK: &str = "/lockproof/work";
const LENT: &str = "/lockproof/lent";
/// The time for starting the kernel and writing the result, in addition to the notebook's time
/// limit.
const MARGIN: Duration = Duration::from_secs(90);

/// The input of an execution.
pub(super) struct Job<'a> {
    pub(super) notebook: String,
    /// The number of code cells.
    pub(super) all: usize,
    pub(super) prepared: &'a Prepared,
    pub(super) stage: &'a Stage,
    pub(super) env: BTreeMap<String, String>,
    pub(super) limits: Limits,
    /// A private directory of this machine; its subdirectory `lent` is mounted into the container.
    pub(super) directory: &'a Path,
    pub(super) port: u16,
    pub(super) progress: Option<&'a dyn Progress>,
}

/// The result of an execution.
#[derive(Debug, Default)]
pub(super) struct Execution {
    /// The notebook with its new outputs; `None` if the runner did not write it.
    pub(super) notebook: Option<Value>,
    /// The started cells, in order.
    pub(super) cells: Vec<Seen>,
    /// The error that stopped the runner, if any.
    pub(super) broken: Option<String>,
    /// What happened to its queued prompts, if it did not finish.
    pub(super) cancelled: Option<String>,
}

impl Execution {
    /// Whether every started cell finished without an error.
    pub(super) fn got_to_its_end(&self) -> bool {
        self.broken.is_none() && self.notebook.is_some() && self.cells.iter().all(|seen| seen.stop == Stop::Done)
    }
}

/// A started cell, by its index among all cells.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) index: usize,
    pub(super) stop: Stop,
    pub(super) took: Option<Duration>,
}

/// How a cell stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Done,
    Raised(String),
    CellTimeout,
    NotebookTimeout,
    Died,
}

/// An output line of the runner.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Said {
    Begin {
        begin: usize,
    },
    End {
        end: usize,
        how: String,
        detail: String,
        seconds: f64,
    },
    Broken {
        broken: String,
        missing: Option<String>,
    },
    Finished {
        #[expect(dead_code, reason = "the key identifies the line")]
        finished: bool,
    },
}

/// Processes the runner's output.
struct Follower<'a> {
    job: &'a Job<'a>,
    execution: Execution,
    missing: Option<String>,
}

impl Follower<'_> {
    fn line(&mut self, line: &str) {
        match serde_json::from_str(line) {
            Ok(Said::Begin { begin }) => self.begin(begin),
            Ok(Said::End { end, how, detail, seconds }) => {
                if let Some(seen) = self.execution.cells.iter_mut().find(|seen| seen.index == end) {
                    seen.took = Duration::try_from_secs_f64(seconds).ok();
                    seen.stop = match how.as_str() {
                        "done" => Stop::Done,
                        "cell-timeout" => Stop::CellTimeout,
                        "notebook-timeout" => Stop::NotebookTimeout,
                        "died" => Stop::Died,
                        _ => Stop::Raised(detail),
                    };
                }
            }
            Ok(Said::Broken { broken, missing }) => {
                self.execution.broken = Some(secret::redact(&broken));
                self.missing = missing;
            }
            Ok(Said::Finished { .. }) => {}
            Err(_) => tracing::debug!("notebook runner: {line}"),
        }
    }

    /// The runner exited without a message: it was killed or ran out of memory in the last started
    /// cell.
    fn ended_by_itself(&mut self, last: &str) {
        let why = format!("the runner exited: {last}");
        if let Some(seen) = self.execution.cells.last_mut().filter(|seen| seen.took.is_none()) {
            seen.stop = Stop::Raised(format!("{why}; it was killed or ran out of memory in this cell"));
        }
        self.execution.broken = Some(why);
    }

    fn begin(&mut self, index: usize) {
        // Until it ends, this is the cell in which the runner may be killed.
        self.execution.cells.push(Seen { index, stop: Stop::NotebookTimeout, took: None });
        let cells = self.job.prepared.notebook["cells"].as_array();
        if let (Some(progress), Some(cells)) = (self.job.progress, cells)
            && let Some(cell) = cells.get(index).filter(|cell| is_compared(cell))
        {
            let number = cells[..=index].iter().filter(|cell| is_compared(cell)).count();
            progress.cell(number, self.job.all, &title(cell));
        }
    }
}

impl<'a> Job<'a> {
    /// Executes the notebook. A failing notebook is not an error: see [`Execution`].
    ///
    /// # Errors
    /// A usage error if a required Python module is missing; an environment error if the container
    /// cannot start.
    pub(super) async fn run(&'a self, runner: &Runner) -> Result<Execution> {
        let mut follower = Follower { job: self, execution: Execution::default(), missing: None };
        let notebook = match runner {
            Runner::Container { engine, run, network } => {
                self.in_container(engine, run, network.as_deref(), &mut follower).await?
            }
            Runner::Python(python) => self.by_python(python, &mut follower).await?,
        };
        if let (Some(missing), Runner::Python(python)) = (&follower.missing, runner) {
            return Err(Error::usage(format!("the Python module {missing} is missing in {}", python.display())).fix(
                "install nbclient and ipykernel for it (python -m pip install nbclient ipykernel), or \
                    remove --python",
            ));
        }
        let mut execution = follower.execution;
        if let Some(bytes) = notebook {
            match serde_json::from_slice(&bytes) {
                Ok(notebook) => execution.notebook = Some(notebook),
                Err(e) => {
                    execution.broken.get_or_insert(format!("cannot read the executed notebook: {e}"));
                }
            }
        }
        Ok(execution)
    }

    fn request(&self, root: &str, socket: Option<&str>) -> Value {
        let below = |path: &Path| format!("{root}/{}", path.display()).trim_end_matches('/').to_owned();
        json!({
            "notebook": format!("{root}/.lockproof-notebook.ipynb"),
            "executed": format!("{root}/.lockproof-executed.ipynb"),
            "directory": below(&self.stage.directory),
            "env": self.env,
            "cell_timeout": self.limits.cell.as_secs().max(1),
            "notebook_timeout": self.limits.notebook.as_secs().max(1),
            "socket": socket,
            "port": self.port,
        })
    }

    async fn in_container(
        &self,
        engine: &Engine,
        run: &Run,
        network: Option<&str>,
        follower: &mut Follower<'_>,
    ) -> Result<Option<Vec<u8>>> {
        let image = lab::notebook_runner(engine).await?;
        let spec = ContainerSpec {
            name: run.name(&format!("notebook-{}", secret::random(6))),
            image,
            labels: run.labels("notebook"),
            entrypoint: Some(vec!["python3".to_owned(), format!("{WORK}/.lockproof-runner.py")]),
            command: Some(vec![format!("{WORK}/.lockproof-request.json")]),
            env: vec!["HOME=/tmp".to_owned(), "PYTHONDONTWRITEBYTECODE=1".to_owned(), "LANG=C.UTF-8".to_owned()],
            working_dir: Some("/".to_owned()),
            init: Some(true),
            mounts: vec![Attachment::Bind {
                source: self.directory.join("lent").display().to_string(),
                target: LENT.to_owned(),
                read_only: true,
            }],
            network: network.map(str::to_owned),
            ..Default::default()
        };
        let id = engine.create(&spec).await?;
        let executed = self.through(engine, &id, follower).await;
        engine.remove(&id).await?;
        executed
    }

    async fn through(&self, engine: &Engine, id: &str, follower: &mut Follower<'_>) -> Result<Option<Vec<u8>>> {
        engine.upload(id, "/", self.archive()?).await?;
        engine.start(id).await?;
        let limit = self.limits.notebook + MARGIN;
        let mut said = Vec::new();
        let followed = tokio::time::timeout(limit, engine.follow(id, |line| follower.line(line), &mut said)).await;
        match followed {
            Err(_) => {
                follower.execution.broken =
                    Some(format!("timed out after {} s waiting for the runner to exit", limit.as_secs()))
            }
            Ok(followed) => followed?,
        }
        let ended = engine.life(id).await?.is_some_and(|life| !life.running);
        let executed = engine.read_file(id, &format!("{WORK}/.lockproof-executed.ipynb")).await?;
        if ended && executed.is_none() && follower.execution.broken.is_none() {
            follower.ended_by_itself(&last(&said));
        }
        Ok(executed)
    }

    fn archive(&self) -> Result<bytes::Bytes> {
        let work = WORK.trim_start_matches('/');
        let broken =
            |e: std::io::Error| Error::environment("cannot create an archive for the notebook's container").detail(e);
        let mut tarball = Tarball::new();
        tarball.directory("lockproof", 0o755, Ownership::ROOT).map_err(broken)?;
        tarball.directory(work, 0o777, Ownership::ROOT).map_err(broken)?;
        self.stage.add_to(&mut tarball, work)?;
        let request = self.request(WORK, Some(&format!("{LENT}/server.sock"))).to_string();
        for (name, text, mode) in [
            ("runner.py", SCRIPT, 0o644),
            ("notebook.ipynb", self.notebook.as_str(), 0o644),
            ("request.json", request.as_str(), 0o600),
        ] {
            let name = format!("{work}/.lockproof-{name}");
            tarball.file(&name, text.as_bytes(), mode, Ownership::ROOT).map_err(broken)?;
        }
        tarball.finish().map_err(broken)
    }

    async fn by_python(&self, python: &Path, follower: &mut Follower<'_>) -> Result<Option<Vec<u8>>> {
        let root: PathBuf = self.directory.join("work");
        let failed = |e: std::io::Error| Error::environment("cannot prepare the notebook's files").detail(e);
        std::fs::create_dir(&root).map_err(failed)?;
        self.stage.lay_out(&root)?;
        let at = |name: &str| root.join(format!(".lockproof-{name}"));
        let request = self.request(&root.display().to_string(), None);
        // The directory is private to this user, and so is the token in the request.
        for (name, text) in
            [("runner.py", SCRIPT), ("notebook.ipynb", &self.notebook), ("request.json", &request.to_string())]
        {
            std::fs::write(at(name), text).map_err(failed)?;
        }
        let begun = Instant::now();
        let mut child = tokio::process::Command::new(python)
            .arg(at("runner.py"))
            .arg(at("request.json"))
            .env_remove(lockproof_compose::env_file::TOKEN)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| {
                Error::usage(format!("cannot run {}", python.display()))
                    .at("--python")
                    .detail(e)
                    .fix("use a Python 3 interpreter")
            })?;
        let limit = self.limits.notebook + MARGIN;
        let mut errors = Vec::new();
        if let (Some(stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) {
            let mut lines = BufReader::new(stdout).lines();
            let read = async {
                let said = async {
                    while let Ok(Some(line)) = lines.next_line().await {
                        follower.line(&line);
                    }
                };
                tokio::join!(said, beginning(&mut stderr, &mut errors));
                child.wait().await
            };
            if tokio::time::timeout(limit.saturating_sub(begun.elapsed()), read).await.is_err() {
                follower.execution.broken =
                    Some(format!("timed out after {} s waiting for the runner to exit", limit.as_secs()));
                let _gone = child.kill().await;
            }
        }
        let executed = match read::bytes(&at("executed.ipynb"), read::LONG) {
            Ok(bytes) => Some(bytes),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(Error::environment("cannot read the executed notebook").detail(e)),
        };
        let errors = String::from_utf8_lossy(&errors);
        if executed.is_none() && follower.execution.broken.is_none() {
            let said: Vec<String> = errors.lines().map(str::to_owned).collect();
            if follower.execution.cells.is_empty() {
                return Err(Error::usage(format!("{} cannot run notebooks: {}", python.display(), last(&said)))
                    .at("--python")
                    .fix("use a Python 3 interpreter with nbclient and ipykernel"));
            }
            follower.ended_by_itself(&last(&said));
        }
        Ok(executed)
    }
}

/// Keeps the beginning of a stream. Reads and drops the rest, so that its writer does not block.
async fn beginning(stream: &mut (impl AsyncRead + Unpin), kept: &mut Vec<u8>) {
    // A broken stream counts as ended: the notebook shows the result of the process.
    let _ended = (&mut *stream).take(read::SHORT).read_to_end(kept).await;
    let _ended = tokio::io::copy(stream, &mut tokio::io::sink()).await;
}

/// The last line that is not empty.
fn last(lines: &[String]) -> String {
    let line = lines.iter().rev().find(|line| !line.trim().is_empty());
    secret::redact(line.map_or("no output", |line| line.trim()))
}
