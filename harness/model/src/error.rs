//! What a person is told when something cannot be done: what is wrong, where, and what to do.
//!
//! A broken lock is not an error: it is a [`Finding`](crate::finding::Finding).

use std::fmt;

use crate::{exit, secret};

/// Who has to act, which decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The command line or a file is wrong; exit 2.
    Usage,
    /// The machine or the engine cannot do it; exit 3.
    Environment,
    /// It was tried and could not be found out; exit 4.
    Undecided,
    /// Ctrl-C; exit 130.
    Interrupted,
    /// SIGTERM; exit 143.
    Terminated,
}

/// An error that a person reads: one sentence of what is wrong, where, why, and what to do.
#[derive(Clone, Debug)]
pub struct Error {
    kind: ErrorKind,
    what: String,
    place: Option<String>,
    details: Vec<String>,
    fix: Option<String>,
}

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` that says what is wrong.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), place: None, details: Vec::new(), fix: None }
    }

    /// A usage or configuration error (exit 2).
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, what)
    }

    /// An error of the machine or its engine (exit 3).
    pub fn environment(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Environment, what)
    }

    /// Something that was tried and could not be found out (exit 4).
    pub fn undecided(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Undecided, what)
    }

    /// Where it is: a file with line and column, a subject, a container.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.place = Some(place.to_string());
        self
    }

    /// Where it is, unless a nearer place is known already; then this one goes before it.
    #[must_use]
    pub fn or_at(mut self, place: impl fmt::Display) -> Self {
        self.place = Some(match self.place {
            Some(nearer) => format!("{place}, {nearer}"),
            None => place.to_string(),
        });
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// A line of evidence: the engine's own words, a source excerpt, a log.
    #[must_use]
    pub fn detail(mut self, detail: impl fmt::Display) -> Self {
        self.details.extend(detail.to_string().lines().map(str::to_owned));
        self
    }

    /// Who has to act.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What is wrong, in one sentence.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The process exit code.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            ErrorKind::Usage => exit::USAGE,
            ErrorKind::Environment => exit::ENVIRONMENT,
            ErrorKind::Undecided => exit::UNDECIDED,
            ErrorKind::Interrupted => exit::INTERRUPTED,
            ErrorKind::Terminated => exit::TERMINATED,
        }
    }

    /// What is wrong with its reasons on one line, for a table cell or a report.
    pub fn one_line(&self) -> String {
        let mut line = self.what.clone();
        if let Some(first) = self.details.iter().find(|d| !d.trim().is_empty()) {
            line.push_str(": ");
            line.push_str(first.trim());
        }
        secret::redact(&line)
    }
}

/// The one renderer: `error: what`, `  --> place`, indented details, `  = help: fix`.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.what.clone();
        if let Some(place) = &self.place {
            text.push_str(&format!("\n  --> {place}"));
        }
        for line in &self.details {
            text.push_str(&format!("\n   | {line}"));
        }
        if let Some(fix) = &self.fix {
            text.push_str("\n  = help: ");
            text.push_str(&fix.replace('\n', "\n          "));
        }
        f.write_str(&secret::redact(&text))
    }
}

impl std::error::Error for Error {}
