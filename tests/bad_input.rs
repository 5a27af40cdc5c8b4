//! Bad input: each a one-screen error with place, reason and what to do, the right exit code, and
//! nothing left behind.

use lockproof_model::{config::AcceptEntry, event::Event, finding::Rule, verdict::Verdict};
use rstest::rstest;

use crate::{
    assert_said,
    command::Lockproof,
    derived::Derived,
    gate::Gate,
    suite::{Suite, suite},
};

#[test]
fn an_unknown_key_is_shown_with_the_nearest_one() {
    let ran =
        Lockproof::gate("subjects:\n  - name: a\n    image: b\n    mount:\n      - { tmpfs: true, target: /x }\n")
            .run();
    ran.ends_with(2);
    assert_said!(ran, ran.said());
}

#[test]
fn a_configuration_that_is_not_there_is_told_from_the_demo() {
    let ran = Lockproof::new(["gate", "--config", "missing.yaml"]).run();
    ran.ends_with(2);
    assert_said!(ran, ran.said());
}

#[test]
fn a_bind_that_is_not_there_is_found_before_any_work() {
    let ran = Lockproof::gate(
        "subjects:\n  - name: a\n    image: b\n    mounts:\n      - { bind: ./workspace, target: /workspace }\n",
    )
    .run();
    ran.ends_with(2);
    assert_said!(ran, ran.said());
}

#[test]
fn a_mount_has_one_source_and_an_absolute_target() {
    let mounts = [
        "{ target: /x }",
        "{ volume: v, tmpfs: true, target: /x }",
        "{ volume: v, target: x }",
        "{ volume: v, target: / }",
        "{ volume: v, target: /x }, { tmpfs: true, target: /x/ }",
        "{ volume: v }",
    ];
    let mut said = Vec::new();
    let mut last = None;
    for mount in mounts {
        let ran = Lockproof::gate(&format!("subjects: [{{ name: a, image: b, mounts: [{mount}] }}]\n")).run();
        ran.ends_with(2);
        let text = ran.said();
        ran.redacted().bind(|| said.push(format!("mounts: [{mount}]\n{text}")));
        last = Some((ran, text));
    }
    let (ran, _) = last.expect("there are mounts");
    // Nothing here names the directory of a run but by its file's name.
    assert_said!(ran, said.join("\n\n"));
}

#[test]
fn a_credential_that_cannot_be_read_is_found_before_any_work() {
    // An image that cannot be had would be the environment's fault (exit 3), if it were looked for.
    let gate = |credential: &str| {
        Lockproof::gate(&format!(
            "subjects: [{{ name: a, image: lockproof-test.invalid/none }}]\nscheme: {{ credential: {{ {credential} }} }}\n"
        ))
        .file("empty", "\n")
        .run()
    };
    for (credential, told) in [
        ("token_file: ./missing", "does not exist"),
        ("token_file: ./empty", "there is no token in"),
        ("token_file: /dev/zero", "it is larger than"),
        ("token_file: /proc", "cannot read /proc"),
        ("password_env: LOCKPROOF_TEST_SET_NOWHERE", "is not set"),
    ] {
        let ran = gate(credential);
        ran.ends_with(2);
        let said = ran.said();
        assert!(said.contains(told) && said.contains("scheme.credential."), "{credential}: {said}");
    }
}

#[test]
fn a_plugin_without_its_entry_is_no_plugin() {
    let ran = Lockproof::gate("subjects: [{ name: a, image: b }]\nscheme: { install: { from: ./plugin } }\n")
        .file("plugin/login.py", "")
        .run();
    ran.ends_with(2);
    assert_said!(ran, ran.said());
}

#[test]
fn an_image_that_cannot_be_had_is_the_environment_s_fault() {
    let ran = Lockproof::gate("subjects: [{ name: a, image: lockproof-test.invalid/comfyui:none }]\n").run();
    ran.ends_with(3);
    // Why it cannot be pulled is the engine's own sentence, and another one on every machine.
    let mut settings = ran.redacted();
    settings.add_filter(r"(?m)^   \| .*$", "   | (the engine's words)");
    let said = ran.said();
    settings.bind(|| insta::assert_snapshot!(said));
}

