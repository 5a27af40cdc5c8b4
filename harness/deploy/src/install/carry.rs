//! Installs the lock's Python dependencies once, and copies them into every container of the same
//! image.
//!
//! pip runs in a temporary container of the image: with the subject's Python, user and environment,
//! but without its mounts and without ComfyUI. The files that pip added are archived, and extracted
//! in each container before its first start. If the result could differ from running pip in the
//! container itself, nothing is copied and pip runs there:
//!
//! | not copied | because |
//! |---|---|
//! | pip replaced or removed a package of the image | an archive cannot remove files |
//! | a path is on a bind mount, a tmpfs, or a read-only mount | the image's files are not there |
//! | the image declares volumes | the temporary container would leave them behind |
//! | a requirement is a path | it is relative to the plugin, which has another path here |

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use super::{
    Place, install_requirements,
    source::{Fetched, requirements_of},
    stage_text,
};
use crate::{
    deployment::Deployment,
    engine::{archive::extract_file, container::ContainerSpec, exec::Command},
    lab,
    layout::Layout,
    subject::Install,
};
use lockproof_model::{
    error::{Error, Result},
    path::is_within,
    state::Owner,
};

/// The size limit of an archive in memory, in bytes.
const LARGEST: usize = 256 * 1024 * 1024;
/// The number of archives kept between runs.
const KEPT: usize = 16;
const PACK: &str = include_str!("pack.py");

/// The files that pip added, as an archive to extract at `/`.
#[derive(Clone, Debug)]
pub(super) struct Carried {
    archive: Bytes,
    paths: Arc<BTreeSet<String>>,
}

/// The dependencies of one run, by cache key.
#[derive(Debug, Default)]
pub struct Carrier {
    made: Mutex<BTreeMap<String, Arc<OnceCell<Option<Carried>>>>>,
}

impl Carrier {
    /// The dependencies of the plugin for this subject; `None` if they must be installed in the
    /// container itself. The first subject runs pip; others wait for its result.
    pub(super) async fn dependencies(
        &self,
        deployment: &Deployment,
        layout: &Layout,
        install: &Install,
        plugin: &Fetched,
    ) -> Result<Option<Carried>> {
        let requirements = requirements_of(plugin, &deployment.subject.lock.scheme)?;
        if requirements.is_empty() {
            return Ok(Some(Carried { archive: Bytes::new(), paths: Arc::default() }));
        }
        let isolated = deployment.isolated() && install.wheels.is_none();
        if isolated || !deployment.image_facts().volumes.is_empty() || requirements.values().any(|t| names_a_path(t)) {
            return Ok(None);
        }
        let Some(key) = key(deployment, layout, install, &requirements)? else { return Ok(None) };
        let cell = {
            let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(made.entry(key.clone()).or_default())
        };
        let carried = cell
            .get_or_try_init(|| async {
                // Wheels fix what is installed; an index may change.
                let kept = install.wheels.as_ref().map(|_| Kept::at(&key)).transpose()?;
                if let Some(carried) = kept.as_ref().and_then(Kept::read) {
                    return Ok(Some(carried));
                }
                let carried = make(deployment, layout, install, &requirements).await?;
                if let (Some(kept), Some(carried)) = (kept, &carried) {
                    kept.write(carried);
                }
                Ok::<_, Error>(carried)
            })
            .await?;
        Ok(carried.clone().filter(|carried| carried.fits(deployment)))
    }
}

impl Carried {
    fn of(archive: Bytes) -> std::io::Result<Self> {
        let mut paths = BTreeSet::new();
        for entry in tar::Archive::new(&archive[..]).entries()? {
            paths.insert(format!("/{}", entry?.path()?.display()));
        }
        Ok(Self { archive, paths: Arc::new(paths) })
    }

    /// Whether every path is where the image's files are: in the container's writable layer, or on
    /// a volume that the engine fills from the image.
    fn fits(&self, deployment: &Deployment) -> bool {
        let mounted = deployment.mounted();
        self.paths.iter().all(|path| {
            let nearest = mounted.iter().filter(|m| is_within(path, &m.target)).max_by_key(|m| m.target.len());
            nearest.is_none_or(|m| matches!(m.owner, Owner::Volume | Owner::AnonymousVolume) && !m.read_only)
        })
    }

    /// Extracts them in the container, which may be stopped.
    pub(super) async fn unpack(&self, deployment: &Deployment) -> Result<()> {
        if self.paths.is_empty() {
            return Ok(());
        }
        deployment.upload("/", self.archive.clone()).await
    }
}

/// Whether a requirement is a path or an editable install.
fn names_a_path(requirements: &str) -> bool {
    requirements.lines().map(str::trim).any(|line| {
        line.starts_with(['.', '/', '-']) && !line.starts_with("--hash")
            || line.contains("file:")
            || line.contains("@ ./")
    })
}

