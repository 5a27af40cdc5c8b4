//! The files for the execution: the notebook itself, and what it needs.

use std::path::{Component, Path, PathBuf};

use super::settings::Settings;
use lockproof_deploy::engine::archive::{Ownership, Tarball, unreadable};
use lockproof_model::error::{Error, Result};

/// The size limit of the files beside a notebook, in bytes.
const LARGEST: u64 = 256 * 1024 * 1024;

/// Files with names relative to one directory.
#[derive(Debug)]
pub(super) struct Stage {
    files: Vec<(PathBuf, PathBuf)>,
    /// The notebook's directory in it.
    pub(super) directory: PathBuf,
}

impl Stage {
    /// Collects the files named in the notebook's settings; by default its directory, without
    /// hidden files (such as `.env`) and other notebooks.
    ///
    /// # Errors
    /// A usage error if a file is missing or the files are too large.
    pub(super) fn of(notebook: &Path, settings: &Settings) -> Result<Self> {
        let notebook = std::path::absolute(notebook).map_err(|e| unreadable(notebook, &e))?;
        let home = notebook.parent().unwrap_or(Path::new("/")).to_path_buf();
        let mut found = Vec::new();
        match &settings.files {
            None => walk(&home, &mut found)?,
            Some(names) => {
                for name in names {
                    named(&home, name, &notebook, &mut found)?;
                }
            }
        }
        found.retain(|path| *path != notebook);
        found.sort();
        found.dedup();
        let too_much = |found: &[PathBuf]| {
            found.iter().filter_map(|path| std::fs::metadata(path).ok()).map(|meta| meta.len()).sum::<u64>() > LARGEST
        };
        if too_much(&found) {
            return Err(Error::usage(format!("the notebook's directory has more than {} MiB of files", LARGEST >> 20))
                .at(home.display())
                .fix(
                    "list the files that it needs in its metadata: \"lockproof\": { \"files\": \
                    [\"../comfyui_client.py\"] }",
                ));
        }
        let root = found.iter().fold(home.clone(), |root, path| common(&root, path));
        let below = |path: &Path| path.strip_prefix(&root).unwrap_or(path).to_path_buf();
        Ok(Self { directory: below(&home), files: found.iter().map(|path| (path.clone(), below(path))).collect() })
    }

    /// Copies the files into a directory.
    ///
    /// # Errors
    /// An environment error if they cannot be written.
    pub(super) fn lay_out(&self, root: &Path) -> Result<()> {
        let copy = |from: &Path, to: &Path| -> std::io::Result<()> {
            std::fs::create_dir_all(to.parent().unwrap_or(root))?;
            std::fs::copy(from, to).map(|_| ())
        };
        std::fs::create_dir_all(root.join(&self.directory)).map_err(|e| unreadable(root, &e))?;
        for (from, to) in &self.files {
            copy(from, &root.join(to)).map_err(|e| unreadable(from, &e))?;
        }
        Ok(())
    }

    /// Adds the files to an archive, below the directory `name`.
    ///
    /// # Errors
    /// An environment error if one cannot be read.
    pub(super) fn add_to(&self, tarball: &mut Tarball, name: &str) -> Result<()> {
        let path = Path::new(name).join(&self.directory);
        let broken = |e: std::io::Error| unreadable(&path, &e);
        tarball.directory(&path.display().to_string(), 0o777, Ownership::ROOT).map_err(broken)?;
        for (from, to) in &self.files {
            let bytes = std::fs::read(from).map_err(|e| unreadable(from, &e))?;
            let to = Path::new(name).join(to).display().to_string();
            tarball.file(&to, &bytes, 0o644, Ownership::ROOT).map_err(|e| unreadable(from, &e))?;
        }
        Ok(())
    }
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(directory).map_err(|e| unreadable(directory, &e))? {
        let entry = entry.map_err(|e| unreadable(directory, &e))?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name.starts_with('.') || name == "__pycache__" || path.extension().is_some_and(|e| e == "ipynb") {
            continue;
        }
        if path.is_dir() {
            // Do not follow a link, which may lead back.
            if !path.is_symlink() {
                walk(&path, found)?;
            }
        } else if path.is_file() {
            found.push(path);
        }
    }
    Ok(())
}

/// A path relative to the notebook, or a glob pattern in its directory.
fn named(home: &Path, name: &str, notebook: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let wrong = |what: String| Error::usage(what).at(format!("{}, metadata.lockproof.files", notebook.display()));
    let path = tidy(&home.join(name));
    if path.is_dir() {
        return walk(&path, found);
    }
    if path.is_file() {
        found.push(path);
        return Ok(());
    }
    let glob = globset::GlobBuilder::new(name)
        .literal_separator(true)
        .build()
        .map_err(|e| wrong(format!("`{name}` is not a valid pattern: {e}")))?
        .compile_matcher();
    let mut all = Vec::new();
    walk(home, &mut all)?;
    let before = found.len();
    found.extend(all.into_iter().filter(|path| path.strip_prefix(home).is_ok_and(|p| glob.is_match(p))));
    if found.len() == before {
        return Err(wrong(format!("no such file: `{name}`")).fix("paths are relative to the notebook"));
    }
    Ok(())
}

/// A path without `.` and `..`.
fn tidy(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            part => out.push(part),
        }
    }
    out
}

fn common(a: &Path, b: &Path) -> PathBuf {
    a.components().zip(b.components()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, names: &[&str]) {
        for name in names {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().expect("below")).expect("made");
            std::fs::write(path, name).expect("written");
        }
    }

    fn names(stage: &Stage) -> Vec<String> {
        stage.files.iter().map(|(_, to)| to.display().to_string()).collect()
    }

    #[test]
    fn the_directory_comes_along_but_for_secrets_and_other_notebooks() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path(), &["n/a.ipynb", "n/b.ipynb", "n/.env", "n/.git/x", "n/in/p.png", "n/h.py", "o.py"]);
        let stage = Stage::of(&dir.path().join("n/a.ipynb"), &Settings::default()).expect("collected");
        assert_eq!(names(&stage), ["h.py", "in/p.png"]);
        assert_eq!(stage.directory, Path::new(""));
    }

    #[test]
    fn named_files_keep_their_places() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path(), &["n/a.ipynb", "n/in/p.png", "n/h.py", "o.py"]);
        let settings = |files: &[&str]| Settings {
            files: Some(files.iter().map(|f| (*f).to_owned()).collect()),
            ..Settings::default()
        };
        let stage = Stage::of(&dir.path().join("n/a.ipynb"), &settings(&["../o.py", "in/*.png"])).expect("collected");
        assert_eq!(names(&stage), ["n/in/p.png", "o.py"]);
        assert_eq!(stage.directory, Path::new("n"));
        let out = tempfile::tempdir().expect("a directory");
        stage.lay_out(out.path()).expect("laid out");
        assert!(out.path().join("o.py").is_file() && out.path().join("n/in/p.png").is_file());
        assert!(Stage::of(&dir.path().join("n/a.ipynb"), &settings(&["none.py"])).is_err());
    }
}
