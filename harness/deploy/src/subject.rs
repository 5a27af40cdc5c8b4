//! A deployment under test and its lock, from `lockproof.yaml`, validated and with defaults filled in.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use lockproof_compose::{MountKind, Project, Service, volume::Type};
use lockproof_model::{
    config::{CredentialEntry, InstallEntry, LayoutEntry, MountEntry, Scalar, SchemeEntry, SubjectEntry, Words},
    duration::Span,
    error::{Error, Result},
    event::Event,
    restart::RestartPolicy,
    scheme::Scheme,
    state::Owner,
    verdict::Verdict,
};

/// A deployment under test.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its name in reports.
    pub name: String,
    /// The image that runs ComfyUI.
    pub image: String,
    /// The port inside the container.
    pub port: u16,
    /// The command, if not the image's own.
    pub command: Option<Vec<String>>,
    /// The entry point, if not the image's own.
    pub entrypoint: Option<Vec<String>>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Whether it has network access.
    pub network: bool,
    /// The restart policy.
    pub restart: RestartPolicy,
    /// The user that the process runs as, if not the image's own.
    pub user: Option<String>,
    /// The working directory, if not the image's own.
    pub working_dir: Option<String>,
    /// Whether an init runs as PID 1; `None`: the engine's setting.
    pub init: Option<bool>,
    /// Labels on the container.
    pub labels: BTreeMap<String, String>,
    /// The mounts.
    pub mounts: Vec<Mount>,
    /// The given paths inside the container.
    pub layout: LayoutEntry,
    /// The time limit for the first HTTP answer after a start.
    pub ready_timeout: Duration,
    /// The time limit of a stop before SIGKILL.
    pub stop_timeout: Duration,
    /// The image for the event `upgrade`.
    pub upgrade_to: Option<String>,
    /// The expected verdicts; `locked` for events without an entry.
    pub expect: BTreeMap<Event, Verdict>,
    /// The lock.
    pub lock: Lock,
    /// The compose project, for a compose subject.
    pub compose: Option<ComposeSubject>,
}

/// A service of a compose project that is gated.
#[derive(Clone, Debug)]
pub struct ComposeSubject {
    /// Its project.
    pub project: Arc<Project>,
    /// The service that runs ComfyUI.
    pub service: String,
    /// The stop timeout from `lockproof.yaml`; `None`: that of the project.
    pub stop_timeout: Option<Duration>,
    /// The port of the server in its container, if the project specifies it.
    pub port: Option<u16>,
}

impl ComposeSubject {
    /// The service in the project.
    ///
    /// # Errors
    /// A usage error if the project has no such service.
    pub fn service(&self) -> Result<&Service> {
        self.project.service(&self.service).ok_or_else(|| Error::usage(format!("no such service: `{}`", self.service)))
    }

    /// The mounts of the service, as mounts of a subject.
    fn mounts(&self) -> Result<Vec<Mount>> {
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
}

/// How the lock of a subject is installed, and its credential.
#[derive(Clone, Debug)]
pub struct Lock {
    /// The login scheme.
    pub scheme: Scheme,
    /// How to install it; `None`: the deployment installs its own lock.
    pub install: Option<Install>,
    /// The user name for the login form.
    pub username: String,
    /// The environment variable of this machine with the password.
    pub password_env: Option<String>,
    /// A file with the deployment's token.
    pub token_file: Option<PathBuf>,
    /// A variable with the deployment's token.
    pub token_env: Option<String>,
}

/// What to install, and where.
#[derive(Clone, Debug)]
pub struct Install {
    /// The plugin.
    pub from: Option<PluginSource>,
    /// The directory in the container; `None`: the layout's custom_nodes.
    pub into: Option<String>,
    /// A script to run in the container instead of copying the plugin.
    pub script: Option<PathBuf>,
    /// Wheels for its dependencies.
    pub wheels: Option<PathBuf>,
}

/// The source of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginSource {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A git repository with an optional revision.
    Git {
        /// The URL for `git clone`.
        url: String,
        /// A branch, tag or commit.
        rev: Option<String>,
    },
}

