//! What a run found: the types of the JSON report, whose keys others rely on.
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

/// The version of the JSON report's shape.
pub const SCHEMA: u32 = 1;

/// The JSON Schema of the JSON report, as it is published in `docs/report.schema.json`.
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(Report).to_value()
}

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// The version of this shape: 1.
    pub schema: u32,
    /// What wrote it.
    pub tool: Tool,
    /// The exit code in a word.
    pub outcome: Outcome,
    /// The exit code of the run.
    pub exit_code: u8,
    /// When the run began, in UTC (RFC 3339).
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub started: Timestamp,
    /// How long the run took, in milliseconds.
    pub duration_ms: u64,
    /// The severity from which on a finding counts (`--fail-on`).
    #[serde(default = "default_fail_on")]
    pub fail_on: Severity,
    /// The configuration file of the run, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// The deployments under test.
    pub subjects: Vec<SubjectReport>,
    /// The broken rules.
    pub findings: Vec<Finding>,
}

fn default_fail_on() -> Severity {
    Severity::Warning
}

/// What wrote a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tool {
    /// Its name: `lockproof`.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl Tool {
    /// This very program.
    pub fn this() -> Self {
        Self { name: "lockproof".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// The exit code in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// All is as it must be (exit 0).
    Pass,
    /// A finding counts, or a verdict is not the expected one (exit 1).
    Fail,
    /// It could not find out (exit 4).
    Undecided,
    /// It could not be done, or was interrupted (every other exit code).
    Error,
}

impl Outcome {
    /// The outcome that an exit code stands for.
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

/// One deployment under test.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SubjectReport {
    /// Its name.
    pub name: String,
    /// The image that it ran.
    pub image: String,
    /// Where things are inside it.
    pub layout: LayoutReport,
    /// What its lock needs in order to last.
    pub states: Vec<StateReport>,
    /// What was done to it and what came of it, in order; `installed` is the first.
    pub events: Vec<EventReport>,
    /// The workflows and notebooks that were run on it.
    pub replays: Vec<ReplayReport>,
    /// Why it could not be brought up or not be gated to the end, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What `probe --mutating` wrote on the server, or changed there, and could not take back; absent where
    /// there is nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_behind: Vec<String>,
    /// Where its time went; absent where nothing was run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timings: Option<Timings>,
}

impl SubjectReport {
    /// Whether replays were asked for and all of them skipped: then nothing was shown by them.
    pub fn has_replayed_nothing(&self) -> bool {
        !self.replays.is_empty() && self.replays.iter().all(|replay| replay.outcome == ReplayOutcome::Skipped)
    }
}

/// Where the time of one subject went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Timings {
    /// How often a server was started.
    pub starts: u32,
    /// Milliseconds of each phase.
    pub phases: BTreeMap<Phase, u64>,
}

/// What a gate spends its time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Network, volumes and containers are made.
    Create,
    /// The lock is installed, its states are mapped, a token is minted.
    Install,
    /// Waiting until fewer other servers start.
    Queue,
    /// What happens to the container: stopped, killed, removed, made anew.
    Event,
    /// From the start of a server to its first answer.
    Start,
    /// Requests are sent and judged.
    Probe,
    /// Workflows and notebooks run.
    Replay,
    /// States and data are compared.
    Compare,
    /// Containers and volumes are removed.
    CleanUp,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 9] = [
        Self::Create,
        Self::Install,
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

/// Where things are inside a subject; null where it was not found out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LayoutReport {
    /// The directory of ComfyUI's code.
    pub code_dir: Option<String>,
    /// The directory from which ComfyUI loads custom nodes.
    pub custom_nodes: Option<String>,
    /// The Python interpreter that runs ComfyUI.
    pub python: Option<String>,
}

/// One of the things that the lock needs in order to last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StateReport {
    /// Which one.
    pub state: State,
    /// The paths on which it lies.
    pub paths: Vec<String>,
    /// Who owns them; of several owners, the one that survives least.
    pub owner: Option<Owner>,
    /// For each event, whether it lasts.
    pub survives: BTreeMap<Event, Survival>,
}

/// Whether a state survives an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Survival {
    /// What the mounts let one expect; null where only a run can tell.
    pub predicted: Option<bool>,
    /// What happened; null where the event was not run.
    pub observed: Option<bool>,
}

impl Survival {
    /// Whether the state is lost, as far as is known: what was seen goes before what was expected.
    pub fn lost(self) -> bool {
        self.observed.or(self.predicted) == Some(false)
    }
}

