//! Findings: broken rules with evidence and a remedy.

pub mod rule;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use rule::{Rule, Severity};

use crate::event::Event;

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// The broken rule.
    pub rule: Rule,
    /// Its severity.
    pub severity: Severity,
    /// The subject's name.
    pub subject: String,
    /// The event after which it was found; `None` if it was found in files.
    pub event: Option<Event>,
    /// What is wrong, in one sentence.
    pub message: String,
    /// The evidence: requests as `curl` commands, paths, log lines.
    pub evidence: Vec<String>,
    /// What an intruder could do, in one line; `null` if unknown, or if there is no access.
    #[serde(default)]
    pub impact: Option<String>,
    /// What to do about it.
    pub remedy: String,
    /// The file that contains it, if it was found in a file.
    pub file: Option<String>,
    /// The line in that file, from 1.
    pub line: Option<u32>,
    /// The column in that line, in characters from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// Whether an entry of `accept:` accepts it.
    pub accepted: bool,
    /// Whether the subject's `expect:` explains it.
    pub expected: bool,
    /// The affected routes, for `accept: … route:`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<String>,
    /// Whether it is in the report given with `--baseline`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub baseline: bool,
}

impl Finding {
    /// A finding of `rule`, with the rule's default severity and remedy.
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

    /// Adds a line of evidence.
    #[must_use]
    pub fn evidence(mut self, line: impl Into<String>) -> Self {
        self.evidence.push(line.into());
        self
    }

    /// Replaces the rule's default remedy.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    /// Sets the affected routes.
    #[must_use]
    pub fn routes(mut self, routes: impl IntoIterator<Item = String>) -> Self {
        self.routes = routes.into_iter().collect();
        self
    }

    /// Whether it counts towards the exit code with this threshold.
    pub fn counts(&self, fail_on: Severity) -> bool {
        !self.accepted && !self.expected && !self.baseline && self.severity <= fail_on
    }

    /// What identifies the same finding in another report: all but times and evidence.
    pub fn identity(&self) -> (Rule, &str, Option<Event>, &[String]) {
        (self.rule, &self.subject, self.event, &self.routes)
    }
}
