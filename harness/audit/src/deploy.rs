//! `deploy/*` findings in the service itself: ports, image, command, workspace.

use super::{
    proxy,
    scene::{Found, Scene},
    subject::Placed,
    workspace::WORKSPACE,
};
use crate::images;
use lockproof_compose::Span;
use lockproof_model::finding::Rule;

pub(super) fn findings(scene: &Scene<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    found.extend(ports(scene));
    found.extend(tag(scene));
    found.extend(cors(scene));
    found.extend(fails_open(scene));
    found.extend(workspace(scene));
    found
}

fn ports(scene: &Scene<'_>) -> Vec<Found> {
    // A port that bypasses a proxy is reported by `deploy/bypassed-proxy`.
    if proxy::of(scene).is_some() {
        return Vec::new();
    }
    let port = scene.facts.port;
    let mut found: Vec<Found> = scene
        .service
        .ports
        .iter()
        .filter(|p| p.covers(port) && p.is_everywhere() && p.protocol == "tcp")
        .map(|p| {
            let host = p.published.map_or_else(String::new, |(first, last)| {
                // In a range, the host port that maps to the container's port.
                (first + (port - p.target.0).min(last - first)).to_string()
            });
            Found::new(Rule::DeployPublishedPort, p.at, "the port is published on every interface")
                .evidence(scene.project.sources.line(p.at).trim().to_owned())
                .remedy(format!("publish it on the loopback address:\nports:\n  - \"127.0.0.1:{host}:{port}\""))
        })
        .collect();
    if let Some(mode) = scene.service.network_mode.as_ref().filter(|m| m.text == "host") {
        found.push(
            Found::new(
                Rule::DeployPublishedPort,
                mode.at,
                "with host networking, the port is open on every interface that ComfyUI listens on",
            )
            .evidence("network_mode: host")
            .remedy(format!(
                "publish the port on the loopback address instead:\nports:\n  - \"127.0.0.1:{port}:{port}\""
            )),
        );
    }
    found
}

fn tag(scene: &Scene<'_>) -> Option<Found> {
    let image = scene.service.image.as_ref().filter(|_| scene.service.build.is_none())?;
    // With `pull_policy: always`, each `up` resolves the tag again.
    let policy = scene.service.node.get("pull_policy").and_then(|p| p.as_str()).unwrap_or_default();
    let anew = matches!(policy, "always" | "daily" | "weekly") || policy.starts_with("every_");
    (images::floats(&image.text) || anew && !image.text.contains('@')).then(|| {
        Found::new(
            Rule::DeployFloatingTag,
            image.at,
            "the next pull may bring a different ComfyUI, Python or directory layout",
        )
        .evidence(format!("image: {}", image.text))
        .remedy(format!(
            "pin a version or a digest: `docker image inspect --format '{{{{index \
                .RepoDigests 0}}}}' {}` prints the digest of the local image",
            image.text
        ))
    })
}

/// The value of `--enable-cors-header` in the command, the entry point or a variable.
fn cors(scene: &Scene<'_>) -> Option<Found> {
    const FLAG: &str = "--enable-cors-header";
    let service = scene.service;
    let words = [&service.command, &service.entrypoint].into_iter().flatten().map(|w| (w.line(), w.at));
    let variables = service.environment.iter().filter_map(|v| Some((v.value.clone()?, v.at)));
    let (text, at) = words.chain(variables).find(|(text, _)| text.contains(FLAG)).or_else(|| {
        let place = service.build.as_ref().map(|b| b.at).or(service.image.as_ref().map(|i| i.at));
        scene.facts.script.cors.as_ref().map(|value| (format!("{FLAG} {value}"), place.unwrap_or(service.at)))
    })?;
    let value = text
        .split(FLAG)
        .nth(1)
        .unwrap_or_default()
        .trim_start_matches('=')
        .split_whitespace()
        .next()
        .unwrap_or_default();
    let value = value.trim_matches(['"', '\'']);
    let any = value.is_empty() || value.starts_with('-') || value == "*";
    let message = if any {
        "any website can call the API from a visitor's browser".to_owned()
    } else {
        format!("ComfyUI-Login rejects requests whose Origin is not {value}, even with a valid token")
    };
    Some(Found::new(Rule::DeployCorsOrigin, at, message).evidence(if any {
        FLAG.to_owned()
    } else {
        format!("{FLAG} {value}")
    }))
}

