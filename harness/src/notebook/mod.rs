//! Executes notebooks cell by cell in a Jupyter kernel, compares their outputs, and checks at the
//! server whether they use the token.
//!
//! The notebook talks to a recording reverse proxy in front of the server: in the runner's
//! container at `http://127.0.0.1:8188`, so that the URL is the same in every run. It gets the URL
//! as `COMFYUI_URL` and the token as `COMFYUI_API_TOKEN`.

mod compare;
mod execute;
mod file;
mod format;
mod lacking;
pub mod proxy;
mod run;
mod scan;
mod settings;
mod stage;
mod verdict;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::{Map, Value};

use crate::{
    engine::{Engine, Run},
    error::Result,
    event::Event,
    finding::Finding,
};

/// A notebook to replay, with its settings.
#[derive(Clone)]
pub struct Request {
    /// The notebook.
    pub path: PathBuf,
    /// The subject's name or the server's URL, for findings.
    pub subject: String,
    /// The event after which it is replayed, for findings.
    pub event: Option<Event>,
    /// The server's URL for this process, such as `http://127.0.0.1:49153`.
    pub url: String,
    /// CA certificates to trust in addition to this machine's own, for `https`.
    pub ca: Option<PathBuf>,
    /// Whether to skip certificate verification.
    pub insecure: bool,
    /// The token for the notebook, if any.
    pub token: Option<String>,
    /// Further environment variables, such as those of a `.env`. `COMFYUI_URL` and
    /// `COMFYUI_API_TOKEN` override them.
    pub env: BTreeMap<String, String>,
    /// Values for the cell tagged `parameters`, as injected by papermill.
    pub parameters: Map<String, Value>,
    /// What runs the kernel.
    pub runner: Runner,
    /// Default time limits, which the notebook's metadata can override.
    pub limits: Limits,
    /// The executed notebook of an earlier replay to compare with; `None`: the outputs stored in
    /// the notebook.
    pub reference: Option<Executed>,
    /// Whether to store the new outputs in the notebook.
    pub update: bool,
    /// The directory for the executed notebook, without secrets; `None`: it is not kept.
    pub keep: Option<PathBuf>,
    /// Receives the progress.
    pub progress: Option<Arc<dyn Progress>>,
}

/// What runs the kernel.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a request contains one, and there are few requests")]
pub enum Runner {
    /// A container with nbclient and ipykernel.
    Container {
        /// The engine.
        engine: Engine,
        /// The run that owns the container.
        run: Run,
        /// The real name of its network; `None`: the engine's default network.
        network: Option<String>,
    },
    /// A local Python with nbclient and ipykernel.
    Python(PathBuf),
}

impl Runner {
    /// Builds the runner's image if it is missing.
    async fn prepare(&self) -> Result<()> {
        match self {
            Self::Container { engine, .. } => crate::lab::notebook_runner(engine).await.map(|_| ()),
            Self::Python(_) => Ok(()),
        }
    }
}

/// Time limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For one cell.
    pub cell: Duration,
    /// For the whole notebook.
    pub notebook: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { cell: Duration::from_secs(120), notebook: Duration::from_secs(600) }
    }
}

/// Receives the progress of a replay.
pub trait Progress: Send + Sync {
    /// Cell `number` of `all` code cells starts (from 1); `title` is its first line.
    fn cell(&self, number: usize, all: usize, title: &str);
}

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

/// Executes a notebook and compares its outputs.
///
/// A failing notebook is not an error: see [`Outcome`].
///
/// # Errors
/// A usage error for an unreadable notebook or invalid metadata; an environment error if the runner
/// is not available.
pub async fn replay(request: &Request) -> Result<Outcome> {
    run::replay(request).await
}

/// Checks before any work whether a notebook can be replayed.
///
/// # Errors
/// A usage error for an unreadable notebook, invalid metadata, or an unsupported language.
pub fn check(path: &Path) -> Result<()> {
    file::File::read(path).map(|_| ())
}

/// The name of a replay in reports.
fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}
