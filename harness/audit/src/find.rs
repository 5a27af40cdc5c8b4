//! Detects which service of a project runs ComfyUI.

use super::facts::Facts;
use crate::images::Family;
use lockproof_compose::{MountKind, Project, Service};

/// The score from which a service counts as ComfyUI.
const ENOUGH: i32 = 6;

/// Words in image names of services that run beside ComfyUI.
const OTHERS: [&str; 27] = [
    "nginx",
    "caddy",
    "traefik",
    "haproxy",
    "oauth2-proxy",
    "authelia",
    "redis",
    "postgres",
    "mysql",
    "mariadb",
    "mongo",
    "ollama",
    "open-webui",
    "n8n",
    "watchtower",
    "cloudflared",
    "tailscale",
    "grafana",
    "prometheus",
    "minio",
    "rabbitmq",
    "busybox",
    "alpine",
    "filebrowser",
    "gallery",
    "qdrant",
    "mcp",
];

/// The services that run ComfyUI, in the order of the file.
pub(super) fn services<'a>(project: &'a Project, facts: &[(&'a Service, Facts)]) -> Vec<usize> {
    let points: Vec<i32> = facts.iter().map(|(service, facts)| points(project, service, facts)).collect();
    (0..facts.len()).filter(|&n| points[n] >= ENOUGH).collect()
}

/// The score of a service: how likely it is to run ComfyUI.
fn points(_project: &Project, service: &Service, facts: &Facts) -> i32 {
    let mut sum = 0;
    let image = service.image.as_ref().map(|i| i.text.to_lowercase()).unwrap_or_default();
    let name = service.name.to_lowercase();
    let family = service.image.as_ref().and_then(|i| Family::of(&i.text));
    if family.is_some() {
        sum += 10;
    }
    if image.contains("comfy") {
        sum += 4;
    }
    if let Some(build) = &service.build
        && [Some(&build.context), build.dockerfile.as_ref()]
            .into_iter()
            .flatten()
            .any(|t| t.rsplit('/').next().unwrap_or(t).to_lowercase().contains("comfy"))
    {
        sum += 3;
    }
    if name.contains("comfy") {
        sum += 3;
    }
    // Many servers are called `main.py`.
    let certain = facts.script.arguments
        || facts.script.code_dir.as_ref().is_some_and(|d| d.to_lowercase().contains("comfy"))
        || facts.script.cloned_to.is_some();
    if facts.starts_comfyui {
        sum += if certain { 7 } else { 4 };
    }
    if facts.builds_comfyui {
        sum += 5;
    }
    let port = service.ports.iter().any(|p| p.covers(8188))
        || service.node.get("expose").is_some_and(|e| e.strings().iter().any(|(t, _)| *t == "8188"));
    if port {
        sum += 4;
    }
    for mount in service.mounts.iter().filter(|m| matches!(m.kind, MountKind::Volume(_))) {
        let target = mount.target.to_lowercase();
        if target.ends_with("/custom_nodes") {
            sum += 4;
        } else if target.contains("/comfyui") || target.ends_with("/comfy") || target.contains("/comfy/") {
            sum += 2;
        }
    }
    if service
        .environment
        .iter()
        .any(|v| v.name.starts_with("COMFY") && !v.name.ends_with("_URL") && !v.name.ends_with("_HOST"))
    {
        sum += 1;
    }
    let last = image.split('@').next().unwrap_or(&image).rsplit('/').next().unwrap_or(&image);
    if family.is_none() && matches!(last.split(':').next(), Some("comfyui" | "comfy-ui" | "comfy")) {
        sum += 2;
    }
    // A client, a helper that prepares directories, or an unrelated service.
    let last = last.split(':').next().unwrap_or(last);
    if family.is_none() && !facts.starts_comfyui && (last.ends_with("-manager") || name.ends_with("-manager")) {
        sum -= 12;
    }
    if family.is_none() && OTHERS.iter().any(|word| last.split(['-', '_']).any(|part| part == *word) || last == *word) {
        sum -= 12;
    }
    let helper = [
        "nginx", "proxy", "download", "init", "setup", "backup", "sync", "frontend", "bot", "gallery", "tunnel", "mcp",
        "chown", "perm",
    ];
    if !facts.starts_comfyui && helper.iter().any(|word| name.split(['-', '_']).any(|part| part.starts_with(word))) {
        sum -= 6;
    }
    let first = service.command.as_ref().map(|c| c.line()).unwrap_or_default();
    if ["chown", "mkdir", "chmod", "sleep", "wget ", "curl ", "rm "].iter().any(|w| first.starts_with(w))
        && !facts.starts_comfyui
    {
        sum -= 12;
    }
    sum
}
