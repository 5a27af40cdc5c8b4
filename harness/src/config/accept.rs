//! Findings that are accepted until a date.

use globset::{Glob, GlobMatcher};
use jiff::civil::Date;

use lockproof_model::{
    config::AcceptEntry,
    error::{Error, Result},
    event::Event,
    finding::rule::Rule,
};

/// A validated entry of `accept:`.
#[derive(Clone, Debug)]
pub struct Accept {
    /// The accepted rule.
    pub rule: Rule,
    /// The reason.
    pub reason: String,
    /// The last day in UTC, inclusive.
    pub until: Option<Date>,
    /// The only subject that it applies to.
    pub subject: Option<String>,
    /// The only event that it applies to.
    pub event: Option<Event>,
    /// The only route that it applies to.
    pub route: Option<GlobMatcher>,
    /// The route as it was written.
    pub route_text: Option<String>,
}

impl Accept {
    /// Validates one entry.
    ///
    /// # Errors
    /// A usage error for an unknown rule, a rule that cannot be accepted, or an invalid date.
    pub fn check(entry: &AcceptEntry) -> Result<Self> {
        let rule: Rule = entry.rule.parse().map_err(|e: Error| e.at(format!("accept: rule `{}`", entry.rule)))?;
        if !rule.acceptable() {
            return Err(Error::usage(format!("`{rule}` cannot be accepted: it means that there is no working lock"))
                .at("accept")
                .fix("remove the entry; if the verdict is intended, declare it with `expect:`"));
        }
        if entry.reason.trim().is_empty() {
            return Err(Error::usage(format!("the entry for `{rule}` has no reason"))
                .at("accept")
                .fix("add the reason: reason: \"…\""));
        }
        let until = match &entry.until {
            None => None,
            Some(text) => Some(text.parse::<Date>().map_err(|e| {
                Error::usage(format!("`until: {text}` is not a valid date"))
                    .at(format!("accept: rule `{rule}`"))
                    .detail(e)
                    .fix("write it as YYYY-MM-DD; the date is inclusive, in UTC")
            })?),
        };
        let route = match &entry.route {
            None => None,
            Some(text) => Some(
                Glob::new(text)
                    .map_err(|e| {
                        Error::usage(format!("`route: {text}` is not a valid route"))
                            .at(format!("accept: rule `{rule}`"))
                            .detail(e)
                            .fix("write a path such as /userdata/*")
                    })?
                    .compile_matcher(),
            ),
        };
        Ok(Self {
            rule,
            reason: entry.reason.clone(),
            until,
            subject: entry.subject.clone(),
            event: entry.event,
            route,
            route_text: entry.route.clone(),
        })
    }

    /// Whether the entry applies to a finding of `rule` at `subject` after `event` on `routes`.
    ///
    /// An entry with a route applies only if *all* routes of the finding match.
    pub fn matches(&self, rule: Rule, subject: &str, event: Option<Event>, routes: &[String]) -> bool {
        self.rule == rule
            && self.subject.as_deref().is_none_or(|s| s == subject)
            && self.event.is_none_or(|e| Some(e) == event)
            && self.route.as_ref().is_none_or(|glob| !routes.is_empty() && routes.iter().all(|r| glob.is_match(r)))
    }

    /// Whether its last day has passed.
    pub fn expired(&self, today: Date) -> bool {
        self.until.is_some_and(|day| today > day)
    }
}
