//! The flaws of `fixtures/plugins/flaws.yaml` that only a start, an event, or something beside the
//! plugin brings to light: each is gated as a deployment of its own. (The others are in
//! [`mutants`](crate::mutants), on a server that runs on.)

use std::collections::BTreeSet;

use lockproof_model::{event::Event, verdict::Verdict};
use rstest::rstest;

use crate::{
    gate::Gate,
    suite::{Subject, Suite, lab},
};

/// A deployment with one flaw.
struct Case {
    flaw: &'static str,
    /// Runs before the server, in the code directory.
    before: &'static str,
    /// Further arguments of the server.
    arguments: &'static str,
    /// What happens to it; `None`: it shows at once.
    event: Option<Event>,
    /// The verdict at the end.
    verdict: Verdict,
    /// The rule under which it is found.
    rule: &'static str,
    /// Rules that the same cause breaks as well.
    also: &'static [&'static str],
}

const CASE: Case =
    Case { flaw: "", before: "true", arguments: "", event: None, verdict: Verdict::Locked, rule: "", also: &[] };

const AT_ONCE: &[Case] = &[
    Case { flaw: "not-appended", verdict: Verdict::Open, rule: "lock/open", ..CASE },
    Case {
        flaw: "guest-mode",
        before: "mkdir -p login && touch login/GUEST_MODE",
        verdict: Verdict::Claimable,
        rule: "lock/claimable",
        ..CASE
    },
    Case { flaw: "default-credential", verdict: Verdict::Claimable, rule: "lock/claimable", ..CASE },
    Case {
        flaw: "cors-origin",
        arguments: "--enable-cors-header https://example.org",
        verdict: Verdict::LockedOut,
        rule: "lock/locked-out",
        ..CASE
    },
];

/// The mounts promise what the plugin does not keep.
const PREDICTION: &[&str] = &["persist/prediction"];

const AFTER_AN_EVENT: &[Case] = &[
    // The first start that finds a credential.
    Case { flaw: "token-in-log", event: Some(Event::Restart), rule: "lock/token-leak", ..CASE },
    Case { flaw: "token-in-argv", event: Some(Event::Restart), rule: "lock/token-leak", ..CASE },
    Case {
        flaw: "key-each-start",
        event: Some(Event::Restart),
        rule: "lock/session-lost",
        also: &["persist/session-key"],
        ..CASE
    },
    Case { flaw: "key-in-tmp", event: Some(Event::Recreate), rule: "lock/session-lost", ..CASE },
    Case { flaw: "key-from-host", event: Some(Event::Recreate), rule: "lock/session-lost", ..CASE },
    Case {
        flaw: "token-renewed",
        event: Some(Event::Restart),
        verdict: Verdict::LockedOut,
        rule: "lock/token-changed",
        also: &["lock/session-lost", "persist/credential", "persist/prediction"],
        ..CASE
    },
    Case {
        flaw: "sessions-outlive-rotation",
        event: Some(Event::Rotate),
        verdict: Verdict::Leaky,
        rule: "lock/old-token-alive",
        ..CASE
    },
    Case {
        flaw: "old-tokens-kept",
        event: Some(Event::Rotate),
        verdict: Verdict::Leaky,
        rule: "lock/old-token-alive",
        ..CASE
    },
    Case { flaw: "boot-window", event: Some(Event::Kill), rule: "lock/boot-window", ..CASE },
    // Longer than the exposure watch goes on after the server is ready.
    Case { flaw: "boot-window-long", event: Some(Event::Kill), rule: "lock/boot-window", ..CASE },
    Case {
        flaw: "token-bound-to-host",
        event: Some(Event::Recreate),
        verdict: Verdict::LockedOut,
        rule: "lock/locked-out",
        also: PREDICTION,
        ..CASE
    },
    Case {
        flaw: "stale-lock-file",
        event: Some(Event::Kill),
        verdict: Verdict::LockedOut,
        rule: "lock/locked-out",
        also: PREDICTION,
        ..CASE
    },
];

/// Everything is on volumes, so that nothing but the flaw is seen.
fn deployment(suite: &Suite, case: &Case) -> Subject {
    let line = format!("{} && exec {}", case.before, suite.command_line(case.arguments));
    suite
        .subject(case.flaw)
        .volume("nodes", suite.custom_nodes())
        .volume("login", suite.login())
        .volume("venv", &suite.venv)
        .keeps_data(suite)
        .env("LAB_LOGIN_FLAWS", case.flaw)
        .shell(line)
}

#[track_caller]
fn is_found(suite: &Suite, table: &[Case], flaw: &str) {
    let case = table.iter().find(|case| case.flaw == flaw).expect("it is in the table");
    let outcome = Gate::of(deployment(suite, case)).events(case.event).run();
    let event = case.event.unwrap_or(Event::Installed);
    assert_eq!(outcome.event(event).verdict, Some(case.verdict), "{}", outcome.told());
    let found = outcome.report.findings.iter().filter(|f| f.event == Some(event));
    let rules: BTreeSet<&str> = found.map(|f| f.rule.id()).collect();
    assert!(rules.contains(case.rule), "{rules:?}\n{}", outcome.told());
    let others: Vec<_> = rules.iter().filter(|rule| **rule != case.rule && !case.also.contains(*rule)).collect();
    assert!(others.is_empty(), "{others:?} is another cause\n{}", outcome.told());
}

#[rstest]
#[case::not_appended("not-appended")]
#[case::guest_mode("guest-mode")]
#[case::default_credential("default-credential")]
#[case::cors_origin("cors-origin")]
fn a_flaw_that_a_start_brings_is_found(#[from(lab)] suite: Suite, #[case] flaw: &str) {
    is_found(&suite, AT_ONCE, flaw);
}

#[rstest]
#[case::token_in_log("token-in-log")]
#[case::token_in_argv("token-in-argv")]
#[case::key_each_start("key-each-start")]
#[case::key_in_tmp("key-in-tmp")]
#[case::key_from_host("key-from-host")]
#[case::token_renewed("token-renewed")]
#[case::sessions_outlive_rotation("sessions-outlive-rotation")]
#[case::old_tokens_kept("old-tokens-kept")]
#[case::boot_window("boot-window")]
#[case::boot_window_long("boot-window-long")]
#[case::token_bound_to_host("token-bound-to-host")]
#[case::stale_lock_file("stale-lock-file")]
fn a_flaw_that_an_event_brings_to_light_is_found(#[from(lab)] suite: Suite, #[case] flaw: &str) {
    is_found(&suite, AFTER_AN_EVENT, flaw);
}

#[test]
fn every_flaw_is_in_one_of_the_tables() {
    let table: serde_json::Value = serde_yaml::from_str(include_str!("../fixtures/plugins/flaws.yaml")).expect("YAML");
    assert_eq!((AT_ONCE.len(), AFTER_AN_EVENT.len()), (4, 12), "each has its case above");
    let here: Vec<&str> = AT_ONCE.iter().chain(AFTER_AN_EVENT).map(|case| case.flaw).collect();
    let mut neither: Vec<&str> = table["flaws"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|flaw| {
            flaw["when"] != "runtime"
                || flaw.get("needs").is_some()
                || flaw["shows"] == "event"
                || flaw["shows"] == "shut"
        })
        .filter_map(|flaw| flaw["name"].as_str())
        .filter(|name| !here.contains(name))
        .collect();
    neither.sort_unstable();
    // A token that is read once dies with the process, and no event rotates without a restart; the
    // other two need a credential to be gone or unreadable, which is a lost state: `states`.
    assert_eq!(neither, ["credential-read-once", "empty-token", "unreadable-any-password"]);
}
