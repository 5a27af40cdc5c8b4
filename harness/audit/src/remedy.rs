//! The lines to add to a compose file so that a state persists: a mount, and its volume.

use super::{facts::Facts, states::Reading};
use crate::images::script::Come;
use lockproof_model::{
    path::is_within,
    state::{Owner, State},
};

/// A named volume and its mount point.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Keep {
    /// The name of the volume.
    pub volume: String,
    /// The path in the container.
    pub target: String,
}

/// The smallest set of mounts that keeps a state; empty if no mount can.
pub fn keep(reading: &Reading, facts: &Facts) -> Vec<Keep> {
    let volume = |name: &str, target: String| Keep { volume: name.to_owned(), target };
    // An anonymous volume of the image is named as it is: with a volume below it, the image's start
    // would create its directories in a different order.
    if reading.owner == Some(Owner::AnonymousVolume) {
        let declared = |path: &&String| facts.volumes.iter().any(|v| is_within(path, v));
        let mut whole: Vec<Keep> = reading
            .weakest
            .iter()
            .filter(declared)
            .filter_map(|path| facts.volumes.iter().filter(|v| is_within(path, v)).max_by_key(|v| v.len()))
            .map(|path| {
                let name = path.trim_matches('/').rsplit('/').next().unwrap_or_default().to_lowercase();
                let name = if matches!(name.as_str(), "root" | "runner" | "data" | "mnt") { "data" } else { &name };
                volume(&format!("comfyui-{}", name.replace('_', "-")), path.clone())
            })
            .collect();
        whole.dedup();
        if !whole.is_empty() {
            return whole;
        }
    }
    let one = match reading.state {
        State::Plugin | State::SessionKey => {
            facts.custom_nodes.as_deref().map(|nodes| volume("comfyui-custom-nodes", facts.real(nodes)))
        }
        State::Credential => {
            let directory = reading.paths.first().and_then(|path| path.rsplit_once('/'));
            directory.map(|(directory, _)| volume("comfyui-login", directory.to_owned()))
        }
        // A volume on the system's Python would hide that of every later image.
        State::Deps => reading
            .paths
            .first()
            .filter(|p| p.ends_with("venv") || p.ends_with("/.local") || is_within(p, "/opt/venv"))
            .map(|path| volume("comfyui-python", path.clone())),
        State::Data => {
            let name = |path: &str| format!("comfyui-{}", path.rsplit('/').next().unwrap_or("data"));
            let whole = |path: &String| path.strip_suffix("/default").unwrap_or(path).to_owned();
            return reading.weakest.iter().map(whole).map(|path| volume(&name(&path), path)).collect();
        }
    };
    one.into_iter().collect()
}

/// The text of the remedy, with the lines to add.
pub fn words(service: &str, reading: &Reading, facts: &Facts) -> String {
    let keep = keep(reading, facts);
    let lines = (!keep.is_empty()).then(|| lines(service, &keep));
    match (reading.state, lines) {
        (State::Deps, lines) => {
            let python = facts.python.as_deref().unwrap_or("python");
            let mut text = format!(
                "install the plugin's dependencies in the image:\nRUN {python} -m pip install -r requirements.txt"
            );
            if let Some(lines) = lines {
                text.push_str(
                    "\nor keep the virtual environment on a named volume (rebuild it when the image's Python \
                    changes):\n",
                );
                text.push_str(&lines);
            } else if facts.requirements != Come::Always {
                text.push_str("\nor install them at each start, and make the start fail when the installation fails");
            }
            text
        }
        (State::Data, Some(lines)) => format!("keep user data on named volumes:\n{lines}"),
        (_, Some(lines)) => format!("add these lines:\n{lines}"),
        (State::Plugin | State::SessionKey, None) => {
            "mount a named volume where ComfyUI loads custom nodes; `lockproof gate` detects the path".to_owned()
        }
        (_, None) => "mount a named volume there; `lockproof gate` detects the path".to_owned(),
    }
}

/// The compose lines that declare and mount the volumes.
pub fn lines(service: &str, keep: &[Keep]) -> String {
    let mut text = format!("services:\n  {service}:\n    volumes:\n");
    for Keep { volume, target } in keep {
        text.push_str(&format!("      - {volume}:{target}\n"));
    }
    text.push_str("volumes:");
    for Keep { volume, .. } in keep {
        text.push_str(&format!("\n  {volume}:"));
    }
    text
}
