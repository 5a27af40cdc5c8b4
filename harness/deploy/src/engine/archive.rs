//! Copies files into and out of a container as tar archives. Also works for stopped containers.

use std::{collections::BTreeMap, io::Read, path::Path};

use bollard::{
    body_full,
    query_parameters::{DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use sha2::{Digest, Sha256};

use super::{Engine, failed, is_missing};
use lockproof_model::{
    error::{Error, Result},
    path::normalise,
    read,
};

/// The size limit of the archive of one file: that of a notebook and its headers, in bytes.
const LARGEST_FILE: usize = read::LONG as usize + 64 * 1024;
/// The size limit of any archive, which is kept in memory, in bytes.
const LARGEST_ARCHIVE: usize = 2 * 1024 * 1024 * 1024;
/// The maximum number of links to follow, as on Linux.
const MOST_LINKS: usize = 40;

/// What a path in a container is: a file with its hash, a directory, or a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A regular file: the first 16 bytes of its SHA-256, in hex.
    File(String),
    /// A directory.
    Directory,
    /// A symbolic or hard link and its target.
    Link(String),
}

/// Builds a tar archive in memory.
pub struct Tarball(tar::Builder<Vec<u8>>);

/// The owner of the entries of a [`Tarball`].
#[derive(Clone, Copy, Debug)]
pub struct Ownership {
    /// The user id.
    pub uid: u64,
    /// The group id.
    pub gid: u64,
}

impl Ownership {
    /// The super-user.
    pub const ROOT: Self = Self { uid: 0, gid: 0 };

    /// The owner of a file of this machine.
    pub fn of(meta: &std::fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self { uid: meta.uid().into(), gid: meta.gid().into() }
    }
}

/// The owners of a tree's entries in an archive.
#[derive(Clone, Copy, Debug)]
pub enum Owners {
    /// One owner for all entries.
    All(Ownership),
    /// The owners on this machine.
    Their,
    /// The super-user, readable by everyone, whatever the modes on this machine.
    Lent,
}

impl Owners {
    fn owner(self, meta: &std::fs::Metadata) -> Ownership {
        match self {
            Self::All(owner) => owner,
            Self::Their => Ownership::of(meta),
            Self::Lent => Ownership::ROOT,
        }
    }

    fn mode(self, meta: &std::fs::Metadata) -> u32 {
        use std::os::unix::fs::PermissionsExt;
        let mode = meta.permissions().mode() & 0o7777;
        match self {
            Self::Lent => mode | if meta.is_dir() { 0o555 } else { 0o444 },
            Self::All(_) | Self::Their => mode,
        }
    }
}

impl Tarball {
    /// An empty archive.
    pub fn new() -> Self {
        let mut builder = tar::Builder::new(Vec::new());
        builder.follow_symlinks(false);
        Self(builder)
    }

    /// Adds a directory.
    ///
    /// # Errors
    /// If the path is invalid in an archive.
    pub fn directory(&mut self, path: &str, mode: u32, owner: Ownership) -> std::io::Result<()> {
        let mut header = header(tar::EntryType::Directory, mode, owner);
        header.set_size(0);
        self.0.append_data(&mut header, path, std::io::empty())
    }

    /// Adds a file.
    ///
    /// # Errors
    /// If the path is invalid in an archive.
    pub fn file(&mut self, path: &str, bytes: &[u8], mode: u32, owner: Ownership) -> std::io::Result<()> {
        let mut header = header(tar::EntryType::Regular, mode, owner);
        header.set_size(bytes.len() as u64);
        self.0.append_data(&mut header, path, bytes)
    }

    /// Adds the tree below `from` as `to`, without entries whose name `skip` accepts.
    ///
    /// # Errors
    /// If a file below it cannot be read.
    pub fn tree(&mut self, from: &Path, to: &str, owners: Owners, skip: &dyn Fn(&str) -> bool) -> std::io::Result<()> {
        let meta = std::fs::metadata(from)?;
        self.directory(to, owners.mode(&meta), owners.owner(&meta))?;
        let mut entries = std::fs::read_dir(from)?.collect::<std::io::Result<Vec<_>>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            if skip(&name) {
                continue;
            }
            let target = format!("{to}/{name}");
            let kind = entry.file_type()?;
            let owner = owners.owner(&entry.metadata()?);
            if kind.is_dir() {
                self.tree(&entry.path(), &target, owners, skip)?;
            } else if kind.is_symlink() {
                let mut header = header(tar::EntryType::Symlink, 0o777, owner);
                header.set_size(0);
                self.0.append_link(&mut header, &target, std::fs::read_link(entry.path())?)?;
            } else if kind.is_file() {
                let mode = owners.mode(&entry.metadata()?);
                self.file(&target, &std::fs::read(entry.path())?, mode, owner)?;
            }
        }
        Ok(())
    }

    /// The bytes of the archive.
    ///
    /// # Errors
    /// If it cannot be finished.
    pub fn finish(self) -> std::io::Result<Bytes> {
        self.0.into_inner().map(Bytes::from)
    }
}

