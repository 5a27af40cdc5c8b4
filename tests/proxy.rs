//! A lock that stands in front of ComfyUI: nginx with basic authentication, gated at its own port.

use std::{collections::BTreeSet, path::Path};

use lockproof_model::{event::Event, report::Report, verdict::Verdict};
use rstest::rstest;
use tempfile::TempDir;

use crate::{
    command::{Lockproof, Ran},
    suite::{Suite, lab},
};

/// What stands in the fixture's `htpasswd`.
const PASSWORD: &str = "fixture-password";

/// The fixture, with other text in nginx's configuration.
fn copied(from: &str, to: &str) -> TempDir {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/compose/http-basic");
    let copy = tempfile::Builder::new().prefix("lockproof-e2e-").tempdir().expect("a directory");
    std::fs::create_dir(copy.path().join("nginx")).expect("made");
    for file in ["compose.yaml", "nginx/default.conf", "nginx/htpasswd"] {
        let text = std::fs::read_to_string(fixture.join(file)).expect("it is there");
        let text = if file.ends_with(".conf") { text.replacen(from, to, 1) } else { text };
        std::fs::write(copy.path().join(file), text).expect("written");
    }
    copy
}

fn gate(project: &TempDir, service: Option<&str>, events: &str) -> Ran {
    let file = project.path().join("compose.yaml").display().to_string();
    let service = service.map(|name| ["--service".to_owned(), name.to_owned()]);
    Lockproof::new(["gate", "--compose", &file, "--scheme", "http-basic", "--username", "gate"])
        .args(["--password-env", "E2E_PROXY_PASSWORD", "--events", events, "--report", "json=report.json"])
        .args(service.into_iter().flatten())
        .env("E2E_PROXY_PASSWORD", PASSWORD)
        .run()
}

fn rules(report: &Report) -> BTreeSet<&str> {
    report.findings.iter().map(|f| f.rule.id()).collect()
}

#[rstest]
#[case::the_proxy_is_named(Some("nginx"), "restart,kill,recreate,down-up")]
#[case::comfyui_is_named(Some("comfyui"), "down-up")]
#[case::nothing_is_named(None, "stop-start")]
fn a_lock_in_a_proxy_holds(#[from(lab)] _lab: Suite, #[case] service: Option<&str>, #[case] events: &str) {
    let project = copied("", "");
    let ran = gate(&project, service, events);
    ran.ends_with(0);
    let report = ran.report();
    assert_eq!(report.subjects[0].name, "nginx");
    assert!(report.subjects[0].events.iter().all(|e| e.verdict == Some(Verdict::Locked)), "{}", ran.stdout);
    assert_eq!(report.subjects[0].events.len(), events.split(',').count() + 1);
    assert!(report.findings.is_empty(), "{}", ran.stdout);
    let text = format!("{}{}", ran.stdout, ran.stderr);
    assert!(!text.contains(PASSWORD), "the password is shown");
}

#[rstest]
#[case::a_prefix_is_forgotten(
    "location / {",
    "location /api/ { auth_basic off; proxy_pass http://comfyui:8188; }\n    location / {",
    Verdict::Leaky,
    "lock/unprotected-prefix"
)]
#[case::the_web_socket_is_forgotten(
    "location / {",
    "location /ws { auth_basic off; proxy_pass http://comfyui:8188; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }\n    location / {",
    Verdict::Leaky,
    "lock/websocket"
)]
#[case::static_files_are_let_through(
    "location / {",
    "location ~ \\.(js|css)$ { auth_basic off; proxy_pass http://comfyui:8188; }\n    location / {",
    Verdict::Leaky,
    "lock/static-suffix"
)]
#[case::a_header_is_trusted(
    "auth_basic \"ComfyUI\";",
    "set_real_ip_from 0.0.0.0/0; real_ip_header X-Forwarded-For; satisfy any; allow 127.0.0.1; deny all;\n    auth_basic \"ComfyUI\";",
    Verdict::Leaky,
    "lock/trusted-header"
)]
#[case::the_lock_is_off("auth_basic \"ComfyUI\";", "auth_basic off;", Verdict::Open, "lock/open")]
fn a_hole_in_a_proxy_is_found(
    #[from(lab)] _lab: Suite,
    #[case] from: &str,
    #[case] to: &str,
    #[case] verdict: Verdict,
    #[case] rule: &str,
) {
    let project = copied(from, to);
    let ran = gate(&project, Some("nginx"), "restart");
    ran.ends_with(1);
    let report = ran.report();
    assert_eq!(report.subjects[0].events[0].event, Event::Installed);
    assert_eq!(report.subjects[0].events[0].verdict, Some(verdict), "{}{}", ran.stdout, ran.stderr);
    assert_eq!(rules(&report), BTreeSet::from([rule]), "{}", ran.stdout);
}

/// nginx answers a burst with 503 and says nothing of a pause: most probes would say nothing.
#[rstest]
#[case::that_is_there("location /view { auth_basic off; proxy_pass http://comfyui:8188; }", &[Some(Verdict::Leaky), None])]
#[case::that_is_not_there("", &[Some(Verdict::Locked), None])]
fn a_limiter_hides_no_hole(#[from(lab)] _lab: Suite, #[case] hole: &str, #[case] possible: &[Option<Verdict>]) {
    let limited = format!(
        "limit_req_zone $binary_remote_addr zone=all:1m rate=200r/s;\n\
         server {{\n    limit_req zone=all burst=20 nodelay;\n    {hole}"
    );
    let project = copied("server {", &limited);
    let ran = gate(&project, Some("nginx"), "restart");
    let report = ran.report();
    let event = &report.subjects[0].events[0];
    assert!(possible.contains(&event.verdict), "{:?}\n{}{}", event.verdict, ran.stdout, ran.stderr);
    assert!(event.probes.planned > 3000, "{:?}", event.probes);
    // A green rests on an answer to every probe.
    assert_eq!(event.verdict.is_none(), event.undecided.is_some());
}

#[rstest]
fn without_a_name_and_a_password_it_says_what_to_give(#[from(lab)] _lab: Suite) {
    let project = copied("", "");
    let file = project.path().join("compose.yaml").display().to_string();
    let ran = Lockproof::new(["gate", "--compose", &file, "--scheme", "http-basic", "--events", "restart"]).run();
    ran.ends_with(4);
    let told = format!("{}{}", ran.stdout, ran.stderr);
    assert!(told.contains("password_env: LOCKPROOF_PASSWORD"), "{told}");
}
