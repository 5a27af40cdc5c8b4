//! Compose projects, brought up as copies: what `lockproof audit` predicts of each fixture is what the
//! gate then proves on it, and nothing of the project itself is touched.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use lockproof_model::{
    config::{ConfigFile, InstallEntry, SchemeEntry, SubjectEntry},
    duration::Span,
    event::Event,
    report::Report,
    verdict::Verdict,
};
use rstest::rstest;
use serde::Deserialize;

use crate::{
    command::Lockproof,
    gate::block_on,
    left,
    safety::bytes_below,
    suite::{Suite, lab, patience},
};

/// What a fixture says of itself; the reading of it is tested beside the audit.
#[derive(Debug, Deserialize)]
struct Expected {
    #[serde(default)]
    files: Option<Vec<String>>,
    service: String,
    /// How it is gated on the lab; none: the lab cannot run it.
    #[serde(default)]
    gate: Option<GateOn>,
    predicted: BTreeMap<Event, Option<Verdict>>,
}

#[derive(Debug, Default, Deserialize)]
struct GateOn {
    #[serde(default)]
    install: InstallEntry,
    /// Services beside the gated one whose images are not the lab's: its image stands for them, asleep.
    #[serde(default)]
    stand_in: Vec<String>,
    /// A scheme of which the lab's plugin knows nothing.
    scheme: Option<String>,
}

struct Fixture {
    directory: PathBuf,
    expected: Expected,
}

impl Fixture {
    fn of(expected: &Path) -> Self {
        let text = std::fs::read_to_string(expected).expect("it is there");
        let directory = expected.parent().expect("it lies in one").to_owned();
        Self { directory, expected: serde_yaml::from_str(&text).expect("it is right") }
    }

    fn named(name: &str) -> Self {
        Self::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/compose").join(name).join("expected.yaml"))
    }

    /// `lockproof gate` of it.
    fn gate(&self, suite: &Suite, events: &[Event]) -> Lockproof {
        self.gate_in(&self.directory, suite, events)
    }

    /// The same of a copy of it.
    fn gate_in(&self, directory: &Path, suite: &Suite, events: &[Event]) -> Lockproof {
        let given = self.expected.files.clone().unwrap_or_else(|| vec!["docker-compose.yml".to_owned()]);
        let stand_in = self.expected.gate.iter().flat_map(|gate| &gate.stand_in);
        let asleep = serde_json::json!({ "image": suite.image, "command": ["sleep", "infinity"] });
        let stand_ins: serde_json::Map<_, _> = stand_in.map(|name| (name.clone(), asleep.clone())).collect();
        let mut files: Vec<PathBuf> = given.iter().map(|file| directory.join(file)).collect();
        if !stand_ins.is_empty() {
            files.push(PathBuf::from("stand-ins.yaml"));
        }
        let subject = SubjectEntry {
            name: "stack".to_owned(),
            compose: Some(files),
            service: Some(self.expected.service.clone()),
            stop_timeout: Some(Span::seconds(0)),
            ready_timeout: Some(Span(patience(90))),
            ..SubjectEntry::default()
        };
        let into = self.expected.gate.as_ref().and_then(|gate| gate.install.into.clone());
        let install = InstallEntry {
            from: Some(suite.plugin.display().to_string()),
            wheels: Some(suite.wheels.clone()),
            into,
            ..InstallEntry::default()
        };
        let file = ConfigFile {
            subjects: vec![subject],
            scheme: SchemeEntry { install: Some(install), ..SchemeEntry::default() },
            events: Some(events.to_vec()),
            ..ConfigFile::default()
        };
        Lockproof::gate(&serde_json::to_string_pretty(&file).expect("it can be written"))
            .file("stand-ins.yaml", &serde_json::json!({ "services": stand_ins }).to_string())
            .args(["--report", "json=report.json", "--verbose"])
    }
}

fn verdicts(report: &Report) -> BTreeMap<Event, Option<Verdict>> {
    report.subjects[0].events.iter().map(|e| (e.event, e.verdict)).collect()
}

