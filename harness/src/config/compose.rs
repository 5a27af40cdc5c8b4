//! Compose subjects: reads what the gate needs from a service of a compose project.

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

/// A service of a compose project that is gated.
#[derive(Clone, Debug)]
pub struct ComposeSubject {
    /// Its project.
    pub project: Arc<Project>,
    /// The service that runs ComfyUI.
    pub service: String,
    /// The stop timeout from `lockproof.yaml`; `None`: that of the project.
    pub stop_timeout: Option<Duration>,
}

impl ComposeSubject {
    /// Reads the project of `entry`; its paths are relative to `base`.
    ///
    /// # Errors
    /// A usage error with position if a file cannot be read, if the service does not exist or is
    /// ambiguous, or if `entry` has keys that belong in the compose file.
    pub(super) fn read(entry: &SubjectEntry, files: &[PathBuf], base: &Path, in_front: bool) -> Result<Self> {
        refuse_own_keys(entry)?;
        let options = compose::Options {
            files: files.iter().map(|file| base.join(file)).collect(),
            env_files: entry.env_files.clone(),
            profiles: entry.profiles.clone(),
            ..Default::default()
        };
        if options.files.is_empty() {
            return Err(Error::usage("`compose` lists no file").fix("write compose: [docker-compose.yml]"));
        }
        Self::of(Project::read(&options, Environment::of_this_process())?, entry, in_front)
    }

    fn of(project: Project, entry: &SubjectEntry, in_front: bool) -> Result<Self> {
        let named = entry.service.as_deref();
        let service = if in_front { front(&project, named)? } else { audit::one_service(&project, named)? };
        if service.mounts_incomplete || service.environment_incomplete {
            let lacks = if service.mounts_incomplete { "mounts" } else { "variables" };
            return Err(Error::usage(format!("some {lacks} of `{}` are unknown", service.name))
                .at(project.sources.place(service.at))
                .fix("create the missing `env_file`, and do not use volumes of containers outside this project"));
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

    /// The service in the project.
    ///
    /// # Errors
    /// A usage error if the project has no such service.
    pub fn service(&self) -> Result<&Service> {
        self.project.service(&self.service).ok_or_else(|| Error::usage(format!("no such service: `{}`", self.service)))
    }

    /// The mounts of the service, as mounts of a subject.
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
                            .fix("gate a copy of the compose file that uses a volume instead"));
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

    /// The port of the server in its container. With a lock in front: the published port of the
    /// proxy, and not its TLS port if it has two.
    pub(super) fn port(&self, in_front: bool) -> Result<u16> {
        if in_front {
            let ports: Vec<u16> = self.service()?.ports.iter().map(|port| port.target.0).collect();
            return ports.iter().copied().find(|port| *port != 443).or(ports.first().copied()).ok_or_else(|| {
                Error::usage(format!("the service `{}` publishes no port", self.service))
                    .fix("give the port of the container: port: 80")
            });
        }
        Ok(audit::facts::of(self.service()?, None).port)
    }
}

/// The service of a proxy in front of ComfyUI: the named one, unless that is ComfyUI itself; else
/// the only other service with a published port.
fn front<'p>(project: &'p Project, named: Option<&str>) -> Result<&'p Service> {
    let comfyui: Vec<&str> = audit::comfyui_services(project)?;
    if let Some(name) = named.filter(|name| !comfyui.contains(name)) {
        return project.service(name).ok_or_else(|| Error::usage(format!("no such service: `{name}`")));
    }
    let others: Vec<&Service> = project
        .services
        .iter()
        .filter(|s| project.is_active(s) && !s.ports.is_empty() && !comfyui.contains(&s.name.as_str()))
        .collect();
    let names = || others.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
    match others.as_slice() {
        [only] => Ok(only),
        [] => Err(Error::usage("no service other than ComfyUI publishes a port, so there is no proxy to gate")
            .fix("name the proxy: service: nginx; or, if ComfyUI has its own login, use another scheme")),
        _ => Err(Error::usage("several services publish a port").fix(format!("name the proxy: {}", names()))),
    }
}

/// Whether a variable's name suggests a secret.
fn is_secret(name: &str) -> bool {
    let name = name.to_uppercase();
    ["TOKEN", "PASSWORD", "SECRET", "API_KEY"].iter().any(|word| name.contains(word)) && !name.ends_with("_FILE")
}

/// Rejects keys that the compose file defines.
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
            Err(Error::usage(format!("`{key}` is not supported for a compose subject: the compose file defines it"))
                .fix(format!(
                    "remove `{key}` here and set it on the service, if needed in a second file:\ncompose: \
                [docker-compose.yml, docker-compose.gate.yml]"
                )))
        }
    }
}
