//! The lab: a stand-in for ComfyUI with its own login plugin, built on first use from the fixtures
//! in this binary. It needs no image registry.

mod fixtures;
mod image;
mod rootfs;
mod runner;
mod wheels;

use std::path::PathBuf;

use crate::engine::{Engine, Run, image::ImageFacts};
use lockproof_model::error::Result;

pub use fixtures::cache_dir;
pub(crate) use fixtures::empty_directory;
pub use image::{REPOSITORY, VARIANTS};
pub use runner::RUNNER;

/// The image name of Debian's nginx in a configuration, for a proxy in front of the lab.
pub const PROXY: &str = "lockproof/nginx";

/// An available image.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its name in the engine.
    pub name: String,
    /// Its metadata.
    pub facts: ImageFacts,
}

/// The image `name`, which is built if it is the lab's, and pulled if it is not local.
///
/// # Errors
/// An environment error if it is not available.
pub async fn require(engine: &Engine, name: &str) -> Result<Found> {
    let name = match image::variant(name)? {
        Some(variant) => image::ensure(engine, variant).await?,
        None if name == PROXY => image::ensure_lab_base(engine).await?,
        None => name.to_owned(),
    };
    let facts = engine.require_image(&name).await?;
    Ok(Found { name, facts })
}

/// The image of the notebook runner, which is built if it is missing.
///
/// # Errors
/// An environment error if it cannot be built.
pub async fn notebook_runner(engine: &Engine) -> Result<String> {
    runner::ensure(engine).await
}

/// The lab's files on this machine: the plugin, the install scripts, the demo and the wheels.
#[derive(Clone, Debug)]
pub struct Kit {
    /// The directory that contains `plugins/`, `scripts/`, `demo/` and `wheels/`.
    pub root: PathBuf,
}

impl Kit {
    /// Extracts the fixtures into the cache, and downloads the login plugin's wheels once.
    ///
    /// # Errors
    /// An environment error if the cache cannot be written or the wheels cannot be downloaded.
    pub async fn prepare(engine: &Engine, run: &Run) -> Result<Self> {
        let root = fixtures::unpack()?;
        wheels::ensure(engine, run, &root).await?;
        Ok(Self { root })
    }

    /// The demo's configuration.
    pub fn demo(&self) -> PathBuf {
        self.root.join("demo/lockproof.yaml")
    }

    /// The lab's login plugin.
    pub fn plugin(&self) -> PathBuf {
        self.root.join("plugins/lab-login")
    }

    /// The wheels of its dependencies.
    pub fn wheels(&self) -> PathBuf {
        self.root.join("wheels")
    }

    /// The install scripts.
    pub fn scripts(&self) -> PathBuf {
        self.root.join("scripts")
    }
}

/// Builds the missing parts of the lab: every image variant, the notebook runner, and the wheels.
///
/// # Errors
/// An environment error if a part cannot be built.
pub async fn build_all(engine: &Engine, run: &Run) -> Result<Kit> {
    for variant in VARIANTS {
        image::ensure(engine, variant).await?;
    }
    runner::ensure(engine).await?;
    Kit::prepare(engine, run).await
}
