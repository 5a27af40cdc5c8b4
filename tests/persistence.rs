//! Layouts × events: what is lost, and what the server then does.
//!
//! The expected verdicts are one [model](expected), made from the design's two tables and nothing
//! of lockproof's own: what an event takes away, and what the loss of a state does. Its snapshot is
//! the whole table; every layout is then put through those events of its row that are not the same
//! as a cheaper one's.

use std::{fmt, path::Path};

use lockproof_model::{event::Event, finding::Rule, state::State, verdict::Verdict};
use rstest::rstest;
use tempfile::TempDir;

use crate::{
    derived::{Derived, Image},
    gate::Gate,
    suite::{Source, Subject, Suite, suite},
};

/// Where a state lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Layer,
    Image,
    Volume,
    Anonymous,
    Tmpfs,
    Bind,
}
use Place::{Anonymous, Bind, Layer, Tmpfs, Volume};

/// A deployment: where the states of its lock lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    NothingMounted,
    CustomNodesOnVolume,
    CodeOnVolume,
    CodeAndVenvOnVolumes,
    VenvOnVolume,
    LoginOnVolume,
    AllOnVolumes,
    AllOnAnonymousVolumes,
    AllDeclaredByTheImage,
    AllOnBinds,
    LoginOnTmpfs,
    BaseDirectoryOnVolume,
    ExtraPathsOnVolume,
    ExtraPathsBesideTheVolume,
    BakedIntoTheImage,
    BakedAndLoginOnVolume,
    BakedUnderAnEmptyBind,
    DepsInstalledAtEveryStart,
}

impl Layout {
    const ALL: [Self; 18] = [
        Self::NothingMounted,
        Self::CustomNodesOnVolume,
        Self::CodeOnVolume,
        Self::CodeAndVenvOnVolumes,
        Self::VenvOnVolume,
        Self::LoginOnVolume,
        Self::AllOnVolumes,
        Self::AllOnAnonymousVolumes,
        Self::AllDeclaredByTheImage,
        Self::AllOnBinds,
        Self::LoginOnTmpfs,
        Self::BaseDirectoryOnVolume,
        Self::ExtraPathsOnVolume,
        Self::ExtraPathsBesideTheVolume,
        Self::BakedIntoTheImage,
        Self::BakedAndLoginOnVolume,
        Self::BakedUnderAnEmptyBind,
        Self::DepsInstalledAtEveryStart,
    ];

    /// Where plugin, dependencies and credential lie; the session key lies in the plugin's
    /// directory, or in the layer above it where that is the image's. `None`: there is no plugin.
    fn places(self) -> Option<[Place; 4]> {
        let (plugin, deps, credential) = match self {
            Self::NothingMounted | Self::ExtraPathsBesideTheVolume => (Layer, Layer, Layer),
            Self::CustomNodesOnVolume => (Volume, Layer, Layer),
            Self::CodeOnVolume => (Volume, Layer, Volume),
            Self::CodeAndVenvOnVolumes | Self::AllOnVolumes | Self::ExtraPathsOnVolume => (Volume, Volume, Volume),
            Self::VenvOnVolume => (Layer, Volume, Layer),
            Self::LoginOnVolume => (Layer, Layer, Volume),
            Self::AllOnAnonymousVolumes | Self::AllDeclaredByTheImage => (Anonymous, Anonymous, Anonymous),
            Self::AllOnBinds => (Bind, Bind, Bind),
            Self::LoginOnTmpfs => (Volume, Volume, Tmpfs),
            Self::BaseDirectoryOnVolume => (Volume, Volume, Layer),
            Self::BakedIntoTheImage => (Place::Image, Place::Image, Layer),
            Self::BakedAndLoginOnVolume => (Place::Image, Place::Image, Volume),
            Self::DepsInstalledAtEveryStart => (Bind, Layer, Volume),
            Self::BakedUnderAnEmptyBind => return None,
        };
        let key = if plugin == Place::Image { Layer } else { plugin };
        Some([plugin, deps, credential, key])
    }

