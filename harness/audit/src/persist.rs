//! `persist/*`: states that do not persist, and mounts without effect.

use super::{remedy::Keep, scene::Found, scene::Scene, states::Reading};
use crate::{remedy, states};
use lockproof_compose::{Mount, MountKind, volume::Type};
use lockproof_model::{
    event::Event,
    finding::Rule,
    path::is_within,
    state::{Owner, State},
};

pub(super) fn findings(scene: &Scene<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for reading in &scene.subject.readings {
        found.extend(lost(scene, reading));
        found.extend(read_only(scene, reading));
    }
    found.extend(inert(scene));
    found.extend(masks(scene));
    found
}

fn rule(reading: &Reading) -> Rule {
    match (reading.state, reading.owner) {
        (_, Some(Owner::AnonymousVolume)) => Rule::PersistAnonymousVolume,
        (_, Some(Owner::Tmpfs)) => Rule::PersistTmpfs,
        (State::Plugin, _) => Rule::PersistPlugin,
        (State::Deps, _) => Rule::PersistDeps,
        (State::Credential, _) => Rule::PersistCredential,
        (State::SessionKey, _) => Rule::PersistSessionKey,
        (State::Data, _) => Rule::PersistData,
    }
}

/// One finding for each event that removes the state. Reports merge equal findings.
fn lost(scene: &Scene<'_>, reading: &Reading) -> Vec<Found> {
    let at: Vec<Event> = states::EVENTS.into_iter().filter(|e| reading.survives.get(e) == Some(&Some(false))).collect();
    let Some(owner) = reading.owner else { return Vec::new() };
    if at.is_empty() {
        return Vec::new();
    }
    let what = match reading.state {
        State::Plugin => "the plugin's directory",
        State::Deps => "the plugin's Python dependencies",
        State::Credential => "the password file",
        State::SessionKey => "the session signing key",
        State::Data => "user data",
    };
    let verb = if reading.state == State::Deps { "are installed in" } else { "is in" };
    let message = format!("{what} {verb} {}, which does not persist", owner.words());
    let mut evidence: Vec<String> =
        reading.weakest.iter().map(|path| format!("{} in {}: {path}", reading.state, owner.name())).collect();
    if evidence.is_empty() {
        evidence.extend(reading.paths.iter().map(|path| format!("{} in {}: {path}", reading.state, owner.name())));
    }
    if !reading.why.is_empty() {
        evidence.push(reading.why.clone());
    }
    if !scene.facts.from.is_empty() {
        evidence.push(format!("source: {}", scene.facts.from.join(", ")));
    }
    let remedy = remedy::words(&scene.service.name, reading, scene.facts);
    at.into_iter()
        .map(|event| Found {
            event: Some(event),
            evidence: evidence.clone(),
            ..Found::new(rule(reading), states::span(scene.service, reading), message.clone()).remedy(remedy.clone())
        })
        .collect()
}

/// The plugin must be able to write its session key and its password.
fn read_only(scene: &Scene<'_>, reading: &Reading) -> Option<Found> {
    let mount = reading.mount.as_ref().filter(|m| m.read_only)?;
    if !matches!(reading.state, State::Credential | State::SessionKey) || mount.kind == MountKind::File {
        return None;
    }
    let path = reading.paths.first()?;
    let what = if reading.state == State::Credential { "its password" } else { "its session key" };
    Some(
        Found::new(
            Rule::PersistReadOnly,
            mount.at,
            format!("the plugin cannot write {what}: {} is mounted read-only", mount.target),
        )
        .evidence(path.clone())
        .remedy(format!(
            "remove `:ro` (`read_only: true`) from the mount at {}, or mount the file's directory separately",
            mount.target
        )),
    )
    .filter(|_| scene.service.mounts.contains(mount))
}

/// The directories that ComfyUI reads below its code or base directory.
const READ: [&str; 4] = ["custom_nodes", "user", "output", "input"];

/// A mount at a path that looks like one of ComfyUI's but is not.
fn inert(scene: &Scene<'_>) -> Vec<Found> {
    let facts = scene.facts;
    let (Some(code), true) = (&facts.code_dir, facts.layout_known) else { return Vec::new() };
    // An `extra_model_paths` file, which may not be local, can define further directories.
    let arguments = scene.service.command.as_ref().map(|c| c.line()).unwrap_or_default();
    // Without an argument, ComfyUI looks for it only beside `main.py`.
    let named = scene.service.mounts.iter().any(|m| m.target == format!("{code}/extra_model_paths.yaml"))
        || arguments.contains("--extra-model-paths-config")
        || facts
            .script_file
            .as_ref()
            .is_some_and(|f| f.text.contains("extra_model_paths") || f.text.contains("extra-model-paths"));
    let variables = scene.service.environment.iter().filter_map(|v| v.value.as_deref());
    let said: Vec<&str> = variables.chain([arguments.as_str()]).collect();
    let mut found = Vec::new();
    for mount in &scene.service.mounts {
        let Some((parent, last)) = mount.target.rsplit_once('/') else { continue };
        let is_read = |directory: &str| is_within(&mount.target, directory);
        let known = is_read(code)
            || facts.base_directory.as_deref().is_some_and(is_read)
            || facts.custom_nodes.as_deref().is_some_and(is_read)
            || facts.links.iter().any(|(_, to)| is_read(to) || is_within(to, &mount.target))
            || is_within(code, &mount.target)
            || facts.script.directories.values().any(|d| is_read(d))
            || facts.packages.iter().flatten().any(|p| is_read(p));
        let mentioned =
            said.iter().any(|text| text.contains(&mount.target) || parent.len() > 1 && text.contains(parent));
        // An unread script may create a link to it, unless the image is known.
        let decided = facts.script.starts || facts.from.iter().any(|f| f.starts_with("the catalogue"));
        if READ.contains(&last) && !known && !mentioned && decided && !(named && last == "custom_nodes") {
            let reads = if last == "custom_nodes" {
                facts.custom_nodes.clone().unwrap_or_default()
            } else {
                format!("{}/{last}", facts.base_directory.as_ref().unwrap_or(code))
            };
            found.push(
                Found::new(
                    Rule::PersistInertMount,
                    mount.at,
                    format!("ComfyUI does not read anything from {}", mount.target),
                )
                .evidence(format!("ComfyUI reads {reads}"))
                .evidence(format!("source: {}", facts.from.join(", ")))
                .remedy(format!("mount it at {reads}")),
            );
        }
    }
    found
}

/// A volume that was filled with the image's code at its first use.
fn masks(scene: &Scene<'_>) -> Option<Found> {
    let facts = scene.facts;
    let code = facts.code_dir.as_deref().filter(|_| facts.layout_known && facts.code_in_image)?;
    let mount: &Mount = scene.service.mount_of(code)?;
    let volume = mount.kind == MountKind::Volume(Type::Volume) && mount.filled;
    if !volume {
        return None;
    }
    let keep = |volume: &str, target: String| Keep { volume: volume.to_owned(), target };
    let wanted = [
        keep("comfyui-custom-nodes", format!("{code}/custom_nodes")),
        keep("comfyui-login", format!("{code}/login")),
        keep("comfyui-user", format!("{code}/user")),
    ];
    Some(
        Found::new(
            Rule::PersistMasksImage,
            mount.at,
            format!(
                "the volume at {} hides the image's code: a new image does not change the code that runs",
                mount.target
            ),
        )
        .evidence(format!("the image has its code at {code}"))
        .remedy(format!(
            "mount only the directories that must persist:\n{}",
            remedy::lines(&scene.service.name, &wanted)
        )),
    )
}
