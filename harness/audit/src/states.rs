//! The predicted state map: where each state of the lock is stored, its owner, and which events it
//! survives.

use std::collections::BTreeMap;

use super::facts::Facts;
use crate::images::script::Come;
use lockproof_compose::{Mount, Service, Span};
use lockproof_model::{
    event::Event,
    path::is_within,
    scheme::Scheme,
    state::{Owner, State},
    state_map,
    verdict::Verdict,
};

/// The events that are predicted.
pub const EVENTS: [Event; 3] = [Event::Restart, Event::Recreate, Event::DownUp];

/// One state of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Which state it is.
    pub state: State,
    /// Its paths; empty if the path is unknown but known not to be on a mount.
    pub paths: Vec<String>,
    /// The paths that persist least.
    pub weakest: Vec<String>,
    /// The owner of the path that persists least; `None`: unknown.
    pub owner: Option<Owner>,
    /// The mount of that path.
    pub mount: Option<Mount>,
    /// When a start restores the state.
    pub back: Come,
    /// The reason, for evidence.
    pub why: String,
    /// Whether the state survives each event; `None`: unknown.
    pub survives: BTreeMap<Event, Option<bool>>,
}

/// A path with its owner and mount.
struct Place {
    owner: Owner,
    mount: Option<Mount>,
}

/// Predicts every state of a service.
pub fn read(service: &Service, facts: &Facts, scheme: &Scheme) -> Vec<Reading> {
    let plugin = plugin(service, facts, scheme);
    let mut deps = deps(service, facts);
    deps.back = facts.script.dependencies.clone();
    // If the plugin is lost, its dependencies do not matter.
    if plugin.owner != Some(Owner::ContainerLayer) && facts.requirements > deps.back {
        deps.back = facts.requirements.clone();
    }
    if deps.owner.is_none_or(|owner| owner == Owner::ContainerLayer) {
        deps.why = match &deps.back {
            Come::Always => "each start installs the requirements of all custom nodes".to_owned(),
            Come::Unless(paths) => {
                format!("a start installs them if there is no {}", paths.join(" and no "))
            }
            Come::Maybe => {
                let unknown = "it is unknown what a start installs: gate the service to find out";
                if deps.why.is_empty() { unknown.to_owned() } else { format!("{}; {unknown}", deps.why) }
            }
            Come::Never => deps.why,
        };
    }
    let mut credential = credential(service, facts, scheme);
    credential.back = facts.script.credential.clone();
    let mut readings = vec![plugin, deps, credential];
    if let Some(key) = session_key(service, facts, scheme, &readings[0]) {
        readings.push(key);
    }
    readings.push(data(service, facts));
    for reading in &mut readings {
        reading.survives = EVENTS.iter().map(|&event| (event, survives(service, facts, reading, event))).collect();
    }
    readings
}

fn survives(service: &Service, facts: &Facts, reading: &Reading, event: Event) -> Option<bool> {
    let kept = match reading.owner {
        Some(owner) => owner.survives(event),
        // A restart loses only what is on a tmpfs.
        None if event == Event::Restart && !service.mounts.iter().any(|m| m.owner() == Owner::Tmpfs) => Some(true),
        None => None,
    };
    match kept {
        Some(false) => back(service, facts, &reading.back, event),
        None if reading.back == Come::Always => Some(true),
        kept => kept,
    }
}

/// Whether a start after `event` restores what was lost.
fn back(service: &Service, facts: &Facts, when: &Come, event: Event) -> Option<bool> {
    match when {
        Come::Never => Some(false),
        Come::Always => Some(true),
        Come::Maybe => None,
        // The marker files of the installation must be gone too.
        Come::Unless(paths) => {
            let mut all = Some(true);
            for path in paths {
                let known = path.split('*').next().unwrap_or(path).trim_end_matches('/');
                let kept = place(service, facts, known).and_then(|place| place.owner.survives(event));
                match kept {
                    Some(true) => return Some(false),
                    Some(false) => {}
                    None => all = None,
                }
            }
            all
        }
    }
}

fn reading(state: State, paths: Vec<String>) -> Reading {
    Reading {
        state,
        paths,
        weakest: Vec::new(),
        owner: None,
        mount: None,
        back: Come::Never,
        why: String::new(),
        survives: BTreeMap::new(),
    }
}

