//! A made-up report with every kind of event, standing and state, for the tests.

use std::{collections::BTreeMap, time::Duration};

use super::Format;
use lockproof_model::{
    event::Event::{self, Crash, DownUp, Installed, Kill, Recreate, Restart, Rotate, Upgrade},
    finding::{Finding, Rule},
    report::{
        EventReport, LayoutReport, ProbeCounts, ReplayOutcome, ReplayReport, Report, StateReport, SubjectReport,
        Survival, Tool,
    },
    state::{Owner, State},
    verdict::Verdict::{self, Claimable, Locked, Open},
};

/// What `format` makes of the rich report.
pub(super) fn rendered(format: &dyn Format) -> String {
    String::from_utf8(format.render(&report()).expect("it can be written")).expect("it is text")
}

/// Three subjects: one open as expected, one failed, one that could not be gated.
pub(super) fn report() -> Report {
    let subjects = vec![original_bug(), half_fixed(), broken()];
    Report { config: Some("lockproof.yaml".to_owned()), ..new(1, subjects, findings()) }
}

/// A report of a passed run.
pub(super) fn passed() -> Report {
    let fixed = SubjectReport {
        name: "fixed".to_owned(),
        image: "lockproof/comfyui-lab".to_owned(),
        events: [Installed, Restart, Kill, Recreate, DownUp].map(|event| judged(event, Locked, Locked)).into(),
        ..SubjectReport::default()
    };
    let mut bug = original_bug();
    bug.events.retain(|event| event.verdict.is_some());
    let findings = findings().into_iter().filter(|f| f.subject == "original-bug" && f.expected);
    new(0, vec![bug, fixed], findings.collect())
}

fn new(exit_code: u8, subjects: Vec<SubjectReport>, findings: Vec<Finding>) -> Report {
    let started = "2026-10-01T08:00:00Z".parse().expect("a time");
    let tool = Tool { name: "lockproof".to_owned(), version: "0.0.0".to_owned() };
    let duration = Duration::from_millis(61_250);
    Report { tool, ..Report::new(started, duration, exit_code, subjects, findings) }
}

fn judged(event: Event, expected: Verdict, verdict: Verdict) -> EventReport {
    EventReport {
        verdict: Some(verdict),
        predicted: Some(verdict),
        exposure_ms: Some(if verdict == Open { 4_020 } else { 0 }),
        ready_ms: Some(830),
        duration_ms: 9_210,
        probes: ProbeCounts { planned: 42, sent: 42, rejected: 36, served: 4, passed: 1, indeterminate: 1 },
        ..EventReport::new(event, expected)
    }
}

fn survives(events: &[(Event, Option<bool>, Option<bool>)]) -> BTreeMap<Event, Survival> {
    events.iter().map(|&(event, predicted, observed)| (event, Survival { predicted, observed })).collect()
}

fn state(state: State, path: &str, owner: Owner, events: &[Event]) -> StateReport {
    let lasts = |event| owner.survives(event);
    let events: Vec<_> = events.iter().map(|&e| (e, lasts(e), lasts(e))).collect();
    StateReport { state, paths: vec![path.to_owned()], owner: Some(owner), survives: survives(&events) }
}

fn original_bug() -> SubjectReport {
    let events = [Installed, Restart, Recreate, DownUp];
    SubjectReport {
        name: "original-bug".to_owned(),
        image: "lockproof/comfyui-lab:3f9a".to_owned(),
        layout: LayoutReport {
            code_dir: Some("/app".to_owned()),
            custom_nodes: Some("/app/custom_nodes".to_owned()),
            python: Some("/usr/bin/python3".to_owned()),
        },
        states: vec![
            state(State::Plugin, "/app/custom_nodes/ComfyUI-Login", Owner::ContainerLayer, &events),
            state(State::Data, "/workspace", Owner::Bind, &events),
        ],
        events: vec![
            judged(Installed, Locked, Locked),
            judged(Restart, Locked, Locked),
            EventReport {
                skipped: Some("the subject has no restart policy".to_owned()),
                ..EventReport::new(Crash, Locked)
            },
            judged(Recreate, Open, Open),
            judged(DownUp, Open, Open),
        ],
        replays: vec![
            ReplayReport { name: "invert.json".to_owned(), event: Recreate, outcome: ReplayOutcome::Same, why: None },
            ReplayReport {
                name: "qwen.json".to_owned(),
                event: Recreate,
                outcome: ReplayOutcome::Skipped,
                why: Some("the model qwen_image.safetensors is not there".to_owned()),
            },
        ],
        error: None,
        routes: None,
        left_behind: Vec::new(),
        timings: None,
    }
}

