//! What keeps a compose file from being read, and where.

use super::source::{Sources, Span};
use lockproof_model::error::Error;

/// Whether a line gives a value to something that is named like a secret.
fn names_secret(line: &str) -> bool {
    let upper = line.to_uppercase();
    ["TOKEN", "PASSW", "SECRET", "API_KEY"].iter().any(|word| upper.contains(word))
}

/// A mistake at a place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    what: String,
    at: Option<Span>,
    file: Option<String>,
    fix: String,
}

impl Trouble {
    /// A mistake at `at`.
    pub fn new(what: impl Into<String>, at: Span) -> Self {
        Self { what: what.into(), at: Some(at), file: None, fix: String::new() }
    }

    /// A mistake that is about a whole file.
    pub fn of_file(what: impl Into<String>, file: impl Into<String>) -> Self {
        Self { what: what.into(), at: None, file: Some(file.into()), fix: String::new() }
    }

    /// What to do about it.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }

    /// The error as people read it: with its place and the line that it is about.
    pub fn explain(&self, sources: &Sources) -> Error {
        let mut error = Error::usage(&self.what);
        if !self.fix.is_empty() {
            error = error.fix(&self.fix);
        }
        match (self.at, &self.file) {
            (Some(span), _) => {
                let place = sources.place(span);
                let column = place.column as usize;
                let line: String = sources.line(span).chars().take(200).collect();
                // A token may stand there: the name is enough.
                if names_secret(&line) || line.contains("$2") {
                    let name = line.split_inclusive([':', '=']).next().unwrap_or_default();
                    return error.at(place).detail(format!("{name}…"));
                }
                let indent: String =
                    line.chars().take(column.saturating_sub(1)).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
                let width = sources.text(span).lines().next().map_or(1, |t| t.chars().count()).clamp(1, 80);
                let width = width.min(line.chars().count().saturating_sub(column - 1).max(1));
                error.at(place).detail(line.trim_end()).detail(format!("{indent}{}", "^".repeat(width)))
            }
            (None, Some(file)) => error.at(file),
            (None, None) => error,
        }
    }
}