#[rstest]
fn a_container_that_exits_at_once_is_down_and_its_last_lines_are_shown(suite: Suite) {
    let subject = suite
        .subject("exits")
        // One stream: the engine does not keep the order between two of them.
        .shell("exec >&2; for i in $(seq 1 30); do echo line $i; done; echo no such model; exit 3")
        .with(|entry| entry.restart = None);
    let ran = Lockproof::gate_of(subject, &[Event::Restart]).args(["--report", "json=report.json"]).run();
    ran.ends_with(1);
    let report = ran.report();
    assert_eq!(report.subjects[0].events[0].verdict, Some(Verdict::Down));
    assert_eq!(report.findings[0].rule, Rule::LockDown);
    let lines: Vec<&String> = report.findings[0].evidence.iter().filter(|line| line.starts_with("log: ")).collect();
    assert_eq!(lines.len(), 20);
    assert!(lines.iter().any(|line| *line == "log: no such model"), "{lines:#?}");
    assert_said!(ran, ran.complained());
}

#[rstest]
fn a_port_that_never_opens_is_down_and_the_other_one_is_named(suite: Suite) {
    let subject = suite.subject("port").with(|entry| {
        entry.port = Some(9000);
        entry.ready_timeout = Some(lockproof_model::duration::Span::seconds(8));
    });
    let ran = Lockproof::gate_of(subject, &[Event::Restart]).args(["--report", "json=report.json"]).run();
    ran.ends_with(1);
    let report = ran.report();
    assert_eq!(report.subjects[0].events[0].verdict, Some(Verdict::Down));
    assert_eq!(report.findings[0].rule, Rule::LockDown);
    assert!(report.findings[0].remedy.contains("the container listens on port 8188"), "{}", ran.stdout);
}

#[rstest]
fn what_is_not_done_in_time_is_undecided(suite: Suite) {
    let ran = Lockproof::gate_of(suite.subject("slow"), &[Event::Restart])
        .args(["--timeout", "2s", "--report", "json=report.json"])
        .run();
    ran.ends_with(4);
    let report = ran.report();
    assert_eq!(report.outcome.name(), "undecided");
    let undecided: Vec<_> = report.subjects[0].events.iter().map(|e| e.undecided.as_deref()).collect();
    assert_eq!(undecided, [Some("the run timed out after 2 s"); 2]);
}

#[rstest]
fn what_stands_in_the_baseline_does_not_count(suite: Suite) {
    // The session key lies in the container's own layer: two warnings after each re-creation.
    let image = Derived::baked(&suite);
    let subject = suite.subject("known").image(image.name()).brings_its_lock().volume("login", suite.login());
    let subject = subject.keeps_data(&suite).with(|entry| {
        entry.expect.insert(Event::Installed, suite.installed);
    });
    let first = Lockproof::gate_of(subject.clone(), &[Event::Recreate]).args(["--report", "json=report.json"]).run();
    first.ends_with(1);
    let report = first.report();
    let counting: Vec<Rule> =
        report.findings.iter().filter(|f| f.counts(report.fail_on)).map(|finding| finding.rule).collect();
    assert_eq!(counting, [Rule::LockSessionLost, Rule::PersistSessionKey], "{}", first.stdout);

    let baseline = serde_json::to_string(&report).expect("it can be written");
    let second = Lockproof::gate_of(subject, &[Event::Recreate])
        .file("baseline.json", &baseline)
        .args(["--baseline", "baseline.json", "--report", "json=report.json"])
        .run();
    second.ends_with(0);
    let known: Vec<Rule> = second.report().findings.iter().filter(|f| f.baseline).map(|f| f.rule).collect();
    assert!(counting.iter().all(|rule| known.contains(rule)), "{}", second.stdout);
}

