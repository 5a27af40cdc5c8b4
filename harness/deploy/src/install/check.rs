//! Checks before the installation, prompted by the original bug: whether the workspace variable is
//! set, the mounts are real and writable.

use crate::{
    deployment::Deployment,
    engine::{archive::unreadable, exec::Command},
    layout::Layout,
};
use lockproof_model::{
    error::Result,
    event::Event,
    finding::{Finding, Rule},
    path::{is_within, normalise},
    read, secret,
    state::Owner,
    state_map::Mounted,
};

/// The variable with the path of the workspace.
pub const WORKSPACE: &str = "COMFYUI_WORKSPACE_PATH";

/// The workspace's path in the container: from the container's environment, else from this
/// machine's.
pub fn workspace(deployment: &Deployment) -> Option<String> {
    deployment
        .env(WORKSPACE)
        .map(str::to_owned)
        .or_else(|| std::env::var(WORKSPACE).ok())
        .filter(|path| !path.trim().is_empty())
}

/// Checks the mounts of a running subject, and returns problems as findings.
///
/// # Errors
/// An environment error if the container cannot be inspected.
pub async fn check(deployment: &Deployment, layout: &Layout) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    findings.extend(check_workspace(deployment)?);
    for mounted in deployment.mounted() {
        if mounted.owner == Owner::Tmpfs || !concerns_lock(deployment, layout, &mounted.target) {
            continue;
        }
        if mounted.read_only {
            findings.extend(check_read_only(deployment, layout, &mounted.target));
        } else {
            findings.extend(check_written(deployment, layout, &mounted).await?);
        }
    }
    Ok(findings)
}

fn finding(deployment: &Deployment, rule: Rule, message: String) -> Finding {
    Finding::new(rule, &deployment.subject.name, Some(Event::Installed), message)
}

/// Whether a mount contains, or is in, a directory where the lock stores something; models and
/// caches may be read-only.
fn concerns_lock(deployment: &Deployment, layout: &Layout, target: &str) -> bool {
    let lock = &deployment.subject.lock;
    let credential = lock.scheme.credential.as_ref().map(|c| fill(&c.file, layout, ""));
    let into = lock.install.as_ref().and_then(|i| i.into.clone());
    let places = layout.custom_nodes.iter().cloned().chain(credential).chain(into).chain(workspace(deployment));
    places.map(|p| normalise(&p)).any(|place| is_within(&place, target) || is_within(target, &place))
}

/// A script that needs the workspace fails if the variable is unset.
fn check_workspace(deployment: &Deployment) -> Result<Option<Finding>> {
    let Some(script) = deployment.subject.lock.install.as_ref().and_then(|i| i.script.as_ref()) else {
        return Ok(None);
    };
    let text = read::bytes(script, read::SHORT).map_err(|e| unreadable(script, &e))?;
    let text = String::from_utf8_lossy(&text);
    if !text.contains(WORKSPACE) || workspace(deployment).is_some() {
        return Ok(None);
    }
    Ok(Some(
        finding(
            deployment,
            Rule::DeployWorkspaceUnset,
            format!("the install script uses {WORKSPACE}, which is not set in the container or on this machine"),
        )
        .evidence(format!("{} uses ${WORKSPACE}", script.display()))
        .remedy(format!(
            "set it on the subject to the mount's path in the container: env: {{ {WORKSPACE}: /workspace }}"
        )),
    ))
}

/// The lock must be able to write its state.
fn check_read_only(deployment: &Deployment, layout: &Layout, target: &str) -> Option<Finding> {
    let login = deployment.subject.lock.scheme.credential.as_ref().map(|c| fill(&c.file, layout, ""));
    let hit =
        [Some(layout.custom_nodes_dir().to_owned()), login].into_iter().flatten().find(|p| is_within(p, target))?;
    Some(
        finding(
            deployment,
            Rule::PersistReadOnly,
            format!("{target} is mounted read-only, but the lock writes its state to {hit}"),
        )
        .evidence(format!("mount {target}: read_only: true"))
        .remedy(format!("mount {target} writable, or mount a writable volume over {hit}")),
    )
}

/// Writes a marker below a mount as the user of the process, and asks the kernel for its mount. The
/// container's layer diff would also show it, but is slow on some engines.
async fn check_written(deployment: &Deployment, layout: &Layout, mounted: &Mounted) -> Result<Option<Finding>> {
    let Mounted { target, owner, .. } = mounted;
    let marker = format!("{target}/.lockproof-marker-{}", secret::random(8));
    let as_process = format!("{}:{}", layout.ids.0, layout.ids.1);
    let quoted = shlex::try_quote(&marker).unwrap_or_default();
    let write = format!(
        "exec 3> {quoted} || exit 1\n\
         echo marker >&3; wrote=$?\n\
         cat /proc/self/fdinfo/3 /proc/self/mountinfo\n\
         rm -f {quoted}; exit $wrote"
    );
    let command = Command::new(["sh", "-c", &write]).user(&as_process);
    let written = deployment.engine.exec(&deployment.container_id(), command).await?;
    if !written.ok() {
        return Ok(Some(
            finding(
                deployment,
                Rule::PersistReadOnly,
                format!("the user that runs ComfyUI ({as_process}) cannot write to {target}"),
            )
            .evidence(written.stderr.trim().to_owned())
            .remedy(format!("make that user the owner of {target}: chown -R {as_process}, or set `user:`")),
        ));
    }
    if mount_point(&written.stdout).as_deref() != Some("/") {
        return Ok(None);
    }
    let message =
        format!("files written to {target} do not reach {}: they are in the container's writable layer", owner.words());
    Ok(Some(
        finding(deployment, Rule::PersistInertMount, message)
            .evidence(format!(
                "{marker} was written there, and the kernel reports that it is in the container's writable layer"
            ))
            .remedy("mount it at the path that the container really uses (check symbolic links)".to_owned()),
    ))
}

/// The mount point of an open file, from `fdinfo` and `mountinfo` (proc(5)); `None` if unknown.
fn mount_point(proc: &str) -> Option<String> {
    let id = proc.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim();
    let mount = proc.lines().find_map(|line| line.strip_prefix(id)?.strip_prefix(' '))?;
    // After the mount id: the parent's id, the device, the root, the mount point.
    mount.split(' ').nth(3).map(str::to_owned)
}

/// Fills in the placeholders of a scheme's path.
pub fn fill(pattern: &str, layout: &Layout, plugin_dir: &str) -> String {
    pattern
        .replace("{code_dir}", &layout.code_dir)
        .replace("{custom_nodes}", layout.custom_nodes_dir())
        .replace("{plugin_dir}", plugin_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_names_the_mount_of_an_open_file() {
        let proc = |id: &str| {
            format!(
                "pos:\t7\nflags:\t0100001\nmnt_id:\t{id}\nino:\t12\n\
                 361 350 0:52 / / rw,relatime - fuse.fuse-overlayfs fuse-overlayfs rw\n\
                 36 350 0:5 / /proc rw - proc proc rw\n\
                 367 361 254:0 /volumes/x/_data /workspace rw - ext4 /dev/vda rw\n"
            )
        };
        assert_eq!(mount_point(&proc("367")).as_deref(), Some("/workspace"));
        assert_eq!(mount_point(&proc("361")).as_deref(), Some("/"));
        assert_eq!(mount_point(&proc("999")), None);
        assert_eq!(mount_point("pos:\t0\n"), None);
    }
}
