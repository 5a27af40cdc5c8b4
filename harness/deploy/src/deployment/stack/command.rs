//! Compose as a child process: the plugin `docker compose`, or `docker-compose` of v1 or v2,
//! whichever is there.
//!
//! The project is given on standard input, so that no file of it, which may hold secrets, lies
//! anywhere; and it runs in an empty directory, so that no `.env` of somebody else's is read.

use std::{path::PathBuf, process::Stdio};

use tokio::{io::AsyncWriteExt, process::Command};

use crate::engine::Engine;
use lockproof_model::error::{Error, Result};

/// What sets up Compose by the environment, and is not meant for a project of ours.
const NOT_OURS: [&str; 6] = [
    "COMPOSE_FILE",
    "COMPOSE_PATH_SEPARATOR",
    "COMPOSE_PROFILES",
    "COMPOSE_PROJECT_NAME",
    "COMPOSE_ENV_FILES",
    "COMPOSE_REMOVE_ORPHANS",
];

/// So many lines of what Compose says are shown when it fails.
const LINES: usize = 12;

/// The Compose of this machine.
#[derive(Clone, Debug)]
pub struct Compose {
    words: &'static [&'static str],
    address: String,
    directory: PathBuf,
}

impl Compose {
    /// Finds it.
    ///
    /// # Errors
    /// An environment error when there is none.
    pub async fn find(engine: &Engine) -> Result<Self> {
        for words in [&["docker", "compose"][..], &["docker-compose"]] {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]).arg("version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            if command.status().await.is_ok_and(|status| status.success()) {
                let directory = crate::lab::empty_directory()?;
                return Ok(Self { words, address: engine.address().to_owned(), directory });
            }
        }
        Err(Error::environment("there is no Compose here: neither `docker compose` nor `docker-compose` answers").fix(
            "install one (on Debian and Ubuntu: apt-get install docker-compose, or docker-compose-plugin),\n\
                  or gate the service's image with its mounts as an `image:` subject",
        ))
    }

    /// Runs one of its commands on the project `name`, which `file` describes.
    ///
    /// # Errors
    /// An environment error with what it said last, when it fails.
    pub async fn run(&self, name: &str, file: &[u8], arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(self.words[0]);
        command
            .args(&self.words[1..])
            .args(["-f", "-", "-p", name])
            .args(arguments)
            .current_dir(&self.directory)
            .env("DOCKER_HOST", &self.address)
            .env("COMPOSE_HTTP_TIMEOUT", "300")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C at the terminal is for us: we end it, and clean up after it.
            .process_group(0)
            .kill_on_drop(true);
        NOT_OURS.iter().for_each(|variable| {
            command.env_remove(variable);
        });
        let line = format!("{} {}", self.words.join(" "), arguments.join(" "));
        let failed = |detail: String| Error::environment(format!("`{line}` failed")).detail(detail);
        let mut child = command.spawn().map_err(|e| failed(e.to_string()))?;
        if let Some(mut input) = child.stdin.take() {
            // One that ends before it has read everything says why on its own.
            let _closed_early = input.write_all(file).await;
        }
        let output = child.wait_with_output().await.map_err(|e| failed(e.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
        Err(failed(lines[lines.len().saturating_sub(LINES)..].join("\n"))
            .fix("bring the project up by hand to see more; what the gate changed in it is told with --verbose"))
    }
}