fn half_fixed() -> SubjectReport {
    let mut deps = state(
        State::Deps,
        "/opt/venv/lib/python3.11/site-packages",
        Owner::ContainerLayer,
        &[Installed, Restart, Recreate],
    );
    deps.paths.push("/opt/venv/bin".to_owned());
    deps.survives.insert(Upgrade, Survival { predicted: Some(false), observed: None });
    SubjectReport {
        name: "half-fixed".to_owned(),
        image: "comfyui:cpu|next".to_owned(),
        layout: LayoutReport { code_dir: Some("/opt/ComfyUI".to_owned()), ..LayoutReport::default() },
        states: vec![
            deps,
            StateReport {
                state: State::SessionKey,
                paths: Vec::new(),
                owner: None,
                survives: survives(&[(Recreate, None, None)]),
            },
        ],
        events: vec![
            judged(Installed, Locked, Locked),
            EventReport { predicted: Some(Locked), ..judged(Restart, Locked, Claimable) },
            EventReport {
                undecided: Some("the engine refused\n  to pull the image".to_owned()),
                ..EventReport::new(Rotate, Locked)
            },
            judged(Recreate, Locked, Open),
            judged(DownUp, Locked, Open),
            EventReport { effective: false, exposure_ms: None, ..judged(Upgrade, Locked, Locked) },
        ],
        replays: Vec::new(),
        error: None,
        routes: None,
        left_behind: Vec::new(),
        timings: None,
    }
}

fn broken() -> SubjectReport {
    SubjectReport {
        name: "broken".to_owned(),
        image: "nowhere.example/comfyui:1".to_owned(),
        error: Some("the image nowhere.example/comfyui:1 cannot be pulled: no such host".to_owned()),
        ..SubjectReport::default()
    }
}

fn findings() -> Vec<Finding> {
    let open = |subject: &str, event, expected| Finding {
        expected,
        ..Finding::new(
            Rule::LockOpen,
            subject,
            Some(event),
            "anonymous requests get everything: four of four sentinels were served",
        )
        .evidence(format!("curl -sS http://127.0.0.1:8188/system_stats  # 200 after {event}"))
        .evidence(format!("curl -sS http://127.0.0.1:8188/queue  # 200 after {event}"))
        .evidence("curl -sS http://127.0.0.1:8188/object_info  # 200")
        .evidence("curl -sS -d {} http://127.0.0.1:8188/prompt  # 400")
    };
    let suffix = Finding::new(
        Rule::LockStaticSuffix,
        "half-fixed",
        Some(Installed),
        "a path that ends in `.js` is served without a token: POST /userdata/evil.js",
    )
    .evidence("curl -sS -X POST -d x 'http://127.0.0.1:8188/userdata/evil.js?a=1&b=\"2\"'  # 200 | <b>")
    .routes(["/userdata/{file}".to_owned()]);
    let token = Finding {
        file: Some("compose files/docker-compose.yml".to_owned()),
        line: Some(12),
        ..Finding::new(Rule::DeployTokenInFile, "half-fixed", None, "the file contains a token")
    };
    vec![
        open("original-bug", Recreate, true),
        open("original-bug", DownUp, true),
        Finding {
            expected: true,
            ..Finding::new(
                Rule::PersistPlugin,
                "original-bug",
                Some(Recreate),
                "the plugin is in the container's writable layer",
            )
        },
        suffix.clone(),
        open("half-fixed", Recreate, false),
        open("half-fixed", DownUp, false),
        Finding::new(
            Rule::PersistDeps,
            "half-fixed",
            Some(Recreate),
            "aiohttp_session is in the container's writable layer",
        )
        .remedy("keep the virtual environment on a volume:\n  volumes:\n    - venv:/opt/venv"),
        Finding { event: Some(Restart), accepted: true, ..suffix },
        Finding { baseline: true, ..token.clone() },
        Finding { baseline: false, line: Some(13), ..token },
        Finding::new(
            Rule::LockMalformedHeader,
            "half-fixed",
            Some(Restart),
            "`Authorization: Bearer` without a value returns 500",
        ),
    ]
}