impl Default for Tarball {
    fn default() -> Self {
        Self::new()
    }
}

fn header(kind: tar::EntryType, mode: u32, owner: Ownership) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner.uid);
    header.set_gid(owner.gid);
    // A constant time, so that the archive of the same tree has the same hash.
    header.set_mtime(1_700_000_000);
    header
}

/// The error for a local file that cannot be archived.
pub fn unreadable(what: &Path, error: &std::io::Error) -> Error {
    Error::environment(format!("cannot read {}", what.display())).detail(error).fix("check its permissions")
}

impl Engine {
    /// Extracts `archive` into `directory` of a container.
    ///
    /// # Errors
    /// An environment error if the directory does not exist or cannot be written.
    pub async fn upload(&self, container: &str, directory: &str, archive: Bytes) -> Result<()> {
        let options = UploadToContainerOptionsBuilder::default().path(directory).build();
        self.docker
            .upload_to_container(container, Some(options), body_full(archive))
            .await
            .map_err(|e| failed(&format!("writing to {directory}"), &e))
    }

    /// The archive of `path` in a container; `None` if it does not exist.
    ///
    /// # Errors
    /// An environment error if it cannot be read.
    pub async fn download(&self, container: &str, path: &str) -> Result<Option<Vec<u8>>> {
        self.download_at_most(container, path, LARGEST_ARCHIVE).await
    }

    async fn download_at_most(&self, container: &str, path: &str, limit: usize) -> Result<Option<Vec<u8>>> {
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        match collect(self.docker.download_from_container(container, Some(options)), limit).await {
            Ok(Collected::All(bytes)) => Ok(Some(bytes)),
            Ok(Collected::TooMuch) => Err(too_much(path, limit)),
            Err(e) if is_missing(&e) => Ok(None),
            Err(e) => Err(failed(&format!("reading {path}"), &e)),
        }
    }

    /// The content of one file in a container; `None` if it does not exist.
    ///
    /// # Errors
    /// An environment error if it cannot be read.
    pub async fn read_file(&self, container: &str, path: &str) -> Result<Option<Vec<u8>>> {
        self.read_through_links(container, path, 0).await
    }

