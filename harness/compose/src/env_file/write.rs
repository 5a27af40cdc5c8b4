//! Writes a file with a secret: atomically, and with access for its owner only.

use std::{
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use super::{Spelling, set};
use lockproof_model::error::{Error, Result};

/// Sets `name` to `value` in the file at `path`, and creates the file if it is missing. The file
/// gets mode 0600 and is replaced by a rename, so that readers see the old or the new content. For
/// a symbolic link, its target is written.
///
/// # Errors
/// A usage error if the value cannot be spelled or the file is not UTF-8; an environment error if
/// it cannot be written.
pub fn store(path: &Path, name: &str, value: &str, spelling: Spelling) -> Result<()> {
    let target = behind_links(path);
    let text = match std::fs::read(&target) {
        Ok(bytes) => String::from_utf8(bytes).map_err(|_| {
            Error::usage("the file is not valid UTF-8")
                .at(path.display())
                .fix("convert it to UTF-8, or use another file")
        })?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(unwritable(path, &e)),
    };
    let text = set(&text, name, value, spelling).map_err(|e| e.at(path.display()))?;
    replace(&target, text.as_bytes(), 0o600).map_err(|e| unwritable(path, &e))
}

/// Replaces or creates a file atomically, with `mode` and its old owner.
pub fn replace(target: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let directory = target.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".lockproof-").tempfile_in(directory)?;
    if let Ok(old) = std::fs::metadata(target) {
        let new = file.as_file().metadata()?;
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            chown(file.path(), Some(old.uid()), Some(old.gid()))?;
        }
    }
    file.write_all(bytes)?;
    // Changing the owner may clear mode bits, so it comes first.
    file.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(target).map_err(|e| e.error)?;
    Ok(())
}

/// Resolves symbolic links at the end of a path, including dangling ones. A cycle is detected when
/// the file is read.
pub fn behind_links(path: &Path) -> PathBuf {
    let mut path = path.to_path_buf();
    for _ in 0..40 {
        let Ok(target) = std::fs::read_link(&path) else { break };
        path = match path.parent() {
            Some(parent) => parent.join(target),
            None => target,
        };
    }
    path
}

fn unwritable(path: &Path, error: &std::io::Error) -> Error {
    Error::environment(format!("cannot write {}", path.display()))
        .detail(error)
        .fix("check the permissions and the free disk space; a file that is itself a mount cannot be replaced")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    #[test]
    fn the_file_is_for_its_owner_only_even_when_it_was_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(".env");
        store(&path, "T", "$a", Spelling::Quoted).expect("written");
        assert_eq!((mode(&path), std::fs::read_to_string(&path).expect("read").as_str()), (0o600, "T='$a'\n"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("changed");
        store(&path, "T", "$b", Spelling::Quoted).expect("written");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).expect("read").count(), 1, "nothing else is left");
    }

    #[test]
    fn a_link_stays_a_link_even_one_that_leads_to_nothing_yet() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("shared")).expect("made");
        let link = dir.path().join(".env");
        std::os::unix::fs::symlink("shared/env", &link).expect("linked");
        for value in ["$a", "$b"] {
            store(&link, "T", value, Spelling::Quoted).expect("written");
            assert!(link.symlink_metadata().expect("there").file_type().is_symlink());
            let text = std::fs::read_to_string(dir.path().join("shared/env")).expect("read");
            assert_eq!(text, format!("T='{value}'\n"));
        }
    }

    #[test]
    fn what_cannot_be_written_stays_as_it_was() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(".env");
        std::fs::write(&path, "T=old\n").expect("written");
        assert!(store(&path, "T", "it's", Spelling::Quoted).is_err());
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "T=old\n");
        assert!(store(&dir.path().join("none/.env"), "T", "a", Spelling::Quoted).is_err());
    }
}
