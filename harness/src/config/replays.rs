//! `replays:`: resolves the glob patterns, so that one without a match is reported before any work.

use std::path::{Path, PathBuf};

use lockproof_model::error::{Error, Result};
use lockproof_replay::source::Source;

/// The suffixes of workflows and notebooks.
const SUFFIXES: [&str; 4] = ["json", "png", "webp", "ipynb"];

/// The files that match the patterns, each once; relative patterns are relative to `base`.
///
/// # Errors
/// A usage error for an invalid pattern, a pattern without a match, or a file that is not a
/// workflow or notebook.
pub fn find(globs: &[String], base: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for pattern in globs {
        let place = format!("replays: {pattern}");
        // Only the pattern is a glob: brackets in the base directory's name are literal.
        let whole = if Path::new(pattern).is_absolute() {
            pattern.clone()
        } else {
            format!("{}/{pattern}", glob::Pattern::escape(&base.display().to_string()))
        };
        let paths = glob::glob(&whole)
            .map_err(|e| Error::usage(format!("`{pattern}` is not a valid glob pattern: {}", e.msg)).at(&place))?;
        let found = paths.collect::<std::result::Result<Vec<PathBuf>, _>>().map_err(|e| {
            Error::usage(format!("cannot read {}", e.path().display()))
                .at(&place)
                .detail(e.error())
                .fix("check its permissions")
        })?;
        let found: Vec<PathBuf> = found.into_iter().filter(|path| path.is_file()).collect();
        if found.is_empty() {
            return Err(Error::usage(format!("`{pattern}` matches no file"))
                .at(&place)
                .fix("correct the pattern, which is relative to the configuration file"));
        }
        for path in found {
            let suffix = path.extension().and_then(|suffix| suffix.to_str()).unwrap_or_default().to_lowercase();
            if !SUFFIXES.contains(&suffix.as_str()) {
                return Err(Error::usage(format!("{} is not a workflow or a notebook", path.display()))
                    .at(&place)
                    .fix("use a workflow (.json, .png or .webp) or a notebook (.ipynb)"));
            }
            if files.contains(&path) {
                continue;
            }
            if suffix != "ipynb" {
                Source::read(&path).map_err(|e| e.or_at(&place))?;
            }
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_are_files_each_once() {
        let directory = tempfile::Builder::new().prefix("a[b]").tempdir().expect("a directory");
        for name in ["b.json", "a.json", "c.ipynb", "d.txt"] {
            let text = r#"{ "1": { "class_type": "A" } }"#;
            std::fs::write(directory.path().join(name), text).expect("it is written");
        }
        let find = |globs: &[&str]| find(&globs.iter().map(|g| (*g).to_owned()).collect::<Vec<_>>(), directory.path());
        let names = |found: Vec<PathBuf>| {
            found.iter().filter_map(|p| p.file_name()).map(|n| n.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(find(&["*.json", "a.json", "*.ipynb"]).expect("files")), ["a.json", "b.json", "c.ipynb"]);
        insta::assert_snapshot!(find(&["x/*.json"]).expect_err("there is none"), @r"
        `x/*.json` matches no file
          --> replays: x/*.json
          = help: correct the pattern, which is relative to the configuration file
        ");
        assert!(find(&["*.txt"]).expect_err("text").to_string().contains("is not a workflow or a notebook"));
        assert!(find(&["[.json"]).expect_err("no pattern").to_string().contains("is not a valid glob pattern"));
    }
}
