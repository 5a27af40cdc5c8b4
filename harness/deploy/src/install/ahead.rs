//! Installs a lock before the first start: copies the plugin and extracts its dependencies into a
//! container that is created but not started. This saves the start without the lock.
//!
//! Only used if the result equals that of the normal way: the plugin is copied (no script, no
//! deployment with its own lock), the layout is known, and all directories exist.

use super::{Fetched, Installed, carry::Carrier, copy_plugin, find, plugin_parent};
use crate::{deployment::Deployment, layout::Layout};
use lockproof_model::{error::Result, state::Owner, state_map::Mounted};

/// Installs the lock in a stopped container. Returns `None`, with nothing changed, if the running
/// container is needed.
///
/// # Errors
/// An environment error if the engine fails; files written until then stay in the container.
pub async fn install(
    deployment: &Deployment,
    layout: &Layout,
    carrier: &Carrier,
    plugin: &Fetched,
) -> Result<Option<Installed>> {
    let lock = &deployment.subject.lock;
    let Some(install) = lock.install.as_ref().filter(|install| install.script.is_none()) else { return Ok(None) };
    let into = plugin_parent(install, layout);
    let in_memory = |m: &Mounted| m.owner == Owner::Tmpfs && lockproof_model::path::is_within(&into, &m.target);
    if deployment.mounted().iter().any(in_memory) || !deployment.exists(&into).await? {
        return Ok(None);
    }
    let Some(dependencies) = carrier.dependencies(deployment, layout, install, plugin).await? else { return Ok(None) };
    copy_plugin(deployment, layout, &into, plugin).await?;
    dependencies.unpack(deployment).await?;
    find(deployment, layout).await
}