/// A mount of a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The absolute path in the container.
    pub target: String,
    /// The source of the mount.
    pub source: MountSource,
    /// Whether it is read-only.
    pub read_only: bool,
}

/// The source of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// A named volume, with its name in the file.
    Volume(String),
    /// A host path.
    Bind(PathBuf),
    /// An anonymous volume.
    Anonymous,
    /// A tmpfs.
    Tmpfs,
}

impl Subject {
    /// Validates the entry of an image subject and fills in defaults. `shared` is the file's top-level scheme.
    ///
    /// # Errors
    /// A usage error if the entry is invalid.
    pub fn new(entry: &SubjectEntry, shared: &SchemeEntry, base: &Path) -> Result<Self> {
        if entry.name.trim().is_empty() {
            return Err(Error::usage("a subject has no name").fix("add a name: name: comfyui"));
        }
        let image = match (&entry.image, &entry.compose) {
            (None, Some(_)) => {
                return Err(Error::usage("`compose` cannot be used here")
                    .fix("set the image that runs ComfyUI: image: comfyui:cpu"));
            }
            (Some(image), None) if !image.trim().is_empty() => image.clone(),
            (Some(_), None) => {
                return Err(Error::usage("`image` is empty").fix("set it to the image that runs ComfyUI"));
            }
            (Some(_), Some(_)) => {
                return Err(Error::usage("`image` and `compose` are mutually exclusive").fix("remove one of them"));
            }
            (None, None) => {
                return Err(Error::usage("`image` or `compose` is required")
                    .fix("set the image that runs ComfyUI: image: comfyui:cpu"));
            }
        };
        if entry.service.is_some() {
            return Err(Error::usage("`service` requires `compose`")
                .fix("remove it, or add the compose file: compose: [docker-compose.yml]"));
        }
        let mounts = entry.mounts.iter().map(|m| Mount::new(m, base)).collect::<Result<Vec<_>>>()?;
        let mut targets = BTreeSet::new();
        for mount in &mounts {
            if !targets.insert(mount.target.as_str()) {
                return Err(
                    Error::usage(format!("two mounts have the target {}", mount.target)).fix("remove one of them")
                );
            }
        }
        Ok(Self { image, mounts, ..Self::of_file(entry, shared, base)? })
    }

    /// The values of the file with their defaults; without image and mounts.
    fn of_file(entry: &SubjectEntry, shared: &SchemeEntry, base: &Path) -> Result<Self> {
        Ok(Self {
            name: entry.name.clone(),
            image: String::new(),
            port: entry.port.unwrap_or(8188),
            command: entry.command.as_ref().map(|w| split(w, "command")).transpose()?,
            entrypoint: entry.entrypoint.as_ref().map(|w| split(w, "entrypoint")).transpose()?,
            env: texts(&entry.env),
            network: entry.network.unwrap_or(true),
            restart: entry.restart.as_deref().unwrap_or("no").parse()?,
            user: entry.user.as_ref().map(|u| u.0.clone()),
            working_dir: entry.working_dir.clone(),
            init: entry.init,
            labels: texts(&entry.labels),
            mounts: Vec::new(),
            layout: entry.layout.clone().unwrap_or_default(),
            ready_timeout: entry.ready_timeout.unwrap_or(Span::seconds(120)).0,
            stop_timeout: entry.stop_timeout.unwrap_or(Span::seconds(10)).0,
            upgrade_to: entry.upgrade_to.clone(),
            expect: entry.expect.clone(),
            lock: Lock::new(entry.scheme.as_ref().unwrap_or(shared), base)?,
            compose: None,
        })
    }

