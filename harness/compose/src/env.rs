//! The variables that a compose file may use: those of this process, then those of `.env` or
//! `--env-file`.

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
    /// Those of the process: they go before every file.
    process: BTreeMap<String, String>,
    /// Those of files; later files go before earlier ones.
    files: BTreeMap<String, String>,
    /// A file that could be a `.env` but is not: `.env.example` and the like.
    sample: Option<String>,
    /// How much text interpolation has added, so that it ends.
    spent: Arc<AtomicUsize>,
}

/// The text that interpolation may add to a project.
const MOST_ADDED: usize = 16 * 1024 * 1024;

impl Environment {
    /// The variables of this process.
    pub fn of_this_process() -> Self {
        let process = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Self { process: process.collect(), ..Self::default() }
    }

    /// Exactly these variables.
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
    /// A usage error when it cannot be read or is wrong.
    pub fn add_file(&mut self, path: &Path) -> Result<()> {
        let name = path.display().to_string();
        let text = text::read_text(path, &name, "an env file")?;
        let parsed =
            dotenv::parse(&text, &|name| self.get(name).map(str::to_owned)).map_err(|wrong| wrong.explain(&name))?;
        self.files.extend(parsed.into_iter().filter_map(|variable| Some((variable.name, variable.value?))));
        Ok(())
    }

    /// The same variables, with those of `.env` in `directory` where there is one.
    ///
    /// # Errors
    /// A usage error when the file is there and cannot be read.
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

    /// The same variables, with those of a file for names that are not known yet: what an included
    /// project brings goes behind what the including one has. A file that is not there is no mistake.
    ///
    /// # Errors
    /// A usage error when the file is there and cannot be read.
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

    /// Takes note of text that interpolation added.
    pub(super) fn spend(&self, bytes: usize) -> std::result::Result<(), ()> {
        let before = self.spent.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > MOST_ADDED { Err(()) } else { Ok(()) }
    }

    /// The same variables for another project.
    #[must_use]
    pub fn afresh(&self) -> Self {
        Self { spent: Arc::default(), ..self.clone() }
    }

    /// How a person sets a variable that is missing.
    pub fn how_to_set(&self, name: &str) -> String {
        match &self.sample {
            Some(sample) => format!("set it in `.env` beside the file, or try with --env-file {sample}"),
            None => format!("export {name}=…, set it in `.env` beside the file, or name another file with --env-file"),
        }
    }
}