    async fn read_through_links(&self, container: &str, path: &str, links: usize) -> Result<Option<Vec<u8>>> {
        check_links(path, links)?;
        let Some(bytes) = self.download_at_most(container, path, LARGEST_FILE).await? else { return Ok(None) };
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().map_err(|e| broken(path, &e))?;
        for entry in entries {
            let mut entry = entry.map_err(|e| broken(path, &e))?;
            if entry.header().entry_type().is_symlink() {
                // The engine returns the link itself: follow it.
                let target = entry.link_name().ok().flatten().map(|t| t.display().to_string());
                let Some(target) = target else { return Ok(None) };
                let target = resolve(path, &target);
                return Box::pin(self.read_through_links(container, &target, links + 1)).await;
            }
            if entry.header().entry_type().is_file() {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).map_err(|e| broken(path, &e))?;
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// Everything at and below `path`, by relative path (`""` is the path itself); `None` if it
    /// does not exist.
    ///
    /// # Errors
    /// An environment error if it cannot be read.
    pub async fn tree(&self, container: &str, path: &str) -> Result<Option<BTreeMap<String, Entry>>> {
        self.tree_through_links(container, path, 0).await
    }

    async fn tree_through_links(
        &self,
        container: &str,
        path: &str,
        links: usize,
    ) -> Result<Option<BTreeMap<String, Entry>>> {
        check_links(path, links)?;
        let Some(bytes) = self.download(container, path).await? else { return Ok(None) };
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut tree = BTreeMap::new();
        for entry in archive.entries().map_err(|e| broken(path, &e))? {
            let mut entry = entry.map_err(|e| broken(path, &e))?;
            let name = entry.path().map_err(|e| broken(path, &e))?.display().to_string();
            let name = name.trim_end_matches('/').split_once('/').map_or("", |(_, rest)| rest).to_owned();
            let kind = entry.header().entry_type();
            let found = if kind.is_dir() {
                Entry::Directory
            } else if kind.is_file() {
                let mut hash = Sha256::new();
                std::io::copy(&mut entry, &mut hash).map_err(|e| broken(path, &e))?;
                Entry::File(hex::encode(&hash.finalize()[..16]))
            } else {
                let target = entry.link_name().ok().flatten();
                Entry::Link(target.map(|t| t.display().to_string()).unwrap_or_default())
            };
            tree.insert(name, found);
        }
        // The engine returns the link itself: follow it.
        if let (1, Some(Entry::Link(target))) = (tree.len(), tree.get("")) {
            let target = resolve(path, target);
            return Box::pin(self.tree_through_links(container, &target, links + 1)).await;
        }
        Ok(Some(tree))
    }

    /// Whether `path` exists in a container.
    ///
    /// # Errors
    /// An environment error if the engine does not answer.
    pub async fn exists(&self, container: &str, path: &str) -> Result<bool> {
        use bollard::query_parameters::ContainerArchiveInfoOptionsBuilder;
        let options = ContainerArchiveInfoOptionsBuilder::default().path(path).build();
        match self.docker.get_container_archive_info(container, Some(options)).await {
            Ok(_) => Ok(true),
            Err(e) if is_missing(&e) => Ok(false),
            Err(e) => Err(failed(&format!("searching for {path}"), &e)),
        }
    }
}

/// The result of reading a stream.
#[derive(Debug, PartialEq, Eq)]
enum Collected {
    All(Vec<u8>),
    TooMuch,
}

/// Reads a stream of at most `limit` bytes. Does not wait for the rest of a longer one.
async fn collect<E>(stream: impl Stream<Item = Result<Bytes, E>>, limit: usize) -> Result<Collected, E> {
    let mut stream = std::pin::pin!(stream);
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        if bytes.len() + chunk.len() > limit {
            return Ok(Collected::TooMuch);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Collected::All(bytes))
}

fn too_much(path: &str, limit: usize) -> Error {
    Error::environment(format!("{path} in the container is larger than {limit} bytes"))
        .fix("remove or move unneeded files there; lockproof keeps them in memory for comparison")
}

fn check_links(path: &str, links: usize) -> Result<()> {
    if links <= MOST_LINKS {
        return Ok(());
    }
    Err(Error::environment(format!("{path} in the container is part of a link cycle"))
        .fix("remove the link, or let it point to a file"))
}

/// The content of the first file in an archive; `None` if it contains none.
pub fn extract_file(archive: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_file() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

fn broken(path: &str, error: &std::io::Error) -> Error {
    Error::environment(format!("the engine sent an invalid archive of {path}")).detail(error)
}

/// A link's target as an absolute path.
pub fn resolve(link: &str, target: &str) -> String {
    if target.starts_with('/') {
        return target.to_owned();
    }
    let parent = link.rsplit_once('/').map_or("", |(parent, _)| parent);
    normalise(&format!("{parent}/{target}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_without_an_end_is_not_read_to_it() {
        let endless = futures_util::stream::repeat_with(|| Ok::<_, ()>(Bytes::from_static(b"12345678")));
        assert_eq!(collect(endless, 100).await, Ok(Collected::TooMuch));
        let chunks =
            || futures_util::stream::iter([Ok::<_, ()>(Bytes::from_static(b"123")), Ok(Bytes::from_static(b"45"))]);
        assert_eq!(collect(chunks(), 5).await, Ok(Collected::All(b"12345".to_vec())));
        assert_eq!(collect(chunks(), 4).await, Ok(Collected::TooMuch));
        let broken = futures_util::stream::iter([Ok(Bytes::from_static(b"123")), Err("gone")]);
        assert_eq!(collect(broken, 5).await, Err("gone"));
        assert!(too_much("/data/x", 5).to_string().contains("/data/x in the container is larger than 5 bytes"));
    }

    #[test]
    fn links_in_a_circle_come_to_an_end() {
        assert!(check_links("/a", MOST_LINKS).is_ok());
        assert!(check_links("/a", MOST_LINKS + 1).expect_err("a circle").to_string().contains("part of a link cycle"));
    }

    #[test]
    fn a_link_is_followed_as_inside() {
        assert_eq!(resolve("/opt/venv/bin/python", "python3"), "/opt/venv/bin/python3");
        assert_eq!(resolve("/a/b/c", "../d"), "/a/d");
        assert_eq!(resolve("/a/b", "/usr/bin/x"), "/usr/bin/x");
    }

    #[test]
    fn a_copied_directory_is_readable_by_everyone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("a.whl");
        std::fs::write(&file, "x").expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("changed");
        let mut tarball = Tarball::new();
        tarball.tree(dir.path(), "wheels", Owners::Lent, &|_| false).expect("read");
        let bytes = tarball.finish().expect("finished");
        let mut archive = tar::Archive::new(&bytes[..]);
        let modes: Vec<u32> =
            archive.entries().expect("entries").map(|e| e.expect("entry").header().mode().expect("a mode")).collect();
        assert!(modes.iter().all(|mode| mode & 0o444 == 0o444), "{modes:?}");
    }

    #[test]
    fn the_same_tree_has_the_same_archive() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("a.py"), "x").expect("written");
        std::fs::create_dir(dir.path().join("__pycache__")).expect("made");
        let make = || {
            let mut tarball = Tarball::new();
            tarball
                .tree(dir.path(), "plugin", Owners::All(Ownership::ROOT), &|name| name == "__pycache__")
                .expect("read");
            tarball.finish().expect("finished")
        };
        let (first, second) = (make(), make());
        assert_eq!(first, second);
        let mut archive = tar::Archive::new(&first[..]);
        let names: Vec<String> = archive
            .entries()
            .expect("entries")
            .map(|e| e.expect("entry").path().expect("path").display().to_string())
            .collect();
        assert_eq!(names, ["plugin", "plugin/a.py"]);
    }
}
