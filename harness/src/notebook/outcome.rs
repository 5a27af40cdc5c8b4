//! What comes of a replay.

use std::{path::PathBuf, time::Duration};

use serde_json::Value;

use lockproof_model::finding::Finding;

/// How a replay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It ran, and its outputs are the stored ones.
    Same,
    /// It ran, and an output differs.
    Changed,
    /// It did not run to its end.
    Failed,
    /// It was not run: the server lacks what it needs.
    Skipped,
}

/// What came of a replay.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The notebook's file name.
    pub name: String,
    /// How it ended.
    pub ending: Ending,
    /// Why it is not `same`; empty where it is.
    pub why: String,
    /// One entry for each code cell, in order, without the injected one.
    pub cells: Vec<Cell>,
    /// What it asked the server, and with what credential.
    pub traffic: Traffic,
    /// `replay/*` and `deploy/*` findings.
    pub findings: Vec<Finding>,
    /// Its executed form, to compare a later replay with; `None` when it was skipped.
    pub executed: Option<Executed>,
    /// Where the executed notebook lies, if it was kept.
    pub kept: Option<PathBuf>,
    /// How long it took, the start of the kernel included.
    pub took: Duration,
}

/// A notebook with the outputs of a run, without secrets.
#[derive(Clone, Debug)]
pub struct Executed(pub(crate) Value);

/// One code cell of a replay.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Which code cell it is, from 1.
    pub number: usize,
    /// Its first line.
    pub title: String,
    /// How it ended.
    pub ending: CellEnding,
    /// How long it took; `None` when it was not reached.
    pub took: Option<Duration>,
}

/// How a cell ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CellEnding {
    /// Its output is the stored one.
    Same,
    /// Its output differs: what, in a few lines.
    Changed(String),
    /// It raised an error: its name and message.
    Raised(String),
    /// It ran into its time limit, or the notebook's.
    TimedOut(String),
    /// The kernel died in it.
    KernelDied,
    /// A cell before it failed.
    NotReached,
}

/// What the server was asked, counted at its side.
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
    /// Method and path of the first request that did not carry the token as a bearer.
    pub first_without: Option<String>,
}
