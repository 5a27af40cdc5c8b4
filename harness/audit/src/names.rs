//! `deploy/variable-name`: different variable names for the same token in the compose file, in
//! `.env` and its samples, and in nearby helpers and notebooks.

use std::path::{Path, PathBuf};

use super::{inside, scene::Found, scene::Scene, subject::Placed};
use lockproof_compose::Project;
use lockproof_model::finding::Rule;

/// The correct name.
const MEANT: &str = "COMFYUI_API_TOKEN";

/// Other names in use.
const OTHERS: [&str; 4] = ["COMFYUI_API_KEY", "COMFYUI_TOKEN", "COMFY_API_TOKEN", "COMFYUI_AUTH_TOKEN"];

/// The maximum number of searched files.
const MOST: usize = 60;

/// The uses of the variable names.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    /// File, line from 1, and name; the compose files themselves come first.
    uses: Vec<(PathBuf, u32, &'static str)>,
}

impl Surroundings {
    /// Searches the compose files and, if a name is used, the files beside them.
    pub(super) fn of(project: &Project) -> Self {
        let mut found = Self::default();
        for source in project.sources.all() {
            found.add(&source.path, &source.text);
        }
        let around = inside::project(&project.directory);
        for path in beside(&project.directory) {
            if let Ok(text) = inside::text(&around, &path) {
                found.add(&path, &text);
            }
        }
        found
    }

    fn add(&mut self, path: &Path, text: &str) {
        if !text.contains("COMFY") {
            return;
        }
        for (number, line) in text.lines().enumerate() {
            for name in std::iter::once(MEANT).chain(OTHERS) {
                if has_word(line, name) && !line.trim_start().starts_with('#') {
                    self.uses.push((path.to_owned(), u32::try_from(number + 1).unwrap_or(u32::MAX), name));
                }
            }
        }
    }
}

/// Files that may use a token: environment files, scripts, programs and notebooks, one level deep.
fn beside(directory: &Path) -> Vec<PathBuf> {
    let wanted = |path: &Path| {
        let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
        let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
        name.contains(".env")
            || name.ends_with("env.example")
            || matches!(ending.as_str(), "py" | "ipynb" | "sh" | "bash" | "js" | "ts")
    };
    let entries = |directory: &Path| -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(directory).into_iter().flatten().flatten().map(|e| e.path()).take(500).collect();
        paths.sort();
        paths
    };
    let mut found = Vec::new();
    for path in entries(directory) {
        let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
        if wanted(&path) {
            found.push(path);
        } else if ["scripts", "helpers", "notebooks", "client", "clients", "tools", "bin"].contains(&name.as_str()) {
            found.extend(entries(&path).into_iter().filter(|p| wanted(p)));
        }
    }
    found.truncate(MOST);
    found
}

fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    line.match_indices(word).any(|(n, _)| {
        !line[..n].chars().next_back().is_some_and(part) && !line[n + word.len()..].chars().next().is_some_and(part)
    })
}

pub(super) fn findings(scene: &Scene<'_>, around: &Surroundings) -> Vec<Found> {
    let meant = around.uses.iter().any(|(_, _, name)| *name == MEANT);
    let others: Vec<&(PathBuf, u32, &str)> = around.uses.iter().filter(|(_, _, name)| *name != MEANT).collect();
    let mut names: Vec<&str> = others.iter().map(|(_, _, name)| *name).collect();
    names.sort_unstable();
    names.dedup();
    let old = names.contains(&"COMFYUI_API_KEY");
    if names.is_empty() || !(meant || names.len() > 1 || old) {
        return Vec::new();
    }
    // Report it once, even if the name is in another service's file or used by two services.
    if scene.project.services.iter().find(|s| s.name == scene.subject.service).is_none() {
        return Vec::new();
    }
    let (path, line, name) = others[0];
    let message = if meant {
        format!("the token is named {name} here and {MEANT} elsewhere")
    } else if names.len() > 1 {
        format!("the token has several names: {}", names.join(" and "))
    } else {
        format!("{name} is the old name; use {MEANT}")
    };
    let mut found = Found {
        at: Placed::Elsewhere(super::tokens::shown(scene, path), *line),
        ..Found::new(Rule::DeployVariableName, scene.service.at, message)
    };
    for (path, line, name) in around.uses.iter().take(10) {
        found = found.evidence(format!("{}:{line}: {name}", super::tokens::shown(scene, path)));
    }
    vec![found]
}
