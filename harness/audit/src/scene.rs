//! The input and output of the modules that create findings.

use super::{
    facts::Facts,
    subject::{Placed, Subject},
};
use lockproof_compose::{Project, Service, Span};
use lockproof_model::{event::Event, finding::Rule, scheme::Scheme};

/// A finding without its subject.
pub(crate) struct Found {
    pub(crate) rule: Rule,
    pub(crate) event: Option<Event>,
    pub(crate) at: Placed,
    pub(crate) message: String,
    pub(crate) evidence: Vec<String>,
    pub(crate) remedy: Option<String>,
}

impl Found {
    pub(crate) fn new(rule: Rule, at: Span, message: impl Into<String>) -> Self {
        Self { rule, event: None, at: Placed::At(at), message: message.into(), evidence: Vec::new(), remedy: None }
    }

    pub(crate) fn evidence(mut self, line: impl Into<String>) -> Self {
        self.evidence.push(line.into());
        self
    }

    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// The input of the modules that create findings.
pub(crate) struct Scene<'a> {
    pub(crate) project: &'a Project,
    pub(crate) service: &'a Service,
    pub(crate) facts: &'a Facts,
    pub(crate) subject: &'a Subject,
    pub(crate) scheme: &'a Scheme,
}
