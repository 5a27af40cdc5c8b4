//! The remedy: the smallest mount that would have kept the lost state.

use crate::{
    path::is_within,
    state::{Owner, State},
    state_map::{Mounted, StateEntry},
};

/// The mount or line that would have kept a state; `python` is the interpreter of the server.
pub fn keep(entry: &StateEntry, python: &str, plugin_dir: &str) -> String {
    match (entry.owner, &entry.mount) {
        (Some(Owner::AnonymousVolume), Some(mount)) => return named(mount, "name the anonymous volume"),
        (Some(Owner::Tmpfs), Some(mount)) => return named(mount, "mount a named volume instead of the tmpfs"),
        // Only the removal of all volumes affects a named volume.
        (Some(Owner::Volume), Some(mount)) => return outlast_volumes(mount, entry.state),
        _ => {}
    }
    let credential = || entry.paths.first().map_or_else(String::new, |p| parent(p).to_owned());
    let (what, name, target) = match entry.state {
        State::Plugin => ("the plugin", "custom-nodes", parent(plugin_dir).to_owned()),
        State::Credential => ("the credential", "login", credential()),
        // Usually in the plugin's directory: one volume for both.
        State::SessionKey if entry.paths.iter().all(|path| is_within(path, plugin_dir)) => {
            ("the session key", "custom-nodes", parent(plugin_dir).to_owned())
        }
        State::SessionKey => ("the session key", "session-key", credential()),
        State::Data => {
            let target = entry.paths.first().map_or("", String::as_str);
            ("user data", target.rsplit_once('/').map_or("data", |(_, name)| name), target.to_owned())
        }
        State::Deps => return keep_dependencies(python, &entry.paths),
    };
    format!(
        "keep {what} on a named volume:\n  mounts:\n    - {{ volume: {name}, target: {target} }}\n\
         in a compose file:\n  volumes:\n    - {name}:{target}"
    )
}

/// What survives `down --volumes`: bind mounts, external volumes, and the image.
fn outlast_volumes(mount: &Mounted, state: State) -> String {
    let target = &mount.target;
    let name = mount.source.as_deref().unwrap_or("data");
    let kept = format!(
        "use a bind mount, which no volume removal affects:\n  mounts:\n    - {{ bind: ./{name}, target: \
        {target} }}\nin a compose file:\n  volumes:\n    - ./{name}:{target}\nor declare the volume \
        `{name}` there as `external: true`"
    );
    match state {
        State::Plugin | State::Deps => {
            format!("build it into the image, so that a new volume is filled with it; or {kept}")
        }
        State::Credential | State::SessionKey | State::Data => kept,
    }
}

fn named(mount: &Mounted, what: &str) -> String {
    let name: String =
        mount.target.rsplit('/').next().unwrap_or("data").replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    format!(
        "{what}:\n  mounts:\n    - {{ volume: {name}, target: {} }}\nin a compose file:\n  volumes:\n    - {name}:{}",
        mount.target, mount.target
    )
}

/// A virtual environment can be kept on a volume as a whole; the system's Python cannot.
fn keep_dependencies(python: &str, paths: &[String]) -> String {
    let environment = parent(parent(python));
    let whole = paths.iter().all(|path| is_within(path, environment));
    if !whole || environment.is_empty() || environment == "/usr" || environment == "/usr/local" {
        return "install the lock's Python dependencies in the image:\n  RUN python -m pip install -r \
            requirements.txt\nor install them at every start, and make the start fail when the installation \
            fails"
            .to_owned();
    }
    format!(
        "install the lock's Python dependencies in the image:\n  RUN {} -m pip install -r \
        requirements.txt\nor keep the virtual environment on a named volume (rebuild it when the image's \
        Python changes):\n  mounts:\n    - {{ volume: venv, target: {environment} }}",
        python
    )
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(state: State, owner: Owner, path: &str, mount: Option<Mounted>) -> StateEntry {
        StateEntry::at(state, path.to_owned(), owner, mount)
    }

    const PYTHON: &str = "/opt/venv/bin/python";
    const PLUGIN: &str = "/opt/ComfyUI/custom_nodes/login";

    #[test]
    fn what_a_named_volume_lost_is_not_kept_by_a_named_volume() {
        let mount = Mounted {
            target: "/opt/ComfyUI/login".into(),
            owner: Owner::Volume,
            read_only: false,
            source: Some("login".into()),
        };
        let entry = entry(State::Credential, Owner::Volume, "/opt/ComfyUI/login/PASSWORD", Some(mount));
        let text = keep(&entry, PYTHON, PLUGIN);
        assert!(text.contains("{ bind: ./login, target: /opt/ComfyUI/login }"), "{text}");
        assert!(!text.contains("{ volume:"), "{text}");
    }

    #[test]
    fn an_environment_that_does_not_hold_the_dependencies_is_not_proposed() {
        let keep = |path: &str| keep(&entry(State::Deps, Owner::ContainerLayer, path, None), PYTHON, PLUGIN);
        assert!(keep("/opt/venv/lib/python3.13/site-packages/bcrypt").contains("target: /opt/venv"));
        assert!(!keep("/home/comfy/.local/lib/python3.13/site-packages/bcrypt").contains("/opt/venv"));
    }

    #[test]
    fn the_session_key_goes_with_the_plugin() {
        let key = entry(State::SessionKey, Owner::ContainerLayer, &format!("{PLUGIN}/.secret-key.txt"), None);
        let plugin = entry(State::Plugin, Owner::ContainerLayer, PLUGIN, None);
        let mount = "- { volume: custom-nodes, target: /opt/ComfyUI/custom_nodes }";
        assert!(keep(&key, PYTHON, PLUGIN).contains(mount));
        assert!(keep(&plugin, PYTHON, PLUGIN).contains(mount));
    }
}
