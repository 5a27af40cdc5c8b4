//! The files of the lab, as they are built into this binary.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use include_dir::{Dir, DirEntry, include_dir};
use sha2::{Digest, Sha256};

use crate::engine::archive::{Ownership, Tarball, unreadable};
use lockproof_model::error::{Error, Result};

static FIXTURES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/fixtures");

/// The parts that a machine needs beside the images.
const UNPACKED: [&str; 3] = ["plugins", "scripts", "demo"];

/// The directory below the fixtures, which is there unless the build was broken.
pub(super) fn directory(path: &str) -> Result<&'static Dir<'static>> {
    FIXTURES.get_dir(path).ok_or_else(|| {
        Error::environment(format!("this binary was built without fixtures/{path}")).fix("build it again")
    })
}

/// The text of one file below the fixtures.
pub(super) fn text(path: &str) -> Result<&'static str> {
    FIXTURES.get_file(path).and_then(|file| file.contents_utf8()).ok_or_else(|| {
        Error::environment(format!("this binary was built without fixtures/{path}")).fix("build it again")
    })
}

/// The archive of a directory below the fixtures, as a build context; the same files always give
/// the same bytes.
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

/// Every file below a directory, in the order of their paths.
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

/// Byte-code that a developer's Python left in the checkout.
fn is_litter(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "__pycache__") || path.extension().is_some_and(|e| e == "pyc")
}

/// The first 12 characters of the hash of everything in `parts`, for a name that tells content.
pub(super) fn content_hash(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())[..12].to_owned()
}

/// Unpacks what a machine needs into the cache, and gives the directory. What is there already is
/// not written again.
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

/// Writes a file whole: a second process that unpacks the same content meanwhile does no harm.
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
            .fix("make room or permission there, or name another directory with LOCKPROOF_CACHE")
    })
}

/// A directory in which nothing lies, always the same one: nothing is left behind however a run ends.
pub(crate) fn empty_directory() -> Result<PathBuf> {
    let directory = cache_dir()?.join("empty");
    std::fs::create_dir_all(&directory).map_err(|e| unreadable(&directory, &e))?;
    Ok(directory)
}

/// Where things lie that can be made again: `LOCKPROOF_CACHE`, else the user's cache directory.
pub fn cache_dir() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(dir) = set("LOCKPROOF_CACHE") {
        // Relative to where lockproof was started, and the engine is given absolute paths only.
        return std::path::absolute(&dir).map_err(|e| unreadable(&dir, &e));
    }
    set("XDG_CACHE_HOME")
        .or_else(|| Some(set("HOME")?.join(".cache")))
        .map(|dir| dir.join("lockproof"))
        .ok_or_else(|| Error::environment("there is no cache directory").fix("set LOCKPROOF_CACHE to a directory"))
}
