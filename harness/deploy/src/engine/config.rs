//! The configuration of a local image.

use bollard::models::ImageConfig;

use super::{Engine, failed, is_missing};
use lockproof_model::error::Result;

/// The image settings that a compose file can override.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageSettings {
    /// Variables, as NAME=VALUE.
    pub env: Vec<String>,
    /// The words of the entry point.
    pub entrypoint: Vec<String>,
    /// The words of the command.
    pub command: Vec<String>,
    /// The working directory; empty: `/`.
    pub working_dir: String,
    /// The user; empty: root.
    pub user: String,
    /// The volumes that it declares.
    pub volumes: Vec<String>,
    /// The words of the health check's test.
    pub healthcheck: Vec<String>,
}

impl Engine {
    /// The settings of an image; `None` if it is not local. It is not pulled.
    ///
    /// # Errors
    /// An environment error if the engine does not answer.
    pub async fn image_settings(&self, name: &str) -> Result<Option<ImageSettings>> {
        let found = match self.docker.inspect_image(name).await {
            Ok(found) => found,
            Err(e) if is_missing(&e) => return Ok(None),
            Err(e) => return Err(failed(&format!("inspecting the image {name}"), &e)),
        };
        let ImageConfig { env, entrypoint, cmd, working_dir, user, volumes, healthcheck, .. } =
            found.config.unwrap_or_default();
        let mut volumes = volumes.unwrap_or_default();
        volumes.sort_unstable();
        Ok(Some(ImageSettings {
            env: env.unwrap_or_default(),
            entrypoint: entrypoint.unwrap_or_default(),
            command: cmd.unwrap_or_default(),
            working_dir: working_dir.unwrap_or_default(),
            user: user.unwrap_or_default(),
            volumes,
            healthcheck: healthcheck.and_then(|h| h.test).unwrap_or_default(),
        }))
    }
}
