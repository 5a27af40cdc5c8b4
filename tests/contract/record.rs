//! The recordings.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// In which of the three states a server was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// Without a login plugin.
    NoPlugin,
    /// With the plugin, before a password was set.
    LoginNoPassword,
    /// With the plugin and a password.
    LoginPassword,
}

impl State {
    /// The name of its recording.
    fn file(self) -> &'static str {
        match self {
            Self::NoPlugin => "no-plugin.jsonl",
            Self::LoginNoPassword => "login-no-password.jsonl",
            Self::LoginPassword => "login-password.jsonl",
        }
    }
}

/// One exchange: the request by its label, and the answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) state: State,
    /// What was shown, see `credential.rs`.
    pub(crate) credential: String,
    /// The label; bodies are not recorded, so `body.rs` knows them by it.
    pub(crate) request: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) status: u16,
    /// Without its parameters; empty for none.
    pub(crate) content_type: String,
    pub(crate) location: Option<String>,
    /// The body, at most one of the three.
    #[serde(default, deserialize_with = "present")]
    pub(crate) json: Option<Value>,
    pub(crate) text: Option<String>,
    pub(crate) length: Option<usize>,
    /// Why the body was left out.
    pub(crate) note: Option<String>,
}

/// A body of `null` is a body.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as {}", self.request, self.credential)
    }
}

/// The exchanges of a state, in order.
pub(super) fn exchanges(state: State) -> Result<Vec<Record>> {
    let records: Vec<Record> = lines(state.file())?;
    for record in &records {
        ensure!(record.state == state, "{record} is in the wrong file");
        let bodies = [record.json.is_some(), record.text.is_some(), record.length.is_some(), record.note.is_some()];
        ensure!(bodies.into_iter().filter(|has| *has).count() == 1, "{record} needs one body");
    }
    Ok(records)
}

/// A file of one JSON value a line.
pub(super) fn lines<T: DeserializeOwned>(name: &str) -> Result<Vec<T>> {
    read(name)?
        .lines()
        .enumerate()
        .map(|(index, line)| serde_json::from_str(line).with_context(|| format!("{name}, line {}", index + 1)))
        .collect()
}

/// A file of one JSON value.
pub(super) fn json(name: &str) -> Result<Value> {
    serde_json::from_str(&read(name)?).with_context(|| name.to_owned())
}

fn read(name: &str) -> Result<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/contract").join(name);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}
