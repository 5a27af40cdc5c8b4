//! Every state lost one at a time: the table of the design's story, made to happen by mounts.

use lockproof_model::{event::Event, finding::Rule, state::State, verdict::Verdict};
use rstest::rstest;

use crate::{
    derived::Derived,
    gate::{Gate, Outcome},
    suite::{Source, Subject, Suite, suite},
};

/// Puts a subject through one event and says what it lost and what became of it.
#[track_caller]
fn after(suite: &Suite, subject: Subject, event: Event) -> (Verdict, Vec<State>, Outcome) {
    let outcome = Gate::of(subject).events([event]).run();
    assert_eq!(outcome.verdict(Event::Installed), suite.installed, "{}", outcome.told());
    assert_eq!(outcome.rules(Event::Installed), [], "{}", outcome.told());
    (outcome.verdict(event), outcome.lost(event), outcome)
}

#[rstest]
fn without_its_plugin_the_server_is_open(suite: Suite) {
    let subject = suite.subject("plugin").volume("login", suite.login()).volume("venv", &suite.venv);
    let (verdict, lost, outcome) = after(&suite, subject, Event::Recreate);
    assert_eq!(verdict, Verdict::Open, "{}", outcome.told());
    // The key lies in the plugin's directory.
    assert_eq!(lost, [State::Plugin, State::SessionKey]);
    assert_eq!(outcome.rules(Event::Recreate), [Rule::LockOpen, Rule::PersistPlugin, Rule::PersistSessionKey]);
}

#[rstest]
fn without_its_dependencies_the_server_is_open(suite: Suite) {
    let subject = suite.subject("deps").volume("nodes", suite.custom_nodes()).volume("login", suite.login());
    let (verdict, lost, outcome) = after(&suite, subject, Event::Recreate);
    assert_eq!(verdict, Verdict::Open, "{}", outcome.told());
    assert_eq!(lost, [State::Deps]);
    assert_eq!(outcome.rules(Event::Recreate), [Rule::LockOpen, Rule::PersistDeps]);
}

#[rstest]
fn without_a_single_one_of_its_dependencies_the_server_is_open(suite: Suite) {
    // The environment lasts, but for one package in it, over which an unnamed volume is mounted.
    let package = crate::derived::site_packages(&suite) + "/" + &suite.dependency;
    let subject = suite
        .subject("one-dependency")
        .volume("nodes", suite.custom_nodes())
        .volume("login", suite.login())
        .volume("venv", &suite.venv)
        .mount(Source::Anonymous, package);
    let (verdict, lost, outcome) = after(&suite, subject, Event::DownUp);
    assert_eq!(verdict, Verdict::Open, "{}", outcome.told());
    assert_eq!(lost, [State::Deps]);
    assert_eq!(
        outcome.rules(Event::DownUp),
        [Rule::LockOpen, Rule::PersistDeps, Rule::PersistAnonymousVolume],
        "{}",
        outcome.told()
    );
}

#[rstest]
fn without_its_credential_the_first_visitor_gets_the_key(suite: Suite) {
    let subject = suite.subject("credential").volume("nodes", suite.custom_nodes()).volume("venv", &suite.venv);
    let (verdict, lost, outcome) = after(&suite, subject, Event::Recreate);
    assert_eq!(verdict, Verdict::Claimable, "{}", outcome.told());
    assert_eq!(lost, [State::Credential]);
    let rules = outcome.rules(Event::Recreate);
    assert!(rules.contains(&Rule::PersistCredential) && rules.contains(&Rule::LockClaimable), "{}", outcome.told());
    assert!(!rules.contains(&Rule::LockOpen), "{}", outcome.told());
}

#[rstest]
fn without_its_session_key_the_lock_holds_and_people_log_in_again(suite: Suite) {
    // With the plugin in the image, its key is the one thing in the container's own layer.
    let image = Derived::baked(&suite);
    let subject = suite.subject("session-key").image(image.name()).brings_its_lock().volume("login", suite.login());
    let (verdict, lost, outcome) = after(&suite, subject, Event::Recreate);
    assert_eq!(verdict, suite.installed, "{}", outcome.told());
    assert_eq!(lost, [State::SessionKey]);
    assert_eq!(outcome.rules(Event::Recreate), [Rule::LockSessionLost, Rule::PersistSessionKey]);
    // Both are warnings, and they count.
    assert_eq!(outcome.report.exit_code, 1);
}

#[rstest]
fn when_nothing_is_lost_there_is_nothing_to_tell(suite: Suite) {
    let subject = suite
        .subject("nothing")
        .volume("nodes", suite.custom_nodes())
        .volume("login", suite.login())
        .volume("venv", &suite.venv)
        .keeps_data(&suite);
    let (verdict, lost, outcome) = after(&suite, subject, Event::Recreate);
    assert_eq!(verdict, suite.installed, "{}", outcome.told());
    assert_eq!(lost, []);
    assert_eq!(outcome.rules(Event::Recreate), []);
    if suite.installed == Verdict::Locked {
        assert_eq!((outcome.report.exit_code, outcome.report.findings.as_slice()), (0, &[][..]));
    }
}
