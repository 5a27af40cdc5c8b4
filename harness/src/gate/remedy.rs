//! The remedy: the smallest mount that would have kept what was lost.

use crate::{
    deployment::Mounted,
    layout::Layout,
    state::{Owner, State},
    state_map::StateEntry,
};

/// What would have kept a state.
pub fn keep(entry: &StateEntry, layout: &Layout, plugin_dir: &str) -> String {
    if let (Some(Owner::AnonymousVolume), Some(mount)) = (entry.owner, &entry.mount) {
        return named(mount, "give the anonymous volume a name");
    }
    if let (Some(Owner::Tmpfs), Some(mount)) = (entry.owner, &entry.mount) {
        return named(mount, "mount a named volume instead of the tmpfs");
    }
    let (what, name, target) = match entry.state {
        State::Plugin => ("the plugin", "custom-nodes", parent(plugin_dir).to_owned()),
        State::Credential => {
            ("the credential", "login", entry.paths.first().map_or_else(String::new, |p| parent(p).to_owned()))
        }
        State::SessionKey => {
            ("the session key", "custom-nodes", entry.paths.first().map_or_else(String::new, |p| parent(p).to_owned()))
        }
        State::Data => ("the data", "data", entry.paths.first().cloned().unwrap_or_default()),
        State::Deps => return keep_dependencies(layout),
    };
    format!(
        "keep {what} on a named volume:\n  mounts:\n    - {{ volume: {name}, target: {target} }}\n\
         in a compose file:\n  volumes:\n    - {name}:{target}"
    )
}

fn named(mount: &Mounted, what: &str) -> String {
    let name: String =
        mount.target.rsplit('/').next().unwrap_or("data").replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    format!(
        "{what}:\n  mounts:\n    - {{ volume: {name}, target: {} }}\nin a compose file:\n  volumes:\n    - {name}:{}",
        mount.target, mount.target
    )
}

/// A virtual environment can lie on a volume as a whole; the system's Python cannot.
fn keep_dependencies(layout: &Layout) -> String {
    let environment = parent(parent(&layout.python));
    if environment.is_empty() || environment == "/usr" || environment == "/usr/local" {
        return "build the lock's Python dependencies into the image:\n  RUN python -m pip install -r requirements.txt\n\
                or install them at every start, and let the start fail when that fails"
            .to_owned();
    }
    format!(
        "build the lock's Python dependencies into the image:\n  RUN {} -m pip install -r requirements.txt\n\
         or keep the environment on a named volume (an image with another Python then needs a new one):\n  mounts:\n    - {{ volume: venv, target: {environment} }}",
        layout.python
    )
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}
