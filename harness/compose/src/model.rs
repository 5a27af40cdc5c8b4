//! A project in normalised form. Each value keeps its position.

use std::path::PathBuf;

use super::{
    interpolate::Raw,
    port::Port,
    source::{Sources, Span},
    volume::Type,
    yaml::{Node, Remark},
};
use lockproof_model::{path::is_within, state::Owner};

/// A compose project.
#[derive(Clone, Debug)]
pub struct Project {
    /// Its name, as Compose would choose it.
    pub name: String,
    /// The base directory of its relative paths.
    pub directory: std::path::PathBuf,
    /// The given or found files, without those that they include or extend.
    pub files: Vec<std::path::PathBuf>,
    /// Every file that was read.
    pub sources: Sources,
    /// All services, whether or not their profiles are active.
    pub services: Vec<Service>,
    /// The named volumes that it declares.
    pub volumes: Vec<Volume>,
    /// The active profiles.
    pub profiles: Vec<String>,
    /// Remarks: unusual or unknown values.
    pub remarks: Vec<Remark>,
    /// Included files that were not read, so their content is unknown.
    pub unread: Vec<Remark>,
    /// The comments of its files.
    pub comments: Vec<Remark>,
    /// The variables used for interpolation.
    pub env: super::env::Environment,
    /// The whole document: merged, interpolated, with absolute paths.
    pub document: Node,
}

/// A service.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// The position of its name.
    pub at: Span,
    /// The directory of the project.
    pub directory: PathBuf,
    /// The image.
    pub image: Option<Text>,
    /// How the image is built.
    pub build: Option<Build>,
    /// The command.
    pub command: Option<Words>,
    /// The entry point.
    pub entrypoint: Option<Words>,
    /// Its variables, including those of `env_file`, each once.
    pub environment: Vec<Variable>,
    /// Whether a file of `env_file` is missing, so that some variables are unknown.
    pub environment_incomplete: bool,
    /// Its mounts, in file order.
    pub mounts: Vec<Mount>,
    /// Whether it mounts volumes of a container outside the project.
    pub mounts_incomplete: bool,
    /// Its ports.
    pub ports: Vec<Port>,
    /// The health check.
    pub healthcheck: Option<Healthcheck>,
    /// The user.
    pub user: Option<Text>,
    /// The working directory.
    pub working_dir: Option<Text>,
    /// The restart policy.
    pub restart: Option<Text>,
    /// The profiles that activate it; empty: always active.
    pub profiles: Vec<String>,
    /// The services that it depends on.
    pub depends_on: Vec<String>,
    /// Its networks.
    pub networks: Vec<String>,
    /// `host`, `none`, `service:NAME`, …
    pub network_mode: Option<Text>,
    /// The service as in [`Project::document`].
    pub node: Node,
}

/// A text with its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The text, interpolated.
    pub text: String,
    /// Its position.
    pub at: Span,
    /// The text before interpolation, if it contains a `$`.
    pub raw: Option<Box<Raw>>,
}

/// How an image is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// The directory, absolute, or a URL.
    pub context: String,
    /// The Dockerfile, relative to `context`, or an absolute path.
    pub dockerfile: Option<String>,
    /// The inline Dockerfile.
    pub inline: Option<String>,
    /// The build stage.
    pub target: Option<String>,
    /// The build arguments.
    pub args: Vec<(String, Option<String>)>,
    /// Its position.
    pub at: Span,
}

/// A command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// Its words. A string is split as by a shell, but no shell runs it.
    pub words: Vec<String>,
    /// Its position.
    pub at: Span,
}

impl Words {
    /// The words on one line, for messages.
    pub fn line(&self) -> String {
        self.words.join(" ")
    }
}

/// A variable of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value; `None` if it is declared without a value and not set anywhere.
    pub value: Option<String>,
    /// Its position: in the compose file, or that of `env_file`.
    pub at: Span,
    /// The `env_file` that defines it.
    pub env_file: Option<String>,
    /// Whether it is declared without a value and taken from Compose's environment.
    pub passed: bool,
    /// The value before interpolation, if it contains a `$`.
    pub raw: Option<Box<Raw>>,
}

/// A mount of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its kind.
    pub kind: MountKind,
    /// The host path, or the name of the volume; `None` for an anonymous volume or tmpfs.
    pub source: Option<String>,
    /// The path in the container, without a trailing slash.
    pub target: String,
    /// Whether it is read-only.
    pub read_only: bool,
    /// Whether its content survives `down --volumes`, like that of an external volume.
    pub outlasts_wipe: bool,
    /// Whether an empty volume is filled from the image.
    pub filled: bool,
    /// The mounted subdirectory of the volume.
    pub subpath: Option<String>,
    /// Its position.
    pub at: Span,
}

/// The kind of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// An entry of `volumes`.
    Volume(Type),
    /// An entry of `tmpfs`.
    Tmpfs,
    /// A secret or a config: a file.
    File,
}

impl Mount {
    /// The owner of the content.
    pub fn owner(&self) -> Owner {
        match self.kind {
            MountKind::Tmpfs | MountKind::Volume(Type::Tmpfs) => Owner::Tmpfs,
            MountKind::File | MountKind::Volume(Type::Bind | Type::Pipe) => Owner::Bind,
            MountKind::Volume(Type::Image) => Owner::Image,
            MountKind::Volume(Type::Volume | Type::Cluster) if self.source.is_some() => Owner::Volume,
            MountKind::Volume(_) => Owner::AnonymousVolume,
        }
    }
}

/// A health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Healthcheck {
    /// The words of `test`; empty if it is not set or disabled.
    pub test: Vec<String>,
    /// Whether it is disabled.
    pub disabled: bool,
    /// The position of `test`.
    pub at: Span,
}

/// A named volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The name in the file.
    pub name: String,
    /// Whether it is external: not created by this project.
    pub external: bool,
    /// The host directory that it really is (`driver_opts` with `o: bind`).
    pub device: Option<String>,
    /// The file system type, if `driver_opts` names one: nfs, cifs, tmpfs, …
    pub filesystem: Option<String>,
    /// The position of its name.
    pub at: Span,
}

impl Project {
    /// The service with that name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    /// Whether a service is started with the active profiles.
    pub fn is_active(&self, service: &Service) -> bool {
        service.profiles.is_empty()
            || self.profiles.iter().any(|asked| asked == "*" || service.profiles.contains(asked))
    }

    /// The whole document as JSON, from which Compose can start the same project. Every `$` is
    /// doubled, because Compose interpolates it again.
    pub fn to_json(&self) -> serde_json::Value {
        super::document::to_json(&self.document)
    }
}

impl Service {
    /// The value of a variable that is set.
    pub fn variable(&self, name: &str) -> Option<&Variable> {
        self.environment.iter().find(|variable| variable.name == name)
    }

    /// The value of a variable that is set.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.variable(name)?.value.as_deref()
    }

    /// The mount that contains a container path: the one with the longest target.
    pub fn mount_of(&self, path: &str) -> Option<&Mount> {
        self.mounts.iter().filter(|mount| is_within(path, &mount.target)).max_by_key(|mount| mount.target.len())
    }
}
