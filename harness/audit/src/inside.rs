//! Reads the files of an audit, only from the project: the paths in a compose file or Dockerfile of an
//! untrusted repository must not make lockproof read other files of this machine.
//!
//! | source of the path | must be below |
//! |---|---|
//! | `COPY` of a Dockerfile | the build context; absolute paths and `..` resolve to its root, as in Docker |
//! | `dockerfile:` | the build context or the project |
//! | a mount's source | the project |
//!
//! Links are followed; their target must be below the same directory.

use std::path::{Component, Path, PathBuf};

use lockproof_model::read;

/// The size limit of a script or configuration file, in bytes.
const LARGEST: u64 = 256 * 1024;

/// Why a file is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It does not exist.
    Missing,
    /// It is outside the directory, or a link leads outside.
    Outside,
    /// It is not a file, not text, too large, or not readable.
    Unreadable,
}

/// The project directory: the enclosing repository, or the directory itself.
pub(crate) fn project(directory: &Path) -> PathBuf {
    let whole = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    // A repository at the file system's root would include the whole machine.
    let repository = whole.ancestors().find(|above| above.parent().is_some() && above.join(".git").exists());
    repository.map_or_else(|| whole.clone(), Path::to_owned)
}

/// Reads a text file below `root`.
pub(crate) fn text(root: &Path, path: &Path) -> Result<String, Unread> {
    let path = confined(root, path)?;
    if !path.is_file() {
        return Err(Unread::Unreadable);
    }
    read::text(&path, LARGEST).map_err(|_| Unread::Unreadable)
}

/// The path with links resolved, if it is below `root`.
pub(crate) fn confined(root: &Path, path: &Path) -> Result<PathBuf, Unread> {
    let root = root.canonicalize().map_err(|_| Unread::Missing)?;
    match path.canonicalize() {
        Ok(real) if real.starts_with(&root) => Ok(real),
        Ok(_) => Err(Unread::Outside),
        Err(_) => Err(Unread::Missing),
    }
}

/// Resolves a path of a `COPY` in its build context, which it cannot leave.
pub(crate) fn in_context(context: &Path, path: &str) -> PathBuf {
    let mut below = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(part) => below.push(part),
            Component::ParentDir => {
                below.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    context.join(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_and_parents_begin_at_the_context() {
        let context = Path::new("/srv/project");
        for (path, expected) in [
            ("/docker/entry.sh", "/srv/project/docker/entry.sh"),
            ("../../etc/passwd", "/srv/project/etc/passwd"),
            ("a/../../b/./c", "/srv/project/b/c"),
            ("/", "/srv/project/"),
        ] {
            assert_eq!(in_context(context, path), Path::new(expected), "{path}");
        }
    }

    #[test]
    fn a_link_that_leads_out_is_not_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (root, outside) = (dir.path().join("project"), dir.path().join("secret.sh"));
        std::fs::create_dir(&root).expect("made");
        std::fs::write(&outside, "outside").expect("written");
        std::fs::write(root.join("own.sh"), "inside").expect("written");
        std::os::unix::fs::symlink(&outside, root.join("leads-out.sh")).expect("linked");
        std::os::unix::fs::symlink("own.sh", root.join("stays.sh")).expect("linked");
        std::os::unix::fs::symlink(dir.path(), root.join("up")).expect("linked");
        let read = |name: &str| text(&root, &root.join(name));
        assert_eq!(read("own.sh").as_deref(), Ok("inside"));
        assert_eq!(read("stays.sh").as_deref(), Ok("inside"));
        assert_eq!(read("leads-out.sh"), Err(Unread::Outside));
        assert_eq!(read("up/secret.sh"), Err(Unread::Outside));
        assert_eq!(read("../secret.sh"), Err(Unread::Outside));
        assert_eq!(read("nowhere.sh"), Err(Unread::Missing));
        assert_eq!(read("."), Err(Unread::Unreadable));
    }

    #[test]
    fn a_project_is_the_repository_around_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let below = dir.path().join("docker");
        std::fs::create_dir(&below).expect("made");
        assert_eq!(project(&below), below.canonicalize().expect("there"));
        std::fs::create_dir(dir.path().join(".git")).expect("made");
        assert_eq!(project(&below), dir.path().canonicalize().expect("there"));
    }
}