fn fails_open(scene: &Scene<'_>) -> Option<Found> {
    let message = "the server starts even if installing its lock fails";
    if let Some(swallowed) = &scene.facts.script.swallowed {
        if let Some(file) = &swallowed.file {
            let number = u32::try_from(swallowed.line + 1).unwrap_or(u32::MAX);
            let shown = super::tokens::shown(scene, std::path::Path::new(file));
            return Some(Found {
                at: Placed::Elsewhere(shown, number),
                ..Found::new(Rule::DeployFailOpenStart, scene.service.at, message).evidence(swallowed.text.clone())
            });
        }
        // `$$` in the file is `$` in the command, so the position is that of the whole command.
        let own = [&scene.service.command, &scene.service.entrypoint];
        let words = own.into_iter().flatten().find(|w| w.line().contains("install") || w.line().contains("clone"));
        let at = words.map_or(scene.service.at, |w| w.at);
        return Some(Found::new(Rule::DeployFailOpenStart, at, message).evidence(swallowed.text.clone()));
    }
    let family = scene.facts.fails_open.then(|| scene.facts.from.iter().find(|f| f.starts_with("the catalogue")))??;
    let at = scene.service.image.as_ref().map_or(scene.service.at, |i| i.at);
    Some(
        Found::new(
            Rule::DeployFailOpenStart,
            at,
            format!("{message}: the image's entry point continues after a failed installation"),
        )
        .evidence(family.clone())
        .remedy("install the dependencies in an image of your own, `FROM` this one, and gate the event `offline`"),
    )
}

/// The variable is used, but unset or not set to a mount.
fn workspace(scene: &Scene<'_>) -> Option<Found> {
    let service = scene.service;
    let fix = |target: &str| format!("set it to the mounted directory:\nenvironment:\n  {WORKSPACE}: {target}");
    let mounted = super::workspace::candidates(service).into_iter().next().map(|c| c.target);
    if let Some(variable) = service.variable(WORKSPACE) {
        let value = variable.value.as_deref().map(str::trim).unwrap_or_default();
        let (message, evidence) = if value.is_empty() {
            (format!("{WORKSPACE} is declared without a value"), format!("{WORKSPACE}="))
        } else if service.mount_of(value).is_none() && !service.mounts_incomplete {
            (format!("{WORKSPACE} names a path that is not mounted"), format!("{WORKSPACE}={value}"))
        } else {
            return None;
        };
        let found = Found::new(Rule::DeployWorkspaceUnset, variable.at, message).evidence(evidence);
        return Some(match mounted {
            Some(target) => found.remedy(fix(&target)),
            None => found,
        });
    }
    // A script uses the variable, but it is not set.
    let uses = |text: &str| text.contains(WORKSPACE);
    let own = [&service.command, &service.entrypoint].into_iter().flatten().find(|w| uses(&w.line()));
    let file = scene.facts.script_file.as_ref().filter(|f| uses(&f.text));
    if own.is_none() && file.is_none() || service.environment_incomplete {
        return None;
    }
    if scene.facts.image_env.iter().any(|(name, value)| name == WORKSPACE && !value.is_empty()) {
        return None;
    }
    let at: Span = own.map_or(service.at, |w| w.at);
    let found =
        Found::new(Rule::DeployWorkspaceUnset, at, format!("the start command uses {WORKSPACE}, which is not set"))
            .evidence(file.map_or_else(
                || "in the command".to_owned(),
                |f| super::tokens::shown(scene, std::path::Path::new(&f.path)),
            ));
    Some(match mounted {
        Some(target) => found.remedy(fix(&target)),
        None => found,
    })
}
