//! Findings that are known and tolerated, until a day.

use globset::{Glob, GlobMatcher};
use jiff::civil::Date;

use lockproof_model::{
    config::AcceptEntry,
    error::{Error, Result},
    event::Event,
    finding::rule::Rule,
};

/// One entry of `accept:`, checked.
#[derive(Clone, Debug)]
pub struct Accept {
    /// The rule that is tolerated.
    pub rule: Rule,
    /// Why it is.
    pub reason: String,
    /// The last day in UTC, inclusive.
    pub until: Option<Date>,
    /// Only for this subject.
    pub subject: Option<String>,
    /// Only after this event.
    pub event: Option<Event>,
    /// Only for this route.
    pub route: Option<GlobMatcher>,
    /// The route as it was written.
    pub route_text: Option<String>,
}

impl Accept {
    /// Checks one entry.
    ///
    /// # Errors
    /// A usage error for a rule that is unknown or cannot be accepted, and for a day that is none.
    pub fn check(entry: &AcceptEntry) -> Result<Self> {
        let rule: Rule = entry.rule.parse().map_err(|e: Error| e.at(format!("accept: rule `{}`", entry.rule)))?;
        if !rule.acceptable() {
            return Err(Error::usage(format!("`{rule}` cannot be accepted: with it, there is no lock to speak of"))
                .at("accept")
                .fix("remove the entry; if a subject is meant to be so, say it with `expect:`"));
        }
        if entry.reason.trim().is_empty() {
            return Err(Error::usage(format!("the entry for `{rule}` gives no reason"))
                .at("accept")
                .fix("say why it is tolerated: reason: \"…\""));
        }
        let until = match &entry.until {
            None => None,
            Some(text) => Some(text.parse::<Date>().map_err(|e| {
                Error::usage(format!("`until: {text}` is not a day"))
                    .at(format!("accept: rule `{rule}`"))
                    .detail(e)
                    .fix("write it as YYYY-MM-DD; the day is inclusive, in UTC")
            })?),
        };
        let route = match &entry.route {
            None => None,
            Some(text) => Some(
                Glob::new(text)
                    .map_err(|e| {
                        Error::usage(format!("`route: {text}` is not a route"))
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

    /// Whether the entry is about a finding of `rule` at `subject` after `event` on `routes`.
    ///
    /// An entry that names a route is about a finding only when *all* of its routes match.
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
