//! A project as it will be brought up: each value still knows where it stands.

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
    /// The directory to which its relative paths are relative.
    pub directory: std::path::PathBuf,
    /// The files that were named or found, without those that they include or extend.
    pub files: Vec<std::path::PathBuf>,
    /// Every file that it was read from.
    pub sources: Sources,
    /// Every service, whatever its profiles.
    pub services: Vec<Service>,
    /// The named volumes that it declares.
    pub volumes: Vec<Volume>,
    /// The profiles that are asked for.
    pub profiles: Vec<String>,
    /// What is odd, and what cannot be known.
    pub remarks: Vec<Remark>,
    /// Files that it includes and that were not read: what they say is unknown.
    pub unread: Vec<Remark>,
    /// The comments of its files.
    pub comments: Vec<Remark>,
    /// The variables that it was interpolated with.
    pub env: super::env::Environment,
    /// The whole document: merged, interpolated, with absolute paths.
    pub document: Node,
}

/// A service.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Where its name stands.
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
    /// Its variables, those of `env_file` too, each once.
    pub environment: Vec<Variable>,
    /// Whether a file of `env_file` is not there, so that not all variables are known.
    pub environment_incomplete: bool,
    /// What is mounted, in the order of the file.
    pub mounts: Vec<Mount>,
    /// Whether it takes the volumes of a container that is not in the project.
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
    /// The profiles in which it is active; none: always.
    pub profiles: Vec<String>,
    /// The services that it needs.
    pub depends_on: Vec<String>,
    /// The networks that it is in.
    pub networks: Vec<String>,
    /// `host`, `none`, `service:NAME`, …
    pub network_mode: Option<Text>,
    /// The service as it stands in [`Project::document`].
    pub node: Node,
}

/// A text with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The text, interpolated.
    pub text: String,
    /// Where it stands.
    pub at: Span,
    /// What stood there before interpolation, where there was a `$`.
    pub raw: Option<Box<Raw>>,
}

/// How an image is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// The directory, absolute, or a URL.
    pub context: String,
    /// The Dockerfile below it, or an absolute path.
    pub dockerfile: Option<String>,
    /// The Dockerfile itself.
    pub inline: Option<String>,
    /// The stage.
    pub target: Option<String>,
    /// The arguments.
    pub args: Vec<(String, Option<String>)>,
    /// Where it stands.
    pub at: Span,
}

/// A command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// Its words; a text was split as a shell splits words, and not run by one.
    pub words: Vec<String>,
    /// Where it stands.
    pub at: Span,
}

impl Words {
    /// The words on one line, for reading.
    pub fn line(&self) -> String {
        self.words.join(" ")
    }
}

/// A variable of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value; none: it is named without one, and nobody sets it.
    pub value: Option<String>,
    /// Where it stands: in the file itself, or where `env_file` does.
    pub at: Span,
    /// The file of `env_file` that it came from.
    pub env_file: Option<String>,
    /// Whether it was named without a value, which then comes from the environment of Compose.
    pub passed: bool,
    /// What stood there before interpolation, where there was a `$`.
    pub raw: Option<Box<Raw>>,
}

/// Something that is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What it is.
    pub kind: MountKind,
    /// The path of the host, or the name of the volume; none for an anonymous volume and for tmpfs.
    pub source: Option<String>,
    /// The path in the container, without a trailing slash.
    pub target: String,
    /// Mounted read-only.
    pub read_only: bool,
    /// Whether what lies there outlasts `down --volumes`, as an external volume does.
    pub outlasts_wipe: bool,
    /// Whether an empty volume is filled from the image.
    pub filled: bool,
    /// The directory in the volume that is mounted, where it is not the whole volume.
    pub subpath: Option<String>,
    /// Where it stands.
    pub at: Span,
}

/// What a mount is.
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
    /// Who owns what lies there.
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
    /// The words of `test`; empty where only other keys are set, or it is disabled.
    pub test: Vec<String>,
    /// Whether it is switched off.
    pub disabled: bool,
    /// Where `test` stands.
    pub at: Span,
}

/// A named volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The name in the file.
    pub name: String,
    /// Whether it is made elsewhere.
    pub external: bool,
    /// The directory of the host that it really is (`driver_opts` with `o: bind`).
    pub device: Option<String>,
    /// The type of its file system, where `driver_opts` names one: nfs, cifs, tmpfs, …
    pub filesystem: Option<String>,
    /// Where its name stands.
    pub at: Span,
}

impl Project {
    /// The service of that name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    /// Whether a service is brought up with the profiles that are asked for.
    pub fn is_active(&self, service: &Service) -> bool {
        service.profiles.is_empty()
            || self.profiles.iter().any(|asked| asked == "*" || service.profiles.contains(asked))
    }

    /// The whole document as data that Compose can be given to bring the same project up: every `$`
    /// is doubled, because Compose interpolates it again.
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

    /// The mount on which a path of the container lies: the one with the longest target.
    pub fn mount_of(&self, path: &str) -> Option<&Mount> {
        self.mounts.iter().filter(|mount| is_within(path, &mount.target)).max_by_key(|mount| mount.target.len())
    }
}