fn place(service: &Service, facts: &Facts, path: &str) -> Option<Place> {
    let real = facts.real(path);
    if let Some(mount) = service.mount_of(&real) {
        // A deeper volume that the image declares is separate.
        let deeper = facts.volumes.iter().any(|v| is_within(&real, v) && v.len() > mount.target.len());
        return Some(if deeper {
            Place { owner: Owner::AnonymousVolume, mount: None }
        } else {
            Place { owner: mount.owner(), mount: Some(mount.clone()) }
        });
    }
    if service.mounts_incomplete {
        return None;
    }
    let declared = facts.volumes.iter().any(|volume| is_within(&real, volume));
    Some(Place { owner: if declared { Owner::AnonymousVolume } else { Owner::ContainerLayer }, mount: None })
}

/// The state at known paths: the path that persists least decides.
fn at(service: &Service, facts: &Facts, state: State, paths: Vec<String>) -> Reading {
    let mut result = reading(state, paths.iter().map(|p| facts.real(p)).collect());
    let places: Option<Vec<Place>> = paths.iter().map(|path| place(service, facts, path)).collect();
    let Some(places) = places else { return result };
    let least = places.iter().map(|p| p.owner).min();
    result.weakest = result
        .paths
        .iter()
        .zip(&places)
        .filter(|(_, p)| Some(p.owner) == least)
        .map(|(path, _)| path.clone())
        .collect();
    let Some(least) = places.into_iter().min_by_key(|p| p.owner) else { return result };
    // A guessed path is no proof of a loss while a mount may contain the state.
    let broad = |m: &Mount| paths.iter().any(|path| may_hold(&m.target, path.rsplit('/').next().unwrap_or_default()));
    if least.owner == Owner::ContainerLayer && !facts.layout_known && service.mounts.iter().any(broad) {
        result.why = "its path is a guess, and a mount may contain it: gate the service to find out".to_owned();
        return result;
    }
    result.owner = Some(least.owner);
    result.mount = least.mount;
    result
}

/// The state at an unknown path: it is lost if no mount can contain it.
fn anywhere(service: &Service, facts: &Facts, state: State, holds: &dyn Fn(&Mount) -> bool) -> Reading {
    let mut result = reading(state, Vec::new());
    if !service.mounts_incomplete && facts.volumes.is_empty() && !service.mounts.iter().any(holds) {
        result.owner = Some(Owner::ContainerLayer);
        result.why = "its path is unknown, but no mount can contain it".to_owned();
    } else {
        result.why = "its path is unknown: gate the service to find out".to_owned();
    }
    result
}

fn plugin_name(scheme: &Scheme) -> &str {
    scheme.plugin.names.iter().find(|n| !n.contains('*')).map_or("login", String::as_str)
}

fn plugin(service: &Service, facts: &Facts, scheme: &Scheme) -> Reading {
    let mut result = match &facts.custom_nodes {
        _ if facts.unknown.contains(&State::Plugin) => unknown(State::Plugin),
        Some(nodes) => at(service, facts, State::Plugin, vec![format!("{nodes}/{}", plugin_name(scheme))]),
        None => anywhere(service, facts, State::Plugin, &|m| may_hold(&m.target, "custom_nodes")),
    };
    result.back = facts.script.plugin.clone();
    result
}

fn unknown(state: State) -> Reading {
    Reading {
        why: "it is unknown how this image handles it: gate the service to find out".to_owned(),
        ..reading(state, Vec::new())
    }
}

fn credential(service: &Service, facts: &Facts, scheme: &Scheme) -> Reading {
    let Some(pattern) = scheme.credential.as_ref().map(|c| c.file.as_str()) else {
        return unknown(State::Credential);
    };
    if facts.unknown.contains(&State::Credential) {
        return unknown(State::Credential);
    }
    match fill(pattern, facts, scheme) {
        Some(path) => at(service, facts, State::Credential, vec![path]),
        None => anywhere(service, facts, State::Credential, &|m| may_hold(&m.target, "login")),
    }
}

fn session_key(service: &Service, facts: &Facts, scheme: &Scheme, plugin: &Reading) -> Option<Reading> {
    let pattern = scheme.session_key.as_ref()?.file.as_str();
    Some(match fill(pattern, facts, scheme).filter(|_| !facts.unknown.contains(&State::Plugin)) {
        Some(path) => at(service, facts, State::SessionKey, vec![path]),
        // If a start restores the plugin, it creates a new key.
        None => Reading {
            state: State::SessionKey,
            paths: Vec::new(),
            weakest: Vec::new(),
            back: Come::Never,
            ..plugin.clone()
        },
    })
}

