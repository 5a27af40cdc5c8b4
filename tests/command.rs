//! The command line under test: run to its end, or begun and interrupted.

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use lockproof_model::{
    config::{ConfigFile, SubjectEntry},
    event::Event,
    report::Report,
};
use tempfile::TempDir;

use crate::{
    gate::block_on,
    left::{self, Thing},
    suite::{Subject, patience},
};

/// The binary, from nextest's set-up script; else beside this test's own `deps/`.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("LOCKPROOF_BIN").filter(|path| !path.is_empty()) {
        return path.into();
    }
    let own = std::env::current_exe().expect("this program has a path");
    let found = own.ancestors().nth(2).expect("it lies in target/PROFILE/deps").join("lockproof");
    assert!(found.is_file(), "{} is not there: cargo build --package lockproof", found.display());
    found
}

/// The command line, in a directory of its own.
#[derive(Debug)]
pub(crate) struct Lockproof {
    directory: TempDir,
    arguments: Vec<String>,
    env: Vec<(String, String)>,
}

impl Lockproof {
    /// `lockproof` with arguments.
    pub(crate) fn new<S: Into<String>>(arguments: impl IntoIterator<Item = S>) -> Self {
        Self {
            directory: tempfile::Builder::new().prefix("lockproof-e2e-").tempdir().expect("a directory"),
            arguments: arguments.into_iter().map(Into::into).collect(),
            env: Vec::new(),
        }
    }

    /// `lockproof gate` with this text as `lockproof.yaml`.
    pub(crate) fn gate(text: &str) -> Self {
        Self::new(["gate"]).file("lockproof.yaml", text)
    }

    /// `lockproof gate` of one subject.
    pub(crate) fn gate_of(subject: Subject, events: &[Event]) -> Self {
        Self::gate_of_all([subject.0], events)
    }

    /// `lockproof gate` of several subjects.
    pub(crate) fn gate_of_all(subjects: impl IntoIterator<Item = SubjectEntry>, events: &[Event]) -> Self {
        let file = ConfigFile {
            subjects: subjects.into_iter().collect(),
            events: Some(events.to_vec()),
            ..ConfigFile::default()
        };
        // JSON is YAML.
        Self::gate(&serde_json::to_string_pretty(&file).expect("it can be written"))
    }

    /// Adds arguments.
    pub(crate) fn args<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Puts a file into its directory.
    pub(crate) fn file(self, name: &str, text: &str) -> Self {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(path.parent().expect("it is below")).expect("made");
        std::fs::write(path, text).expect("written");
        self
    }

    /// Begins to run it.
    #[track_caller]
    pub(crate) fn begin(self) -> Running {
        let mut command = Command::new(binary());
        command
            .args(&self.arguments)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // What the person who runs the tests has set must not change what they see.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let ours = text.starts_with("LOCKPROOF_") && text != "LOCKPROOF_CACHE";
            if ours
                || ["CI", "COMFYUI_API_TOKEN", "COMFYUI_WORKSPACE_PATH", "GITHUB_STEP_SUMMARY", "COLUMNS"]
                    .contains(&text.as_ref())
            {
                command.env_remove(&name);
            }
        }
        command.env("NO_COLOR", "1").envs(self.env.iter().cloned());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", binary().display()));
        let stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        let (sender, lines) = channel();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                text.push_str(&line);
                text.push('\n');
                // The one who waits may be gone.
                let _ended = sender.send(line);
            }
            text
        });
        let printed = std::thread::spawn(move || {
            let mut text = String::new();
            BufReader::new(stdout).read_to_string(&mut text).map(|_| text).unwrap_or_default()
        });
        Running { child, directory: self.directory, lines, stderr: Some(reader), stdout: Some(printed), ended: None }
    }

    /// Runs it to its end, and sees that nothing of it is left.
    #[track_caller]
    pub(crate) fn run(self) -> Ran {
        self.begin().end()
    }
}

/// A command that runs.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    directory: TempDir,
    lines: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
    stdout: Option<JoinHandle<String>>,
    ended: Option<ExitStatus>,
}

/// Longer than anything here takes.
const PATIENCE: u64 = 240;

