//! The outcome of a replay.

use std::{path::PathBuf, time::Duration};

use serde_json::Value;

use lockproof_model::finding::Finding;

/// The result of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It finished, with the same outputs.
    Same,
    /// It finished, but an output differs.
    Changed,
    /// It did not finish.
    Failed,
    /// It was skipped, because the server lacks something that it needs.
    Skipped,
}

/// The outcome of a replay.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The notebook's file name.
    pub name: String,
    /// How it ended.
    pub ending: Ending,
    /// The reason if it is not `same`, else empty.
    pub why: String,
    /// The code cells, in order, without the injected one.
    pub cells: Vec<Cell>,
    /// Its requests to the server, by credential.
    pub traffic: Traffic,
    /// `replay/*` and `deploy/*` findings.
    pub findings: Vec<Finding>,
    /// The executed notebook, for comparison with a later replay; `None` if it was skipped.
    pub executed: Option<Executed>,
    /// The path of the executed notebook, if it was kept.
    pub kept: Option<PathBuf>,
    /// How long it took, including the start of the kernel.
    pub took: Duration,
}

/// A notebook with the outputs of a run, without secrets.
#[derive(Clone, Debug)]
pub struct Executed(pub(crate) Value);

/// One code cell of a replay.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// The number of the code cell, from 1.
    pub number: usize,
    /// Its first line.
    pub title: String,
    /// How it ended.
    pub ending: CellEnding,
    /// How long it took; `None` if it was not reached.
    pub took: Option<Duration>,
}

/// How a cell ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CellEnding {
    /// Its output is the same.
    Same,
    /// Its output differs, with a short description.
    Changed(String),
    /// It raised an error: its name and message.
    Raised(String),
    /// It exceeded its own time limit or the notebook's.
    TimedOut(String),
    /// The kernel died in it.
    KernelDied,
    /// A cell before it failed.
    NotReached,
}

/// The requests to the server, counted by the proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests with `Authorization: Bearer` and the token of record.
    pub with_token: usize,
    /// Requests with another `Authorization`.
    pub with_another: usize,
    /// Requests with the token in the query instead of a header.
    pub in_query: usize,
    /// Requests without a credential.
    pub anonymous: usize,
    /// Method and path of the first request without the bearer token.
    pub first_without: Option<String>,
}
