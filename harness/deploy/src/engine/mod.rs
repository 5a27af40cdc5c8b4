//! The only place that knows the container engine: Docker Engine 20.10 (API 1.41) and newer, and
//! Podman's Docker-compatible socket.

pub mod archive;
pub mod config;
pub mod container;
pub mod cow;
pub mod exec;
pub mod image;
pub mod journal;
pub mod network;
pub mod preflight;
pub mod run;
pub mod sweep;
pub mod volume;

use std::path::PathBuf;

use bollard::{API_DEFAULT_VERSION, Docker};

use lockproof_model::error::{Error, Result};
pub use run::Run;

/// Seconds that one call to the engine may take; a pull or a build streams, so this is no limit to it.
const CALL_TIMEOUT: u64 = 300;

/// A connection to a container engine that answers.
#[derive(Clone, Debug)]
pub struct Engine {
    docker: Docker,
    address: String,
}

impl Engine {
    /// Connects to the engine that `DOCKER_HOST` names, or to the first socket that answers:
    /// Docker's, rootless Docker's, Podman's, rootless Podman's.
    ///
    /// # Errors
    /// An environment error that lists what was tried, when none answers.
    pub async fn connect() -> Result<Self> {
        let mut tried = Vec::new();
        for address in candidates() {
            match Self::connect_to(&address).await {
                Ok(engine) => return Ok(engine),
                Err(why) => tried.push(format!("{address}: {why}")),
            }
        }
        let mut error = Error::environment("no container engine answers");
        for line in tried {
            error = error.detail(line);
        }
        Err(error.fix(
            "start one (for Docker: systemctl start docker, or service docker start; for Podman: \
             systemctl start podman.socket),\nor install one (on Debian and Ubuntu: apt-get install docker.io),\n\
             or name it with DOCKER_HOST=unix:///path/to/its.sock",
        ))
    }

    async fn connect_to(address: &str) -> Result<Self, String> {
        let docker = if let Some(path) = address.strip_prefix("unix://") {
            if !PathBuf::from(path).exists() {
                return Err("no such socket".to_owned());
            }
            Docker::connect_with_unix(address, CALL_TIMEOUT, API_DEFAULT_VERSION)
        } else {
            Docker::connect_with_host(address)
        }
        .map_err(|e| e.to_string())?;
        let docker = docker.negotiate_version().await.map_err(|e| e.to_string())?;
        docker.ping().await.map_err(|e| e.to_string())?;
        Ok(Self { docker, address: address.to_owned() })
    }

    /// Where the engine is, as `DOCKER_HOST` would name it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The engine's name, version and API, for `lockproof doctor`.
    ///
    /// # Errors
    /// An environment error when it does not answer.
    pub async fn version(&self) -> Result<String> {
        let version = self.docker.version().await.map_err(|e| failed("asking for its version", &e))?;
        Ok(format!(
            "{} {}, API {}",
            version.platform.map_or_else(
                || "Docker Engine".to_owned(),
                |p| if p.name.is_empty() { "Docker Engine".to_owned() } else { p.name }
            ),
            version.version.unwrap_or_default(),
            self.docker.client_version(),
        ))
    }
}

fn candidates() -> Vec<String> {
    if let Ok(host) = std::env::var("DOCKER_HOST")
        && !host.is_empty()
    {
        // Named by the person: nothing else is meant.
        return vec![host];
    }
    let mut found = vec!["unix:///var/run/docker.sock".to_owned()];
    let runtime_dir = std::env::var("XDG_RUNTIME_DIR").ok().filter(|d| !d.is_empty());
    if let Some(dir) = &runtime_dir {
        found.push(format!("unix://{dir}/docker.sock"));
    }
    found.push("unix:///run/podman/podman.sock".to_owned());
    if let Some(dir) = &runtime_dir {
        found.push(format!("unix://{dir}/podman/podman.sock"));
    }
    found
}

/// Turns an error of the engine into one that a person can act on.
pub(crate) fn failed(doing: &str, error: &bollard::errors::Error) -> Error {
    let text = match error {
        bollard::errors::Error::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        other => other.to_string(),
    };
    let fix = if text.contains("no space left") {
        "free some disk: `lockproof clean` removes what killed runs left, `docker system df` shows the rest"
    } else if is_port_taken(&text) {
        "another process holds the port; find it with `ss -ltnp`, or stop it"
    } else {
        "see the engine's log; `lockproof doctor` checks the engine"
    };
    Error::environment(format!("the container engine failed at {doing}")).detail(text).fix(fix)
}

pub(crate) fn is_port_taken(text: &str) -> bool {
    text.contains("address already in use") || text.contains("port is already allocated")
}

/// Whether the engine says that the thing does not exist, which is what a removal wants.
pub(crate) fn is_missing(error: &bollard::errors::Error) -> bool {
    matches!(error, bollard::errors::Error::DockerResponseServerError { status_code: 404, .. })
}

/// Whether the engine says that the thing is in that state already, or on the way to it.
pub(crate) fn is_already(error: &bollard::errors::Error) -> bool {
    matches!(error, bollard::errors::Error::DockerResponseServerError { status_code: 304 | 409, .. })
}
