//! Errors of reading a compose file, with their position.

use super::source::{Sources, Span};
use lockproof_model::error::Error;

/// Whether a line assigns a value to a name that looks like a secret.
fn names_secret(line: &str) -> bool {
    let upper = line.to_uppercase();
    ["TOKEN", "PASSW", "SECRET", "API_KEY"].iter().any(|word| upper.contains(word))
}

/// An error at a position in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    what: String,
    at: Option<Span>,
    file: Option<String>,
    fix: String,
}

impl Trouble {
    /// An error at `at`.
    pub fn new(what: impl Into<String>, at: Span) -> Self {
        Self { what: what.into(), at: Some(at), file: None, fix: String::new() }
    }

    /// An error about a whole file.
    pub fn of_file(what: impl Into<String>, file: impl Into<String>) -> Self {
        Self { what: what.into(), at: None, file: Some(file.into()), fix: String::new() }
    }

    /// Adds instructions to fix it.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }

    /// The error for users, with its position and source line.
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
                // The line may contain a token: show only the name.
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
