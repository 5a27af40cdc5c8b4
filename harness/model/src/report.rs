//! The result of a run: the types of the JSON report.
//!
//! Keys are only ever added. Beside the published ones there are [`Report::fail_on`],
//! [`Report::config`] and [`SubjectReport::error`].

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    event::Event,
    exit,
    finding::{Finding, Severity},
    secret,
    state::{Owner, State},
    verdict::Verdict,
};

/// The schema version of the JSON report.
pub const SCHEMA: u32 = 1;

/// The JSON Schema of the JSON report, as published in `docs/report.schema.json`.
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(Report).to_value()
}

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// The schema version: 1.
    pub schema: u32,
    /// The tool that wrote the report.
    pub tool: Tool,
    /// The exit code as a word.
    pub outcome: Outcome,
    /// The exit code of the run.
    pub exit_code: u8,
    /// The start of the run, in UTC (RFC 3339).
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub started: Timestamp,
    /// The duration of the run, in milliseconds.
    pub duration_ms: u64,
    /// The lowest severity that counts (`--fail-on`).
    #[serde(default = "default_fail_on")]
    pub fail_on: Severity,
    /// The configuration file of the run, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// The deployments under test.
    pub subjects: Vec<SubjectReport>,
    /// The findings.
    pub findings: Vec<Finding>,
}

fn default_fail_on() -> Severity {
    Severity::Warning
}

/// The tool that wrote a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tool {
    /// Its name: `lockproof`.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl Tool {
    /// This program.
    pub fn this() -> Self {
        Self { name: "lockproof".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// The exit code as a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Every verdict is the expected one, and no finding counts (exit 0).
    Pass,
    /// A finding counts, or a verdict is not the expected one (exit 1).
    Fail,
    /// No verdict could be reached (exit 4).
    Undecided,
    /// The run failed or was interrupted (every other exit code).
    Error,
}

impl Outcome {
    /// The outcome of an exit code.
    pub fn of(exit_code: u8) -> Self {
        match exit_code {
            exit::OK => Self::Pass,
            exit::FAILED => Self::Fail,
            exit::UNDECIDED => Self::Undecided,
            _ => Self::Error,
        }
    }

    /// The name in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Undecided => "undecided",
            Self::Error => "error",
        }
    }
}

/// A deployment under test.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SubjectReport {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// The paths inside it.
    pub layout: LayoutReport,
    /// The states that its lock needs in order to persist.
    pub states: Vec<StateReport>,
    /// The events with their results, in order; `installed` is the first.
    pub events: Vec<EventReport>,
    /// The workflows and notebooks that were replayed on it.
    pub replays: Vec<ReplayReport>,
    /// Why it could not be started or gated completely, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The sources of the probed routes; absent if the server did not start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<RouteReport>,
    /// Changes of `probe --mutating` on the server that could not be undone; absent if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_behind: Vec<String>,
    /// The time spent in each phase; absent if nothing was run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timings: Option<Timings>,
}

impl SubjectReport {
    /// Whether replays were requested and all of them were skipped.
    pub fn has_replayed_nothing(&self) -> bool {
        !self.replays.is_empty() && self.replays.iter().all(|replay| replay.outcome == ReplayOutcome::Skipped)
    }
}

/// The sources of the probed routes of a subject.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RouteReport {
    /// The number of ComfyUI's routes that are built in.
    pub built_in: usize,
    /// The number of routes from `--routes`.
    pub given: usize,
    /// The number of further routes that the server's pages and scripts link to.
    pub linked: usize,
    /// The number of routes that the server registers; null if its list could not be read.
    pub registered: Option<usize>,
    /// The reason if the server's list could not be read.
    pub not_listed: Option<String>,
    /// The registered routes that are neither built in nor public in the scheme, as `METHOD /path`.
    pub beyond: Vec<String>,
    /// The server's middlewares, outermost first.
    pub middlewares: Vec<String>,
}

/// The time spent on one subject.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Timings {
    /// The number of server starts.
    pub starts: u32,
    /// The time spent in each phase, in milliseconds.
    pub phases: BTreeMap<Phase, u64>,
}

