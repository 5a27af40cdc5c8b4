//! Nothing outside a run is touched, and nothing of it is left: on success, on failure, when it is
//! interrupted, and when it is killed.

use std::{collections::BTreeMap, os::unix::fs::MetadataExt, path::Path};

use lockproof_model::event::Event;
use rstest::rstest;

use crate::{
    command::{Lockproof, Running},
    gate::block_on,
    left::{self, Thing},
    suite::{Source, Subject, Suite, suite},
};

/// A gate in the middle of its first event, with a line of its own for each step.
#[track_caller]
fn in_mid_event(subject: Subject) -> Running {
    let name = subject.0.name.clone();
    let running = Lockproof::gate_of(subject, &[Event::Restart, Event::Recreate]).args(["--verbose"]).begin();
    running.wait_for(&format!("{name}: restart"));
    running
}

fn containers(things: &[Thing]) -> Vec<&str> {
    things.iter().filter(|t| t.kind == "container").map(|t| t.name.as_str()).collect()
}

#[rstest]
#[case::interrupt("INT", 130)]
#[case::terminate("TERM", 143)]
fn a_gate_that_is_interrupted_cleans_up_and_says_so(suite: Suite, #[case] signal: &str, #[case] code: i32) {
    let running = in_mid_event(everything_mounted(&suite, Path::new("/usr/share/doc")));
    let things = running.things();
    for kind in ["container", "volume", "network"] {
        assert!(things.iter().any(|t| t.kind == kind), "it has a {kind} by now: {things:?}");
    }
    running.signal(signal);
    let ran = running.end();
    ran.ends_with(code);
    assert!(ran.stderr.ends_with(if code == 130 { "interrupted\n" } else { "terminated\n" }), "{}", ran.stderr);
}

/// A subject with one of each kind of mount.
fn everything_mounted(suite: &Suite, bind: &Path) -> Subject {
    suite
        .subject("everything")
        .mount(Source::Bind(bind.to_owned()), "/bound")
        .volume("login", suite.login())
        .mount(Source::Anonymous, "/cache")
        .mount(Source::Tmpfs, "/scratch")
}

#[rstest]
#[case::by_the_clean_up(true)]
#[case::by_the_next_run(false)]
fn what_a_killed_gate_leaves_is_removed(suite: Suite, #[case] by_clean: bool) {
    let host = host_directory();
    let before = bytes_below(host.path());
    let subject = suite
        .subject("killed")
        .mount(Source::Bind(host.path().to_owned()), suite.custom_nodes())
        .volume("login", suite.login());
    let running = in_mid_event(subject);
    let (pid, things) = (running.pid(), running.things());
    assert!(!containers(&things).is_empty(), "{things:?}");
    running.signal("KILL");
    let killed = running.wait();
    assert_eq!(killed.code, None);

    if by_clean {
        Lockproof::new(["clean"]).run().ends_with(0);
    } else {
        // It finds its image missing, after it has tidied up.
        let text = "subjects: [{ name: next, image: lockproof-test-nowhere:none }]";
        Lockproof::gate(text).run().ends_with(3);
    }
    // Another test's gate may be tidying up as well, and be in the middle of it.
    let left = eventually_nothing(pid);
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(bytes_below(host.path()), before);
}

/// What is left of a process once everybody who cleans up has had the time to.
fn eventually_nothing(pid: u32) -> Vec<Thing> {
    let mut left = block_on(left::by_process(pid));
    for _ in 0..100 {
        if left.is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        left = block_on(left::by_process(pid));
    }
    left
}

#[rstest]
fn a_gate_writes_nothing_into_the_host_s_directory(suite: Suite) {
    let host = host_directory();
    let before = bytes_below(host.path());
    // The plugin, its key and its byte-code all go into the bind, as far as the container can see.
    let subject = suite
        .subject("bind")
        .mount(Source::Bind(host.path().to_owned()), suite.custom_nodes())
        .volume("login", suite.login())
        .volume("venv", &suite.venv);
    let ran = Lockproof::gate_of(subject, &[Event::Recreate]).args(["--report", "json=report.json"]).run();
    let report = ran.report();
    let verdicts: Vec<_> = report.subjects[0].events.iter().map(|e| e.verdict).collect();
    assert_eq!(verdicts, [Some(suite.installed); 2], "{}", ran.stdout);
    assert_eq!(bytes_below(host.path()), before);
}

#[rstest]
fn a_gate_that_fails_leaves_nothing(suite: Suite) {
    let ran = Lockproof::gate_of(everything_mounted(&suite, Path::new("/usr/share/doc")), &[Event::Recreate]).run();
    ran.ends_with(1).left_nothing();
}

#[rstest]
fn ports_are_published_on_the_loopback_address_only(suite: Suite) {
    let running = in_mid_event(suite.subject("ports"));
    let things = running.things();
    let mut published = 0;
    for container in containers(&things) {
        // It may have been replaced meanwhile.
        let Some(found) = block_on(left::inspect(container)) else { continue };
        let asked = found.host_config.and_then(|h| h.port_bindings).unwrap_or_default();
        let given = found.network_settings.and_then(|n| n.ports).unwrap_or_default();
        for binding in asked.into_values().chain(given.into_values()).flatten().flatten() {
            assert_eq!(binding.host_ip.as_deref(), Some("127.0.0.1"));
            published += 1;
        }
    }
    assert!(published > 0, "nothing is published: {things:?}");
    running.signal("INT");
    running.end().ends_with(130);
}

/// A directory with what people have in custom_nodes: another node, a link, something executable.
fn host_directory() -> tempfile::TempDir {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let directory = tempfile::Builder::new().prefix("lockproof-e2e-").tempdir().expect("a directory");
    let node = directory.path().join("other-node");
    std::fs::create_dir(&node).expect("made");
    std::fs::write(node.join("__init__.py"), "NODE_CLASS_MAPPINGS = {}\n").expect("written");
    std::fs::write(node.join("run.sh"), "#!/bin/sh\n").expect("written");
    std::fs::set_permissions(node.join("run.sh"), std::fs::Permissions::from_mode(0o755)).expect("set");
    symlink("other-node", directory.path().join("link")).expect("made");
    directory
}

/// Every path below a directory with all that may not change: kind, mode, owner, times, bytes.
pub(crate) fn bytes_below(directory: &Path) -> BTreeMap<String, (u32, u32, i64, i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(path) = waiting.pop() {
        let meta = std::fs::symlink_metadata(&path).expect("it is there");
        let bytes = if meta.is_dir() {
            let entries = std::fs::read_dir(&path).expect("it can be read");
            waiting.extend(entries.map(|entry| entry.expect("it can be read").path()));
            Vec::new()
        } else if meta.is_symlink() {
            std::fs::read_link(&path).expect("a link").into_os_string().into_encoded_bytes()
        } else {
            std::fs::read(&path).expect("a file")
        };
        let name = path.display().to_string();
        found.insert(name, (meta.mode(), meta.uid(), meta.mtime(), meta.mtime_nsec(), bytes));
    }
    found
}
