//! Subjects that are a service of a compose project: what the gate has to know of the service, read
//! from the project as Compose would bring it up.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    file::SubjectEntry,
    plan::{Mount, MountSource},
};
use crate::{
    audit,
    compose::{self, Environment, MountKind, Project, Service, volume::Type},
    error::{Error, Result},
    secret,
    state::Owner,
};

/// The service of a project that is gated.
#[derive(Clone, Debug)]
pub struct ComposeSubject {
    /// The project that it is a service of.
    pub project: Arc<Project>,
    /// The service that runs ComfyUI.
    pub service: String,
    /// How long Compose's commands wait for a stop, where `lockproof.yaml` says so; none: what the
    /// project says.
    pub stop_timeout: Option<Duration>,
}

impl ComposeSubject {
    /// Reads the project that `entry` names; its paths are relative to `base`.
    ///
    /// # Errors
    /// A usage error with place for files that cannot be read, for a service that is not there or
    /// cannot be told, and for keys of `entry` that belong into the compose file.
    pub(super) fn read(entry: &SubjectEntry, files: &[PathBuf], base: &Path, in_front: bool) -> Result<Self> {
        refuse_own_keys(entry)?;
        let options = compose::Options {
            files: files.iter().map(|file| base.join(file)).collect(),
            env_files: entry.env_files.clone(),
            profiles: entry.profiles.clone(),
            ..Default::default()
        };
        if options.files.is_empty() {
            return Err(Error::usage("`compose` names no file").fix("write compose: [docker-compose.yml]"));
        }
        Self::of(Project::read(&options, Environment::of_this_process())?, entry, in_front)
    }

    fn of(project: Project, entry: &SubjectEntry, in_front: bool) -> Result<Self> {
        let named = entry.service.as_deref();
        let service = if in_front { front(&project, named)? } else { audit::one_service(&project, named)? };
        if service.mounts_incomplete || service.environment_incomplete {
            let lacks = if service.mounts_incomplete { "mounts" } else { "variables" };
            return Err(Error::usage(format!("not all {lacks} of `{}` are known", service.name))
                .at(project.sources.place(service.at))
                .fix(
                    "make the file of `env_file` that is missing, and take no volumes of other projects' containers",
                ));
        }
        let service = service.name.clone();
        for variable in project.services.iter().flat_map(|s| &s.environment) {
            if is_secret(&variable.name)
                && let Some(value) = &variable.value
            {
                secret::register(value);
            }
        }
        Ok(Self { project: Arc::new(project), service, stop_timeout: entry.stop_timeout.map(|t| t.0) })
    }

    /// The service as it was read.
    ///
    /// # Errors
    /// A usage error when the project has no such service.
    pub fn service(&self) -> Result<&Service> {
        self.project
            .service(&self.service)
            .ok_or_else(|| Error::usage(format!("there is no service `{}`", self.service)))
    }

    /// What the service mounts, in the words of a subject.
    pub(super) fn mounts(&self) -> Result<Vec<Mount>> {
        let service = self.service()?;
        service
            .mounts
            .iter()
            .map(|mount| {
                let path = || PathBuf::from(mount.source.as_deref().unwrap_or_default());
                let source = match (mount.kind, mount.owner()) {
                    (MountKind::Volume(kind @ (Type::Pipe | Type::Cluster | Type::Image)), _) => {
                        return Err(Error::usage(format!("a mount of type `{}` cannot be copied", kind.name()))
                            .at(self.project.sources.place(mount.at))
                            .fix("gate a copy of the file in which it is a volume"));
                    }
                    (_, Owner::Tmpfs) => MountSource::Tmpfs,
                    (_, Owner::AnonymousVolume) => MountSource::Anonymous,
                    (_, Owner::Volume) => MountSource::Volume(mount.source.clone().unwrap_or_default()),
                    _ => MountSource::Bind(path()),
                };
                Ok(Mount { target: mount.target.clone(), source, read_only: mount.read_only })
            })
            .collect()
    }

    /// The port that the server listens on in its container; for a lock in front, the one that its
    /// service publishes, and not the one of TLS where there are two.
    pub(super) fn port(&self, in_front: bool) -> Result<u16> {
        if in_front {
            let ports: Vec<u16> = self.service()?.ports.iter().map(|port| port.target.0).collect();
            return ports.iter().copied().find(|port| *port != 443).or(ports.first().copied()).ok_or_else(|| {
                Error::usage(format!("`{}` publishes no port", self.service)).fix("say at which one: port: 80")
            });
        }
        Ok(audit::facts::of(self.service()?, None).port)
    }
}

/// The service of a lock that stands in front of ComfyUI: the one that is named, unless that is ComfyUI
/// itself; else the only other one that publishes a port.
fn front<'p>(project: &'p Project, named: Option<&str>) -> Result<&'p Service> {
    let comfyui: Vec<&str> = audit::comfyui_services(project)?;
    if let Some(name) = named.filter(|name| !comfyui.contains(name)) {
        return project.service(name).ok_or_else(|| Error::usage(format!("there is no service `{name}`")));
    }
    let others: Vec<&Service> = project
        .services
        .iter()
        .filter(|s| project.is_active(s) && !s.ports.is_empty() && !comfyui.contains(&s.name.as_str()))
        .collect();
    let names = || others.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
    match others.as_slice() {
        [only] => Ok(only),
        [] => Err(Error::usage("no service beside ComfyUI publishes a port, at which a proxy could be gated")
            .fix("name the proxy: service: nginx; or, if ComfyUI locks itself, take another scheme")),
        _ => Err(Error::usage("several services publish a port").fix(format!("name the proxy: {}", names()))),
    }
}

/// Whether what a variable holds is nobody's business.
fn is_secret(name: &str) -> bool {
    let name = name.to_uppercase();
    ["TOKEN", "PASSWORD", "SECRET", "API_KEY"].iter().any(|word| name.contains(word)) && !name.ends_with("_FILE")
}

/// What a compose file says is said there.
fn refuse_own_keys(entry: &SubjectEntry) -> Result<()> {
    let given = [
        ("command", entry.command.is_some()),
        ("entrypoint", entry.entrypoint.is_some()),
        ("env", !entry.env.is_empty()),
        ("restart", entry.restart.is_some()),
        ("user", entry.user.is_some()),
        ("working_dir", entry.working_dir.is_some()),
        ("init", entry.init.is_some()),
        ("labels", !entry.labels.is_empty()),
        ("mounts", !entry.mounts.is_empty()),
    ];
    match given.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((key, _)) => {
            Err(Error::usage(format!("`{key}` of a compose subject is the compose file's to say")).fix(format!(
                "remove `{key}` here, and set it on the service; a file for the gate alone may be added:\n\
                          compose: [docker-compose.yml, docker-compose.gate.yml]"
            )))
        }
    }
}
