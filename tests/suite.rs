//! What the tests run on: the lab with its own login plugin, or what the file says that the
//! variable `LOCKPROOF_SUITE` names.
//!
//! # Running on a real image
//!
//! ```yaml
//! # suite.yaml. Paths are relative to this file; a key that is left out is the lab's.
//! image: comfyui:cpu
//! upgrade_to: comfyui:cpu-next       # the same with other code, for the event `upgrade`
//! baked: comfyui:login-baked         # with plugin and dependencies in it; default: built from `image`
//! plugin: ./ComfyUI-Login
//! wheels: ./wheels                   # its dependencies, for the Python of the image
//! code_dir: /opt/ComfyUI
//! venv: /opt/venv
//! command: [python, main.py, --cpu, --listen, 0.0.0.0]
//! dependency: aiohttp_session        # a package that the plugin cannot do without
//! installed: leaky                   # the verdict of a sound installation: the real plugin has holes
//! ready_timeout: 180s
//! left_out:                          # a test, or a whole file of them, and why it says nothing here
//!   original_bug::the_command_tells_the_story: it runs the bundled demo, which is the lab's
//!   contract: it compares the lab with recordings of the real server
//! ```
//!
//! ```sh
//! LOCKPROOF_SUITE=suite.yaml cargo nextest run --package e2e
//! ```
//!
//! `make test SUITE=suite.yaml` does the same, without the tests that are left out, and prints the reason of each.
//! A left-out test that is run all the same fails.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use lockproof_deploy::{
    engine::{Engine, Run},
    lab::Kit,
};
use lockproof_model::{
    config::{InstallEntry, MountEntry, Scalar, SchemeEntry, SubjectEntry, Words},
    duration::Span,
    names::LAB_REPOSITORY as REPOSITORY,
    verdict::Verdict,
};
use rstest::fixture;
use serde::Deserialize;

/// Names the file that swaps the suite.
const VARIABLE: &str = "LOCKPROOF_SUITE";

/// A time-out of `seconds` on a fast machine, as this one needs it: nextest's set-up script has measured
/// a start of the lab.
pub(crate) fn patience(seconds: u64) -> Duration {
    Duration::from_secs(seconds).mul_f64(pace(std::env::var("LOCKPROOF_PACE").ok().as_deref()))
}

/// From a start that took no time to a clock that was wrong: within bounds.
fn pace(measured: Option<&str>) -> f64 {
    measured
        .and_then(|text| text.parse::<f64>().ok())
        .filter(|pace| pace.is_finite())
        .map_or(1.0, |p| p.clamp(1.0, 20.0))
}

/// What the tests run on.
#[derive(Clone, Debug)]
pub(crate) struct Suite {
    /// The image without a plugin.
    pub(crate) image: String,
    /// The image for `upgrade`.
    pub(crate) upgrade_to: String,
    /// An image that has plugin and dependencies in it; none: it has to be built.
    pub(crate) baked: Option<String>,
    /// The directory of the plugin.
    pub(crate) plugin: PathBuf,
    /// The wheels of its dependencies.
    pub(crate) wheels: PathBuf,
    /// Where the code is in the image.
    pub(crate) code_dir: String,
    /// The virtual environment in the image.
    pub(crate) venv: String,
    /// How the server is started.
    pub(crate) command: Vec<String>,
    /// A package that the plugin cannot do without.
    pub(crate) dependency: String,
    /// The verdict of a sound installation.
    pub(crate) installed: Verdict,
    ready_timeout: Span,
    left_out: BTreeMap<String, String>,
}

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    image: Option<String>,
    upgrade_to: Option<String>,
    baked: Option<String>,
    plugin: Option<PathBuf>,
    wheels: Option<PathBuf>,
    code_dir: Option<String>,
    venv: Option<String>,
    command: Option<Vec<String>>,
    dependency: Option<String>,
    installed: Option<Verdict>,
    ready_timeout: Option<Span>,
    #[serde(default)]
    left_out: BTreeMap<String, String>,
}

/// The suite of this run, for a test that any image can run.
///
/// # Panics
/// When the suite leaves the test out: `make test SUITE=FILE` does not run it then.
#[fixture]
pub(crate) fn suite() -> Suite {
    let suite = Suite::of_this_run();
    let test = name_of_this_test();
    if let Some(why) = suite.why_left_out(&test) {
        panic!("the suite leaves {test} out ({why}): `make test SUITE=FILE` does not run it");
    }
    suite
}

