//! What is known about images that run ComfyUI: a catalogue ([`Family`]), and local Dockerfiles and
//! entry points ([`dockerfile`], [`script`]).
//!
//! Every fact comes from the image's own files, which the entry names; everything else is unknown.
//! To add an image, copy an entry of `images.yaml`.

pub mod dockerfile;
pub mod script;

use std::{collections::BTreeMap, sync::OnceLock};

use globset::{Glob, GlobMatcher};
use serde::Deserialize;

use lockproof_model::{parse::parse_as, state::State};

/// A family of images in the catalogue.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Family {
    /// What it is called.
    pub name: String,
    /// Glob patterns of `name:tag` in this family.
    #[serde(rename = "match")]
    pub matches: Vec<String>,
    /// Whether it was tested with `lockproof gate`.
    pub verified: bool,
    /// The files from which the facts were read.
    pub source: Vec<String>,
    /// Its paths.
    #[serde(default)]
    pub layout: Paths,
    /// The directories into which the running container installs packages; empty: unknown.
    #[serde(default)]
    pub packages: Vec<String>,
    /// The origin of the code.
    #[serde(default)]
    pub code: Code,
    /// The volumes that the image declares.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// Directories that the entry point replaces with links.
    #[serde(default)]
    pub links: BTreeMap<String, String>,
    /// How each start handles the packages of custom nodes.
    #[serde(default)]
    pub starts: Starts,
    /// Whether a start continues when that fails.
    #[serde(default)]
    pub fails_open: bool,
    /// The port in the container.
    #[serde(default)]
    pub port: Option<u16>,
    /// The states whose path is unknown.
    #[serde(default)]
    pub unknown: Vec<State>,
    /// Facts that depend on a variable.
    #[serde(default)]
    pub when: Vec<When>,
    /// Whether the image does not contain ComfyUI and its entry point only runs the command.
    #[serde(default)]
    pub plain: bool,
}

/// The paths in an image; `None`: unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paths {
    /// The directory with `main.py`.
    #[serde(default)]
    pub code_dir: Option<String>,
    /// The directory from which ComfyUI loads custom nodes.
    #[serde(default)]
    pub custom_nodes: Option<String>,
    /// The Python interpreter.
    #[serde(default)]
    pub python: Option<String>,
    /// The value of `--base-directory`.
    #[serde(default)]
    pub base_directory: Option<String>,
}

/// How each start handles the packages of custom nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Starts {
    /// Installs the requirements of every custom node.
    Requirements,
    /// Keeps them as they are.
    Keeps,
    /// Undocumented.
    #[default]
    Unknown,
}

/// The origin of ComfyUI's code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// In the image.
    #[default]
    Image,
    /// Installed by the first start.
    Start,
}

/// Facts that depend on the value of a variable.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// The variable.
    pub variable: String,
    /// Its value; `*`: any non-empty value.
    pub is: String,
    /// The paths that differ.
    #[serde(default)]
    pub layout: Paths,
    /// How each start handles the packages of custom nodes.
    #[serde(default)]
    pub starts: Option<Starts>,
    /// The states whose path is then unknown.
    #[serde(default)]
    pub unknown: Vec<State>,
}

impl Family {
    /// All families.
    ///
    /// # Panics
    /// If the built-in catalogue, which is tested, is invalid.
    pub fn all() -> &'static [Self] {
        &catalogue().0
    }

    /// The family of an image reference.
    pub fn of(image: &str) -> Option<&'static Self> {
        let name = plain(image);
        let (families, globs) = catalogue();
        families
            .iter()
            .zip(globs)
            .find(|(family, globs)| !family.plain && globs.iter().any(|glob| glob.is_match(&name)))
            .map(|(family, _)| family)
    }

    /// Whether an image does not contain ComfyUI and its entry point only runs the command.
    pub fn is_plain(image: &str) -> bool {
        let name = plain(image);
        let (families, globs) = catalogue();
        families.iter().zip(globs).any(|(family, globs)| family.plain && globs.iter().any(|glob| glob.is_match(&name)))
    }

    /// The family with the facts for these variables, and every `${NAME}` filled in.
    #[must_use]
    pub fn with(&self, variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut family = self.clone();
        for when in &self.when {
            let value = variable(&when.variable).filter(|v| !v.is_empty());
            if value.is_some_and(|v| when.is == "*" || v.eq_ignore_ascii_case(&when.is)) {
                let Paths { code_dir, custom_nodes, python, base_directory } = when.layout.clone();
                let layout = &mut family.layout;
                layout.code_dir = code_dir.or(layout.code_dir.take());
                layout.custom_nodes = custom_nodes.or(layout.custom_nodes.take());
                layout.python = python.or(layout.python.take());
                layout.base_directory = base_directory.or(layout.base_directory.take());
                family.starts = when.starts.unwrap_or(family.starts);
                family.unknown.extend(&when.unknown);
            }
        }
        let fill = |path: &mut Option<String>| {
            if let Some(text) = path.as_deref() {
                let filled = lockproof_compose::interpolate::substitute(text, variable, &mut Vec::new());
                *path = filled.ok().map(|p| lockproof_compose::in_container(&p));
            }
        };
        let Paths { code_dir, custom_nodes, python, base_directory } = &mut family.layout;
        for path in [code_dir, custom_nodes, python, base_directory] {
            fill(path);
        }
        family
    }
}

