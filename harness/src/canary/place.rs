//! Finds the canaries' files in the container by name.

use std::collections::BTreeSet;

use super::{Canary, Kind};
use lockproof_deploy::{deployment::Deployment, engine::exec::Command, layout::Layout};
use lockproof_model::{error::Result, path::is_within, state::Owner};

/// Lists files below the given directories with this name. Skips large directories without user
/// data.
const FIND: &str = r#"
name=$1; shift
find "$@" \( -name custom_nodes -o -name models -o -name site-packages -o -name .git -o -path /proc -o -path /sys -o -path /usr \) -prune -o -type f -name "*$name*" -print 2>/dev/null
"#;

/// Finds the file of each canary and its owner.
pub(super) async fn find(deployment: &Deployment, layout: &Layout, nonce: &str, planted: &mut [Canary]) -> Result<()> {
    let mounts = deployment.mounted();
    let mut roots: BTreeSet<&str> = mounts.iter().map(|mount| mount.target.as_str()).collect();
    roots.insert(&layout.code_dir);
    // `--base-directory` also moves the directories beside custom_nodes.
    roots.extend(layout.custom_nodes.iter().filter_map(|dir| Some(dir.rsplit_once('/')?.0)).filter(|d| !d.is_empty()));
    let mut files = listed(deployment, nonce, roots).await?;
    let mut saved = planted.iter().filter(|canary| !matches!(canary.kind, Kind::Setting | Kind::User));
    if saved.any(|canary| !files.iter().any(|file| file.ends_with(&canary.name))) {
        files = listed(deployment, nonce, BTreeSet::from(["/"])).await?;
    }
    let users =
        files.iter().find_map(|file| file.strip_suffix(".json")?.rsplit_once("/workflows/").map(|(user, _)| user));
    for canary in planted {
        canary.path = match canary.kind {
            Kind::Input | Kind::Output | Kind::Workflow => {
                let name = format!("/{}", canary.name);
                files.iter().find(|file| file.ends_with(&name)).cloned()
            }
            // They are beside the user's saved files.
            Kind::Setting => users.map(|user| format!("{user}/comfy.settings.json")),
            Kind::User => users.and_then(|user| Some(format!("{}/users.json", user.rsplit_once('/')?.0))),
        };
        let Some(path) = &canary.path else { continue };
        let nearest =
            mounts.iter().filter(|mount| is_within(path, &mount.target)).max_by_key(|mount| mount.target.len());
        canary.mount = nearest.cloned();
        // A file just written is on a mount or in the container's writable layer.
        canary.owner = Some(nearest.map_or(Owner::ContainerLayer, |mount| mount.owner));
    }
    Ok(())
}

async fn listed(deployment: &Deployment, nonce: &str, roots: BTreeSet<&str>) -> Result<Vec<String>> {
    let words = ["sh", "-c", FIND, "sh", nonce].into_iter().chain(roots);
    let output = deployment.engine.exec(&deployment.container_id(), Command::new(words).user("0")).await?;
    Ok(output.stdout.lines().map(str::to_owned).collect())
}
