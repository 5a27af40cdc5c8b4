//! What is asked of a replay.

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

/// Is told how a replay goes on.
pub trait Progress: Send + Sync {
    /// Cell `number` of `all` code cells begins (the first is 1); `title` is its first line.
    fn cell(&self, number: usize, all: usize, title: &str);
}

/// The name of a replay in reports.
pub(super) fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}
