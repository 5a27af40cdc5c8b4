//! Compose subjects: reads what the gate needs from a service of a compose project.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use lockproof_audit as audit;
use lockproof_compose::{self as compose, Environment, Project, Service};
use lockproof_deploy::subject::ComposeSubject;
use lockproof_model::{
    config::SubjectEntry,
    error::{Error, Result},
    secret,
};

/// Reads the project of `entry`; its paths are relative to `base`.
///
/// # Errors
/// A usage error with position if a file cannot be read, if the service does not exist or is
/// ambiguous, or if `entry` has keys that belong in the compose file.
pub(super) fn read(entry: &SubjectEntry, files: &[PathBuf], base: &Path, in_front: bool) -> Result<ComposeSubject> {
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
    subject(Project::read(&options, Environment::of_this_process())?, entry, in_front)
}

fn subject(project: Project, entry: &SubjectEntry, in_front: bool) -> Result<ComposeSubject> {
    let named = entry.service.as_deref();
    let service = if in_front { front(&project, named)? } else { audit::one_service(&project, named)? };
    if service.mounts_incomplete || service.environment_incomplete {
        let lacks = if service.mounts_incomplete { "mounts" } else { "variables" };
        return Err(Error::usage(format!("some {lacks} of `{}` are unknown", service.name))
            .at(project.sources.place(service.at))
            .fix("create the missing `env_file`, and do not use volumes of containers outside this project"));
    }
    let port = port(service, in_front);
    let service = service.name.clone();
    for variable in project.services.iter().flat_map(|s| &s.environment) {
        if is_secret(&variable.name)
            && let Some(value) = &variable.value
        {
            secret::register(value);
        }
    }
    let stop_timeout = entry.stop_timeout.map(|t| t.0);
    Ok(ComposeSubject { project: Arc::new(project), service, stop_timeout, port })
}

/// The port of the server in its container. With a lock in front: the published port of the
/// proxy, and not its TLS port if it has two.
fn port(service: &Service, in_front: bool) -> Option<u16> {
    if in_front {
        let ports: Vec<u16> = service.ports.iter().map(|port| port.target.0).collect();
        return ports.iter().copied().find(|port| *port != 443).or(ports.first().copied());
    }
    Some(audit::facts::of(service, None).port)
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
