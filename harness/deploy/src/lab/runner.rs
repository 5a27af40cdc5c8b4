//! The image in which notebooks are executed: Debian's nbclient and ipykernel, made on first use
//! like the lab's base, and named by its content.

use super::{fixtures, image};
use crate::engine::Engine;
use lockproof_model::error::Result;

/// The name under which the engine has it, before the tag.
pub const RUNNER: &str = "lockproof/notebook-runner";
const PACKAGES: &str = "images/notebook-runner/packages.txt";

/// The image's name; it is made when it is not there.
pub(super) async fn ensure(engine: &Engine) -> Result<String> {
    let packages = image::packages(PACKAGES)?;
    let hash = fixtures::content_hash(&[packages.join(" ").as_bytes(), image::release().as_bytes()]);
    let name = format!("{RUNNER}:{hash}");
    image::ensure_base(engine, &name, &packages, "the image in which notebooks are executed").await?;
    Ok(name)
}
