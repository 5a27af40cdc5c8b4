//! Creates and removes networks: one for each subject, with or without a route out.

use bollard::models::NetworkCreateRequest;

use super::{Engine, Run, failed, is_missing};
use lockproof_model::error::Result;

impl Engine {
    /// Creates a network; an `internal` one has no route out and publishes no ports.
    ///
    /// # Errors
    /// An environment error if the engine fails.
    pub async fn create_network(&self, run: &Run, subject: &str, name: &str, internal: bool) -> Result<String> {
        let name = run.name(name);
        let request = NetworkCreateRequest {
            name: name.clone(),
            driver: Some("bridge".to_owned()),
            internal: Some(internal),
            labels: Some(run.labels(subject)),
            ..Default::default()
        };
        self.docker.create_network(request).await.map_err(|e| failed("creating a network", &e))?;
        Ok(name)
    }

    /// Removes a network if it exists.
    ///
    /// # Errors
    /// An environment error if the engine fails.
    pub async fn remove_network(&self, name: &str) -> Result<()> {
        match self.docker.remove_network(name).await {
            Ok(()) => Ok(()),
            Err(e) if is_missing(&e) => Ok(()),
            Err(e) => Err(failed("removing a network", &e)),
        }
    }
}
