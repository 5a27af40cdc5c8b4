//! The structure of `lockproof.yaml`. The published JSON Schema is generated from these types.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::Span;
use crate::{event::Event, verdict::Verdict};

/// The content of `lockproof.yaml`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// The deployments under test.
    pub subjects: Vec<SubjectEntry>,
    /// How the lock is installed, and how a token is created and presented.
    #[serde(default)]
    pub scheme: SchemeEntry,
    /// The events to run on every subject. Default: restart, kill, recreate, down-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<Event>>,
    /// Workflows and notebooks to replay through the lock after every event (glob patterns).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replays: Vec<String>,
    /// Known findings that do not count, with an optional end date.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accept: Vec<AcceptEntry>,
    /// The number of subjects to gate in parallel. Default: the number of cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<usize>,
}

/// A deployment under test: an image with its mounts, or a service of a compose project.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubjectEntry {
    /// Its name in reports.
    pub name: String,
    /// The image that runs ComfyUI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Compose files, instead of `image`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compose: Option<Vec<PathBuf>>,
    /// With `compose`: the service that runs ComfyUI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Files with variables, used instead of `.env`; only set on the command line.
    #[serde(skip)]
    pub env_files: Vec<PathBuf>,
    /// Active profiles, in addition to `COMPOSE_PROFILES`; only set on the command line.
    #[serde(skip)]
    pub profiles: Vec<String>,
    /// The port in the container. Default: 8188.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The command. Default: the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Words>,
    /// The entry point. Default: the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Words>,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Scalar>,
    /// `false`: no network access at any time. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<bool>,
    /// The restart policy: no, always, unless-stopped, on-failure or on-failure:N.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<String>,
    /// The user that runs the process. Default: the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Scalar>,
    /// The working directory. Default: the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Whether to run an init as PID 1. Default: the engine's setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// Labels of the container, in addition to lockproof's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Scalar>,
    /// The mounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<MountEntry>,
    /// Paths inside the container. Default: detected, each key on its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<LayoutEntry>,
    /// The time limit for the first HTTP answer after a start. Default: 120s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_timeout: Option<Span>,
    /// The time limit of a stop before SIGKILL. Default: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<Span>,
    /// The image for the event `upgrade`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade_to: Option<String>,
    /// The expected verdict of each event. Default: locked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub expect: BTreeMap<Event, Verdict>,
    /// The scheme of this subject, instead of the file's `scheme`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<SchemeEntry>,
}

/// A command: a list of words, or one line that is split as by a shell.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Words {
    /// The words as written.
    List(Vec<Scalar>),
    /// One line, split by the word rules of a POSIX shell.
    Line(String),
}

/// A string; numbers and booleans are kept as written.
#[derive(Clone, Debug, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(with = "ScalarSchema")]
#[serde(transparent)]
pub struct Scalar(pub String);

#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum ScalarSchema {
    Text(String),
    Number(f64),
    Boolean(bool),
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A YAML scalar is text: as a string, it keeps its written form.
        String::deserialize(deserializer).map(Self)
    }
}

/// A mount: exactly one of `volume`, `bind`, `anonymous`, `tmpfs`, and its target.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MountEntry {
    /// A named volume, created for this run and removed after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// A host path, mounted through a copy-on-write layer: the host's files are never written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind: Option<PathBuf>,
    /// An anonymous volume, as created by `VOLUME` in an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<bool>,
    /// A tmpfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tmpfs: Option<bool>,
    /// The absolute path in the container.
    pub target: String,
    /// Whether it is read-only. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
}

/// Paths inside the container. Default: detected, each key on its own.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct LayoutEntry {
    /// ComfyUI's code directory, which contains `main.py`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_dir: Option<String>,
    /// The directory from which ComfyUI loads custom nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_nodes: Option<String>,
    /// The Python interpreter that runs ComfyUI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
}

/// How the lock is installed, and how a token is created and presented.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SchemeEntry {
    /// A built-in scheme, or a path to a scheme file. Default: comfyui-login.
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub use_: Option<String>,
    /// How to install the lock. Omit it if the deployment installs its own lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install: Option<InstallEntry>,
    /// The credential of the lock. Default: random for each run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialEntry>,
}

/// How to install the lock.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InstallEntry {
    /// The plugin: a directory, or `git+https://…@rev`. Omit it if the deployment contains the
    /// plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The directory in the container to install it into. Default: the layout's custom_nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
    /// A script of the host, run in the container instead of copying the plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<PathBuf>,
    /// Install Python dependencies from this directory of wheels, offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wheels: Option<PathBuf>,
}

/// The credential of the lock.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CredentialEntry {
    /// The user name for the login form. Default: lockproof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The environment variable of this machine with the password. Default: a random password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
    /// A file with the deployment's token: on this machine, or an absolute path in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// An environment variable with the deployment's token: on this machine or in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_env: Option<String>,
}

/// A known finding that does not count.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptEntry {
    /// The rule, as listed by `lockproof explain`.
    pub rule: String,
    /// The reason.
    pub reason: String,
    /// The last day (UTC), as YYYY-MM-DD. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Only for this subject. Default: every subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Only after this event. Default: every event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
    /// Only for this route (a path; `*` matches anything). Default: every route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
}

/// The JSON Schema of `lockproof.yaml`, as published in `docs/lockproof.schema.json`.
pub fn json_schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(ConfigFile).to_value();
    if let Some(object) = schema.as_object_mut() {
        object.insert("title".into(), "lockproof.yaml".into());
    }
    schema
}
