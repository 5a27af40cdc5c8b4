//! Broken rules: what was found, with evidence and a remedy.

pub mod rule;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use rule::{Rule, Severity};

use crate::event::Event;

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// The rule that is broken.
    pub rule: Rule,
    /// How bad it is.
    pub severity: Severity,
    /// The subject at which it was found.
    pub subject: String,
    /// The event after which it was found.
    pub event: Option<Event>,
    /// What is broken, in one sentence.
    pub message: String,
    /// What shows it: requests as `curl` lines, paths, log lines.
    pub evidence: Vec<String>,
    /// What an intruder could do, in one line; `null` where it is not known, or nobody gets in.
    #[serde(default)]
    pub impact: Option<String>,
    /// What to do about it.
    pub remedy: String,
    /// The file that it stands in, where it was read from one.
    pub file: Option<String>,
    /// The line in that file.
    pub line: Option<u32>,
    /// The column in that line, in characters from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// Whether an entry of `accept:` tolerates it.
    pub accepted: bool,
    /// Whether the subject's `expect:` explains it.
    pub expected: bool,
    /// The routes that it is about, for `accept: … route:`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<String>,
    /// Whether the report given with `--baseline` holds it already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub baseline: bool,
}

impl Finding {
    /// A finding of `rule` at `subject`, with the rule's own severity and remedy.
    pub fn new(rule: Rule, subject: &str, event: Option<Event>, message: impl Into<String>) -> Self {
        Self {
            rule,
            severity: rule.severity(),
            subject: subject.to_owned(),
            event,
            message: message.into(),
            evidence: Vec::new(),
            impact: None,
            remedy: rule.facts().remedy.clone(),
            file: None,
            line: None,
            column: None,
            accepted: false,
            expected: false,
            routes: Vec::new(),
            baseline: false,
        }
    }

    /// Adds a line that shows it.
    #[must_use]
    pub fn evidence(mut self, line: impl Into<String>) -> Self {
        self.evidence.push(line.into());
        self
    }

    /// Takes a remedy that knows more than the rule's own.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    /// Names the routes that it is about.
    #[must_use]
    pub fn routes(mut self, routes: impl IntoIterator<Item = String>) -> Self {
        self.routes = routes.into_iter().collect();
        self
    }

    /// Whether it counts towards the exit code, given the threshold.
    pub fn counts(&self, fail_on: Severity) -> bool {
        !self.accepted && !self.expected && !self.baseline && self.severity <= fail_on
    }

    /// What makes it the same finding in another report: everything but times and evidence.
    pub fn identity(&self) -> (Rule, &str, Option<Event>, &[String]) {
        (self.rule, &self.subject, self.event, &self.routes)
    }
}