/// A phase of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Creating the network, volumes and containers.
    Create,
    /// Installing the lock, mapping its states, creating a token.
    Install,
    /// Reading the server's own list of routes, in a separate start.
    Inventory,
    /// Waiting for other servers to start.
    Queue,
    /// Performing the event: stopping, killing, removing or creating containers.
    Event,
    /// From the start of a server to its first answer.
    Start,
    /// Sending and judging requests.
    Probe,
    /// Replaying workflows and notebooks.
    Replay,
    /// Comparing states and user data.
    Compare,
    /// Removing containers and volumes.
    CleanUp,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 10] = [
        Self::Create,
        Self::Install,
        Self::Inventory,
        Self::Queue,
        Self::Event,
        Self::Start,
        Self::Probe,
        Self::Replay,
        Self::Compare,
        Self::CleanUp,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Install => "install",
            Self::Inventory => "inventory",
            Self::Queue => "queue",
            Self::Event => "event",
            Self::Start => "start",
            Self::Probe => "probe",
            Self::Replay => "replay",
            Self::Compare => "compare",
            Self::CleanUp => "clean-up",
        }
    }
}

/// The paths inside a subject; null if not detected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LayoutReport {
    /// ComfyUI's code directory.
    pub code_dir: Option<String>,
    /// The directory from which ComfyUI loads custom nodes.
    pub custom_nodes: Option<String>,
    /// The Python interpreter that runs ComfyUI.
    pub python: Option<String>,
}

/// A state that the lock needs in order to persist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StateReport {
    /// Which state it is.
    pub state: State,
    /// Its paths.
    pub paths: Vec<String>,
    /// The owner of the paths; of several owners, the one that persists least.
    pub owner: Option<Owner>,
    /// Whether it survives each event.
    pub survives: BTreeMap<Event, Survival>,
}

/// Whether a state survives an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Survival {
    /// The prediction from the mounts; null if only a run can tell.
    pub predicted: Option<bool>,
    /// What was observed; null if the event was not run.
    pub observed: Option<bool>,
}

impl Survival {
    /// Whether the state is lost: the observation takes precedence over the prediction.
    pub fn lost(self) -> bool {
        self.observed.or(self.predicted) == Some(false)
    }
}

/// An event with its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventReport {
    /// Which event it is.
    pub event: Event,
    /// The verdict; null if `skipped` or `undecided` gives a reason.
    pub verdict: Option<Verdict>,
    /// The expected verdict.
    pub expected: Verdict,
    /// The verdict predicted by the state map; null if unknown.
    pub predicted: Option<Verdict>,
    /// Why the event does not apply.
    pub skipped: Option<String>,
    /// Why no verdict could be reached.
    pub undecided: Option<String>,
    /// False for an upgrade whose new code is hidden by a volume.
    #[serde(default = "yes")]
    pub effective: bool,
    /// How long anonymous requests were served, in milliseconds; null if `installed` was already
    /// open.
    pub exposure_ms: Option<u64>,
    /// The time until the first complete answer, in milliseconds.
    pub ready_ms: Option<u64>,
    /// The duration of the event and its probes, in milliseconds.
    pub duration_ms: u64,
    /// The number of probes by decision.
    pub probes: ProbeCounts,
}

fn yes() -> bool {
    true
}

impl EventReport {
    /// An event without a result yet.
    pub fn new(event: Event, expected: Verdict) -> Self {
        Self {
            event,
            verdict: None,
            expected,
            predicted: None,
            skipped: None,
            undecided: None,
            effective: true,
            exposure_ms: None,
            ready_ms: None,
            duration_ms: 0,
            probes: ProbeCounts::default(),
        }
    }

    /// Whether the verdict is acceptable; `None` without a verdict.
    ///
    /// | event | expected | acceptable |
    /// |---|---|---|
    /// | any | any | the expected verdict |
    /// | `wipe` | `locked` | also `claimable` and `locked-out`: the credential was removed with the volumes |
    pub fn as_it_must_be(&self) -> Option<bool> {
        Some(self.verdict?.is_as_it_must_be(self.event, self.expected))
    }
}

/// The number of probes of one event by decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProbeCounts {
    /// All planned probes; more requests are sent, such as references and repetitions.
    #[serde(default)]
    pub planned: u64,
    /// All probes that were sent.
    pub sent: u64,
    /// Rejected by the lock.
    pub rejected: u64,
    /// Let through and answered.
    pub served: u64,
    /// Let through, but refused by the handler.
    pub passed: u64,
    /// Indeterminate.
    pub indeterminate: u64,
}

