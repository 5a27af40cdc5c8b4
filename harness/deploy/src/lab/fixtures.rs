//! The lab's files, which are embedded in this binary.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use include_dir::{Dir, DirEntry, include_dir};
use sha2::{Digest, Sha256};

use crate::engine::archive::{Ownership, Tarball, unreadable};
use lockproof_model::error::{Error, Result};

static FIXTURES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/fixtures");

/// The parts that are extracted to the cache.
const UNPACKED: [&str; 3] = ["plugins", "scripts", "demo"];

/// The directory `path` in the fixtures; missing only in a broken build.
pub(super) fn directory(path: &str) -> Result<&'static Dir<'static>> {
    FIXTURES
        .get_dir(path)
        .ok_or_else(|| Error::environment(format!("this binary does not contain fixtures/{path}")).fix("rebuild it"))
}

/// The text of a file in the fixtures.
pub(super) fn text(path: &str) -> Result<&'static str> {
    FIXTURES
        .get_file(path)
        .and_then(|file| file.contents_utf8())
        .ok_or_else(|| Error::environment(format!("this binary does not contain fixtures/{path}")).fix("rebuild it"))
}

/// Adds a directory of the fixtures to a build context; the same files always give the same bytes.
pub(super) fn add(tarball: &mut Tarball, from: &str, to: &str) -> Result<()> {
    for file in files(directory(from)?) {
        let name = file.path().strip_prefix(from).unwrap_or(file.path());
        if is_litter(name) {
            continue;
        }
        let target = if to.is_empty() { name.to_path_buf() } else { Path::new(to).join(name) };
        let mode = if name.extension().is_some_and(|e| e == "sh") { 0o755 } else { 0o644 };
        tarball
            .file(&target.display().to_string(), file.contents(), mode, Ownership::ROOT)
            .map_err(|e| unreadable(name, &e))?;
    }
    Ok(())
}

/// All files below a directory, sorted by path.
fn files<'d>(dir: &'d Dir<'d>) -> Vec<&'d include_dir::File<'d>> {
    let mut found = Vec::new();
    for entry in dir.entries() {
        match entry {
            DirEntry::Dir(dir) => found.extend(files(dir)),
            DirEntry::File(file) => found.push(file),
        }
    }
    found.sort_by_key(|file| file.path());
    found
}

/// Byte code from a developer's Python.
fn is_litter(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "__pycache__") || path.extension().is_some_and(|e| e == "pyc")
}

/// The first 12 characters of the hash of `parts`, for content-based names.
pub(super) fn content_hash(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())[..12].to_owned()
}

/// Extracts the fixtures into the cache, and returns the directory. Existing files are not written
/// again.
pub(super) fn unpack() -> Result<PathBuf> {
    let mut contents: Vec<(PathBuf, &[u8])> = Vec::new();
    for part in UNPACKED {
        for file in files(directory(part)?) {
            if !is_litter(file.path()) {
                contents.push((file.path().to_path_buf(), file.contents()));
            }
        }
    }
    let hashed: Vec<u8> =
        contents.iter().flat_map(|(path, bytes)| [path.as_os_str().as_encoded_bytes(), bytes].concat()).collect();
    let root = cache_dir()?.join(format!("kit-{}", content_hash(&[&hashed])));
    let complete = root.join(".complete");
    if complete.exists() {
        return Ok(root);
    }
    for (path, bytes) in &contents {
        write(&root.join(path), bytes)?;
    }
    write(&complete, b"")?;
    Ok(root)
}

/// Writes a file atomically: another process may extract the same content in parallel.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let parent = path.parent().unwrap_or(Path::new("."));
    let attempt = || -> std::io::Result<()> {
        std::fs::create_dir_all(parent)?;
        let mut file = tempfile::NamedTempFile::new_in(parent)?;
        file.write_all(bytes)?;
        let mode = if path.extension().is_some_and(|e| e == "sh") { 0o755 } else { 0o644 };
        file.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.persist(path).map_err(|e| e.error)?;
        Ok(())
    };
    attempt().map_err(|e| {
        Error::environment(format!("cannot write {}", path.display()))
            .detail(e)
            .fix("check the disk space and permissions there, or set another directory with LOCKPROOF_CACHE")
    })
}

/// An empty directory with a fixed path, so that nothing is left behind.
pub(crate) fn empty_directory() -> Result<PathBuf> {
    let directory = cache_dir()?.join("empty");
    std::fs::create_dir_all(&directory).map_err(|e| unreadable(&directory, &e))?;
    Ok(directory)
}

/// The cache directory: `LOCKPROOF_CACHE`, else the user's cache directory.
pub fn cache_dir() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(dir) = set("LOCKPROOF_CACHE") {
        // Relative to the current directory; the engine needs absolute paths.
        return std::path::absolute(&dir).map_err(|e| unreadable(&dir, &e));
    }
    set("XDG_CACHE_HOME")
        .or_else(|| Some(set("HOME")?.join(".cache")))
        .map(|dir| dir.join("lockproof"))
        .ok_or_else(|| Error::environment("no cache directory found").fix("set LOCKPROOF_CACHE to a directory"))
}