/// One event and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventReport {
    /// Which one.
    pub event: Event,
    /// What the probes add up to; null where `skipped` or `undecided` gives a reason.
    pub verdict: Option<Verdict>,
    /// What the verdict must be.
    pub expected: Verdict,
    /// What the state map lets one expect; null where that cannot be known.
    pub predicted: Option<Verdict>,
    /// Why the event does not apply.
    pub skipped: Option<String>,
    /// Why it could not be found out.
    pub undecided: Option<String>,
    /// False for an upgrade whose new code a volume hides.
    #[serde(default = "yes")]
    pub effective: bool,
    /// The milliseconds in which a stranger was served; null where `installed` was open already.
    pub exposure_ms: Option<u64>,
    /// The milliseconds until the first complete answer.
    pub ready_ms: Option<u64>,
    /// The milliseconds that the event and its probes took.
    pub duration_ms: u64,
    /// The probes by their decision.
    pub probes: ProbeCounts,
}

fn yes() -> bool {
    true
}

impl EventReport {
    /// An event about which nothing is known yet.
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

    /// Whether the verdict is as it must be; `None` without a verdict.
    ///
    /// | event | expected | as it must be |
    /// |---|---|---|
    /// | any | any | the expected verdict |
    /// | `wipe` | `locked` | `claimable` and `locked-out` too: the credential went with the volumes |
    pub fn as_it_must_be(&self) -> Option<bool> {
        let verdict = self.verdict?;
        let wiped = self.event == Event::Wipe
            && self.expected == Verdict::Locked
            && matches!(verdict, Verdict::Claimable | Verdict::LockedOut);
        Some(verdict == self.expected || wiped)
    }
}

/// The probes of one event by their decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProbeCounts {
    /// All that the event asked for; more are sent, such as references and repetitions.
    #[serde(default)]
    pub planned: u64,
    /// All that were sent.
    pub sent: u64,
    /// The lock refused.
    pub rejected: u64,
    /// The lock let it through, and it was answered.
    pub served: u64,
    /// The lock let it through, and the handler refused.
    pub passed: u64,
    /// It cannot be told.
    pub indeterminate: u64,
}

/// One workflow or notebook, run after one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplayReport {
    /// Its name.
    pub name: String,
    /// After which event it was run.
    pub event: Event,
    /// How its result compares.
    pub outcome: ReplayOutcome,
    /// The reason of an outcome other than `same`.
    pub why: Option<String>,
}

/// How a replay's result compares with the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReplayOutcome {
    /// It is the same.
    Same,
    /// It is another one.
    Changed,
    /// It did not run to its end.
    Failed,
    /// It was not compared: the subject lacks what it needs, or there is nothing to compare with.
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

    /// Reads a JSON report back, for `--baseline`; `name` is the file's, for messages.
    ///
    /// # Errors
    /// A usage error when it is not such a report, or one of another shape.
    pub fn from_json(text: &str, name: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Shape {
            schema: u32,
        }
        let fix = "give a file that `--report json=PATH` has written";
        let wrong = |e: serde_json::Error| {
            Error::usage("this is not a JSON report of lockproof")
                .at(format!("{name}:{}:{}", e.line(), e.column()))
                .detail(e)
                .fix(fix)
        };
        let Shape { schema } = serde_json::from_str(text).map_err(wrong)?;
        if schema != SCHEMA {
            return Err(Error::usage(format!(
                "the report has schema {schema}, and this version reads schema {SCHEMA}"
            ))
            .at(name)
            .fix("write the baseline again with this version of lockproof"));
        }
        serde_json::from_str(text).map_err(wrong)
    }

    /// The same report without any registered secret.
    #[must_use]
    pub fn redacted(&self) -> Self {
        self.map_text(secret::redact)
    }

    /// The same report with `change` applied to every free text; names of rules, events and the
    /// like are not text.
    pub fn map_text(&self, change: impl Fn(&str) -> String) -> Self {
        let text = |t: &mut String| *t = change(t);
        let maybe = |t: &mut Option<String>| t.iter_mut().for_each(text);
        let list = |t: &mut Vec<String>| t.iter_mut().for_each(text);
        let mut report = self.clone();
        maybe(&mut report.config);
        for SubjectReport { name, image, layout, states, events, replays, error, left_behind, timings: _ } in
            &mut report.subjects
        {
            text(name);
            text(image);
            maybe(error);
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
            timings: None,
        };
        let mut finding = Finding::new(crate::finding::Rule::LockOpen, "x", None, "x").evidence("x").remedy("x");
        (finding.routes, finding.file) = (vec![text()], Some(text()));
        let mut report = Report::new(Timestamp::UNIX_EPOCH, Duration::ZERO, 0, vec![subject], vec![finding]);
        report.config = Some(text());
        let changed = report.map_text(|text| format!("{text}y"));
        let json = serde_json::to_string(&changed).expect("it is data");
        assert!(!json.contains("\"x\""), "{json}");
        assert_eq!(json.matches("\"xy\"").count(), 19, "{json}");
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
        this is not a JSON report of lockproof
          --> base.json:2:13
           | expected value at line 2 column 13
          = help: give a file that `--report json=PATH` has written
        ");
        insta::assert_snapshot!(shown(r#"{ "schema": 7 }"#), @r"
        the report has schema 7, and this version reads schema 1
          --> base.json
          = help: write the baseline again with this version of lockproof
        ");
    }
}