/// The cache key: what determines the files that pip adds; `None` if the wheels cannot be listed.
fn key(
    deployment: &Deployment,
    layout: &Layout,
    install: &Install,
    requirements: &BTreeMap<String, String>,
) -> Result<Option<String>> {
    let mut hash = Sha256::new();
    let subject = &deployment.subject;
    let parts = (&deployment.image_facts().id, &subject.user, &subject.env, &layout.python, layout.ids, requirements);
    hash.update(format!("1 {parts:?}"));
    if let Some(directory) = &install.wheels {
        for wheel in files(directory)? {
            let meta = std::fs::metadata(&wheel).map_err(|e| crate::engine::archive::unreadable(&wheel, &e))?;
            let changed = meta.modified().ok().and_then(|m| m.duration_since(std::time::UNIX_EPOCH).ok());
            hash.update(format!("{} {} {changed:?}", wheel.display(), meta.len()));
        }
    }
    Ok(Some(hex::encode(&hash.finalize()[..16])))
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |e: std::io::Error| crate::engine::archive::unreadable(directory, &e);
    let entries = std::fs::read_dir(directory).map_err(unreadable)?;
    let mut paths = entries.map(|e| e.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>().map_err(unreadable)?;
    paths.sort();
    Ok(paths)
}

/// Runs pip in a temporary container, and archives what it added.
async fn make(
    deployment: &Deployment,
    layout: &Layout,
    install: &Install,
    requirements: &BTreeMap<String, String>,
) -> Result<Option<Carried>> {
    let subject = &deployment.subject;
    let engine = &deployment.engine;
    let spec = ContainerSpec {
        name: deployment.scratch_name("dependencies"),
        image: deployment.image().to_owned(),
        labels: deployment.labels(),
        entrypoint: Some(vec![layout.python.clone(), "-c".to_owned(), "import time; time.sleep(3600)".to_owned()]),
        command: Some(Vec::new()),
        env: subject.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        user: subject.user.clone(),
        network: Some(if install.wheels.is_some() { "none" } else { deployment.network() }.to_owned()),
        ..ContainerSpec::default()
    };
    let id = engine.create(&spec).await?;
    let made = async {
        engine.start(&id).await?;
        let place = Place::Apart(deployment, &id);
        let Some(before) = listed(place, &layout.python).await? else { return Ok(None) };
        for (name, text) in requirements {
            let file = stage_text(place, name, text).await?;
            install_requirements(place, &layout.python, install, &file).await?;
        }
        added(place, &layout.python, &before).await
    }
    .await;
    engine.remove(&id).await?;
    made
}

/// The distributions of a container's Python, as printed by `pack.py`.
async fn listed(place: Place<'_>, python: &str) -> Result<Option<String>> {
    let listed = place.exec(Command::new([python, "-c", PACK])).await?;
    Ok(listed.ok().then_some(listed.stdout))
}

/// The archive of what pip added since `before`; `None` if it made other changes.
async fn added(place: Place<'_>, python: &str, before: &str) -> Result<Option<Carried>> {
    // Run as the user that ran pip, which has write access there.
    let archive = "/tmp/lockproof-added.tar";
    let limit = LARGEST.to_string();
    let packed = place.exec(Command::new([python, "-c", PACK, before.trim(), archive, &limit])).await?;
    if !packed.ok() {
        tracing::debug!("cannot carry over the dependencies: {}", packed.tail(3));
        return Ok(None);
    }
    let Some(outer) = place.deployment().engine.download(&place.container(), archive).await? else { return Ok(None) };
    let broken = |e: std::io::Error| Error::environment("invalid archive of the dependencies").detail(e);
    let Some(inner) = extract_file(&outer).map_err(broken)? else { return Ok(None) };
    Carried::of(inner.into()).map(Some).map_err(broken)
}

/// An archive in the cache.
struct Kept {
    path: PathBuf,
}

impl Kept {
    fn at(key: &str) -> Result<Self> {
        Ok(Self { path: lab::cache_dir()?.join("dependencies").join(format!("{key}.tar")) })
    }

    fn read(&self) -> Option<Carried> {
        let bytes = std::fs::read(&self.path).ok()?;
        // Written atomically, so it is complete.
        Carried::of(bytes.into()).ok()
    }

    /// A cache that cannot be written only costs time.
    fn write(&self, carried: &Carried) {
        let attempt = || -> std::io::Result<()> {
            let directory = self.path.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(directory)?;
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            std::io::Write::write_all(&mut file, &carried.archive)?;
            file.persist(&self.path).map_err(|e| e.error)?;
            let mut all: Vec<(std::time::SystemTime, PathBuf)> = std::fs::read_dir(directory)?
                .filter_map(|entry| entry.ok().and_then(|e| Some((e.metadata().ok()?.modified().ok()?, e.path()))))
                .filter(|(_, path)| path.extension().is_some_and(|e| e == "tar"))
                .collect();
            all.sort();
            for (_, old) in all.iter().rev().skip(KEPT) {
                std::fs::remove_file(old)?;
            }
            Ok(())
        };
        if let Err(e) = attempt() {
            tracing::debug!("cannot cache the dependencies for the next run: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requirement_that_is_a_path_is_not_carried() {
        for text in [".", "-e .", "./wheel", "a @ file:///x", "/srv/x", "-r other.txt", "a\n  -e git+https://x"] {
            assert!(names_a_path(text), "{text}");
        }
        for text in ["aiohttp_session[secure]>=2\nbcrypt==4.0", "# a comment", "a @ git+https://host.example/a", ""] {
            assert!(!names_a_path(text), "{text}");
        }
    }

    #[test]
    fn the_paths_of_an_archive_are_listed() {
        let mut tarball = crate::engine::archive::Tarball::new();
        tarball.file("opt/venv/a.py", b"x", 0o644, crate::engine::archive::Ownership::ROOT).expect("added");
        let carried = Carried::of(tarball.finish().expect("finished")).expect("read");
        assert!(carried.paths.iter().eq(["/opt/venv/a.py"]));
        assert!(Carried::of(Bytes::from_static(&[1; 700])).is_err());
    }
}
