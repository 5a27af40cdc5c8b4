//! Volumes of our own, which always carry the run's label.

use std::collections::HashMap;

use bollard::{models::VolumeCreateRequest, query_parameters::RemoveVolumeOptionsBuilder};

use super::{Engine, Run, failed, is_missing};
use lockproof_model::error::Result;

impl Engine {
    /// Makes a volume of this run.
    ///
    /// # Errors
    /// An environment error when the engine cannot.
    pub async fn create_volume(&self, run: &Run, subject: &str, name: &str) -> Result<String> {
        self.create_volume_with(run, subject, name, HashMap::new()).await
    }

    /// Makes a volume of this run with options of the local driver (those of `mount(8)`).
    ///
    /// # Errors
    /// An environment error when the engine cannot.
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
        self.docker.create_volume(request).await.map_err(|e| failed("making a volume", &e))?;
        Ok(name)
    }

    /// The directory of this machine in which a volume lies.
    ///
    /// # Errors
    /// An environment error when there is no such volume.
    pub async fn volume_mountpoint(&self, name: &str) -> Result<String> {
        let volume = self.docker.inspect_volume(name).await.map_err(|e| failed("looking at a volume", &e))?;
        Ok(volume.mountpoint)
    }

    /// Whether there is a volume of that name.
    ///
    /// # Errors
    /// An environment error when the engine does not say.
    pub async fn volume_exists(&self, name: &str) -> Result<bool> {
        match self.docker.inspect_volume(name).await {
            Ok(_) => Ok(true),
            Err(e) if is_missing(&e) => Ok(false),
            Err(e) => Err(failed("looking at a volume", &e)),
        }
    }

    /// Removes a volume, if it is there. No container may use it any more.
    ///
    /// # Errors
    /// An environment error when the engine cannot.
    pub async fn remove_volume(&self, name: &str) -> Result<()> {
        let options = RemoveVolumeOptionsBuilder::default().force(true).build();
        match self.docker.remove_volume(name, Some(options)).await {
            Ok(()) => Ok(()),
            Err(e) if is_missing(&e) => Ok(()),
            Err(e) => Err(failed("removing a volume", &e)),
        }
    }
}