/// The lab, for a test of its switches, its stand-in nodes or its name in compose files.
///
/// # Panics
/// With any other image.
#[fixture]
pub(crate) fn lab(suite: Suite) -> Suite {
    assert!(suite.is_lab(), "it needs the lab's image: `make test SUITE=FILE` does not run it");
    suite
}

impl Suite {
    /// The suite of this run.
    pub(crate) fn of_this_run() -> Self {
        match std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
            None => Self::of_file(File::default(), Path::new("")),
            Some(path) => {
                let path = PathBuf::from(path);
                let text =
                    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{VARIABLE}={}: {e}", path.display()));
                let file = serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{VARIABLE}={}: {e}", path.display()));
                let base = std::path::absolute(&path).expect("a path");
                Self::of_file(file, base.parent().unwrap_or(Path::new("/")))
            }
        }
    }

    fn of_file(file: File, base: &Path) -> Self {
        let kit = lab_kit();
        let words = ["python", "main.py", "--cpu", "--listen", "0.0.0.0"].map(str::to_owned).to_vec();
        Self {
            image: file.image.unwrap_or_else(|| REPOSITORY.to_owned()),
            upgrade_to: file.upgrade_to.unwrap_or_else(|| format!("{REPOSITORY}:next")),
            baked: file.baked,
            plugin: file.plugin.map_or_else(|| kit.plugin(), |p| base.join(p)),
            wheels: file.wheels.map_or_else(|| kit.wheels(), |p| base.join(p)),
            code_dir: file.code_dir.unwrap_or_else(|| "/opt/ComfyUI".to_owned()),
            venv: file.venv.unwrap_or_else(|| "/opt/venv".to_owned()),
            command: file.command.unwrap_or(words),
            dependency: file.dependency.unwrap_or_else(|| "aiohttp_session".to_owned()),
            installed: file.installed.unwrap_or(Verdict::Locked),
            ready_timeout: file.ready_timeout.unwrap_or(Span(patience(60))),
            left_out: file.left_out,
        }
    }

    /// Whether it is the lab, which has stand-ins for the models of our notebooks.
    pub(crate) fn is_lab(&self) -> bool {
        self.image == REPOSITORY
    }

    /// A name stands for the test of that name, for all of its cases, or for a whole module.
    fn why_left_out(&self, test: &str) -> Option<&str> {
        self.left_out
            .iter()
            .find(|(name, _)| {
                test.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            })
            .map(|(_, why)| why.as_str())
    }

    /// The name that the plugin's directory has below custom_nodes.
    pub(crate) fn plugin_name(&self) -> String {
        self.plugin.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Where custom nodes are, unless something says otherwise.
    pub(crate) fn custom_nodes(&self) -> String {
        format!("{}/custom_nodes", self.code_dir)
    }

    /// Where the plugin keeps its credential.
    pub(crate) fn login(&self) -> String {
        format!("{}/login", self.code_dir)
    }

    /// The Python of the virtual environment.
    pub(crate) fn python(&self) -> String {
        format!("{}/bin/python", self.venv)
    }

    /// The command with further arguments, as a shell takes it.
    pub(crate) fn command_line(&self, arguments: &str) -> String {
        format!("{} {arguments}", self.command.join(" "))
    }

    /// A subject of the image, with the plugin to be installed by copy.
    pub(crate) fn subject(&self, name: &str) -> Subject {
        let entry = SubjectEntry {
            name: name.to_owned(),
            image: Some(self.image.clone()),
            restart: Some("unless-stopped".to_owned()),
            // A server that is PID 1 and handles no SIGTERM only waits for the end of the grace.
            stop_timeout: Some(Span::seconds(0)),
            ready_timeout: Some(self.ready_timeout),
            upgrade_to: Some(self.upgrade_to.clone()),
            scheme: Some(SchemeEntry {
                install: Some(InstallEntry {
                    from: Some(self.plugin.display().to_string()),
                    wheels: Some(self.wheels.clone()),
                    ..InstallEntry::default()
                }),
                ..SchemeEntry::default()
            }),
            ..SubjectEntry::default()
        };
        Subject(entry)
    }
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Volume(&'static str),
    Anonymous,
    Tmpfs,
    Bind(PathBuf),
}

/// A subject that is put together step by step.
#[derive(Clone, Debug)]
pub(crate) struct Subject(pub(crate) SubjectEntry);

impl Subject {
    /// Mounts something.
    pub(crate) fn mount(mut self, source: Source, target: impl Into<String>) -> Self {
        let mut entry = MountEntry { target: target.into(), ..MountEntry::default() };
        match source {
            Source::Volume(name) => entry.volume = Some(name.to_owned()),
            Source::Anonymous => entry.anonymous = Some(true),
            Source::Tmpfs => entry.tmpfs = Some(true),
            Source::Bind(path) => entry.bind = Some(path),
        }
        self.0.mounts.push(entry);
        self
    }

    /// Mounts a volume.
    pub(crate) fn volume(self, name: &'static str, target: impl Into<String>) -> Self {
        self.mount(Source::Volume(name), target)
    }

    /// Keeps inputs, outputs and what users save on volumes.
    pub(crate) fn keeps_data(self, suite: &Suite) -> Self {
        let code = &suite.code_dir;
        self.volume("input", format!("{code}/input"))
            .volume("output", format!("{code}/output"))
            .volume("user", format!("{code}/user"))
    }

    /// Runs another image.
    pub(crate) fn image(mut self, image: impl Into<String>) -> Self {
        self.0.image = Some(image.into());
        self
    }

    /// Runs another command, given as a shell takes it.
    pub(crate) fn shell(mut self, line: impl Into<String>) -> Self {
        let words = ["sh".to_owned(), "-c".to_owned(), line.into()];
        self.0.command = Some(Words::List(words.into_iter().map(Scalar).collect()));
        self
    }

    /// Runs another command.
    pub(crate) fn command<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.0.command = Some(Words::List(words.into_iter().map(|word| Scalar(word.into())).collect()));
        self
    }

    /// Sets an environment variable.
    pub(crate) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.env.insert(name.to_owned(), Scalar(value.into()));
        self
    }

    /// The lock is in the deployment already: nothing is installed.
    pub(crate) fn brings_its_lock(mut self) -> Self {
        self.0.scheme = Some(SchemeEntry::default());
        self
    }

    /// Changes anything else.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut SubjectEntry)) -> Self {
        change(&mut self.0);
        self
    }
}

