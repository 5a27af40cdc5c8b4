//! `deploy/bypassed-proxy`: a proxy requires a login, but the port behind it is published too.

use std::path::Path;

use super::{
    inside::{self, Unread},
    scene::{Found, Scene},
};
use lockproof_compose::{Service, Span};
use lockproof_model::finding::Rule;

/// A proxy with a login in front of the service.
pub(super) struct Proxy {
    name: String,
    evidence: String,
    at: Span,
    /// Whether it is a service of this project.
    here: bool,
    /// Whether it may use HTTP Basic authentication.
    basic: bool,
}

pub(super) fn findings(scene: &Scene<'_>) -> Vec<Found> {
    let Some(proxy) = of(scene) else { return Vec::new() };
    let port = scene.facts.port;
    scene
        .service
        .ports
        .iter()
        .filter(|p| p.covers(port) && p.is_everywhere() && p.protocol == "tcp")
        .map(|p| {
            Found::new(
                Rule::DeployBypassedProxy,
                p.at,
                format!("`{}` requires a login, but this port bypasses it", proxy.name),
            )
            .evidence(format!("{}: {}", scene.project.sources.place(proxy.at), proxy.evidence))
            .evidence(scene.project.sources.line(p.at).trim().to_owned())
            .remedy(format!(
                "remove this port; the proxy reaches {}:{port} without it:\nexpose: [\"{port}\"]",
                scene.service.name
            ))
        })
        .collect()
}

/// An audit reads ComfyUI's own lock; only a gate can test a lock in a proxy.
pub(super) fn note(scene: &Scene<'_>) -> Option<String> {
    let proxy = of(scene)?;
    let prove = match (proxy.here, proxy.basic) {
        (true, true) => format!(
            "if it is HTTP Basic authentication, prove it with\n      lockproof gate --compose FILE \
            --service {} --scheme http-basic --username NAME --password-env VARIABLE",
            proxy.name
        ),
        (true, false) => "no built-in scheme supports this login: write a scheme file, or test the running \
            server with\n      lockproof probe URL"
            .to_owned(),
        (false, _) => "the proxy is not in these files, so it cannot be gated: test the running server \
            with\n      lockproof probe URL"
            .to_owned(),
    };
    Some(format!(
        "{}: `{}` requires a login in front of `{}` ({}); {prove}",
        scene.project.sources.place(proxy.at),
        proxy.name,
        scene.service.name,
        proxy.evidence,
    ))
}

/// Proxy configuration outside the project: it is unknown whether it requires a login.
pub(super) fn unread(scene: &Scene<'_>) -> Vec<String> {
    let others = scene.project.services.iter().filter(|s| s.name != scene.service.name && is_one_of(s, &SERVERS));
    others
        .flat_map(|service| service.mounts.iter().map(move |mount| (service, mount)))
        .filter_map(|(service, mount)| Some((service, mount.source.as_deref().filter(|s| s.starts_with('/'))?)))
        .filter(|(service, source)| {
            inside::confined(&inside::project(&service.directory), Path::new(source)) == Err(Unread::Outside)
        })
        .map(|(_, source)| format!("{source} is outside the project and was not read"))
        .collect()
}

/// Images that always require a login.
const GATES: [&str; 6] = ["oauth2-proxy", "authelia", "authentik", "vouch-proxy", "keycloak-gatekeeper", "pomerium"];

/// Images that require a login if configured.
const SERVERS: [&str; 6] = ["nginx", "caddy", "traefik", "haproxy", "apache", "httpd"];

