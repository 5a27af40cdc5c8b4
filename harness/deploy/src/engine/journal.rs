//! A journal of the anonymous volumes of a compose project, which have no labels.
//!
//! While a container uses them, they are found through it. Before it is removed, their names are
//! written to a journal: a labelled, empty volume whose label lists them. It is stored in the
//! engine, where a later `lockproof clean` finds it.

use std::collections::HashMap;

use bollard::{
    models::{ContainerSummary, VolumeCreateRequest},
    query_parameters::ListContainersOptionsBuilder,
};

use super::{Engine, Run, failed};
use lockproof_model::error::Result;

/// The label of a journal: volume names, separated by commas.
pub const LABEL_JOURNAL: &str = "lockproof.volumes";

impl Engine {
    /// The containers, running or not, with all of these labels (`NAME=value`).
    ///
    /// # Errors
    /// An environment error if the engine does not answer.
    pub async fn containers_with(&self, labels: &[&str]) -> Result<Vec<String>> {
        Ok(self.summaries(labels).await?.into_iter().filter_map(|container| container.id).collect())
    }

    /// The anonymous volumes of those containers.
    ///
    /// # Errors
    /// An environment error if the engine does not answer.
    pub async fn anonymous_volumes_with(&self, labels: &[&str]) -> Result<Vec<String>> {
        Ok(self.summaries(labels).await?.iter().flat_map(anonymous_volumes).collect())
    }

    async fn summaries(&self, labels: &[&str]) -> Result<Vec<ContainerSummary>> {
        let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        let filters = HashMap::from([("label".to_owned(), labels)]);
        self.docker
            .list_containers(Some(ListContainersOptionsBuilder::default().all(true).filters(&filters).build()))
            .await
            .map_err(|e| failed("listing containers", &e))
    }

    /// Records volumes whose containers will be removed, and returns the name of the journal.
    ///
    /// # Errors
    /// An environment error if the engine fails.
    pub async fn write_journal(&self, run: &Run, name: &str, volumes: &[String]) -> Result<String> {
        let mut labels = run.labels("");
        labels.insert(LABEL_JOURNAL.to_owned(), volumes.join(","));
        let request = VolumeCreateRequest {
            name: Some(name.to_owned()),
            driver: Some("local".to_owned()),
            labels: Some(labels),
            ..Default::default()
        };
        self.docker.create_volume(request).await.map_err(|e| failed("writing a journal", &e))?;
        Ok(name.to_owned())
    }
}

/// The volumes of a container with a generated name.
pub(super) fn anonymous_volumes(container: &ContainerSummary) -> Vec<String> {
    let mounts = container.mounts.iter().flatten().filter(|mount| mount.typ.as_deref() == Some("volume"));
    mounts.filter_map(|mount| mount.name.clone()).filter(|name| is_drawn(name)).collect()
}

/// The volumes that a journal lists.
pub(super) fn listed(labels: &HashMap<String, String>) -> Vec<String> {
    let text = labels.get(LABEL_JOURNAL).map_or("", String::as_str);
    text.split(',').filter(|name| is_drawn(name)).map(str::to_owned).collect()
}

/// Whether a name is generated: engines use 256 random bits in hexadecimal.
fn is_drawn(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())
}