#[rstest]
fn what_is_accepted_counts_again_after_its_last_day(suite: Suite) {
    // The holes of the real plugin, which the lab's has in this mode.
    let subject = || suite.subject("leaky").env("LAB_LOGIN_MODE", "faithful");
    let plain = Gate::of(subject()).run();
    assert_eq!(plain.verdict(Event::Installed), Verdict::Leaky, "{}", plain.told());
    let leaks: std::collections::BTreeSet<Rule> =
        plain.report.findings.iter().filter(|f| f.rule.is_leak()).map(|f| f.rule).collect();
    assert!(leaks.contains(&Rule::LockStaticSuffix), "{}", plain.told());

    let accepting = |until: &str| {
        leaks.iter().fold(Gate::of(subject()), |gate, rule| {
            gate.accept(AcceptEntry {
                rule: rule.id().to_owned(),
                reason: "upstream issue".to_owned(),
                until: Some(until.to_owned()),
                ..AcceptEntry::default()
            })
        })
    };
    let tolerated = accepting("2999-12-31").run();
    assert_eq!(tolerated.verdict(Event::Installed), Verdict::Locked, "{}", tolerated.told());
    assert_eq!(tolerated.report.exit_code, 0, "{}", tolerated.told());
    assert!(tolerated.report.findings.iter().filter(|f| f.rule.is_leak()).all(|f| f.accepted));

    let expired = accepting("2001-01-01").run();
    assert_eq!(expired.verdict(Event::Installed), Verdict::Leaky, "{}", expired.told());
    assert_eq!(expired.report.exit_code, 1, "{}", expired.told());
    let finding = expired.findings(Rule::LockStaticSuffix)[0];
    let line = "accepted until 2001-01-01 (upstream issue); it counts again";
    assert_eq!(finding.evidence.iter().filter(|e| *e == line).count(), 1, "{:#?}", finding.evidence);
}

#[test]
fn a_mistake_is_told_before_any_work_whatever_else_is_wrong() {
    // Its image cannot be had either, which would be 3.
    let ran = Lockproof::gate("subjects: [{ name: a, image: lockproof-test.invalid/comfyui:none }]\n")
        .args(["--events", "upgrade"])
        .run();
    ran.ends_with(2);
    assert_said!(ran, ran.said());
}

#[rstest]
fn what_failed_goes_before_what_could_not_be_found_out(suite: Suite) {
    let dead = suite.subject("dead").shell("exit 1").with(|entry| entry.restart = None);
    // It never answers, and is given long enough for that not to be its fault.
    let slow = suite.subject("slow").shell("sleep 600");
    let ran = Lockproof::gate_of_all([dead.0, slow.0], &[Event::Restart])
        .args(["--jobs", "2", "--timeout", "6s", "--report", "json=report.json"])
        .run();
    ran.ends_with(1);
    let report = ran.report();
    assert_eq!(report.subjects[0].events[0].verdict, Some(Verdict::Down), "{}", ran.stdout);
    assert!(report.subjects[1].events.iter().all(|e| e.undecided.is_some()), "{}", ran.stdout);
}

#[rstest]
fn a_flag_goes_before_the_environment_and_that_before_the_file(suite: Suite) {
    // What was to be done is known although there was no time to do it.
    let planned = |env: Option<&str>, flag: Option<&str>| -> Vec<Event> {
        let mut gate = Lockproof::gate_of(suite.subject("a"), &[Event::Recreate]).args([
            "--timeout",
            "100ms",
            "--report",
            "json=report.json",
        ]);
        if let Some(events) = env {
            gate = gate.env("LOCKPROOF_EVENTS", events);
        }
        if let Some(events) = flag {
            gate = gate.args(["--events", events]);
        }
        let ran = gate.run();
        ran.ends_with(4);
        ran.report().subjects[0].events.iter().map(|e| e.event).collect()
    };
    assert_eq!(planned(None, None), [Event::Installed, Event::Recreate]);
    assert_eq!(planned(Some("kill"), None), [Event::Installed, Event::Kill]);
    assert_eq!(planned(Some("kill"), Some("stop-start,restart")), [Event::Installed, Event::Restart, Event::StopStart]);
}