/// The proxy with a login in front of the service, if there is one.
pub(super) fn of(scene: &Scene<'_>) -> Option<Proxy> {
    for service in scene.project.services.iter().filter(|s| s.name != scene.service.name) {
        let image = service.image.as_ref().map(|i| i.text.to_lowercase()).unwrap_or_default();
        if is_one_of(service, &GATES) {
            return Some(Proxy {
                name: service.name.clone(),
                evidence: format!("image: {image}"),
                at: service.at,
                here: true,
                basic: false,
            });
        }
        if is_one_of(service, &SERVERS)
            && let Some((evidence, at)) = login_of(service)
        {
            let basic = !["auth_request", "forward_auth", "auth_jwt"].iter().any(|word| evidence.contains(word));
            return Some(Proxy { name: service.name.clone(), evidence, at, here: true, basic });
        }
    }
    // Traefik reads the labels of the service itself.
    let places = [scene.service.node.get("labels"), scene.service.node.at(&["deploy", "labels"])];
    let labels: Vec<_> = places.into_iter().flatten().flat_map(lockproof_compose::labels).collect();
    let (name, _, at) = labels.iter().find(|(name, value, _)| {
        let both = format!("{name}={value}").to_lowercase();
        both.contains("traefik") && ["basicauth", "digestauth", "forwardauth"].iter().any(|w| both.contains(w))
    })?;
    let proxy = scene.project.services.iter().find(|s| s.image.as_ref().is_some_and(|i| i.text.contains("traefik")));
    Some(Proxy {
        name: proxy.map_or("traefik", |s| s.name.as_str()).to_owned(),
        evidence: format!("label {name}"),
        at: *at,
        here: proxy.is_some(),
        basic: name.to_lowercase().contains("basicauth"),
    })
}

/// Whether a service's image, name or build context has one of these names.
fn is_one_of(service: &Service, names: &[&str]) -> bool {
    let image = service.image.as_ref().map(|i| i.text.to_lowercase()).unwrap_or_default();
    let name = image.split('@').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    let name = name.split(':').next().unwrap_or_default();
    let built = service.build.as_ref().map(|b| b.context.to_lowercase()).unwrap_or_default();
    let called = service.name.to_lowercase();
    names.iter().any(|word| name.contains(word) || called.contains(word) || built.ends_with(word))
}

/// Configuration keywords that enable a login.
const LOGIN: [&str; 8] = [
    "auth_basic",
    "auth_request",
    "basicauth",
    "basic_auth",
    "forward_auth",
    "AuthType",
    "http-request auth",
    "auth_jwt",
];

/// The evidence that a server requires a login: a password file, its configuration, or a variable.
fn login_of(service: &Service) -> Option<(String, Span)> {
    for mount in &service.mounts {
        let source = mount.source.as_deref().unwrap_or_default();
        if [source, mount.target.as_str()].iter().any(|p| p.contains("htpasswd") || p.ends_with("passwd")) {
            return Some((format!("a password file at {}", mount.target), mount.at));
        }
        for text in texts(&inside::project(&service.directory), Path::new(source)) {
            if let Some(word) = LOGIN.iter().find(|word| {
                text.lines()
                    .any(|l| !l.trim_start().starts_with('#') && l.contains(**word) && !l.contains("auth_basic off"))
            }) {
                return Some((format!("`{word}` in its configuration at {}", mount.target), mount.at));
            }
        }
    }
    let command = [&service.command, &service.entrypoint]
        .into_iter()
        .flatten()
        .find(|w| LOGIN.iter().any(|word| w.line().contains(word)));
    if let Some(words) = command {
        return Some(("its command configures a login".to_owned(), words.at));
    }
    let asks = |name: &str| {
        let name = name.to_uppercase();
        name.contains("BASIC_AUTH")
            || name.contains("HTPASSWD")
            || name == "AUTH_USER"
            || name == "AUTH_PASSWORD"
            || name == "AUTH_USERNAME"
    };
    service.environment.iter().find(|v| asks(&v.name)).map(|v| (format!("the variable {}", v.name), v.at))
}

/// The text of a configuration file, or of those in a directory.
fn texts(project: &Path, path: &Path) -> Vec<String> {
    let small = |path: &Path| inside::text(project, path).ok();
    if !path.is_absolute() || inside::confined(project, path).is_err() {
        return Vec::new();
    }
    if path.is_dir() {
        let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
        return entries.flatten().take(20).filter_map(|e| small(&e.path())).collect();
    }
    small(path).into_iter().collect()
}
