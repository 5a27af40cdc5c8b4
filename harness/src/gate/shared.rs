//! Work that the subjects of a run share.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OnceCell, Semaphore};

use lockproof_deploy::{
    deployment::admission::Places,
    install::{
        carry::Carrier,
        source::{self, Fetched},
    },
    inventory::Inventory,
    subject::PluginSource,
};
use lockproof_model::{
    error::{Error, Result},
    scheme::Scheme,
};

/// The start permits, the fetched plugins, and their dependencies.
#[derive(Debug)]
pub struct Shared {
    /// The start permits.
    pub places: Places,
    /// The permits for gating a subject; a waiting subject may already start.
    pub turns: Semaphore,
    /// The dependencies of the lock.
    pub carrier: Carrier,
    plugins: Mutex<BTreeMap<String, Arc<OnceCell<Arc<Fetched>>>>>,
    inventories: Mutex<BTreeMap<String, Arc<OnceCell<Listed>>>>,
}

/// A server's own list of routes, or the reason if there is none.
pub type Listed = std::result::Result<Arc<Inventory>, String>;

impl Shared {
    /// Shared state for gating `jobs` subjects in parallel.
    pub fn new(jobs: usize) -> Self {
        Self {
            places: Places::of_this_machine(),
            turns: Semaphore::new(jobs),
            carrier: Carrier::default(),
            plugins: Mutex::default(),
            inventories: Mutex::default(),
        }
    }

    /// The list for servers with this key.
    pub fn inventory(&self, key: &str) -> Arc<OnceCell<Listed>> {
        let mut inventories = self.inventories.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(inventories.entry(key.to_owned()).or_default())
    }

    /// The plugin's directory on this machine, cloned at the first request.
    ///
    /// # Errors
    /// As [`source::fetch`].
    pub async fn plugin(&self, from: &PluginSource, scheme: &Scheme) -> Result<Arc<Fetched>> {
        let cell = {
            let mut plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(plugins.entry(format!("{from:?} {}", scheme.plugin.entry)).or_default())
        };
        let fetched =
            cell.get_or_try_init(|| async { Ok::<_, Error>(Arc::new(source::fetch(from, scheme).await?)) }).await?;
        Ok(Arc::clone(fetched))
    }
}
