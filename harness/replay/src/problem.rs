//! What is wrong with a workflow: which node, which input, what is there.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The node in words.
    pub node: String,
    /// Its input, where it is about one.
    pub input: Option<String>,
    /// What is wrong, and what is there instead.
    pub what: String,
    /// Whether it is a file that the server does not have.
    pub missing_file: bool,
}

impl Problem {
    /// The node of a problem with the workflow as a whole.
    pub const WHOLE: &str = "the workflow";

    /// Something wrong with a node as a whole.
    pub fn of(node: impl Into<String>, what: impl Into<String>) -> Self {
        Self { node: node.into(), input: None, what: what.into(), missing_file: false }
    }

    /// Something wrong with one input.
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