fn fill(pattern: &str, facts: &Facts, scheme: &Scheme) -> Option<String> {
    let mut path = pattern.to_owned();
    let nodes = facts.custom_nodes.as_deref();
    let plugin = nodes.map(|n| format!("{n}/{}", plugin_name(scheme)));
    for (name, value) in
        [("{code_dir}", facts.code_dir.as_deref()), ("{custom_nodes}", nodes), ("{plugin_dir}", plugin.as_deref())]
    {
        if path.contains(name) {
            path = path.replace(name, value?);
        }
    }
    Some(path)
}

/// Names of mounts that contain a Python environment.
const ENVIRONMENTS: [&str; 12] = [
    "venv",
    ".venv",
    "env",
    "virtualenv",
    "site-packages",
    "dist-packages",
    ".local",
    "conda",
    "miniconda3",
    "miniconda",
    "envs",
    "python",
];

fn deps(service: &Service, facts: &Facts) -> Reading {
    if facts.unknown.contains(&State::Deps) {
        return unknown(State::Deps);
    }
    if let Some(packages) = facts.packages.as_ref().filter(|p| !p.is_empty()) {
        return at(service, facts, State::Deps, packages.clone());
    }
    let mut result = reading(State::Deps, Vec::new());
    // Known to be the image's own Python.
    let of_image = facts.packages.is_some();
    let named = |target: &str| {
        let last = target.rsplit('/').next().unwrap_or_default().to_lowercase();
        let system = last.strip_prefix("python").is_some_and(|version| version.starts_with('3'))
            || matches!(target, "/usr/local" | "/usr/local/lib" | "/usr/lib" | "/opt/conda")
            || target.ends_with("/site-packages")
            || target.ends_with("/dist-packages");
        // A mounted environment that is not used is not where packages are installed.
        let environment =
            !of_image && (ENVIRONMENTS.contains(&last.as_str()) || last.ends_with("venv") || last.starts_with("venv"));
        system || environment
    };
    if let Some(mount) = service.mounts.iter().find(|m| named(&m.target)) {
        result.paths = vec![mount.target.clone()];
        result.owner = Some(mount.owner());
        result.mount = Some(mount.clone());
        result.why = "judging by its name, this mount contains the virtual environment that runs ComfyUI".to_owned();
        return result;
    }
    if service.mounts_incomplete {
        return unknown(State::Deps);
    }
    // No mount can contain another environment, or none is used. Packages cannot be installed into
    // a read-only mount.
    let broad = service.mounts.iter().find(|m| !m.read_only && may_hold_python(&m.target, facts));
    match broad {
        Some(mount) if !of_image => {
            result.why = format!(
                "{} may or may not contain the Python that runs ComfyUI: gate the service to find out",
                mount.target
            );
        }
        _ => {
            result.owner = Some(Owner::ContainerLayer);
            result.why = "they are installed in the image's own Python, which is not on a mount".to_owned();
        }
    }
    result
}

/// Whether a mount may contain a virtual environment: home directories, workspaces, parents of the
/// code directory. The code directory itself does not count: images keep their Python elsewhere.
fn may_hold_python(target: &str, facts: &Facts) -> bool {
    match facts.code_dir.as_deref() {
        Some(code) if code == target => false,
        Some(code) => is_within(code, target) || may_hold(target, "venv") && !is_within(target, code),
        None => may_hold(target, "venv"),
    }
}

/// A mount with one of these names contains only what the name says.
const NARROW: [&str; 43] = [
    "models",
    "output",
    "outputs",
    "input",
    "inputs",
    "user",
    "temp",
    "tmp",
    "workflows",
    "workflow",
    "custom_nodes",
    "login",
    "checkpoints",
    "loras",
    "lora",
    "vae",
    "clip",
    "unet",
    "controlnet",
    "embeddings",
    "upscale_models",
    "diffusion_models",
    "text_encoders",
    "cache",
    ".cache",
    "huggingface",
    "hub",
    "localtime",
    "timezone",
    "shm",
    "dri",
    "kfd",
    "docker.sock",
    "logs",
    "log",
    "notebooks",
    "configs",
    "scripts",
    "hf_cache",
    "pip",
    "web",
    "extensions",
    "rocm",
];

