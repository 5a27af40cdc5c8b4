//! The command line without an engine: what it prints where, and with which exit code. Its help is
//! in `docs/cli.md`, and compared with it by `docs.rs`.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use lockproof_model::{exit, finding::Rule};
use rstest::rstest;

/// What a command did.
struct Done {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs the command where there is no engine, no configuration and no terminal.
fn lockproof(arguments: &[&str]) -> Done {
    lockproof_in(&std::env::temp_dir(), arguments)
}

fn lockproof_in(directory: &Path, arguments: &[&str]) -> Done {
    let output = Command::new(env!("CARGO_BIN_EXE_lockproof"))
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env("DOCKER_HOST", "unix:///no/such/engine.sock")
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
    Done { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Done {
    #[track_caller]
    fn ended_with(&self, code: u8) -> &Self {
        assert_eq!(self.code, Some(code.into()), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
}

#[test]
fn the_version_is_the_package_s() {
    let done = lockproof(&["--version"]);
    assert_eq!(done.ended_with(exit::OK).stdout, format!("lockproof {}\n", env!("CARGO_PKG_VERSION")));
}

#[rstest]
#[case::no_command(&[])]
#[case::an_unknown_command(&["gaet"])]
#[case::an_unknown_flag(&["gate", "--evnets", "restart"])]
#[case::an_unknown_event(&["gate", "--events", "re-create"])]
#[case::no_subjects_at_once(&["gate", "--jobs", "0"])]
#[case::an_unknown_report(&["gate", "--report", "pdf=report.pdf"])]
#[case::a_time_that_is_none(&["gate", "--timeout", "soon"])]
#[case::a_file_that_is_not_there(&["gate", "--config", "no-such.yaml"])]
#[case::a_baseline_that_is_not_there(&["gate", "--baseline", "no-such.json"])]
#[case::routes_that_are_not_there(&["gate", "--routes", "no-such.yaml"])]
#[case::quiet_and_verbose(&["--quiet", "--verbose", "doctor"])]
#[case::an_unknown_rule(&["explain", "lock/opne"])]
#[case::an_unknown_shell(&["completions", "cmd"])]
fn a_usage_error_ends_with_2_and_speaks_on_standard_error(#[case] arguments: &[&str]) {
    let done = lockproof(arguments);
    done.ended_with(exit::USAGE);
    assert_eq!(done.stdout, "");
    assert!(!done.stderr.is_empty());
}

#[rstest]
#[case::not_yaml("subjects: [", "lockproof.yaml:")]
#[case::an_unknown_key("subjects: [{ name: a, imgae: b }]", "did you mean `image`?")]
#[case::an_image_and_a_compose_file("subjects: [{ name: a, image: b, compose: [c] }]", "remove one of them")]
#[case::a_rule_that_cannot_be_accepted(
    "subjects: [{ name: a, image: b }]\naccept: [{ rule: lock/open, reason: x }]",
    "`lock/open` cannot be accepted"
)]
#[case::an_upgrade_to_nothing("subjects: [{ name: a, image: b }]\nevents: [upgrade]", "upgrade_to: IMAGE")]
#[case::a_bind_that_is_not_there(
    "subjects: [{ name: a, image: b, mounts: [{ bind: ./none, target: /w }] }]",
    "does not exist"
)]
fn a_wrong_configuration_ends_with_2_before_any_engine_is_looked_for(#[case] text: &str, #[case] told: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("lockproof.yaml"), text).expect("it can be written");
    let done = lockproof_in(directory.path(), &["gate"]);
    done.ended_with(exit::USAGE);
    assert!(done.stderr.contains(told), "{}", done.stderr);
    assert!(!done.stderr.contains("engine"), "{}", done.stderr);
}

#[rstest]
#[case(&["gate"])]
#[case(&["doctor"])]
#[case(&["clean"])]
fn without_an_engine_it_ends_with_3_and_says_what_to_do(#[case] arguments: &[&str]) {
    let done = lockproof(arguments);
    done.ended_with(exit::ENVIRONMENT);
    assert_eq!(done.stdout, "");
    assert!(done.stderr.contains("no container engine found"), "{}", done.stderr);
    assert!(done.stderr.contains("= help: start it"), "{}", done.stderr);
}

#[test]
fn every_rule_is_explained() {
    let list = lockproof(&["explain"]);
    assert_eq!(list.ended_with(exit::OK).stdout.lines().count(), Rule::ALL.len());
    for rule in Rule::ALL {
        let page = lockproof(&["explain", rule.id()]).ended_with(exit::OK).stdout.clone();
        for part in [rule.id(), "Why", "Evidence", "Remedy"] {
            assert!(page.contains(part), "{rule} says nothing of {part}");
        }
        assert_eq!(page.contains("cannot be accepted"), !rule.acceptable(), "{rule}");
    }
}

#[test]
fn a_mistyped_rule_suggests_the_nearest_one() {
    let done = lockproof(&["explain", "lock/opne"]);
    assert!(done.stderr.contains("did you mean `lock/open`?"), "{}", done.stderr);
}

#[rstest]
fn completions_know_every_command(#[values("bash", "zsh", "fish", "elvish", "powershell")] shell: &str) {
    let done = lockproof(&["completions", shell]);
    for command in ["gate", "reproduce", "doctor", "clean", "explain", "completions"] {
        assert!(done.ended_with(exit::OK).stdout.contains(command), "{shell}: {command}");
    }
}

#[test]
fn nothing_is_coloured_without_a_terminal_unless_it_is_asked_for() {
    let escape = '\u{1b}';
    assert!(!lockproof(&["explain", "lock/open"]).stdout.contains(escape));
    assert!(lockproof(&["--color", "always", "explain", "lock/open"]).stdout.contains(escape));
    assert!(!lockproof(&["gate"]).stderr.contains(escape));
}
