//! The variables for interpolation: those of this process, then those of `.env` or `--env-file`.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{dotenv, text};
use lockproof_model::error::Result;

/// The variables for interpolation.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// The variables of the process, which take precedence over files.
    process: BTreeMap<String, String>,
    /// The variables of files; later files take precedence.
    files: BTreeMap<String, String>,
    /// An existing sample such as `.env.example`.
    sample: Option<String>,
    /// The number of bytes that interpolation has added, to enforce a limit.
    spent: Arc<AtomicUsize>,
}

/// The number of bytes that interpolation may add to a project.
const MOST_ADDED: usize = 16 * 1024 * 1024;

impl Environment {
    /// The environment of this process.
    pub fn of_this_process() -> Self {
        let process = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Self { process: process.collect(), ..Self::default() }
    }

    /// An environment with exactly these variables.
    pub fn of(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { process: variables.into_iter().collect(), ..Self::default() }
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.process.get(name).or_else(|| self.files.get(name)).map(String::as_str)
    }

    /// Adds the variables of a file.
    ///
    /// # Errors
    /// A usage error if it cannot be read or is invalid.
    pub fn add_file(&mut self, path: &Path) -> Result<()> {
        let name = path.display().to_string();
        let text = text::read_text(path, &name, "an env file")?;
        let parsed =
            dotenv::parse(&text, &|name| self.get(name).map(str::to_owned)).map_err(|wrong| wrong.explain(&name))?;
        self.files.extend(parsed.into_iter().filter_map(|variable| Some((variable.name, variable.value?))));
        Ok(())
    }

    /// This environment with the variables of `.env` in `directory`, if it exists.
    ///
    /// # Errors
    /// A usage error if the file exists but cannot be read.
    pub fn with_dot_env(mut self, directory: &Path) -> Result<Self> {
        let path = directory.join(".env");
        if path.symlink_metadata().is_ok() {
            self.add_file(&path)?;
        } else {
            self.sample = [".env.example", ".env.sample", "env.example", "example.env", ".env.template", ".env.dist"]
                .iter()
                .map(|name| directory.join(name))
                .find(|path| path.is_file())
                .map(|path| path.display().to_string());
        }
        Ok(self)
    }

    /// This environment with the variables of a file, which have lower precedence: those of an
    /// included project. A missing file is ignored.
    ///
    /// # Errors
    /// A usage error if the file exists but cannot be read.
    pub fn below(&self, path: &Path) -> Result<Self> {
        let mut env = self.clone();
        if path.symlink_metadata().is_ok() {
            let mut other = self.clone();
            other.add_file(path)?;
            for (name, value) in other.files {
                env.files.entry(name).or_insert(value);
            }
        }
        Ok(env)
    }

    /// Counts text added by interpolation.
    pub(super) fn spend(&self, bytes: usize) -> std::result::Result<(), ()> {
        let before = self.spent.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > MOST_ADDED { Err(()) } else { Ok(()) }
    }

    /// The same variables with a new budget, for another project.
    #[must_use]
    pub fn afresh(&self) -> Self {
        Self { spent: Arc::default(), ..self.clone() }
    }

    /// Instructions to set a missing variable.
    pub fn how_to_set(&self, name: &str) -> String {
        match &self.sample {
            Some(sample) => format!("set it in `.env` beside the file, or use --env-file {sample}"),
            None => format!("export {name}=…, set it in `.env` beside the file, or name another file with --env-file"),
        }
    }
}
