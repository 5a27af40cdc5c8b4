//! Binds that are never written: the host's directory below, a layer of our own above.
//!
//! On Linux, the layer is an overlay that the engine's local volume driver mounts:
//!
//! | volume | holds |
//! |---|---|
//! | `…-layer` | `upper` and `work`, inside the volume's own mount point, so that a run without root can remove them through the engine |
//! | `…-bind` | `type=overlay,lowerdir=<host>,upperdir=<layer>/upper,workdir=<layer>/work` |
//!
//! It is always mounted with `NoCopy`: an empty volume would be filled from the image, and so show
//! files that the real bind hides. Where overlay cannot be had (another operating system, a file
//! system that does not allow it), and for a single file, the content is copied.

use std::{collections::HashMap, os::unix::fs::MetadataExt, path::Path};

use super::{
    Engine, Run,
    archive::{Ownership, Tarball, unreadable},
    container::{Attachment, ContainerSpec},
};
use crate::error::{Error, Result};

/// The most that is copied where copy-on-write cannot be had.
const LARGEST_COPY: u64 = 2 * 1024 * 1024 * 1024;

/// A bind of the host that the container may write without the host noticing.
#[derive(Clone, Debug)]
pub struct CowBind {
    /// What the container is given.
    pub attachment: Attachment,
    /// The volumes behind it, in the order in which they can be removed.
    pub volumes: Vec<String>,
    /// Whether it was copied, because copy-on-write could not be had.
    pub copied: bool,
}

impl Engine {
    /// Makes a copy-on-write bind of `source` at `target`. `image` is any image that is here: a
    /// container of it, never started, carries the files.
    ///
    /// # Errors
    /// An environment error when neither an overlay nor a copy can be made.
    pub async fn cow_bind(
        &self,
        run: &Run,
        subject: &str,
        image: &str,
        source: &Path,
        target: &str,
        read_only: bool,
    ) -> Result<CowBind> {
        let source = source.canonicalize().map_err(|e| unreadable(source, &e))?;
        let id = format!("{subject}{target}");
        if source.is_dir()
            && let Ok(bind) = self.overlay(run, subject, image, &source, target, &id, read_only).await
        {
            return Ok(bind);
        }
        self.copy(run, subject, image, &source, target, &id, read_only).await
    }

    #[expect(clippy::too_many_arguments, reason = "one private step of cow_bind, with all it knows")]
    async fn overlay(
        &self,
        run: &Run,
        subject: &str,
        image: &str,
        source: &Path,
        target: &str,
        id: &str,
        read_only: bool,
    ) -> Result<CowBind> {
        let layer = self.create_volume(run, subject, &format!("{id}-layer")).await?;
        let meta = std::fs::metadata(source).map_err(|e| unreadable(source, &e))?;
        let mut tarball = Tarball::new();
        // The root of an overlay has the owner and mode of its upper directory.
        let owner = Ownership { uid: meta.uid().into(), gid: meta.gid().into() };
        let written = tarball
            .directory("upper", meta.mode() & 0o7777, owner)
            .and_then(|()| tarball.directory("work", 0o755, Ownership::ROOT));
        written.map_err(|e| unreadable(source, &e))?;
        let archive = tarball.finish().map_err(|e| unreadable(source, &e))?;
        self.fill(run, subject, image, &layer, &format!("{id}-fill"), archive).await?;

        let point = self.volume_mountpoint(&layer).await?;
        let options = format!(
            "lowerdir={},upperdir={point}/upper,workdir={point}/work,metacopy=on,redirect_dir=on",
            escape(&source.display().to_string())
        );
        let driver = HashMap::from([
            ("type".to_owned(), "overlay".to_owned()),
            ("device".to_owned(), "overlay".to_owned()),
            ("o".to_owned(), options),
        ]);
        let volume = self.create_volume_with(run, subject, &format!("{id}-bind"), driver).await?;
        let attachment =
            Attachment::Volume { name: volume.clone(), target: target.to_owned(), read_only, no_copy: true };
        // Whether the engine can mount it is known when it does: reading through a container that
        // is never started makes it try.
        let tried = self.probe_mount(run, subject, image, &attachment, &format!("{id}-try")).await;
        if let Err(e) = tried {
            self.remove_volume(&volume).await?;
            self.remove_volume(&layer).await?;
            return Err(e);
        }
        Ok(CowBind { attachment, volumes: vec![volume, layer], copied: false })
    }