    /// The events that this layout is put through: each row has those at which its places differ
    /// from the ones of another row, and no other.
    fn events(self) -> &'static [Event] {
        use Event::{Crash, DownUp, Kill, Offline, Recreate, Restart, StopStart, Upgrade, Wipe};
        match self {
            Self::NothingMounted => &[Restart, StopStart, Kill, Crash, Recreate],
            Self::CustomNodesOnVolume => &[Recreate, DownUp],
            Self::CodeOnVolume => &[DownUp, Upgrade],
            Self::CodeAndVenvOnVolumes => &[DownUp, Upgrade],
            Self::AllOnVolumes => &[Restart, StopStart, Kill, Crash, Recreate, DownUp, Offline, Upgrade, Wipe],
            Self::AllOnAnonymousVolumes | Self::AllDeclaredByTheImage => &[Recreate, DownUp],
            Self::AllOnBinds => &[Recreate, DownUp, Wipe],
            Self::LoginOnTmpfs => &[Restart, Recreate],
            Self::BaseDirectoryOnVolume => &[Restart, DownUp],
            Self::ExtraPathsOnVolume => &[Recreate, DownUp],
            Self::BakedIntoTheImage => &[Restart, Recreate, Upgrade],
            Self::BakedAndLoginOnVolume => &[DownUp],
            Self::DepsInstalledAtEveryStart => &[Recreate, Offline],
            Self::BakedUnderAnEmptyBind => &[],
            Self::VenvOnVolume | Self::LoginOnVolume | Self::ExtraPathsBesideTheVolume => &[Recreate],
        }
    }
}

/// The design's table of events: whether one takes away what lies there.
fn takes(event: Event, place: Place) -> bool {
    match event {
        Event::Installed => false,
        // The process, and with it what is in memory.
        Event::Restart | Event::StopStart | Event::Kill | Event::Crash | Event::Rotate => place == Tmpfs,
        Event::Recreate => matches!(place, Tmpfs | Layer),
        Event::DownUp | Event::Offline => matches!(place, Tmpfs | Layer | Anonymous),
        Event::Upgrade => matches!(place, Tmpfs | Layer | Anonymous | Place::Image),
        Event::Wipe => matches!(place, Tmpfs | Layer | Anonymous | Volume),
    }
}

/// One cell of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cell {
    verdict: Verdict,
    lost: Vec<State>,
}

/// The model: what a sound lock has become after an event, and what it has lost.
fn expected(layout: Layout, event: Event) -> Cell {
    let Some(places) = layout.places() else { return Cell { verdict: Verdict::Open, lost: Vec::new() } };
    let mut lost: Vec<State> = [State::Plugin, State::Deps, State::Credential, State::SessionKey]
        .into_iter()
        .zip(places)
        .filter(|(_, place)| takes(event, *place))
        .map(|(state, _)| state)
        .collect();
    // The entry point brings them back, as long as there is a way out.
    if layout == Layout::DepsInstalledAtEveryStart && event != Event::Offline {
        lost.retain(|state| *state != State::Deps);
    }
    let verdict = if lost.contains(&State::Plugin) || lost.contains(&State::Deps) {
        Verdict::Open
    } else if lost.contains(&State::Credential) {
        Verdict::Claimable
    } else {
        Verdict::Locked
    };
    Cell { verdict, lost }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters: String = self.lost.iter().map(|state| letter(*state)).collect();
        f.pad(format!("{} {letters}", self.verdict).trim_end())
    }
}

fn letter(state: State) -> char {
    match state {
        State::Plugin => 'P',
        State::Deps => 'D',
        State::Credential => 'C',
        State::SessionKey => 'K',
        State::Data => '-',
    }
}

