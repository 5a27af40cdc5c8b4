//! The state `data`: its paths, predictions and observations.

use std::collections::{BTreeMap, BTreeSet};

use super::{Canaries, Loss, in_words};
use lockproof_deploy::{install::Installed, layout::Layout, subject::Subject};
use lockproof_model::{
    event::Event,
    finding::{Finding, Rule},
    remedy,
    report::{StateReport, Survival},
    state::{Owner, State},
    state_map::{Mounted, StateEntry},
};

/// The state for reports, with the predictions from its paths.
pub fn report(canaries: &Canaries, events: &[Event]) -> StateReport {
    let places = canaries.places();
    let survives = |event: &Event| {
        let all = places.values().map(|(owner, _)| owner.survives(*event));
        let predicted = all.reduce(|one, other| match (one, other) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        });
        (*event, Survival { predicted: predicted.flatten(), observed: None })
    };
    StateReport {
        state: State::Data,
        paths: places.keys().cloned().collect(),
        owner: places.values().map(|(owner, _)| *owner).min(),
        survives: events.iter().map(survives).collect(),
    }
}

/// The finding for user data that an event removed; one for all data.
pub fn finding(
    losses: &[Loss],
    subject: &Subject,
    event: Event,
    layout: &Layout,
    installed: &Installed,
) -> Option<Finding> {
    if losses.is_empty() {
        return None;
    }
    let kinds: BTreeSet<_> = losses.iter().map(|loss| loss.canary.kind).collect();
    let kinds: Vec<&str> = kinds.into_iter().map(super::Kind::words).collect();
    let owners: BTreeSet<Owner> = losses.iter().filter_map(|loss| loss.canary.owner).collect();
    let owners: Vec<&str> = owners.into_iter().map(Owner::words).collect();
    let on = if owners.is_empty() { String::new() } else { format!(" in {}", owners.join(" and in ")) };
    let message = format!("data{on} does not persist: {}", kinds.join(", "));
    let mut finding = Finding::new(Rule::PersistData, &subject.name, Some(event), message);
    finding.evidence = losses.iter().map(|loss| in_words(loss, subject)).collect();
    finding.evidence.push(format!("{event} removes {}", event.takes()));
    let remedies = remedies(losses, layout, installed);
    if !remedies.is_empty() {
        finding.remedy = remedies.join("\n");
    }
    Some(finding)
}

/// One remedy for each directory.
fn remedies(losses: &[Loss], layout: &Layout, installed: &Installed) -> Vec<String> {
    let mut places: BTreeMap<String, (Owner, Option<Mounted>)> = BTreeMap::new();
    for loss in losses {
        if let (Some(directory), Some(owner)) = (loss.canary.directory(), loss.canary.owner) {
            places.insert(directory, (owner, loss.canary.mount.clone()));
        }
    }
    let in_layer: Vec<&String> = places
        .iter()
        .filter(|(_, (owner, _))| *owner == Owner::ContainerLayer)
        .map(|(directory, _)| directory)
        .collect();
    let mut remedies = Vec::new();
    if in_layer.len() > 1 {
        remedies.push(volumes(&in_layer));
    }
    for (directory, (owner, mount)) in
        places.iter().filter(|(place, _)| in_layer.len() < 2 || !in_layer.contains(place))
    {
        let entry = StateEntry::at(State::Data, directory.clone(), *owner, mount.clone());
        let remedy = remedy::keep(&entry, &layout.python, &installed.plugin_dir);
        if !remedies.contains(&remedy) {
            remedies.push(remedy);
        }
    }
    remedies
}

/// One volume for each directory.
fn volumes(directories: &[&String]) -> String {
    let name = |directory: &str| directory.rsplit('/').next().unwrap_or("data").to_owned();
    let mut text = "keep the data on named volumes:\n  mounts:".to_owned();
    for directory in directories {
        text.push_str(&format!("\n    - {{ volume: {}, target: {directory} }}", name(directory)));
    }
    text.push_str("\nin a compose file:\n  volumes:");
    for directory in directories {
        text.push_str(&format!("\n    - {}:{directory}", name(directory)));
    }
    text
}