    /// Creates a subject from a compose service. Its container settings come from the compose project.
    ///
    /// # Errors
    /// A usage error if the entry or the service is invalid.
    pub fn of_compose(
        entry: &SubjectEntry,
        compose: ComposeSubject,
        shared: &SchemeEntry,
        base: &Path,
    ) -> Result<Self> {
        let service = compose.service()?;
        let text = |text: &Option<lockproof_compose::model::Text>| text.as_ref().map(|t| t.text.clone());
        let restart = text(&service.restart).unwrap_or_default().parse().map_err(|e: Error| {
            e.or_at(
                service.restart.as_ref().map(|r| compose.project.sources.place(r.at).to_string()).unwrap_or_default(),
            )
        })?;
        Ok(Self {
            image: text(&service.image).unwrap_or_default(),
            port: entry.port.or(compose.port).ok_or_else(|| {
                Error::usage(format!("the service `{}` publishes no port", compose.service))
                    .fix("give the port of the container: port: 80")
            })?,
            command: service.command.as_ref().map(|c| c.words.clone()),
            entrypoint: service.entrypoint.as_ref().map(|c| c.words.clone()),
            env: service.environment.iter().filter_map(|v| Some((v.name.clone(), v.value.clone()?))).collect(),
            restart,
            user: text(&service.user),
            working_dir: text(&service.working_dir),
            mounts: compose.mounts()?,
            compose: Some(compose),
            ..Self::of_file(entry, shared, base)?
        })
    }
}

fn texts(map: &BTreeMap<String, Scalar>) -> BTreeMap<String, String> {
    map.iter().map(|(key, value)| (key.clone(), value.0.clone())).collect()
}

fn split(words: &Words, key: &str) -> Result<Vec<String>> {
    match words {
        Words::List(words) => Ok(words.iter().map(|w| w.0.clone()).collect()),
        Words::Line(line) => shlex::split(line).ok_or_else(|| {
            Error::usage(format!("unclosed quote in `{key}: {line}`"))
                .fix(format!("write it as a list: {key}: [python, main.py]"))
        }),
    }
}

impl Mount {
    fn new(entry: &MountEntry, base: &Path) -> Result<Self> {
        let place = format!("mount `{}`", entry.target);
        let mut sources = Vec::new();
        if let Some(name) = &entry.volume {
            sources.push(MountSource::Volume(name.clone()));
        }
        if let Some(path) = &entry.bind {
            sources.push(MountSource::Bind(base.join(path)));
        }
        if entry.anonymous == Some(true) {
            sources.push(MountSource::Anonymous);
        }
        if entry.tmpfs == Some(true) {
            sources.push(MountSource::Tmpfs);
        }
        let [source] = <[MountSource; 1]>::try_from(sources).map_err(|found| {
            Error::usage(format!(
                "a mount needs exactly one of volume, bind, anonymous, tmpfs; this one has {}",
                found.len()
            ))
            .at(&place)
            .fix("write for example { volume: nodes, target: /opt/ComfyUI/custom_nodes }")
        })?;
        if !entry.target.starts_with('/') {
            return Err(Error::usage(format!("the target `{}` is not an absolute path", entry.target))
                .at(&place)
                .fix("write the absolute path in the container"));
        }
        if let MountSource::Bind(path) = &source
            && !path.exists()
        {
            return Err(Error::usage(format!("{} does not exist", path.display()))
                .at(&place)
                .fix("create it, or correct `bind:`, which is relative to the configuration file"));
        }
        let target = match entry.target.trim_end_matches('/') {
            "" => {
                return Err(Error::usage("a mount on `/` would hide the whole image")
                    .at(&place)
                    .fix("mount a directory below /"));
            }
            trimmed => trimmed.to_owned(),
        };
        Ok(Self { target, source, read_only: entry.read_only.unwrap_or(false) })
    }
}

impl Lock {
    fn new(entry: &SchemeEntry, base: &Path) -> Result<Self> {
        let scheme = Scheme::find(entry.use_.as_deref().unwrap_or(Scheme::DEFAULT), base)?;
        let none = CredentialEntry::default();
        let credential = entry.credential.as_ref().unwrap_or(&none);
        if credential.token_file.is_some() && credential.token_env.is_some() {
            return Err(Error::usage("`token_file` and `token_env` are mutually exclusive")
                .at("scheme.credential")
                .fix("remove one of them"));
        }
        Ok(Self {
            install: entry.install.as_ref().map(|i| Install::new(i, &scheme, base)).transpose()?,
            scheme,
            username: credential.username.clone().unwrap_or_else(|| lockproof_model::names::USERNAME.to_owned()),
            password_env: credential.password_env.clone(),
            // An absolute path may be in the container, so it is checked later.
            token_file: credential.token_file.as_ref().map(|p| token_file(base, p)).transpose()?,
            token_env: credential.token_env.clone(),
        })
    }
}

