//! Errors for users: what is wrong, where, and what to do.
//!
//! A broken lock is not an error but a [`Finding`](crate::finding::Finding).

use std::fmt;

use crate::{exit, secret};

/// The kind of an error, which decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Invalid command line or file; exit 2.
    Usage,
    /// The machine or the engine failed; exit 3.
    Environment,
    /// No verdict could be reached; exit 4.
    Undecided,
    /// Ctrl-C; exit 130.
    Interrupted,
    /// SIGTERM; exit 143.
    Terminated,
}

/// An error for users: what is wrong in one sentence, where, why, and what to do.
#[derive(Clone, Debug)]
pub struct Error {
    kind: ErrorKind,
    what: String,
    place: Option<String>,
    details: Vec<String>,
    fix: Option<String>,
}

/// The result of fallible functions in this crate.
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

    /// An error that leaves the verdict undecided (exit 4).
    pub fn undecided(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Undecided, what)
    }

    /// Sets the place: a file with line and column, a subject, a container.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.place = Some(place.to_string());
        self
    }

    /// Sets the place, or prepends it to a more specific one.
    #[must_use]
    pub fn or_at(mut self, place: impl fmt::Display) -> Self {
        self.place = Some(match self.place {
            Some(nearer) => format!("{place}, {nearer}"),
            None => place.to_string(),
        });
        self
    }

    /// Sets the instructions to fix it.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// Adds lines of detail: the engine's message, a source excerpt, a log.
    #[must_use]
    pub fn detail(mut self, detail: impl fmt::Display) -> Self {
        self.details.extend(detail.to_string().lines().map(str::to_owned));
        self
    }

    /// The kind, which decides the exit code.
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

    /// What is wrong with its first detail on one line, for a table cell or a report.
    pub fn one_line(&self) -> String {
        let mut line = self.what.clone();
        if let Some(first) = self.details.iter().find(|d| !d.trim().is_empty()) {
            line.push_str(": ");
            line.push_str(first.trim());
        }
        secret::redact(&line)
    }
}

/// The only renderer: `error: what`, `  --> place`, indented details, `  = help: fix`.
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
