//! Data: planted before the events, and looked for after each.

use std::collections::BTreeMap;

use lockproof_model::{
    event::Event,
    finding::{Finding, Rule},
    report::Survival,
    state::{Owner, State},
    verdict::Verdict,
};
use rstest::rstest;

use crate::{
    gate::{Gate, Outcome},
    suite::{Source, Subject, Suite, suite},
};

/// A subject whose lock lies on volumes.
fn locked(suite: &Suite, name: &str) -> Subject {
    suite
        .subject(name)
        .volume("nodes", suite.custom_nodes())
        .volume("login", suite.login())
        .volume("venv", &suite.venv)
        .with(|entry| entry.expect.extend(Event::ALL.map(|event| (event, suite.installed))))
}

/// The finding after an event.
#[track_caller]
fn finding(outcome: &Outcome, event: Event) -> Option<&Finding> {
    let found: Vec<_> =
        outcome.findings(Rule::PersistData).into_iter().filter(|finding| finding.event == Some(event)).collect();
    assert!(found.len() < 2, "one finding tells of all that is lost:\n{}", outcome.told());
    found.first().copied()
}

/// What the state map says of data.
fn survival(outcome: &Outcome, event: Event) -> Survival {
    let state = outcome.subject().states.iter().find(|state| state.state == State::Data);
    state.and_then(|state| state.survives.get(&event)).copied().unwrap_or_default()
}

#[rstest]
fn each_kind_of_data_is_lost_with_the_place_where_it_lies(suite: Suite) {
    let code = &suite.code_dir;
    let subject = locked(&suite, "data")
        .volume("input", format!("{code}/input"))
        .mount(Source::Anonymous, format!("{code}/output"))
        .mount(Source::Tmpfs, format!("{code}/user"));
    let events = [Event::Restart, Event::Recreate, Event::DownUp];
    let outcome = Gate::of(subject).events(events).run();

    let user = ["a saved workflow", "a setting"];
    let lost = BTreeMap::from([
        (Event::Restart, user.to_vec()),
        (Event::Recreate, user.to_vec()),
        (Event::DownUp, [&["an output"][..], &user].concat()),
    ]);
    for event in events {
        assert_eq!(outcome.verdict(event), suite.installed, "losing data is no verdict:\n{}", outcome.told());
        let finding = finding(&outcome, event).unwrap_or_else(|| panic!("{event}\n{}", outcome.told()));
        for kind in ["an input image", "an output", "a saved workflow", "a setting"] {
            let told =
                finding.evidence.iter().any(|line| line.starts_with(&format!("{kind} is gone: its path was {code}/")));
            assert_eq!(told, lost[&event].contains(&kind), "{event}: {kind}\n{:#?}", finding.evidence);
        }
        assert!(finding.remedy.contains(&format!("target: {code}/user }}")), "{}", finding.remedy);
        assert_eq!(survival(&outcome, event), Survival { predicted: Some(false), observed: Some(false) });
    }
    let down_up = finding(&outcome, Event::DownUp).expect("it is there");
    assert!(down_up.evidence.iter().any(|line| line.ends_with("in an anonymous volume")), "{:#?}", down_up.evidence);
    assert!(down_up.remedy.contains(&format!("target: {code}/output }}")), "{}", down_up.remedy);
    let state = outcome.subject().states.iter().find(|state| state.state == State::Data).expect("it is there");
    assert_eq!(state.owner, Some(Owner::Tmpfs), "the one that survives least");
    assert_eq!(outcome.report.exit_code, 1, "{}", outcome.told());
}

#[rstest]
fn what_lies_on_volumes_is_there_and_equal_for_several_users_too(suite: Suite) {
    let several = suite.command.iter().cloned().chain(["--multi-user".to_owned()]);
    let subject = locked(&suite, "kept").keeps_data(&suite).command(several);
    let events = [Event::Kill, Event::DownUp, Event::Wipe];
    let outcome = Gate::of(subject).events(events).run();
    for event in [Event::Kill, Event::DownUp] {
        assert_eq!(finding(&outcome, event), None, "{}", outcome.told());
        assert_eq!(survival(&outcome, event), Survival { predicted: Some(true), observed: Some(true) });
    }
    // Wipe takes volumes because it was asked to.
    assert_eq!(survival(&outcome, Event::Wipe), Survival { predicted: Some(false), observed: Some(false) });
    if outcome.event(Event::Wipe).as_it_must_be() == Some(true) {
        assert_eq!(finding(&outcome, Event::Wipe), None, "{}", outcome.told());
    }
}

#[rstest]
fn data_is_compared_where_the_lock_is_meant_to_be_lost(suite: Suite) {
    let subject = suite.subject("bare").with(|entry| {
        entry.expect.insert(Event::Installed, suite.installed);
        entry.expect.insert(Event::Recreate, Verdict::Open);
    });
    let outcome = Gate::of(subject).events([Event::Recreate]).run();
    assert_eq!(outcome.verdict(Event::Recreate), Verdict::Open, "{}", outcome.told());
    let finding = finding(&outcome, Event::Recreate).expect("the layer went, and the data with it");
    assert!(finding.expected, "it went together with what explains the verdict");
    assert_eq!(outcome.report.exit_code, 0, "{}", outcome.told());
}
