//! What an image that is here says of itself, without a container.

use bollard::models::ImageConfig;

use super::{Engine, failed, is_missing};
use lockproof_model::error::Result;

/// The part of an image's configuration that a compose file can leave out.
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
    /// Declared volumes.
    pub volumes: Vec<String>,
    /// The words of the health check's test.
    pub healthcheck: Vec<String>,
}

impl Engine {
    /// The settings of an image; `None` when it is not here. It is not pulled.
    ///
    /// # Errors
    /// An environment error when the engine does not say.
    pub async fn image_settings(&self, name: &str) -> Result<Option<ImageSettings>> {
        let found = match self.docker.inspect_image(name).await {
            Ok(found) => found,
            Err(e) if is_missing(&e) => return Ok(None),
            Err(e) => return Err(failed(&format!("looking at the image {name}"), &e)),
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