#[test]
fn the_model_is_this_table() {
    let mut table =
        String::from("lost: P plugin, D dependencies, C credential, K session key; *: put to the proof\n\n");
    table.push_str(&format!("{:<26}", ""));
    for event in Event::ALL {
        table.push_str(&format!("{event:<16}"));
    }
    for layout in Layout::ALL {
        table.push_str(&format!("\n{:<26}", format!("{layout:?}")));
        for event in Event::ALL {
            let proven = event == Event::Installed || layout.events().contains(&event);
            table
                .push_str(&format!("{:<16}", format!("{}{}", expected(layout, event), if proven { " *" } else { "" })));
        }
    }
    let lines: Vec<&str> = table.lines().map(str::trim_end).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[rstest]
fn every_event_does_what_the_model_says(
    suite: Suite,
    #[values(
        Layout::AllOnVolumes,
        Layout::NothingMounted,
        Layout::CustomNodesOnVolume,
        Layout::CodeOnVolume,
        Layout::CodeAndVenvOnVolumes,
        Layout::VenvOnVolume,
        Layout::LoginOnVolume,
        Layout::AllOnAnonymousVolumes,
        Layout::AllDeclaredByTheImage,
        Layout::AllOnBinds,
        Layout::LoginOnTmpfs,
        Layout::BaseDirectoryOnVolume,
        Layout::ExtraPathsOnVolume,
        Layout::ExtraPathsBesideTheVolume,
        Layout::BakedIntoTheImage,
        Layout::BakedAndLoginOnVolume,
        Layout::BakedUnderAnEmptyBind,
        Layout::DepsInstalledAtEveryStart
    )]
    layout: Layout,
) {
    let built = Built::of(layout, &suite);
    let outcome = Gate::of(built.subject.clone()).events(layout.events().iter().copied()).run();
    for event in [Event::Installed].into_iter().chain(layout.events().iter().copied()) {
        let cell = expected(layout, event);
        // A lock that is sound may still be leaky by itself.
        let verdict = cell.verdict.min(suite.installed);
        let report = outcome.event(event);
        assert_eq!(report.verdict, Some(verdict), "{layout:?} after {event}:\n{}", outcome.told());
        assert_eq!(outcome.lost(event), cell.lost, "{layout:?} lost after {event}:\n{}", outcome.told());
        // What is promised is what happens, unless nobody can know.
        if event != Event::Installed && layout != Layout::DepsInstalledAtEveryStart {
            assert_eq!(report.predicted, Some(verdict), "{layout:?}, predicted for {event}:\n{}", outcome.told());
        }
    }
    assert_eq!(outcome.findings(Rule::PersistPrediction), Vec::<&_>::new(), "{}", outcome.told());
    if let Some(upgrade) = outcome.subject().events.iter().find(|e| e.event == Event::Upgrade) {
        let masked = matches!(layout, Layout::CodeOnVolume | Layout::CodeAndVenvOnVolumes);
        assert_eq!(upgrade.effective, !masked, "{}", outcome.told());
        assert_eq!(outcome.findings(Rule::PersistMasksImage).len(), usize::from(masked), "{}", outcome.told());
    }
}

/// A layout as a subject, with what has to live as long as it.
struct Built {
    subject: Subject,
    _image: Option<Image>,
    _directories: Vec<TempDir>,
}