    #[expect(clippy::too_many_arguments, reason = "one private step of cow_bind, with all it knows")]
    async fn copy(
        &self,
        run: &Run,
        subject: &str,
        image: &str,
        source: &Path,
        target: &str,
        id: &str,
        read_only: bool,
    ) -> Result<CowBind> {
        if source.is_file() {
            return Err(Error::environment(format!("{} is a single file", source.display()))
                .at(format!("mount `{target}`"))
                .fix("bind its directory instead: single files cannot be mounted copy-on-write"));
        }
        let size = size_of(source, LARGEST_COPY);
        if size > LARGEST_COPY {
            return Err(Error::environment(format!(
                "{} is too large to copy, and this engine cannot mount it copy-on-write",
                source.display()
            ))
            .at(format!("mount `{target}`"))
            .fix("bind only the directories that the lock needs, or run on Linux with Docker Engine"));
        }
        let volume = self.create_volume(run, subject, &format!("{id}-copy")).await?;
        let meta = std::fs::metadata(source).map_err(|e| unreadable(source, &e))?;
        let owner = Ownership { uid: meta.uid().into(), gid: meta.gid().into() };
        let mut tarball = Tarball::new();
        tarball.tree(source, ".", owner, &|_| false).map_err(|e| unreadable(source, &e))?;
        let archive = tarball.finish().map_err(|e| unreadable(source, &e))?;
        self.fill(run, subject, image, &volume, &format!("{id}-fill"), archive).await?;
        let attachment =
            Attachment::Volume { name: volume.clone(), target: target.to_owned(), read_only, no_copy: true };
        Ok(CowBind { attachment, volumes: vec![volume], copied: true })
    }

    /// Unpacks an archive into a volume, through a container that is never started.
    async fn fill(
        &self,
        run: &Run,
        subject: &str,
        image: &str,
        volume: &str,
        name: &str,
        archive: bytes::Bytes,
    ) -> Result<()> {
        let spec = ContainerSpec {
            name: run.name(name),
            image: image.to_owned(),
            labels: run.labels(subject),
            entrypoint: Some(vec!["true".to_owned()]),
            mounts: vec![Attachment::Volume {
                name: volume.to_owned(),
                target: "/lockproof-volume".to_owned(),
                read_only: false,
                no_copy: true,
            }],
            ..Default::default()
        };
        let id = self.create(&spec).await?;
        let filled = self.upload(&id, "/lockproof-volume", archive).await;
        self.remove(&id).await?;
        filled
    }

    async fn probe_mount(
        &self,
        run: &Run,
        subject: &str,
        image: &str,
        attachment: &Attachment,
        name: &str,
    ) -> Result<()> {
        let spec = ContainerSpec {
            name: run.name(name),
            image: image.to_owned(),
            labels: run.labels(subject),
            entrypoint: Some(vec!["true".to_owned()]),
            mounts: vec![attachment.clone()],
            ..Default::default()
        };
        let id = self.create(&spec).await?;
        let seen = self.exists(&id, attachment.target()).await;
        self.remove(&id).await?;
        match seen? {
            true => Ok(()),
            false => Err(Error::environment("the engine did not mount the overlay")),
        }
    }
}

/// Overlay's option syntax takes `:` between lower directories and `,` between options.
fn escape(path: &str) -> String {
    path.replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,")
}

/// The bytes below `path`; counting stops once there are more than `enough`.
fn size_of(path: &Path, enough: u64) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let mut total = 0;
    for entry in entries.flatten() {
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => total += size_of(&entry.path(), enough),
            Ok(meta) => total += meta.len(),
            Err(_) => {}
        }
        if total > enough {
            break;
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_of_overlay_are_escaped() {
        assert_eq!(escape("/a:b,c\\d"), "/a\\:b\\,c\\\\d");
    }
}
