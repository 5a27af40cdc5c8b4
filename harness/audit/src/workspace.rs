//! The workspace of a service: the directory in the container that is mounted, and in which an
//! install script may put what must last.

use lockproof_compose::{Mount, MountKind, Service, in_container, volume::Type};
use lockproof_model::path::is_within;

/// The variable by which install scripts find the mounted workspace.
pub(super) const WORKSPACE: &str = "COMFYUI_WORKSPACE_PATH";

/// A directory that may be the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The path in the container.
    pub target: String,
    /// The path of the host, or the name of the volume.
    pub host: String,
    /// Whether `host` is a path.
    pub is_path: bool,
    /// Why it is one, in words.
    pub why: String,
}

/// What may be the workspace, the best first; several that are equally good stand side by side.
///
/// 1. what `COMFYUI_WORKSPACE_PATH` (or `WORKSPACE`) names, where it is mounted;
/// 2. ComfyUI's directory, or `--base-directory`, where it lies on a mount;
/// 3. a mount at `/workspace`;
/// 4. where nobody knows ComfyUI's directory: other mounts of whole directories, the broadest ones.
pub fn candidates(service: &Service) -> Vec<Candidate> {
    for name in [WORKSPACE, "WORKSPACE"] {
        if let Some(path) = service.value(name).map(in_container).filter(|p| p.starts_with('/')) {
            return match service.mount_of(&path).filter(|m| lasts(m)) {
                Some(mount) => vec![candidate(mount, &path, format!("{name} names it"))],
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
        return vec![candidate(mount, code, "ComfyUI loads custom nodes below it".to_owned())];
    }
    if let Some(mount) = mounts.iter().find(|m| m.target == "/workspace") {
        return vec![candidate(mount, "/workspace", "it is mounted at /workspace".to_owned())];
    }
    // ComfyUI reads nothing from what is mounted elsewhere.
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
    mounts.iter().filter(|m| !narrow(m)).map(|m| candidate(m, &m.target, "it is mounted".to_owned())).collect()
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
