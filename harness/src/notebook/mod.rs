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
