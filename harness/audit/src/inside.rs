//! Files that an audit reads, confined to the project: a compose file or a Dockerfile names paths, and a path
//! of a stranger's repository must not make lockproof read a file of this machine.
//!
//! | what names the path | must be below |
//! |---|---|
//! | `COPY` of a Dockerfile | the build context; absolute paths and `..` begin at its root, as for Docker |
//! | `dockerfile:` | the build context or the project |
//! | a mount's source | the project |
//!
//! Links are followed, and what they lead to must be below the same directory.

use std::path::{Component, Path, PathBuf};

use lockproof_model::read;

/// The largest script or configuration file that is read.
const LARGEST: u64 = 256 * 1024;

/// Why a file is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// There is no such file.
    Missing,
    /// It is outside the directory, or a link leads outside.
    Outside,
    /// It is not a file, not text, too large, or not readable.
    Unreadable,
}

/// The project that a directory belongs to: the repository around it, or the directory itself.
pub(crate) fn project(directory: &Path) -> PathBuf {
    let whole = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    // A repository at the root of the file system would be the whole machine.
    let repository = whole.ancestors().find(|above| above.parent().is_some() && above.join(".git").exists());
    repository.map_or_else(|| whole.clone(), Path::to_owned)
}

/// The text of a file that is below `root`.
pub(crate) fn text(root: &Path, path: &Path) -> Result<String, Unread> {
    let path = confined(root, path)?;
    if !path.is_file() {
        return Err(Unread::Unreadable);
    }
    read::text(&path, LARGEST).map_err(|_| Unread::Unreadable)
}

/// The path without links, if it is below `root`.
pub(crate) fn confined(root: &Path, path: &Path) -> Result<PathBuf, Unread> {
    let root = root.canonicalize().map_err(|_| Unread::Missing)?;
    match path.canonicalize() {
        Ok(real) if real.starts_with(&root) => Ok(real),
        Ok(_) => Err(Unread::Outside),
        Err(_) => Err(Unread::Missing),
    }
}

/// A path of a `COPY` in its build context: it begins at the root of the context and does not leave it.
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
