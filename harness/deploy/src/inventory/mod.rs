//! The server's own list of its routes, written by a helper custom node in a temporary start.
//!
//! ComfyUI and its custom nodes register routes with one aiohttp application. The helper
//! ([`helper.py`](../../src/inventory/helper.py)) reads that application at its startup, after everything
//! was registered. It must never be present in a judged start.

use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::{
    deployment::Deployment,
    engine::{
        archive::{Ownership, Tarball},
        exec::Command,
    },
    layout::Layout,
};
use lockproof_model::error::{Error, Result};

/// The helper's directory in custom_nodes.
const DIRECTORY: &str = "lockproof-inventory";
/// The file that the helper writes; [`helper.py`](../../src/inventory/helper.py) has the same path.
const ANSWER: &str = "/tmp/lockproof-inventory.json";
/// The polling interval.
const PAUSE: Duration = Duration::from_millis(150);

/// The routes and middlewares of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Inventory {
    /// Its routes, in the order in which they are tried.
    pub routes: Vec<ServerRoute>,
    /// Its middlewares, the outermost first.
    pub middlewares: Vec<Handler>,
}

/// A registered route.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ServerRoute {
    /// The method; `*` for all.
    pub method: String,
    /// The path, with placeholders in braces.
    pub path: String,
    /// Its handler.
    #[serde(flatten)]
    pub handler: Handler,
    /// The directory of a static route.
    pub directory: Option<String>,
    /// The path of a file below that directory.
    pub sample: Option<String>,
}

/// A function of the server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Handler {
    /// Its qualified name.
    pub name: String,
    /// Its module.
    pub module: Option<String>,
    /// Its source file in the container.
    pub file: Option<String>,
}

impl std::fmt::Display for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.file, &self.module) {
            (Some(file), _) => write!(f, "{} in {file}", self.name),
            (None, Some(module)) => write!(f, "{module}.{}", self.name),
            (None, None) => f.write_str(&self.name),
        }
    }
}

/// Copies the helper into custom_nodes. It takes effect at the next start.
///
/// # Errors
/// An environment error if the directory is missing or read-only.
pub async fn put_helper(deployment: &Deployment, layout: &Layout) -> Result<()> {
    let Some(into) = layout.custom_nodes.first() else {
        return Err(Error::undecided("ComfyUI does not load custom nodes here"));
    };
    let owner = Ownership { uid: layout.ids.0, gid: layout.ids.1 };
    let archive = pack(owner).map_err(|e| Error::environment("cannot pack the helper").detail(e.to_string()))?;
    deployment.upload(into, archive).await
}

fn pack(owner: Ownership) -> std::io::Result<bytes::Bytes> {
    let mut archive = Tarball::new();
    archive.directory(DIRECTORY, 0o755, owner)?;
    archive.file(&format!("{DIRECTORY}/__init__.py"), include_bytes!("helper.py"), 0o644, owner)?;
    archive.finish()
}

/// Waits up to `timeout` for the helper's file.
///
/// # Errors
/// An undecided error if the server exits first, or on a timeout.
pub async fn read(deployment: &Deployment, timeout: Duration) -> Result<Inventory> {
    let begun = Instant::now();
    loop {
        let life = deployment.life().await?;
        if life.running {
            let command = Command::new(["cat", ANSWER]).directory("/");
            if let Ok(output) = deployment.engine.exec(&deployment.container_id(), command).await
                && output.ok()
            {
                return serde_json::from_str(&output.stdout)
                    .map_err(|e| Error::undecided("cannot parse the list of routes").detail(e.to_string()));
            }
        } else if !life.restarting {
            return Err(Error::undecided("the server exited before it registered its routes"));
        }
        if begun.elapsed() > timeout {
            return Err(Error::undecided(format!(
                "timed out after {} s waiting for the server to register its routes",
                timeout.as_secs()
            )));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_helper_writes_is_read() {
        let text = r#"{"routes": [{"method": "GET", "path": "/x/{name}", "name": "get", "module": "m", "file": "/f.py"},
            {"method": "GET", "path": "/s", "name": "s", "module": null, "file": null, "directory": "/d",
             "sample": "a/b.txt"}], "middlewares": [{"name": "lock", "module": "m", "file": null}]}"#;
        let inventory: Inventory = serde_json::from_str(text).expect("it is the helper's shape");
        assert_eq!(inventory.routes[0].handler.to_string(), "get in /f.py");
        assert_eq!(inventory.routes[1].sample.as_deref(), Some("a/b.txt"));
        assert_eq!(inventory.middlewares[0].to_string(), "m.lock");
    }

    #[test]
    fn helper_and_reader_agree_on_the_path() {
        assert!(include_str!("helper.py").contains(&format!("ANSWER = \"{ANSWER}\"")));
    }
}
