//! The workspace of a service: a mounted directory in which an install script can store what must
//! persist.

use lockproof_compose::{Mount, MountKind, Service, in_container, volume::Type};
use lockproof_model::path::is_within;

/// The variable with the path of the mounted workspace, which install scripts read.
pub(super) const WORKSPACE: &str = "COMFYUI_WORKSPACE_PATH";

/// A directory that may be the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The path in the container.
    pub target: String,
    /// The host path, or the name of the volume.
    pub host: String,
    /// Whether `host` is a path.
    pub is_path: bool,
    /// The reason, for output.
    pub why: String,
}

/// The candidates for the workspace. Several candidates are equally likely.
///
/// 1. the mounted path in `COMFYUI_WORKSPACE_PATH` (or `WORKSPACE`);
/// 2. ComfyUI's directory, or `--base-directory`, if it is on a mount;
/// 3. a mount at `/workspace`;
/// 4. if ComfyUI's directory is unknown: the broadest other mounts of whole directories.
pub fn candidates(service: &Service) -> Vec<Candidate> {
    for name in [WORKSPACE, "WORKSPACE"] {
        if let Some(path) = service.value(name).map(in_container).filter(|p| p.starts_with('/')) {
            return match service.mount_of(&path).filter(|m| lasts(m)) {
                Some(mount) => vec![candidate(mount, &path, format!("set by {name}"))],
                None => Vec::new(),
            };
        }
    }
    let mounts: Vec<&Mount> = service.mounts.iter().filter(|m| lasts(m)).collect();
    let facts = super::facts::of(service, None);
    let code = facts.base_directory.as_ref().or(facts.code_dir.as_ref());
    if let Some(code) = code
        && let Some(mount) = mounts.iter().filter(|m| is_within(code, &m.target)).max_by_key(|m| m.target.len())
    {
        return vec![candidate(mount, code, "ComfyUI's custom nodes are below it".to_owned())];
    }
    if let Some(mount) = mounts.iter().find(|m| m.target == "/workspace") {
        return vec![candidate(mount, "/workspace", "it is mounted at /workspace".to_owned())];
    }
    // ComfyUI reads nothing from other mounts.
    if facts.layout_known {
        return Vec::new();
    }
    let narrow = |m: &&&Mount| {
        let last = m.target.rsplit('/').next().unwrap_or_default();
        let named = [
            "models",
            "output",
            "input",
            "user",
            "custom_nodes",
            "cache",
            ".cache",
            "temp",
            "workflows",
            "localtime",
            "hub",
        ];
        named.contains(&last)
            || last.contains('.')
            || ["/etc", "/dev", "/proc", "/sys", "/tmp", "/run"].iter().any(|s| is_within(&m.target, s))
            || code.is_some_and(|code| is_within(&m.target, code))
    };
    mounts.iter().filter(|m| !narrow(m)).map(|m| candidate(m, &m.target, "it is the only mount".to_owned())).collect()
}

fn lasts(mount: &Mount) -> bool {
    matches!(mount.kind, MountKind::Volume(Type::Bind | Type::Volume)) && mount.source.is_some() && !mount.read_only
}

fn candidate(mount: &Mount, path: &str, why: String) -> Candidate {
    let is_path = mount.kind == MountKind::Volume(Type::Bind);
    let source = mount.source.clone().unwrap_or_default();
    let below = path.strip_prefix(&mount.target).unwrap_or_default();
    let host = if is_path { format!("{}{below}", source.trim_end_matches('/')) } else { source };
    Candidate { target: path.to_owned(), host, is_path, why }
}
