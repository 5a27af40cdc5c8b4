//! The install scripts: the fixed one refuses to guess, and the gate tells why before it does.

use std::{path::PathBuf, process::Command};

use lockproof_model::{event::Event, finding::Rule, verdict::Verdict};
use rstest::rstest;

use crate::{
    assert_said,
    command::Lockproof,
    original_bug::with_script,
    suite::{Suite, suite},
};

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../fixtures/scripts/{name}/install-comfyui-login.sh"))
}

#[test]
fn the_fixed_script_refuses_without_a_workspace() {
    for set in [None, Some("")] {
        let mut command = Command::new("sh");
        command.arg(script("fixed")).env_remove("COMFYUI_WORKSPACE_PATH").env("LOCKPROOF_PLUGIN", "/nowhere");
        if let Some(value) = set {
            command.env("COMFYUI_WORKSPACE_PATH", value);
        }
        let output = command.output().expect("there is a sh");
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(output.stdout, b"");
        insta::allow_duplicates! {
            insta::assert_snapshot!("the_refusal", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn the_scripts_differ_in_where_they_install() {
    let text = |name: &str| std::fs::read_to_string(script(name)).expect("it is there");
    assert!(text("buggy").contains(r#"cp -R "$plugin" /app/custom_nodes/"#));
    assert!(!text("buggy").contains("COMFYUI_WORKSPACE_PATH"));
    assert!(text("fixed").contains(r#"target="${COMFYUI_WORKSPACE_PATH}/custom_nodes/""#));
    assert!(!text("fixed").contains("/app"));
}

#[rstest]
fn the_gate_says_that_the_workspace_is_unset(suite: Suite) {
    let subject = with_script(&suite, "fixed");
    let ran = Lockproof::gate_of(subject, &[Event::Restart]).args(["--report", "json=report.json"]).run();
    ran.ends_with(1);
    let report = ran.report();
    let rules: Vec<Rule> = report.findings.iter().map(|f| f.rule).collect();
    assert_eq!(rules, [Rule::DeployWorkspaceUnset]);
    assert_eq!(report.subjects[0].events.iter().filter_map(|e| e.verdict).collect::<Vec<Verdict>>(), []);
    let error = report.subjects[0].error.as_deref().unwrap_or_default();
    assert!(error.contains("the install script exited with 1"), "{error}");
    assert!(error.contains("COMFYUI_WORKSPACE_PATH is not set"), "{error}");
    assert_said!(ran, ran.said());
}