#[rstest]
fn a_prediction_is_what_the_gate_proves(
    #[from(lab)] suite: Suite,
    #[files("../fixtures/compose/*/expected.yaml")]
    // The lab cannot run these, or their lock is not the lab's.
    #[exclude(
        "/(build-only|driver-opts|each-start|fail-open|http-basic|inert|longest-prefix|proxy|tokens|unknown|windows)/"
    )]
    path: PathBuf,
) {
    let fixture = Fixture::of(&path);
    let gate = fixture.expected.gate.as_ref().expect("its expected.yaml says how it is gated");
    assert!(gate.scheme.is_none(), "its lock is the lab's");
    let before = bytes_below(&fixture.directory);
    let events: Vec<Event> = fixture.expected.predicted.keys().copied().collect();
    let ran = fixture.gate(&suite, &events).run();
    let mut proven = verdicts(&ran.report());
    assert_eq!(proven.remove(&Event::Installed), Some(Some(suite.installed)), "{}{}", ran.stdout, ran.stderr);
    assert_eq!(proven, fixture.expected.predicted, "{}{}", ran.stdout, ran.stderr);
    assert!(bytes_below(&fixture.directory) == before, "the project was written to");
}

#[rstest]
fn variables_and_profiles_are_given_as_compose_is_given_them(#[from(lab)] suite: Suite) {
    let project = "services:\n  comfyui:\n    image: lockproof/comfyui-lab:${TAG:?say which}\n    profiles: [cpu]\n    \
                   stop_grace_period: 0s\n    ports: ['8188:8188']\n";
    let gate = |more: &[&str]| {
        Lockproof::new(["gate", "--compose", "compose.yaml", "--events", "restart", "--report", "json=report.json"])
            .file("compose.yaml", project)
            .file("of.env", "TAG=next\n")
            .args(["--install".to_owned(), suite.plugin.display().to_string()])
            .args(["--wheels".to_owned(), suite.wheels.display().to_string()])
            .args(more.iter().copied())
            .run()
    };
    let without = gate(&[]);
    without.ends_with(2);
    assert!(without.stderr.contains("say which"), "{}", without.stderr);
    let with = gate(&["--env-file", "of.env", "--profile", "cpu"]);
    with.ends_with(0);
    assert_eq!(verdicts(&with.report()).get(&Event::Restart), Some(&Some(Verdict::Locked)), "{}", with.stdout);
}

/// So many files make a workspace.
const FILES: usize = 10_000;

/// The story's project with a workspace that is in use: models, outputs, other nodes.
fn story_with_a_workspace() -> (Fixture, tempfile::TempDir) {
    let fixture = Fixture::named("story");
    let copy = tempfile::Builder::new().prefix("lockproof-e2e-").tempdir().expect("a directory");
    for file in ["docker-compose.yml", "entrypoint.sh"] {
        std::fs::copy(fixture.directory.join(file), copy.path().join(file)).expect("copied");
    }
    let workspace = copy.path().join("workspace/ComfyUI");
    for n in 0..FILES {
        let directory = workspace.join(["models", "output", "input", "user"][n % 4]).join((n % 50).to_string());
        std::fs::create_dir_all(&directory).expect("made");
        std::fs::write(directory.join(format!("{n}.bin")), n.to_string()).expect("written");
    }
    (fixture, copy)
}

#[rstest]
#[case::success(None)]
#[case::interrupted(Some("INT"))]
#[case::killed(Some("KILL"))]
fn no_byte_of_a_workspace_changes(#[from(lab)] suite: Suite, #[case] signal: Option<&str>) {
    let (fixture, copy) = story_with_a_workspace();
    let before = bytes_below(copy.path());
    assert!(before.len() > FILES);
    let running = fixture.gate_in(copy.path(), &suite, &[Event::Recreate]).begin();
    match signal {
        None => {
            let ran = running.end();
            ran.ends_with(0);
            assert_eq!(verdicts(&ran.report()).get(&Event::Recreate), Some(&Some(Verdict::Locked)), "{}", ran.stdout);
        }
        Some(signal) => {
            running.wait_for("stack: recreate");
            assert!(running.things().iter().any(|thing| thing.kind == "network"), "Compose's network is ours");
            running.signal(signal);
            if signal == "INT" {
                running.end().ends_with(130);
            } else {
                let pid = running.pid();
                assert_eq!(running.wait().code, None);
                clean_until_nothing_is_left(pid);
            }
        }
    }
    assert!(bytes_below(copy.path()) == before, "the workspace was written to");
}

/// The Compose that the killed gate had begun goes on to its end, and may make something meanwhile.
fn clean_until_nothing_is_left(pid: u32) {
    let mut left = Vec::new();
    for _ in 0..20 {
        Lockproof::new(["clean"]).run().ends_with(0);
        left = block_on(left::by_process(pid));
        if left.is_empty() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    panic!("{left:?}");
}