/// Whether a mount may contain something with that name.
fn may_hold(target: &str, what: &str) -> bool {
    let parts: Vec<String> = target.split('/').filter(|p| !p.is_empty()).map(str::to_lowercase).collect();
    if parts.last().is_some_and(|last| last == what) {
        return true;
    }
    let file = parts
        .last()
        .is_some_and(|last| last.rsplit_once('.').is_some_and(|(stem, end)| !stem.is_empty() && end.len() <= 4));
    let system = parts.first().is_some_and(|first| {
        matches!(first.as_str(), "etc" | "dev" | "proc" | "sys" | "tmp" | "run" | "var" | "models")
    });
    let narrow = |part: &String| {
        // A hidden directory belongs to one program.
        part.starts_with('.')
            || NARROW.contains(&part.as_str())
            || ["input", "output", "models", "user_", "lora", "checkpoint"].iter().any(|start| part.starts_with(start))
    };
    !file && !system && !parts.iter().any(narrow)
}

fn data(service: &Service, facts: &Facts) -> Reading {
    let base = facts.base_directory.as_ref().or(facts.code_dir.as_ref());
    let said = &facts.script.directories;
    let path = |name: &str| said.get(name).cloned().or_else(|| base.map(|base| format!("{base}/{name}")));
    match (path("output"), path("input"), path("user")) {
        // In single-user mode, workflows and settings are in the directory of the user `default`.
        (Some(output), Some(input), Some(user)) => {
            at(service, facts, State::Data, vec![output, input, format!("{user}/default")])
        }
        _ => anywhere(service, facts, State::Data, &|m| {
            ["output", "input", "user"].iter().any(|n| may_hold(&m.target, n))
        }),
    }
}

/// The predicted verdict after `event`, if the lock works when it is installed.
pub fn predict(readings: &[Reading], scheme: &Scheme, event: Event) -> Option<Verdict> {
    let survives = |reading: &Reading| (reading.state, reading.survives.get(&event).copied().flatten());
    state_map::predict(scheme, Verdict::Locked, readings.iter().map(survives))
}

/// The position that decides a state: its mount, else the service's volumes.
pub fn span(service: &Service, reading: &Reading) -> Span {
    match &reading.mount {
        Some(mount) => mount.at,
        None => service.node.entries().iter().find(|e| e.key == "volumes").map_or(service.at, |e| e.at),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn scheme() -> Scheme {
        Scheme::find(Scheme::DEFAULT, Path::new("")).expect("built in")
    }

    fn with(state: State, survives: Option<bool>) -> Reading {
        Reading { survives: BTreeMap::from([(Event::DownUp, survives)]), ..reading(state, Vec::new()) }
    }

    fn any_survival() -> impl Strategy<Value = Option<bool>> {
        prop_oneof![Just(None), Just(Some(true)), Just(Some(false))]
    }

    proptest! {
        /// Whatever the unknown states turn out to be, a prediction holds; and there is none only
        /// where they matter.
        #[test]
        fn a_prediction_is_what_every_way_out_has_in_common(
            plugin in any_survival(), deps in any_survival(), credential in any_survival(), key in any_survival(),
        ) {
            let states = [State::Plugin, State::Deps, State::Credential, State::SessionKey];
            let survivals = [plugin, deps, credential, key];
            let readings: Vec<Reading> = states.into_iter().zip(survivals).map(|(s, o)| with(s, o)).collect();
            let mut outcomes: Vec<Verdict> = (0_u8..16)
                .map(|ways| {
                    let lost = |n: usize| !survivals[n].unwrap_or(ways & (1 << n) != 0);
                    if lost(0) || lost(1) { Verdict::Open } else if lost(2) { Verdict::Claimable } else { Verdict::Locked }
                })
                .collect();
            outcomes.sort_unstable();
            outcomes.dedup();
            let expected = if let [only] = outcomes.as_slice() { Some(*only) } else { None };
            prop_assert_eq!(predict(&readings, &scheme(), Event::DownUp), expected);
        }
    }

    #[rstest]
    #[case("/workspace", true)]
    #[case("/root", true)]
    #[case("/opt", true)]
    #[case("/app/models", false)]
    #[case("/root/.cache/huggingface/hub", false)]
    #[case("/etc/localtime", false)]
    #[case("/app/extra_model_paths.yaml", false)]
    #[case("/mnt/models_extra", false)]
    #[case("/srv/venv", true)]
    fn what_may_hold_an_environment(#[case] target: &str, #[case] may: bool) {
        assert_eq!(may_hold(target, "venv"), may);
    }
}
