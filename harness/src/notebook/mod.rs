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
mod outcome;
pub mod proxy;
mod queued;
mod request;
mod run;
mod scan;
mod settings;
mod stage;
mod verdict;

use std::path::Path;

use lockproof_model::error::Result;
pub use outcome::{Cell, CellEnding, Ending, Executed, Outcome, Traffic};
pub use request::{Limits, Progress, Request, Runner};
use serde_json::Map;

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