type Catalogue = (Vec<Family>, Vec<Vec<GlobMatcher>>);

fn catalogue() -> &'static Catalogue {
    static CATALOGUE: OnceLock<Catalogue> = OnceLock::new();
    CATALOGUE.get_or_init(|| {
        let families: Vec<Family> =
            parse_as(include_str!("images.yaml"), "images.yaml").expect("the catalogue is tested");
        let globs = families
            .iter()
            .map(|f| f.matches.iter().filter_map(|m| Glob::new(m).ok()).map(|g| g.compile_matcher()).collect())
            .collect();
        (families, globs)
    })
}

/// A reference in lower case without registry and digest, but with its tag: `name:tag`.
pub fn plain(image: &str) -> String {
    let image = image.split('@').next().unwrap_or(image).to_lowercase();
    let parts: Vec<&str> = image.split('/').collect();
    let registry = parts.len() > 1 && (parts[0].contains(['.', ':']) || parts[0] == "localhost");
    let rest = if registry { parts[1..].join("/") } else { image };
    let rest = rest.strip_prefix("library/").unwrap_or(&rest);
    match rest.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => rest.to_owned(),
        _ => format!("{rest}:latest"),
    }
}

/// Whether an image reference has no fixed tag: none, or one that will point to another image
/// later.
pub fn floats(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let name = plain(image);
    // This program builds the lab's images, so they change only with it.
    if name.starts_with(lockproof_model::names::LAB_REPOSITORY) {
        return false;
    }
    let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    let moving = ["latest", "nightly", "edge", "main", "master", "dev", "stable", "rolling"];
    moving.iter().any(|word| tag == *word || tag.ends_with(&format!("-{word}")))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn every_family_says_where_its_facts_come_from_and_is_found_by_its_own_globs() {
        for family in Family::all() {
            assert!(!family.source.is_empty(), "{}", family.name);
            for glob in &family.matches {
                let image = glob.replace("*", "x");
                let found = Family::of(&image).map(|f| f.name.as_str());
                assert_eq!(found, Some(family.name.as_str()).filter(|_| !family.plain), "{image}");
                assert_eq!(Family::is_plain(&image), family.plain, "{image}");
            }
        }
    }

    #[rstest]
    #[case("yanwk/comfyui-boot", None)]
    #[case("yanwk/comfyui-boot:cu121", Some("/home/runner/ComfyUI"))]
    #[case("docker.io/yanwk/comfyui-boot:cu126-megapak", Some("/root/ComfyUI"))]
    #[case("ghcr.io/ai-dock/comfyui:latest", Some("/opt/ComfyUI"))]
    #[case("ghcr.io/lecode-official/comfyui-docker@sha256:00", Some("/opt/comfyui"))]
    #[case("ghcr.io/pixeloven/comfyui/core:cuda-latest", Some("/app/ComfyUI"))]
    #[case("python:3.12", None)]
    fn images_are_found(#[case] image: &str, #[case] code_dir: Option<&str>) {
        assert_eq!(Family::of(image).and_then(|f| f.layout.code_dir.as_deref()), code_dir);
    }

    #[test]
    fn variables_move_things() {
        let family = Family::of("mmartial/comfyui-nvidia-docker").expect("it is known");
        let moved = family.with(&|name| (name == "BASE_DIRECTORY").then(|| "/basedir/".to_owned()));
        assert_eq!(moved.layout.custom_nodes.as_deref(), Some("/basedir/custom_nodes"));
        assert_eq!(moved.layout.code_dir.as_deref(), Some("/comfy/mnt/ComfyUI"));
        assert_eq!(family.with(&|_| None).layout.custom_nodes.as_deref(), Some("/comfy/mnt/ComfyUI/custom_nodes"));
    }

    #[rstest]
    #[case("a/b", true)]
    #[case("a/b:latest", true)]
    #[case("a/b:cuda-latest", true)]
    #[case("a/b:1.2", false)]
    #[case("localhost:5000/a/b", true)]
    #[case("a/b@sha256:00", false)]
    #[case("a/b:cu126-megapak", false)]
    fn tags_that_move(#[case] image: &str, #[case] moves: bool) {
        assert_eq!(floats(image), moves);
    }
}