impl Install {
    fn new(entry: &InstallEntry, scheme: &Scheme, base: &Path) -> Result<Self> {
        if scheme.in_front() {
            return Err(Error::usage(format!("the scheme `{}` has no plugin to install", scheme.name))
                .at("scheme.install")
                .fix("remove `install`; the proxy and its configuration are part of the deployment"));
        }
        let from = entry.from.as_deref().map(|f| PluginSource::new(f, scheme, base)).transpose()?;
        let script = entry.script.as_ref().map(|s| existing(base, s, "script")).transpose()?;
        let wheels = entry.wheels.as_ref().map(|w| existing(base, w, "wheels")).transpose()?;
        if from.is_none() && script.is_none() {
            return Err(Error::usage("`install` needs `from` or `script`")
                .at("scheme.install")
                .fix("add from: ./ComfyUI-Login; or remove `install` if the deployment installs its own lock"));
        }
        if let Some(wheels) = &wheels
            && !wheels.is_dir()
        {
            return Err(Error::usage(format!("{} is not a directory", wheels.display()))
                .at("scheme.install.wheels")
                .fix("give the directory that contains the .whl files"));
        }
        Ok(Self { from, into: entry.into.clone(), script, wheels })
    }
}

/// A relative path is one of this machine; an absolute one may be one of the container.
fn token_file(base: &Path, path: &Path) -> Result<PathBuf> {
    let whole = base.join(path);
    if path.is_absolute() || whole.symlink_metadata().is_ok() {
        return Ok(whole);
    }
    Err(Error::usage(format!("{} does not exist", whole.display()))
        .at("scheme.credential.token_file")
        .fix("correct the path: a relative one is relative to the configuration file, an absolute one may be in the container"))
}

fn existing(base: &Path, path: &Path, key: &str) -> Result<PathBuf> {
    let path = base.join(path);
    if path.exists() {
        return Ok(path);
    }
    Err(Error::usage(format!("{} does not exist", path.display()))
        .at(format!("scheme.install.{key}"))
        .fix("correct the path, which is relative to the configuration file"))
}

impl PluginSource {
    /// Reads `from:`, a directory below `base` or `git+https://…@rev`.
    ///
    /// # Errors
    /// A usage error if the directory does not exist or is not a plugin of the scheme.
    pub fn new(from: &str, scheme: &Scheme, base: &Path) -> Result<Self> {
        let place = "scheme.install.from";
        if let Some(rest) = from.strip_prefix("git+") {
            // The `@` of a revision comes after the last slash; an earlier one belongs to a user
            // name.
            let cut = rest.rfind('/').and_then(|slash| rest[slash..].find('@').map(|at| slash + at));
            let (url, rev) = match cut {
                Some(at) => (&rest[..at], Some(rest[at + 1..].to_owned())),
                None => (rest, None),
            };
            return Ok(Self::Git { url: url.to_owned(), rev });
        }
        let path = base.join(from);
        if !path.is_dir() {
            return Err(Error::usage(format!("{} is not a directory", path.display()))
                .at(place)
                .fix("give the plugin's directory, or git+https://…@rev"));
        }
        if !path.join(&scheme.plugin.entry).is_file() {
            return Err(Error::usage(format!(
                "{} has no {}, so ComfyUI would not load it",
                path.display(),
                scheme.plugin.entry
            ))
            .at(place)
            .fix("give the plugin's own directory, not its parent or a subdirectory"));
        }
        let path =
            path.canonicalize().map_err(|e| Error::usage(format!("cannot read {}: {e}", path.display())).at(place))?;
        Ok(Self::Directory(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_git_source_may_name_a_revision() {
        let scheme = Scheme::find(Scheme::DEFAULT, Path::new(".")).expect("built in");
        let source = PluginSource::new("git+ssh://git@host.example/a/b.git@v1", &scheme, Path::new("."));
        assert_eq!(
            source.ok(),
            Some(PluginSource::Git { url: "ssh://git@host.example/a/b.git".into(), rev: Some("v1".into()) })
        );
    }
}
