//! The problems of a workflow: which node, which input, what is wrong.

use std::fmt;

/// A problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The node.
    pub node: String,
    /// The input, if it is about one.
    pub input: Option<String>,
    /// What is wrong.
    pub what: String,
    /// Whether it is a file that the server does not have.
    pub missing_file: bool,
}

impl Problem {
    /// The node of a problem with the workflow as a whole.
    pub const WHOLE: &str = "the workflow";

    /// A problem of a whole node.
    pub fn of(node: impl Into<String>, what: impl Into<String>) -> Self {
        Self { node: node.into(), input: None, what: what.into(), missing_file: false }
    }

    /// Restricts it to one input.
    #[must_use]
    pub fn input(mut self, name: &str) -> Self {
        self.input = Some(name.to_owned());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.input {
            Some(input) => write!(f, "{}, input `{input}`: {}", self.node, self.what),
            None => write!(f, "{}: {}", self.node, self.what),
        }
    }
}
