//! What the subjects of one run share, so that it is done once.

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

/// The places for starts, the plugins that were fetched, and their dependencies.
#[derive(Debug)]
pub struct Shared {
    /// How many servers may start at once.
    pub places: Places,
    /// How many subjects may be gated at once; one that waits may be brought up already.
    pub turns: Semaphore,
    /// The dependencies of the lock.
    pub carrier: Carrier,
    plugins: Mutex<BTreeMap<String, Arc<OnceCell<Arc<Fetched>>>>>,
    inventories: Mutex<BTreeMap<String, Arc<OnceCell<Listed>>>>,
}

/// A server's own list of routes, or why there is none.
pub type Listed = std::result::Result<Arc<Inventory>, String>;

impl Shared {
    /// Nothing is done yet, and `jobs` subjects may be gated at once.
    pub fn new(jobs: usize) -> Self {
        Self {
            places: Places::of_this_machine(),
            turns: Semaphore::new(jobs),
            carrier: Carrier::default(),
            plugins: Mutex::default(),
            inventories: Mutex::default(),
        }
    }

    /// Where the list of the servers with this key goes.
    pub fn inventory(&self, key: &str) -> Arc<OnceCell<Listed>> {
        let mut inventories = self.inventories.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(inventories.entry(key.to_owned()).or_default())
    }

    /// The plugin on this machine, cloned by the first subject that asks.
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
