//! The container engine API: Docker Engine 20.10 (API 1.41) and newer, and Podman's
//! Docker-compatible socket. No other module uses it directly.

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

/// The time limit of one engine call, in seconds; it does not limit pulls and builds, which are
/// streams.
const CALL_TIMEOUT: u64 = 300;

/// A connection to a container engine.
#[derive(Clone, Debug)]
pub struct Engine {
    docker: Docker,
    address: String,
}

impl Engine {
    /// Connects to the engine in `DOCKER_HOST`, or to the first socket that answers: Docker,
    /// rootless Docker, Podman, rootless Podman.
    ///
    /// # Errors
    /// An environment error that lists the addresses tried, if none answers.
    pub async fn connect() -> Result<Self> {
        let mut tried = Vec::new();
        for address in candidates() {
            match Self::connect_to(&address).await {
                Ok(engine) => return Ok(engine),
                Err(why) => tried.push(format!("{address}: {why}")),
            }
        }
        let mut error = Error::environment("no container engine found");
        for line in tried {
            error = error.detail(line);
        }
        Err(error.fix(
            "start it (Docker: systemctl start docker, or service docker start; Podman: systemctl start \
            podman.socket),\nor install one (on Debian and Ubuntu: apt-get install docker.io),\nor set its \
            socket with DOCKER_HOST=unix:///path/to/engine.sock",
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

    /// The address of the engine, in the form of `DOCKER_HOST`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The engine's name, version and API, for `lockproof doctor`.
    ///
    /// # Errors
    /// An environment error if it does not answer.
    pub async fn version(&self) -> Result<String> {
        let version = self.docker.version().await.map_err(|e| failed("reading its version", &e))?;
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
        // Set explicitly: try no other socket.
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

/// Converts an engine error into an error with instructions.
pub(crate) fn failed(doing: &str, error: &bollard::errors::Error) -> Error {
    let text = match error {
        bollard::errors::Error::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        other => other.to_string(),
    };
    let fix = if text.contains("no space left") {
        "free some disk space: `lockproof clean` removes leftovers from killed runs, `docker system df` \
        shows the rest"
    } else if is_port_taken(&text) {
        "another process uses the port; find it with `ss -ltnp`"
    } else {
        "check the engine's log, and run `lockproof doctor`"
    };
    Error::environment(format!("the container engine failed while {doing}")).detail(text).fix(fix)
}

pub(crate) fn is_port_taken(text: &str) -> bool {
    text.contains("address already in use") || text.contains("port is already allocated")
}

/// Whether the engine reports that the object does not exist, so that a removal is done.
pub(crate) fn is_missing(error: &bollard::errors::Error) -> bool {
    matches!(error, bollard::errors::Error::DockerResponseServerError { status_code: 404, .. })
}

/// Whether the engine reports that the object is already in the requested state, or on its way to
/// it.
pub(crate) fn is_already(error: &bollard::errors::Error) -> bool {
    matches!(error, bollard::errors::Error::DockerResponseServerError { status_code: 304 | 409, .. })
}
