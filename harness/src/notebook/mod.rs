//! Notebooks: executed for real by a Jupyter kernel, cell by cell, compared with what they hold,
//! and watched at the server's side for whether they really show the token.
//!
//! The notebook talks to a recording reverse proxy of ours, which stands before the server: in the
//! runner's container at `http://127.0.0.1:8188`, so that the address is the same in every run. It
//! is told the address as `COMFYUI_URL` and the token as `COMFYUI_API_TOKEN`.

mod compare;
mod execute;
mod file;
mod format;
mod lacking;
pub mod proxy;
mod queued;
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

use lockproof_deploy::engine::{Engine, Run};
use lockproof_model::{error::Result, event::Event, finding::Finding};

/// A notebook to replay, and everything that is needed for it.
#[derive(Clone)]
pub struct Request {
    /// The notebook.
    pub path: PathBuf,
    /// The subject's name or the server's URL, for findings.
    pub subject: String,
    /// The event after which it is replayed, for findings.
    pub event: Option<Event>,
    /// Where this process reaches the server, such as `http://127.0.0.1:49153`.
    pub url: String,
    /// Certificates to trust beside this machine's own, for `https`.
    pub ca: Option<PathBuf>,
    /// Whether any certificate will do.
    pub insecure: bool,
    /// The token that the notebook is given; `None`: none.
    pub token: Option<String>,
    /// Further variables, such as those of a `.env`. `COMFYUI_URL` and `COMFYUI_API_TOKEN` are set
    /// after them.
    pub env: BTreeMap<String, String>,
    /// Values for the cell that is tagged `parameters`, as papermill injects them.
    pub parameters: Map<String, Value>,
    /// What runs the kernel.
    pub runner: Runner,
    /// Time limits, where the notebook's own metadata does not say otherwise.
    pub limits: Limits,
    /// The executed notebook of an earlier replay to compare with; `None`: the outputs that the
    /// notebook itself holds.
    pub reference: Option<Executed>,
    /// Whether the new outputs are stored in the notebook.
    pub update: bool,
    /// Where the executed notebook is kept, without secrets; `None`: nowhere.
    pub keep: Option<PathBuf>,
    /// Who is told of each cell.
    pub progress: Option<Arc<dyn Progress>>,
}

/// What runs the kernel.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a request holds one, and there are few requests")]
pub enum Runner {
    /// A container of an image of our own, with nbclient and ipykernel.
    Container {
        /// The engine.
        engine: Engine,
        /// The run whose label it carries.
        run: Run,
        /// The network that it joins, by its real name: the subject's; `None`: the engine's default.
        network: Option<String>,
    },
    /// A Python of this machine that has nbclient and ipykernel.
    Python(PathBuf),
}

impl Runner {
    /// Makes what is missing before anything can run: the image, once on a machine.
    async fn prepare(&self) -> Result<()> {
        match self {
            Self::Container { engine, .. } => lockproof_deploy::lab::notebook_runner(engine).await.map(|_| ()),
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

/// Is told how a replay goes on.
pub trait Progress: Send + Sync {
    /// Cell `number` of `all` code cells begins (the first is 1); `title` is its first line.
    fn cell(&self, number: usize, all: usize, title: &str);
}

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

/// Executes a notebook and tells what came of it.
///
/// What the notebook does wrong is in the [`Outcome`]; an error is what kept it from being tried.
///
/// # Errors
/// A usage error for a notebook that cannot be read or whose metadata is wrong, an environment
/// error when the runner cannot be had.
pub async fn replay(request: &Request) -> Result<Outcome> {
    run::replay(request).await
}

/// Whether a notebook can be replayed at all, before any work.
///
/// # Errors
/// A usage error for a notebook that cannot be read, whose metadata is wrong, or whose language is
/// not the kernel's.
pub fn check(path: &Path) -> Result<()> {
    file::File::read(path).map(|_| ())
}

/// Whether the text of a notebook can be replayed: it is read, prepared and written back.
///
/// # Errors
/// As [`check`].
pub fn check_text(text: &str) -> Result<()> {
    let file = file::File::parse(text.to_owned(), Path::new("a.ipynb"))?;
    let parameters = Map::from_iter([("a".to_owned(), 1.into())]);
    let prepared = file.prepare(&parameters);
    file.with_outputs(&prepared.notebook).map(|_| ())
}

/// The name of a replay in reports.
fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}
