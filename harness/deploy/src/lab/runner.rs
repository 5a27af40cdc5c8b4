//! The notebook runner's image: Debian's nbclient and ipykernel, built on first use like the lab's
//! base image, and named by its content.

use super::{fixtures, image};
use crate::engine::Engine;
use lockproof_model::error::Result;

/// Its name in the engine, without the tag.
pub const RUNNER: &str = "lockproof/notebook-runner";
const PACKAGES: &str = "images/notebook-runner/packages.txt";

/// The image's name; it is built if it is missing.
pub(super) async fn ensure(engine: &Engine) -> Result<String> {
    let packages = image::packages(PACKAGES)?;
    let hash = fixtures::content_hash(&[packages.join(" ").as_bytes(), image::release().as_bytes()]);
    let name = format!("{RUNNER}:{hash}");
    image::ensure_base(engine, &name, &packages, "the notebook runner's image").await?;
    Ok(name)
}
