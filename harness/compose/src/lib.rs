//! Reads compose files without an engine and without Compose.
//!
//! ```text
//! files ──► yaml (spans, anchors, limits) ──► interpolate (.env) ──► include, extends ──► merge
//!                                                                                    │
//!                                                            Project ◄── normalise ◄─┘
//! ```
//!
//! The input that Compose v1 and v2 accept is accepted. What cannot be known stays unknown and is
//! reported as a [`Remark`](yaml::Remark). Each value of a [`Project`] keeps its file, line and
//! column.

// An unused dependency fails `make check`.
#![cfg_attr(not(test), warn(unused_crate_dependencies))]

pub mod document;
pub mod dotenv;
pub mod env;
pub mod env_file;
mod error;
pub mod interpolate;
mod load;
mod merge;
pub mod model;
mod normalise;
mod paths;
pub mod port;
pub mod raw;
pub mod source;
mod text;
mod values;
pub mod volume;
pub mod yaml;

use std::path::{Path, PathBuf};

pub use self::{
    env::Environment,
    error::Trouble,
    load::NAMES,
    model::{Mount, MountKind, Project, Service},
    paths::{clean, in_container},
    source::{Place, Source, Sources, Span},
};
use lockproof_model::error::{Error, Result};

/// How to find and read a project.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The compose files, merged in this order; empty: those that Compose would find from
    /// `directory`.
    pub files: Vec<PathBuf>,
    /// The directory to search without `files`. Default: the current directory.
    pub directory: Option<PathBuf>,
    /// The base directory of relative paths. Default: the directory of the first file.
    pub project_directory: Option<PathBuf>,
    /// Files used instead of `.env`.
    pub env_files: Vec<PathBuf>,
    /// The active profiles.
    pub profiles: Vec<String>,
}

impl Project {
    /// Reads a project.
    ///
    /// # Errors
    /// A usage error with file, line and column if a file cannot be read.
    pub fn read(options: &Options, env: Environment) -> Result<Self> {
        let files = if options.files.is_empty() {
            find(options.directory.as_deref().unwrap_or(Path::new(".")), &env)?
        } else {
            options.files.iter().map(|file| in_directory(file)).collect::<Result<_>>()?
        };
        let first = files.first().map_or(Path::new("."), PathBuf::as_path);
        let directory = match &options.project_directory {
            Some(directory) => directory.clone(),
            None => first.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned(),
        };
        let absolute = std::path::absolute(&directory)
            .map_err(|e| Error::usage(format!("cannot resolve the path {}", directory.display())).detail(e))?;
        let absolute = clean(&absolute);
        let mut env = env;
        if options.env_files.is_empty() {
            env = env.with_dot_env(&directory)?;
        }
        for file in &options.env_files {
            env.add_file(file)?;
        }
        let mut profiles = options.profiles.clone();
        if profiles.is_empty() {
            let given = env.get("COMPOSE_PROFILES").unwrap_or_default();
            profiles = given.split(',').map(str::trim).filter(|p| !p.is_empty()).map(str::to_owned).collect();
        }
        let project = normalise::project(load::load(&files, &absolute, env)?, &absolute, profiles)?;
        Ok(Self { files, ..project })
    }
}

impl Project {
    /// Reads a project from a text, with exactly these variables: for tests and fuzzing.
    ///
    /// # Errors
    /// As [`Project::read`].
    pub fn parse(text: &str, env: Environment) -> Result<Self> {
        let place = Path::new("/nowhere");
        normalise::project(load::load_text(text, place, env)?, place, Vec::new())
    }
}

/// A file, or the compose file in a directory.
fn in_directory(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    NAMES.iter().map(|name| path.join(name)).find(|file| file.is_file()).ok_or_else(|| none_in(path))
}

fn none_in(path: &Path) -> Error {
    Error::usage("no compose file found in this directory")
        .at(path.display())
        .fix(format!("give a path, or change to a directory that contains one of: {}", NAMES.join(", ")))
}

/// The files that Compose would use: `COMPOSE_FILE`, else the first default name in this directory
/// or its parents, with the override file beside it.
fn find(directory: &Path, env: &Environment) -> Result<Vec<PathBuf>> {
    if let Some(files) = env.get("COMPOSE_FILE").filter(|f| !f.is_empty()) {
        let separator = env.get("COMPOSE_PATH_SEPARATOR").unwrap_or(":");
        return Ok(files.split(separator).map(|file| directory.join(file)).collect());
    }
    let mut place = directory.to_owned();
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    for _ in absolute.components() {
        if let Some(file) = NAMES.iter().map(|name| plain(&place, name)).find(|file| file.is_file()) {
            let stem = file.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
            let overrides = ["yml", "yaml"].map(|ending| file.with_file_name(format!("{stem}.override.{ending}")));
            return Ok(std::iter::once(file).chain(overrides.into_iter().find(|f| f.is_file())).collect());
        }
        place = place.join("..");
    }
    Err(none_in(directory))
}

fn plain(directory: &Path, name: &str) -> PathBuf {
    if directory == Path::new(".") { PathBuf::from(name) } else { directory.join(name) }
}

/// Labels, or other `NAME=VALUE` entries in either form, with their positions.
pub fn labels(node: &yaml::Node) -> Vec<(String, String, Span)> {
    let named = merge::as_names(node.clone());
    let entries = named.entries().iter();
    entries.map(|e| (e.key.clone(), e.value.as_str().unwrap_or_default().to_owned(), e.at)).collect()
}
