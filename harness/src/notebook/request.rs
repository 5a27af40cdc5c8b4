//! The request for a replay.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::{Map, Value};

use super::outcome::Executed;
use lockproof_deploy::engine::{Engine, Run};
use lockproof_model::{error::Result, event::Event};

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
    pub(super) async fn prepare(&self) -> Result<()> {
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

/// Receives the progress of a replay.
pub trait Progress: Send + Sync {
    /// Cell `number` of `all` code cells starts (from 1); `title` is its first line.
    fn cell(&self, number: usize, all: usize, title: &str);
}

/// The name of a replay in reports.
pub(super) fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}