impl Running {
    /// Waits for a line of standard error that holds `text`.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) {
        let deadline = Instant::now() + patience(PATIENCE);
        let mut seen = String::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(text) => return,
                Ok(line) => seen.push_str(&format!("{line}\n")),
                Err(RecvTimeoutError::Timeout) => panic!("no `{text}` in time, but:\n{seen}"),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended without `{text}`, but with:\n{seen}"),
            }
        }
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has on the engine now.
    pub(crate) fn things(&self) -> Vec<Thing> {
        block_on(left::by_process(self.pid()))
    }

    /// Sends a signal by its name.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status();
        assert!(sent.expect("there is a kill").success(), "SIG{name} cannot be sent");
    }

    /// Waits for its end, whatever it leaves behind.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Ran {
        let deadline = Instant::now() + patience(PATIENCE);
        let status = loop {
            match self.child.try_wait().expect("it is our child") {
                Some(status) => break status,
                None if Instant::now() > deadline => panic!("it does not end"),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        self.ended = Some(status);
        let text = |handle: Option<JoinHandle<String>>| handle.and_then(|h| h.join().ok()).unwrap_or_default();
        Ran {
            code: status.code(),
            stdout: text(self.stdout.take()),
            stderr: text(self.stderr.take()),
            pid: self.pid(),
            directory: self.directory.path().to_owned(),
            report: std::fs::read_to_string(self.directory.path().join("report.json")).ok(),
        }
    }

    /// Waits for its end, and sees that nothing of it is left.
    #[track_caller]
    pub(crate) fn end(self) -> Ran {
        let ran = self.wait();
        ran.left_nothing();
        ran
    }
}

impl Drop for Running {
    /// A test that fails half-way must not leave a gate that goes on. (`wait` has taken the status.)
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.signal("TERM");
            let _ended = self.child.wait();
        }
    }
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// `None` when a signal killed it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pid: u32,
    directory: PathBuf,
    report: Option<String>,
}

impl Ran {
    /// Whether it ended with this code.
    #[track_caller]
    pub(crate) fn ends_with(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}", self.told());
        self
    }

    /// Sees that nothing of it is left on the engine.
    #[track_caller]
    pub(crate) fn left_nothing(&self) -> &Self {
        let left = block_on(left::by_process(self.pid));
        assert!(left.is_empty(), "it left {left:?}\n{}", self.told());
        self
    }

    /// The report that `--report json=report.json` has written.
    #[track_caller]
    pub(crate) fn report(&self) -> Report {
        let text = self.report.as_ref().unwrap_or_else(|| panic!("there is no report.json\n{}", self.told()));
        Report::from_json(text, "report.json").unwrap_or_else(|e| panic!("{e}"))
    }

    /// All that it said, for a snapshot.
    pub(crate) fn said(&self) -> String {
        self.said_with(&self.stdout)
    }

    /// The same, of standard output only what comes after the table: the table's columns are as
    /// wide as its times.
    pub(crate) fn complained(&self) -> String {
        self.said_with(self.stdout.split_once("\n\n").map_or("", |(_, below)| below))
    }

    fn said_with(&self, stdout: &str) -> String {
        let code = self.code.map_or_else(|| "none".to_owned(), |code| code.to_string());
        // Every gate removes what others have left, and another test may have killed one.
        let stderr: Vec<&str> = self.stderr.lines().filter(|line| !line.contains("of the killed run")).collect();
        let parts = [
            format!("exit code: {code}"),
            "--- stdout".into(),
            stdout.trim_end().into(),
            "--- stderr".into(),
            stderr.join("\n"),
        ];
        parts.iter().filter(|part| !part.is_empty()).map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    fn told(&self) -> String {
        format!("exit {:?}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }

    /// Settings that redact what varies, at a fixed width where it stands in a column: directories,
    /// times, days, names that are random.
    pub(crate) fn redacted(&self) -> insta::Settings {
        let mut settings = insta::Settings::clone_current();
        settings.add_filter(&pattern(&self.directory), "[directory]");
        settings.add_filter(
            &pattern(Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it lies below")),
            "[repository]",
        );
        settings.add_filter(r"(?m)^ *\d+\.\ds", "  ##.#s");
        settings.add_filter(r"(?m)^ *\d+ ms", "######## ms");
        settings.add_filter(r"for \d+ ms", "for #### ms");
        settings.add_filter(r"until: \d{4}-\d\d-\d\d", "until: ####-##-##");
        settings.add_filter(r"lockproof-[a-z0-9]{10}-", "lockproof-##########-");
        settings
    }
}

fn pattern(path: &Path) -> String {
    let resolved = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    // The characters of a temporary directory's name, and none that means something in a pattern
    // but the dot.
    resolved.display().to_string().replace('.', "\\.")
}

/// Compares what was said with the snapshot of this name.
#[macro_export]
macro_rules! assert_said {
    ($ran:expr, $text:expr) => {{
        let (settings, text) = ($ran.redacted(), $text);
        settings.bind(|| insta::assert_snapshot!(text));
    }};
}