/// The lab's files; the set-up script of nextest has unpacked them, and this finds them again.
fn lab_kit() -> Kit {
    crate::gate::block_on(async {
        let engine = Engine::connect().await.unwrap_or_else(|e| panic!("{e}"));
        Kit::prepare(&engine, &Run::new()).await.unwrap_or_else(|e| panic!("{e}"))
    })
}

/// `module::name`; the cases of a table add `::case_…`. The test harness names its threads so.
fn name_of_this_test() -> String {
    std::thread::current().name().unwrap_or_default().to_owned()
}

#[test]
fn a_suite_file_is_read_and_may_leave_tests_out() {
    let text =
        "image: comfyui:cpu\nplugin: ./ComfyUI-Login\ninstalled: leaky\nleft_out: { contract: no, a::b: because }\n";
    let suite = Suite::of_file(serde_yaml::from_str(text).expect("it is right"), Path::new("/suites"));
    assert_eq!((suite.image.as_str(), suite.installed), ("comfyui:cpu", Verdict::Leaky));
    assert_eq!(suite.plugin, Path::new("/suites/./ComfyUI-Login"));
    assert_eq!(suite.why_left_out("contract::the_lab_answers::case_1"), Some("no"));
    assert_eq!(suite.why_left_out("a::b"), Some("because"));
    assert_eq!(suite.why_left_out("a::bc"), None);
    assert!(serde_yaml::from_str::<File>("iamge: x").is_err());
}

#[test]
fn a_slow_machine_is_given_time_within_bounds() {
    for (measured, expected) in
        [(None, 1.0), (Some("3.5"), 3.5), (Some("0.2"), 1.0), (Some("900"), 20.0), (Some("NaN"), 1.0), (Some("x"), 1.0)]
    {
        assert!((pace(measured) - expected).abs() < f64::EPSILON, "{measured:?}");
    }
}

#[test]
fn the_name_of_a_test_is_known_to_it() {
    assert_eq!(name_of_this_test(), "suite::the_name_of_a_test_is_known_to_it");
}
