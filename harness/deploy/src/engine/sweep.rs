//! Removes every object with a run's label. A failure does not stop the other removals.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bollard::query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder};

use super::{
    Engine, failed, journal,
    run::{LABEL_OWNER, LABEL_RUN, Owner},
};
use lockproof_model::error::{Error, Result};

/// The objects that runs left on the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Container ids.
    pub containers: Vec<String>,
    /// Volume names. A volume that is mounted over another one comes first.
    pub volumes: Vec<String>,
    /// Network names.
    pub networks: Vec<String>,
    /// Images built for a run.
    pub images: Vec<String>,
}

impl Leftovers {
    /// The number of objects.
    pub fn count(&self) -> usize {
        self.containers.len() + self.volumes.len() + self.networks.len() + self.images.len()
    }
}

/// The runs whose objects to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose<'a> {
    /// One run.
    Run(&'a str),
    /// All runs whose process is known to be gone.
    Gone,
    /// All runs, including those in progress.
    Everybody,
}

impl Engine {
    /// Lists the objects left by runs, by run.
    ///
    /// # Errors
    /// An environment error if the engine does not answer.
    pub async fn leftovers(&self, whose: Whose<'_>) -> Result<BTreeMap<String, Leftovers>> {
        let label = match whose {
            Whose::Run(id) => format!("{LABEL_RUN}={id}"),
            Whose::Gone | Whose::Everybody => LABEL_RUN.to_owned(),
        };
        let filters = HashMap::from([("label".to_owned(), vec![label])]);
        let containers = self
            .docker
            .list_containers(Some(ListContainersOptionsBuilder::default().all(true).filters(&filters).build()))
            .await
            .map_err(|e| failed("listing containers", &e))?;
        let volumes = self
            .docker
            .list_volumes(Some(ListVolumesOptionsBuilder::default().filters(&filters).build()))
            .await
            .map_err(|e| failed("listing volumes", &e))?;
        let networks = self
            .docker
            .list_networks(Some(ListNetworksOptionsBuilder::default().filters(&filters).build()))
            .await
            .map_err(|e| failed("listing networks", &e))?;

        let mut found: BTreeMap<String, Leftovers> = BTreeMap::new();
        for container in containers {
            let anonymous = journal::anonymous_volumes(&container);
            if let (Some(run), Some(id)) = (mine(container.labels.as_ref(), whose), container.id) {
                let leftovers = found.entry(run).or_default();
                leftovers.containers.push(id);
                leftovers.volumes.extend(anonymous);
            }
        }
        let mut overlays = Vec::new();
        for volume in volumes.volumes.unwrap_or_default() {
            if let Some(run) = mine(Some(&volume.labels), whose) {
                // An overlay's layers are in another volume, so the overlay must be unmounted
                // first.
                if volume.options.get("type").is_some_and(|t| t == "overlay") {
                    overlays.push((run, volume.name));
                } else {
                    let leftovers = found.entry(run).or_default();
                    leftovers.volumes.extend(journal::listed(&volume.labels));
                    leftovers.volumes.push(volume.name);
                }
            }
        }
        for (run, name) in overlays {
            found.entry(run).or_default().volumes.insert(0, name);
        }
        for network in networks {
            if let (Some(run), Some(name)) = (mine(network.labels.as_ref(), whose), network.name) {
                found.entry(run).or_default().networks.push(name);
            }
        }
        for (labels, name) in self.images_with(LABEL_RUN).await? {
            if let Some(run) = mine(Some(&labels), whose).filter(|run| !matches!(whose, Whose::Run(id) if id != run)) {
                found.entry(run).or_default().images.push(name);
            }
        }
        Ok(found)
    }

    /// Removes the listed objects: containers, then volumes, then networks.
    ///
    /// # Errors
    /// An environment error that lists what could not be removed, after everything was tried.
    pub async fn sweep(&self, leftovers: &Leftovers) -> Result<()> {
        let mut kept = BTreeSet::new();
        for id in &leftovers.containers {
            if let Err(e) = self.remove(id).await {
                kept.insert(format!("container {id}: {}", e.one_line()));
            }
        }
        for name in &leftovers.volumes {
            if let Err(e) = self.remove_volume(name).await {
                kept.insert(format!("volume {name}: {}", e.one_line()));
            }
        }
        for name in &leftovers.networks {
            if let Err(e) = self.remove_network(name).await {
                kept.insert(format!("network {name}: {}", e.one_line()));
            }
        }
        for name in &leftovers.images {
            if let Err(e) = self.remove_image(name).await {
                kept.insert(format!("image {name}: {}", e.one_line()));
            }
        }
        if kept.is_empty() {
            return Ok(());
        }
        let mut error =
            Error::environment(format!("could not remove {} containers, volumes or networks of lockproof", kept.len()));
        for line in kept {
            error = error.detail(line);
        }
        Err(error.fix("run `lockproof clean` once the engine works again"))
    }

    /// Removes all objects of one run.
    ///
    /// # Errors
    /// As [`Engine::leftovers`] and [`Engine::sweep`].
    pub async fn sweep_run(&self, run: &str) -> Result<()> {
        // If the run was interrupted during a call, an object may be created between the listing
        // and the removal: repeat until none is left.
        let mut last = Ok(());
        for _ in 0..3 {
            let found = self.leftovers(Whose::Run(run)).await?;
            if found.is_empty() {
                return last;
            }
            last = Ok(());
            for leftovers in found.values() {
                if let Err(e) = self.sweep(leftovers).await {
                    last = Err(e);
                }
            }
        }
        last
    }
}

/// The run of an object, if `whose` includes it.
fn mine(labels: Option<&HashMap<String, String>>, whose: Whose<'_>) -> Option<String> {
    let labels = labels?;
    let run = labels.get(LABEL_RUN)?;
    let meant = match whose {
        Whose::Run(_) | Whose::Everybody => true,
        Whose::Gone => labels.get(LABEL_OWNER).and_then(|l| Owner::parse(l)).is_some_and(|o| o.is_gone()),
    };
    meant.then(|| run.clone())
}
