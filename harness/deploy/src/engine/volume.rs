//! Creates and removes volumes, always with the run's label.

use std::collections::HashMap;

use bollard::{models::VolumeCreateRequest, query_parameters::RemoveVolumeOptionsBuilder};

use super::{Engine, Run, failed, is_missing};
use lockproof_model::error::Result;

impl Engine {
    /// Creates a volume of this run.
    ///
    /// # Errors
    /// An environment error if the engine fails.
    pub async fn create_volume(&self, run: &Run, subject: &str, name: &str) -> Result<String> {
        self.create_volume_with(run, subject, name, HashMap::new()).await
    }

    /// Creates a volume of this run with options of the local driver (those of `mount(8)`).
    ///
    /// # Errors
    /// An environment error if the engine fails.
    pub async fn create_volume_with(
        &self,
        run: &Run,
        subject: &str,
        name: &str,
        options: HashMap<String, String>,
    ) -> Result<String> {
        let name = run.name(name);
        let request = VolumeCreateRequest {
            name: Some(name.clone()),
            driver: Some("local".to_owned()),
            driver_opts: Some(options),
            labels: Some(run.labels(subject)),
            ..Default::default()
        };
        self.docker.create_volume(request).await.map_err(|e| failed("creating a volume", &e))?;
        Ok(name)
    }

    /// The directory of a volume on this machine.
    ///
    /// # Errors
    /// An environment error if the volume does not exist.
    pub async fn volume_mountpoint(&self, name: &str) -> Result<String> {
        let volume = self.docker.inspect_volume(name).await.map_err(|e| failed("inspecting a volume", &e))?;
        Ok(volume.mountpoint)
    }

    /// Whether a volume with that name exists.
    ///
    /// # Errors
    /// An environment error if the engine does not answer.
    pub async fn volume_exists(&self, name: &str) -> Result<bool> {
        match self.docker.inspect_volume(name).await {
            Ok(_) => Ok(true),
            Err(e) if is_missing(&e) => Ok(false),
            Err(e) => Err(failed("inspecting a volume", &e)),
        }
    }

    /// Removes a volume if it exists. No container may use it.
    ///
    /// # Errors
    /// An environment error if the engine fails.
    pub async fn remove_volume(&self, name: &str) -> Result<()> {
        let options = RemoveVolumeOptionsBuilder::default().force(true).build();
        match self.docker.remove_volume(name, Some(options)).await {
            Ok(()) => Ok(()),
            Err(e) if is_missing(&e) => Ok(()),
            Err(e) => Err(failed("removing a volume", &e)),
        }
    }
}
