//! The reasons why a replay has no outputs.

use serde_json::Value;

use super::{
    prompt::{Node, Prompt},
    server::Trouble,
};

/// Why there are no outputs, with evidence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// A description in one sentence.
    pub why: String,
    /// Further lines.
    pub details: Vec<String>,
}

impl Failure {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), details: Vec::new() }
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        let mut failure = Self::new(trouble.to_string());
        failure.details.extend(trouble.advice().map(str::to_owned));
        failure
    }
}

/// A node that failed while running, with the server's message.
pub(super) fn execution_error(data: &Value, prompt: &Prompt) -> Failure {
    let text = |key: &str| data[key].as_str().unwrap_or_default().trim().to_owned();
    let id = text("node_id");
    let node = prompt.node(&id).map_or_else(|| format!("node {id} ({})", text("node_type")), Node::words);
    let message = text("exception_message");
    let first = message.lines().next().unwrap_or_default();
    let mut failure = Failure::new(format!("{node} failed: {}: {first}", text("exception_type")));
    failure.details.extend(message.lines().skip(1).map(str::to_owned));
    let trace = data["traceback"].as_array().into_iter().flatten().filter_map(Value::as_str);
    // The last steps are in the node itself.
    let lines: Vec<String> = trace.flat_map(str::lines).map(str::to_owned).collect();
    failure.details.extend(lines.iter().skip(lines.len().saturating_sub(4)).cloned());
    failure
}
