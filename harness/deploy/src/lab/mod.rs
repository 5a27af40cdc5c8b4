//! The lab: a stand-in for ComfyUI with a login plugin of our own, built on first use out of the
//! fixtures that are in this binary. It never needs an image registry.

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

/// The name by which a configuration asks for Debian's nginx, for a lock in front of the lab.
pub const PROXY: &str = "lockproof/nginx";

/// An image that is there.
#[derive(Clone, Debug)]
pub struct Found {
    /// The name under which the engine has it.
    pub name: String,
    /// What there is to know of it.
    pub facts: ImageFacts,
}

/// The image `name`, which is built when it is the lab's and pulled when it is not here.
///
/// # Errors
/// An environment error when it cannot be had.
pub async fn require(engine: &Engine, name: &str) -> Result<Found> {
    let name = match image::variant(name)? {
        Some(variant) => image::ensure(engine, variant).await?,
        None if name == PROXY => image::ensure_lab_base(engine).await?,
        None => name.to_owned(),
    };
    let facts = engine.require_image(&name).await?;
    Ok(Found { name, facts })
}

/// The image in which notebooks are executed, which is made when it is not there.
///
/// # Errors
/// An environment error when it cannot be had.
pub async fn notebook_runner(engine: &Engine) -> Result<String> {
    runner::ensure(engine).await
}

/// The lab's files on this machine: the plugin, the install scripts, the demo and the wheels.
#[derive(Clone, Debug)]
pub struct Kit {
    /// The directory that holds `plugins/`, `scripts/`, `demo/` and `wheels/`.
    pub root: PathBuf,
}

impl Kit {
    /// Unpacks the fixtures into the cache, and fetches the login plugin's wheels once.
    ///
    /// # Errors
    /// An environment error when the cache cannot be written or the wheels cannot be had.
    pub async fn prepare(engine: &Engine, run: &Run) -> Result<Self> {
        let root = fixtures::unpack()?;
        wheels::ensure(engine, run, &root).await?;
        Ok(Self { root })
    }

    /// The demo's configuration.
    pub fn demo(&self) -> PathBuf {
        self.root.join("demo/lockproof.yaml")
    }

    /// The login plugin of our own.
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

/// Builds what is missing of the lab: every variant of the image, the one that executes notebooks, and
/// the wheels.
///
/// # Errors
/// An environment error when something cannot be had.
pub async fn build_all(engine: &Engine, run: &Run) -> Result<Kit> {
    for variant in VARIANTS {
        image::ensure(engine, variant).await?;
    }
    runner::ensure(engine).await?;
    Kit::prepare(engine, run).await
}