/// A workflow or notebook, replayed after one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplayReport {
    /// Its name.
    pub name: String,
    /// The event after which it was replayed.
    pub event: Event,
    /// The result of the comparison.
    pub outcome: ReplayOutcome,
    /// The reason for an outcome other than `same`.
    pub why: Option<String>,
}

/// The result of comparing a replay with the earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReplayOutcome {
    /// It is the same.
    Same,
    /// It differs.
    Changed,
    /// It did not finish.
    Failed,
    /// It was skipped: the subject lacks something that it needs.
    Skipped,
}

impl ReplayOutcome {
    /// The name in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Changed => "changed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

impl Report {
    /// The report of a run by this program, with the default threshold and no configuration file.
    pub fn new(
        started: Timestamp,
        duration: Duration,
        exit_code: u8,
        subjects: Vec<SubjectReport>,
        findings: Vec<Finding>,
    ) -> Self {
        Self {
            schema: SCHEMA,
            tool: Tool::this(),
            outcome: Outcome::of(exit_code),
            exit_code,
            started,
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            fail_on: default_fail_on(),
            config: None,
            subjects,
            findings,
        }
    }

    /// Reads a JSON report, for `--baseline`; `name` is its file name, for messages.
    ///
    /// # Errors
    /// A usage error if it is not a report, or has another schema version.
    pub fn from_json(text: &str, name: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Shape {
            schema: u32,
        }
        let fix = "use a file written by `--report json=PATH`";
        let wrong = |e: serde_json::Error| {
            Error::usage("not a JSON report of lockproof")
                .at(format!("{name}:{}:{}", e.line(), e.column()))
                .detail(e)
                .fix(fix)
        };
        let Shape { schema } = serde_json::from_str(text).map_err(wrong)?;
        if schema != SCHEMA {
            return Err(Error::usage(format!(
                "the report has schema {schema}, but this version reads schema {SCHEMA}"
            ))
            .at(name)
            .fix("create the baseline again with this version of lockproof"));
        }
        serde_json::from_str(text).map_err(wrong)
    }

    /// The report with all registered secrets redacted.
    #[must_use]
    pub fn redacted(&self) -> Self {
        self.map_text(secret::redact)
    }

