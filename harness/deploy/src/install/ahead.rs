//! A lock that is installed before the first start: the plugin is copied and its dependencies are
//! unpacked into a container that was made and not started, which spares the start without the lock.
//!
//! It is done only where it leaves what the usual way leaves: the plugin is copied (no script, no
//! deployment that brings its own lock), the layout is known, and all the directories exist already.

use super::{Fetched, Installed, carry::Carrier, copy_plugin, find, plugin_parent};
use crate::{deployment::Deployment, layout::Layout};
use lockproof_model::{error::Result, state::Owner, state_map::Mounted};

/// Installs the lock in a container that does not run. `None`, with nothing changed, where it has to be
/// installed in the running one.
///
/// # Errors
/// An environment error when the engine fails; what was written until then stays in the container.
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
