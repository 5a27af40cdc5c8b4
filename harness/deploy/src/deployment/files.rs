//! Reads and writes files of a running subject from outside.
//!
//! The engine's archives do not contain tmpfs files, which only processes in the container can see;
//! these are copied through a directory in the container's writable layer.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Deployment;
use crate::engine::{archive::Entry, exec::Command};
use lockproof_model::{
    error::{Error, Result},
    path::{is_within, normalise},
    secret,
    state::Owner,
    state_map::Mounted,
};

impl Deployment {
    /// The content of a file in the container; `None` if it does not exist.
    ///
    /// # Errors
    /// An environment error if it cannot be read.
    pub async fn read_file(&self, path: &str) -> Result<Option<Vec<u8>>> {
        if !self.in_memory(path) {
            return self.engine.read_file(&self.container_id(), path).await;
        }
        let Some(stage) = self.stage_out(path).await? else { return Ok(None) };
        let bytes = self.engine.read_file(&self.container_id(), &stage.content()).await;
        self.unstage(&stage).await?;
        bytes
    }

    /// Everything at and below a path in the container; `None` if it does not exist.
    ///
    /// # Errors
    /// An environment error if it cannot be read.
    pub async fn tree(&self, path: &str) -> Result<Option<BTreeMap<String, Entry>>> {
        if !self.in_memory(path) {
            return self.engine.tree(&self.container_id(), path).await;
        }
        let Some(stage) = self.stage_out(path).await? else { return Ok(None) };
        let tree = self.engine.tree(&self.container_id(), &stage.content()).await;
        self.unstage(&stage).await?;
        tree
    }

    /// Whether a path exists in the container.
    ///
    /// # Errors
    /// An environment error if the engine does not answer.
    pub async fn exists(&self, path: &str) -> Result<bool> {
        if !self.in_memory(path) {
            return self.engine.exists(&self.container_id(), path).await;
        }
        Ok(self.life().await?.running && self.as_root(["test", "-e", path]).await.is_ok())
    }

    /// Extracts an archive into a directory of the container.
    ///
    /// # Errors
    /// An environment error if the directory does not exist or cannot be written.
    pub async fn upload(&self, directory: &str, archive: Bytes) -> Result<()> {
        if !self.in_memory(directory) {
            return self.engine.upload(&self.container_id(), directory, archive).await;
        }
        let stage = self.make_stage().await?;
        let uploaded = match self.engine.upload(&self.container_id(), &stage.0, archive).await {
            Ok(()) => self.as_root(["cp", "-a", &format!("{}/.", stage.0), directory]).await,
            Err(e) => Err(e),
        };
        self.unstage(&stage).await?;
        uploaded
    }

    fn in_memory(&self, path: &str) -> bool {
        is_in_memory(path, &self.mounted())
    }

    async fn make_stage(&self) -> Result<Stage> {
        let stage = Stage(format!("/lockproof-{}", secret::random(8)));
        self.as_root(["mkdir", &stage.0]).await?;
        Ok(stage)
    }

    /// Copies `path` to a directory that the engine can read.
    async fn stage_out(&self, path: &str) -> Result<Option<Stage>> {
        if !self.exists(path).await? {
            return Ok(None);
        }
        let stage = self.make_stage().await?;
        match self.as_root(["cp", "-aH", path, &stage.content()]).await {
            Ok(()) => Ok(Some(stage)),
            Err(e) => {
                self.unstage(&stage).await?;
                Err(e)
            }
        }
    }

    async fn unstage(&self, stage: &Stage) -> Result<()> {
        self.as_root(["rm", "-rf", &stage.0]).await
    }

    async fn as_root<const N: usize>(&self, words: [&str; N]) -> Result<()> {
        let output = self.engine.exec(&self.container_id(), Command::new(words).user("0").directory("/")).await?;
        if output.ok() {
            return Ok(());
        }
        Err(Error::environment(format!("`{}` failed in the container", words.join(" ")))
            .at(format!("subject `{}`", self.subject.name))
            .detail(output.tail(3)))
    }
}

/// A directory in the container's writable layer.
struct Stage(String);

impl Stage {
    fn content(&self) -> String {
        format!("{}/content", self.0)
    }
}

/// Whether the nearest mount above a path is a tmpfs.
fn is_in_memory(path: &str, mounts: &[Mounted]) -> bool {
    let path = normalise(path);
    mounts
        .iter()
        .filter(|mount| is_within(&path, &mount.target))
        .max_by_key(|mount| mount.target.len())
        .is_some_and(|mount| mount.owner == Owner::Tmpfs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_on_a_tmpfs_is_not_in_memory() {
        let mount = |target: &str, owner| Mounted { target: target.to_owned(), owner, read_only: false, source: None };
        let mounts = [mount("/tmp", Owner::Tmpfs), mount("/tmp/kept", Owner::Volume)];
        assert!(is_in_memory("/tmp/a", &mounts));
        assert!(is_in_memory("/tmp", &mounts));
        assert!(!is_in_memory("/tmp/kept/a", &mounts));
        assert!(!is_in_memory("/tmpfs", &mounts));
    }
}