    /// The report with `change` applied to every free text; names of rules and events are not
    /// changed.
    pub fn map_text(&self, change: impl Fn(&str) -> String) -> Self {
        let text = |t: &mut String| *t = change(t);
        let maybe = |t: &mut Option<String>| t.iter_mut().for_each(text);
        let list = |t: &mut Vec<String>| t.iter_mut().for_each(text);
        let mut report = self.clone();
        maybe(&mut report.config);
        for SubjectReport { name, image, layout, states, events, replays, error, routes, left_behind, timings: _ } in
            &mut report.subjects
        {
            text(name);
            text(image);
            maybe(error);
            if let Some(routes) = routes {
                maybe(&mut routes.not_listed);
                list(&mut routes.beyond);
                list(&mut routes.middlewares);
            }
            list(left_behind);
            let LayoutReport { code_dir, custom_nodes, python } = layout;
            [code_dir, custom_nodes, python].into_iter().for_each(maybe);
            states.iter_mut().for_each(|state| list(&mut state.paths));
            for event in events {
                maybe(&mut event.skipped);
                maybe(&mut event.undecided);
            }
            for replay in replays {
                text(&mut replay.name);
                maybe(&mut replay.why);
            }
        }
        for finding in &mut report.findings {
            text(&mut finding.subject);
            text(&mut finding.message);
            maybe(&mut finding.impact);
            text(&mut finding.remedy);
            list(&mut finding.evidence);
            list(&mut finding.routes);
            maybe(&mut finding.file);
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_has_its_outcome() {
        let words: Vec<&str> = [0, 1, 2, 3, 4, 130, 143].iter().map(|&code| Outcome::of(code).name()).collect();
        assert_eq!(words, ["pass", "fail", "error", "error", "undecided", "error", "error"]);
    }

    #[test]
    fn a_wipe_is_as_it_must_be_unless_open_leaky_or_down() {
        let judged = |event, expected, verdict| {
            let event = EventReport { verdict: Some(verdict), ..EventReport::new(event, expected) };
            event.as_it_must_be()
        };
        let fine: Vec<Verdict> = Verdict::ALL
            .into_iter()
            .filter(|&verdict| judged(Event::Wipe, Verdict::Locked, verdict) == Some(true))
            .collect();
        assert_eq!(fine, [Verdict::Claimable, Verdict::LockedOut, Verdict::Locked]);
        assert_eq!(judged(Event::Kill, Verdict::Locked, Verdict::Claimable), Some(false));
        assert_eq!(judged(Event::Wipe, Verdict::Claimable, Verdict::LockedOut), Some(false));
        assert_eq!(EventReport::new(Event::Kill, Verdict::Locked).as_it_must_be(), None);
    }

    #[test]
    fn replays_that_were_all_skipped_show_nothing() {
        let with = |outcomes: &[ReplayOutcome]| {
            let replay = |outcome: &ReplayOutcome| ReplayReport {
                name: "a".to_owned(),
                event: Event::Installed,
                outcome: *outcome,
                why: None,
            };
            SubjectReport { replays: outcomes.iter().map(replay).collect(), ..SubjectReport::default() }
        };
        assert!(!with(&[]).has_replayed_nothing(), "none were asked for");
        assert!(with(&[ReplayOutcome::Skipped, ReplayOutcome::Skipped]).has_replayed_nothing());
        assert!(!with(&[ReplayOutcome::Skipped, ReplayOutcome::Same]).has_replayed_nothing());
        assert!(!with(&[ReplayOutcome::Failed]).has_replayed_nothing());
    }

    #[test]
    fn the_published_schema_describes_a_report() {
        let schema = json_schema();
        assert!(schema["properties"]["exit_code"].is_object(), "{schema}");
    }

    #[test]
    fn every_text_of_a_report_can_be_changed_and_no_name() {
        let mut event = EventReport::new(Event::Kill, Verdict::Locked);
        (event.skipped, event.undecided) = (Some("x".to_owned()), Some("x".to_owned()));
        let text = || "x".to_owned();
        let subject = SubjectReport {
            name: text(),
            image: text(),
            layout: LayoutReport { code_dir: Some(text()), custom_nodes: Some(text()), python: Some(text()) },
            states: vec![StateReport {
                state: State::Plugin,
                paths: vec![text()],
                owner: None,
                survives: BTreeMap::new(),
            }],
            events: vec![event],
            replays: vec![ReplayReport {
                name: text(),
                event: Event::Kill,
                outcome: ReplayOutcome::Failed,
                why: Some(text()),
            }],
            error: Some(text()),
            left_behind: vec![text()],
            routes: Some(RouteReport {
                not_listed: Some(text()),
                beyond: vec![text()],
                middlewares: vec![text()],
                ..RouteReport::default()
            }),
            timings: None,
        };
        let mut finding = Finding::new(crate::finding::Rule::LockOpen, "x", None, "x").evidence("x").remedy("x");
        (finding.routes, finding.file) = (vec![text()], Some(text()));
        let mut report = Report::new(Timestamp::UNIX_EPOCH, Duration::ZERO, 0, vec![subject], vec![finding]);
        report.config = Some(text());
        let changed = report.map_text(|text| format!("{text}y"));
        let json = serde_json::to_string(&changed).expect("it is data");
        assert!(!json.contains("\"x\""), "{json}");
        assert_eq!(json.matches("\"xy\"").count(), 22, "{json}");
        assert_eq!(changed.findings[0].rule, crate::finding::Rule::LockOpen);
    }

    #[test]
    fn what_was_seen_goes_before_what_was_expected() {
        let lost = |predicted, observed| Survival { predicted, observed }.lost();
        assert!(lost(Some(false), None));
        assert!(lost(Some(true), Some(false)));
        assert!(!lost(Some(false), Some(true)));
        assert!(!lost(None, None));
    }

    #[test]
    fn a_file_that_is_no_report_is_a_usage_error_with_its_place() {
        let shown = |text| Report::from_json(text, "base.json").expect_err("it is none").to_string();
        insta::assert_snapshot!(shown("{\n  \"schema\": x\n}"), @r"
        not a JSON report of lockproof
          --> base.json:2:13
           | expected value at line 2 column 13
          = help: use a file written by `--report json=PATH`
        ");
        insta::assert_snapshot!(shown(r#"{ "schema": 7 }"#), @r"
        the report has schema 7, but this version reads schema 1
          --> base.json
          = help: create the baseline again with this version of lockproof
        ");
    }
}
