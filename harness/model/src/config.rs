//! The shape of `lockproof.yaml`, key by key. The published JSON Schema is made from these types.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::Span;
use crate::{event::Event, verdict::Verdict};

/// A whole `lockproof.yaml`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// The deployments under test.
    pub subjects: Vec<SubjectEntry>,
    /// How the lock is installed, and how a token is minted and presented.
    #[serde(default)]
    pub scheme: SchemeEntry,
    /// What happens to every subject. Default: restart, kill, recreate, down-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<Event>>,
    /// Workflows and notebooks that are replayed through the lock after every event (globs).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replays: Vec<String>,
    /// Findings that are known and tolerated, until a day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accept: Vec<AcceptEntry>,
    /// Subjects gated at once. Default: the number of cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<usize>,
}

/// One deployment under test: an image with its mounts, or a service of a compose project.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubjectEntry {
    /// Its name in the table and in every report.
    pub name: String,
    /// The image that runs ComfyUI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Instead of `image`: compose files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compose: Option<Vec<PathBuf>>,
    /// With `compose`: the service that runs ComfyUI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Files of variables instead of `.env`; only the command line has them.
    #[serde(skip)]
    pub env_files: Vec<PathBuf>,
    /// The profiles that are active, beside those of `COMPOSE_PROFILES`; only the command line has them.
    #[serde(skip)]
    pub profiles: Vec<String>,
    /// The port inside the container. Default: 8188.
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
    /// `false`: no route out at any time. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<bool>,
    /// The restart policy: no, always, unless-stopped, on-failure or on-failure:N.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<String>,
    /// The user that the process runs as. Default: the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Scalar>,
    /// The working directory. Default: the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Run an init as PID 1. Default: the engine's own setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// Labels on the container, beside lockproof's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Scalar>,
    /// What is mounted where.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<MountEntry>,
    /// Where things are inside the container; each is detected when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<LayoutEntry>,
    /// How long the server may take until its first answer. Default: 120s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_timeout: Option<Span>,
    /// How long a stop waits before it kills. Default: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<Span>,
    /// The image for the event `upgrade`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade_to: Option<String>,
    /// The verdict that each event must have. Default: locked everywhere.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub expect: BTreeMap<Event, Verdict>,
    /// For this subject alone: instead of the file's `scheme`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<SchemeEntry>,
}

/// A command: a list of words, or one line that a shell splits.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Words {
    /// The words as they stand.
    List(Vec<Scalar>),
    /// One line, split as a POSIX shell splits words.
    Line(String),
}

/// A string; numbers and booleans are taken as they are written.
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
        // A YAML scalar is text first; as a string it arrives as it was written.
        String::deserialize(deserializer).map(Self)
    }
}

/// One mount: exactly one of `volume`, `bind`, `anonymous`, `tmpfs`, and its target.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MountEntry {
    /// A named volume, made for this run and removed after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// A path of the host, mounted through a copy-on-write layer: it is never written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind: Option<PathBuf>,
    /// A volume without a name, as `VOLUME` in an image makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<bool>,
    /// A file system in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tmpfs: Option<bool>,
    /// The absolute path in the container.
    pub target: String,
    /// Mounted read-only. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
}

/// Where things are inside the container; each is detected when left out.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct LayoutEntry {
    /// The directory of ComfyUI's code, which holds `main.py`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_dir: Option<String>,
    /// The directory from which ComfyUI loads custom nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_nodes: Option<String>,
    /// The Python interpreter that runs ComfyUI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
}

/// How the lock is installed, and how a token is minted and presented.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SchemeEntry {
    /// A built-in scheme, or the path of a scheme file. Default: comfyui-login.
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub use_: Option<String>,
    /// How the lock gets in. Left out: the deployment installs its lock itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install: Option<InstallEntry>,
    /// Whose credential. Default: a random one for each run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialEntry>,
}

/// How the lock gets into the subject.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InstallEntry {
    /// The plugin: a directory, or `git+https://…@rev`. Left out: the deployment has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The directory in the container into which it goes. Default: the layout's custom_nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
    /// A script of the host that is run in the container instead of the copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<PathBuf>,
    /// Install Python dependencies from this directory of wheels, offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wheels: Option<PathBuf>,
}

/// Whose credential the lock has.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CredentialEntry {
    /// The user name for the login form. Default: lockproof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The environment variable of this machine that holds the password. Default: a random one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
    /// A file with the token that the deployment has: of this machine, or an absolute path in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The environment variable with the token that the deployment has: of this machine, or of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_env: Option<String>,
}

/// One finding that is known and tolerated.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptEntry {
    /// The rule, as `lockproof explain` lists it.
    pub rule: String,
    /// Why it is tolerated.
    pub reason: String,
    /// The last day (UTC) on which it is, as YYYY-MM-DD. Default: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Only for this subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Only after this event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
    /// Only for this route (a path; `*` matches anything).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
}

/// The JSON Schema of `lockproof.yaml`, as it is published in `docs/lockproof.schema.json`.
pub fn json_schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(ConfigFile).to_value();
    if let Some(object) = schema.as_object_mut() {
        object.insert("title".into(), "lockproof.yaml".into());
    }
    schema
}
