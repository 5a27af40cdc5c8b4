//! The bug that started it all, told by the command line and seen through its report; then the
//! same on whatever image the suite has.

use std::path::PathBuf;

use lockproof_model::{
    event::Event,
    report::{Report, SubjectReport},
    state::State,
    verdict::Verdict,
};
use rstest::rstest;

use crate::{
    assert_said,
    command::Lockproof,
    gate::Gate,
    suite::{Subject, Suite, suite},
};

#[rstest]
fn the_command_tells_the_story(#[from(suite)] _suite: Suite) {
    let ran = Lockproof::new(["reproduce", "--report", "json=report.json"]).run();
    ran.ends_with(0);
    let report = ran.report();
    assert_eq!((report.exit_code, report.outcome.name()), (0, "pass"));

    let bug = subject(&report, "original-bug");
    assert_eq!(
        verdicts(bug),
        [
            (Event::Installed, Some(Verdict::Locked)),
            (Event::Restart, Some(Verdict::Locked)),
            (Event::Kill, Some(Verdict::Locked)),
            (Event::Recreate, Some(Verdict::Open)),
            (Event::DownUp, Some(Verdict::Open)),
        ]
    );
    let fix = subject(&report, "fixed");
    assert_eq!(fix.events.len(), 5);
    assert!(fix.events.iter().all(|e| e.verdict == Some(Verdict::Locked)), "{fix:#?}");
    for subject in [bug, fix] {
        prediction_is_proof(subject);
    }

    let (story, _) = ran.stdout.split_once("\nsubject ").expect("the table comes after the story");
    assert_said!(ran, story);
}

/// The script installs into a path of the container; tokens and workspace are on volumes.
#[rstest]
#[case::buggy("buggy", Verdict::Open)]
#[case::fixed("fixed", Verdict::Locked)]
fn on_the_suite_s_image_the_script_makes_the_difference(suite: Suite, #[case] script: &str, #[case] then: Verdict) {
    let base = if script == "buggy" { "/app" } else { "/workspace" };
    let subject = with_script(&suite, script)
        .shell(format!(
            "mkdir -p {base}/custom_nodes && exec {}",
            suite.command_line(&format!("--base-directory {base}"))
        ))
        .env("COMFYUI_WORKSPACE_PATH", "/workspace")
        .volume("workspace", "/workspace")
        .volume("login", suite.login());
    let subject = if script == "fixed" { subject.volume("venv", &suite.venv) } else { subject };
    let outcome = Gate::of(subject).events([Event::Restart, Event::Recreate]).run();
    assert_eq!(outcome.verdict(Event::Installed), suite.installed, "{}", outcome.told());
    assert_eq!(outcome.verdict(Event::Restart), suite.installed, "{}", outcome.told());
    assert_eq!(outcome.verdict(Event::Recreate), then.min(suite.installed), "{}", outcome.told());
    prediction_is_proof(outcome.subject());
}

/// A subject whose lock is installed by a script of ours.
pub(crate) fn with_script(suite: &Suite, script: &str) -> Subject {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join(format!("../fixtures/scripts/{script}/install-comfyui-login.sh"))
        .canonicalize()
        .expect("the script is there");
    suite.subject(script).with(|entry| {
        let install = entry.scheme.as_mut().and_then(|s| s.install.as_mut()).expect("it is installed");
        install.script = Some(path);
    })
}

fn subject<'r>(report: &'r Report, name: &str) -> &'r SubjectReport {
    report.subjects.iter().find(|s| s.name == name).unwrap_or_else(|| panic!("{name} is not in the report"))
}

fn verdicts(subject: &SubjectReport) -> Vec<(Event, Option<Verdict>)> {
    subject.events.iter().map(|e| (e.event, e.verdict)).collect()
}

/// What the state map promised is what was seen: verdict by verdict and state by state.
#[track_caller]
fn prediction_is_proof(subject: &SubjectReport) {
    for event in subject.events.iter().filter(|e| e.event != Event::Installed) {
        assert_eq!(event.predicted, event.verdict, "{} after {}", subject.name, event.event);
    }
    let states: Vec<State> = subject.states.iter().map(|s| s.state).collect();
    assert_eq!(states, [State::Plugin, State::Deps, State::Credential, State::SessionKey, State::Data]);
    for state in &subject.states {
        for (event, survival) in &state.survives {
            assert!(survival.observed.is_some(), "{} of {} after {event}", state.state, subject.name);
            assert_eq!(survival.predicted, survival.observed, "{} of {} after {event}", state.state, subject.name);
        }
    }
}