impl Built {
    fn of(layout: Layout, suite: &Suite) -> Self {
        let mut image = None;
        let mut directories = Vec::new();
        let mut directory = || {
            let made = tempfile::Builder::new().prefix("lockproof-e2e-").tempdir().expect("a directory");
            let path = made.path().to_owned();
            directories.push(made);
            path
        };
        let plain = suite.subject(&format!("{layout:?}"));
        let (nodes, login, venv) = (suite.custom_nodes(), suite.login(), suite.venv.clone());
        let subject = match layout {
            Layout::NothingMounted => plain,
            Layout::CustomNodesOnVolume => plain.volume("nodes", nodes),
            Layout::CodeOnVolume => plain.volume("code", &suite.code_dir),
            Layout::CodeAndVenvOnVolumes => plain.volume("code", &suite.code_dir).volume("venv", venv),
            Layout::VenvOnVolume => plain.volume("venv", venv),
            Layout::LoginOnVolume => plain.volume("login", login),
            Layout::AllOnVolumes => plain.volume("nodes", nodes).volume("login", login).volume("venv", venv),
            Layout::AllOnAnonymousVolumes => {
                plain.mount(Source::Anonymous, nodes).mount(Source::Anonymous, login).mount(Source::Anonymous, venv)
            }
            Layout::AllDeclaredByTheImage => {
                let made = Derived::of(suite, &format!("VOLUME [\"{nodes}\", \"{login}\", \"{venv}\"]"));
                let subject = plain.image(made.name());
                image = Some(Image::Made(made));
                subject
            }
            Layout::AllOnBinds => {
                // A bind hides what the image has there, so the environment has to be put into it.
                let environment = directory();
                crate::derived::copy_out(suite, &venv, &environment);
                plain
                    .mount(Source::Bind(directory()), nodes)
                    .mount(Source::Bind(directory()), login)
                    .mount(Source::Bind(environment), venv)
            }
            Layout::LoginOnTmpfs => plain.volume("nodes", nodes).volume("venv", venv).mount(Source::Tmpfs, login),
            Layout::BaseDirectoryOnVolume => plain
                .shell(format!(
                    "mkdir -p /workspace/custom_nodes && exec {}",
                    suite.command_line("--base-directory /workspace")
                ))
                .volume("workspace", "/workspace")
                .volume("venv", venv),
            Layout::ExtraPathsOnVolume => extra_paths(suite, plain, &directory())
                .volume("extra", "/extra")
                .volume("login", login)
                .volume("venv", venv),
            Layout::ExtraPathsBesideTheVolume => extra_paths(suite, plain, &directory()).volume("nodes", nodes),
            Layout::BakedIntoTheImage | Layout::BakedAndLoginOnVolume | Layout::BakedUnderAnEmptyBind => {
                let made = Derived::baked(suite);
                let baked = plain.image(made.name()).brings_its_lock();
                image = Some(made);
                match layout {
                    Layout::BakedAndLoginOnVolume => baked.volume("login", login),
                    Layout::BakedUnderAnEmptyBind => baked.mount(Source::Bind(directory()), nodes),
                    _ => baked,
                }
            }
            Layout::DepsInstalledAtEveryStart => {
                let host = directory();
                copy_tree(&suite.plugin, &host.join(suite.plugin_name()));
                reinstalling(suite, plain).mount(Source::Bind(host), nodes).volume("login", login)
            }
        };
        Self { subject, _image: image, _directories: directories }
    }
}

/// Custom nodes are loaded from `/extra` first.
fn extra_paths(suite: &Suite, subject: Subject, directory: &Path) -> Subject {
    let file = "elsewhere:\n  base_path: /extra\n  is_default: true\n  custom_nodes: custom_nodes\n";
    std::fs::write(directory.join("paths.yaml"), file).expect("written");
    subject
        .shell(format!(
            "mkdir -p /extra/custom_nodes && exec {}",
            suite.command_line("--extra-model-paths-config /configuration/paths.yaml")
        ))
        .mount(Source::Bind(directory.to_owned()), "/configuration")
}

/// An entry point that installs the plugin's dependencies at every start, and goes on when that
/// fails. No test asks a real package index: this one is there unless the resolver is told to give
/// up soon, which lockproof tells it where there is no route out.
fn reinstalling(suite: &Suite, subject: Subject) -> Subject {
    let script = format!(
        "if ! grep -q attempts:1 /etc/resolv.conf; then \
         {python} -m pip install --no-input --disable-pip-version-check --no-index --find-links /wheels \
         -r {nodes}/{plugin}/requirements.txt; fi; exec {command}",
        python = suite.python(),
        nodes = suite.custom_nodes(),
        plugin = suite.plugin_name(),
        command = suite.command_line(""),
    );
    subject.brings_its_lock().shell(script).mount(Source::Bind(suite.wheels.clone()), "/wheels")
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("it can be read");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("it has a type").is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}
