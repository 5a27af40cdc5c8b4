//! Rewrites a project so that it affects nothing outside the run: a pure function from the original
//! project to the input of Compose.
//!
//! | in the file | in the copy |
//! |---|---|
//! | `container_name`, labels, log drivers | removed: they belong to the original |
//! | `ports` | only the port of the gated service, on 127.0.0.1, chosen by the engine |
//! | networks | networks of the run, without fixed addresses; host networking is replaced |
//! | named volumes | empty volumes of the run; external and remote ones too |
//! | binds, secrets, configs | as in [`Made`]: a copy-on-write layer, or a copy |
//! | sockets of this machine | removed: access through them would reach it |
//! | `privileged`, `pid: host`, `userns_mode: host` | removed: a copy could use them to reach this machine |
//! | GPUs and devices | removed if this machine has none |

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
};

use serde_json::{Map, Value, json};

use lockproof_compose::{Mount, MountKind, Project, Service, document::to_json, volume::Type};
use lockproof_model::state::Owner;

/// What was created for the project, and the settings of the copy.
#[derive(Clone, Debug, Default)]
pub struct Made {
    /// The replacements of host mounts, by [`key`](bind_key) of the path.
    pub binds: BTreeMap<String, Vec<BoundTo>>,
    /// The real names of volumes that Compose does not create, by their name in the file.
    pub kept: BTreeMap<String, String>,
    /// The images to run, by service.
    pub images: BTreeMap<String, String>,
    /// The labels of all objects.
    pub labels: HashMap<String, String>,
    /// The prefix of all names.
    pub prefix: String,
    /// Whether the copy has no network access.
    pub isolated: bool,
    /// Whether the engine can give containers a GPU.
    pub gpu: bool,
}

/// The replacement of a part of a host path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundTo {
    /// The path below the mount's target; empty for the mount itself.
    pub below: String,
    /// The volume, or the path of a copy.
    pub source: Source,
}

/// The source of a replaced bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A volume by its real name.
    Volume(String),
    /// A path of a copy.
    Path(String),
}

/// The services to start: the active ones, the gated one, and its dependencies.
pub fn services<'p>(project: &'p Project, gated: &str) -> Vec<&'p Service> {
    let mut wanted: BTreeSet<&str> =
        project.services.iter().filter(|s| project.is_active(s)).map(|s| s.name.as_str()).collect();
    let mut next = vec![gated];
    while let Some(name) = next.pop() {
        let Some(service) = project.service(name) else { continue };
        wanted.insert(&service.name);
        let shares = service.network_mode.as_ref().and_then(|m| m.text.strip_prefix("service:"));
        let needs = service.depends_on.iter().map(String::as_str).chain(shares);
        next.extend(needs.filter(|name| !wanted.contains(name)).collect::<Vec<_>>());
    }
    project.services.iter().filter(|s| wanted.contains(s.name.as_str())).collect()
}

/// The service whose port is published: the gated one, or the one whose network it uses.
pub fn door<'p>(project: &'p Project, gated: &'p str) -> &'p str {
    let mode = project.service(gated).and_then(|s| s.network_mode.as_ref());
    mode.and_then(|m| m.text.strip_prefix("service:")).unwrap_or(gated)
}

/// The key of a host mount in [`Made::binds`].
pub fn bind_key(mount: &Mount) -> Option<&str> {
    (mount.owner() == Owner::Bind).then_some(mount.source.as_deref()).flatten()
}

/// The project for Compose, and notes about changes that may affect its behaviour.
pub fn rewrite(project: &Project, gated: &str, port: u16, made: &Made) -> (Value, Vec<String>) {
    let active = services(project, gated);
    let names: BTreeSet<&str> = active.iter().map(|s| s.name.as_str()).collect();
    let mut copy = Rewriter { project, made, names: &names, notes: Vec::new(), networks: BTreeSet::new() };
    let mut services = Map::new();
    let mut volumes = Map::new();
    for service in &active {
        let published = (service.name == door(project, gated) && !made.isolated).then_some(port);
        services.insert(service.name.clone(), copy.service(service, published, &mut volumes));
    }
    let networks: Map<String, Value> = copy.networks.iter().map(|name| (name.clone(), copy.network(name))).collect();
    (json!({ "services": services, "networks": networks, "volumes": volumes }), copy.notes)
}

struct Rewriter<'a> {
    project: &'a Project,
    made: &'a Made,
    names: &'a BTreeSet<&'a str>,
    notes: Vec<String>,
    networks: BTreeSet<String>,
}

/// Keys of a service that are removed or replaced.
const DROPPED: [&str; 17] = [
    "container_name",
    "extends",
    "env_file",
    "environment",
    "external_links",
    "labels",
    "label_file",
    "logging",
    "mac_address",
    "networks",
    "network_mode",
    "ports",
    "profiles",
    "scale",
    "secrets",
    "configs",
    "volumes_from",
];

impl Rewriter<'_> {
    fn service(&mut self, service: &Service, published: Option<u16>, volumes: &mut Map<String, Value>) -> Value {
        let Value::Object(mut copy) = to_json(&service.node) else { return Value::Null };
        for key in DROPPED {
            copy.remove(key);
        }
        copy.remove("volumes");
        self.unprivileged(service, &mut copy);
        if let Some(image) = self.made.images.get(&service.name) {
            copy.remove("build");
            copy.insert("image".into(), escaped(image).into());
        }
        let environment: Map<String, Value> = service
            .environment
            .iter()
            .filter(|v| !(self.made.isolated && v.name.to_lowercase().ends_with("_proxy")))
            .filter_map(|v| Some((v.name.clone(), escaped(v.value.as_deref()?).into())))
            .collect();
        copy.insert("environment".into(), environment.into());
        copy.insert("labels".into(), labels(&self.made.labels));
        if let Some(port) = published {
            copy.insert("ports".into(), json!([format!("127.0.0.1::{port}")]));
        }
        if self.made.isolated {
            // An isolated network drops packets: let name lookups fail soon.
            copy.insert("dns_opt".into(), json!(["timeout:1", "attempts:1"]));
        }
        self.network_of(service, &mut copy);
        self.needs(&mut copy);
        self.hardware(service, &mut copy);
        let mounts: Vec<Value> = service.mounts.iter().flat_map(|m| self.mount(service, m, volumes)).collect();
        if !mounts.is_empty() {
            copy.insert("volumes".into(), mounts.into());
        }
        Value::Object(copy)
    }

    /// Removes privileges that would let the copy affect this machine.
    fn unprivileged(&mut self, service: &Service, copy: &mut Map<String, Value>) {
        let dropped: Vec<&str> =
            [("privileged", Value::Bool(true)), ("pid", "host".into()), ("userns_mode", "host".into())]
                .into_iter()
                .filter(|(key, value)| copy.get(*key) == Some(value))
                .map(|(key, _)| key)
                .collect();
        for key in &dropped {
            copy.remove(*key);
        }
        if !dropped.is_empty() {
            self.note(service, format!("removed {}: a copy could use it to reach this machine", dropped.join(", ")));
        }
    }

    /// Its dependencies, without services that are not started.
    fn needs(&self, copy: &mut Map<String, Value>) {
        for key in ["depends_on", "links"] {
            match copy.get_mut(key) {
                Some(Value::Object(entries)) => entries.retain(|name, _| self.names.contains(name.as_str())),
                Some(Value::Array(items)) => items.retain(|item| {
                    item.as_str().is_some_and(|name| self.names.contains(name.split(':').next().unwrap_or(name)))
                }),
                _ => {}
            }
        }
    }

    fn network_of(&mut self, service: &Service, copy: &mut Map<String, Value>) {
        if let Some(mode) = &service.network_mode {
            let shared = mode.text.strip_prefix("service:").is_some_and(|name| self.names.contains(name));
            if shared || mode.text == "none" {
                copy.insert("network_mode".into(), escaped(&mode.text).into());
                if shared {
                    copy.remove("dns_opt");
                    copy.remove("hostname");
                }
                return;
            }
            if !matches!(mode.text.as_str(), "bridge" | "default") {
                self.note(service, format!("replaced `network_mode: {}` with a separate network", mode.text));
            }
        }
        let mut attached = Map::new();
        for name in &service.networks {
            let aliases = service.node.at(&["networks", name.as_str(), "aliases"]).map(to_json);
            let aliases = aliases.map_or(Value::Null, |aliases| json!({ "aliases": aliases }));
            attached.insert(name.clone(), aliases);
        }
        if attached.is_empty() {
            attached.insert("default".to_owned(), Value::Null);
        }
        self.networks.extend(attached.keys().cloned());
        copy.insert("networks".into(), attached.into());
    }

    fn network(&self, name: &str) -> Value {
        let internal = self.project.document.at(&["networks", name, "internal"]).and_then(|i| i.as_bool());
        let internal = self.made.isolated || internal == Some(true);
        json!({ "name": format!("{}-net-{}", self.made.prefix, plain(name)), "internal": internal, "labels": labels(&self.made.labels) })
    }

    fn hardware(&mut self, service: &Service, copy: &mut Map<String, Value>) {
        if let Some(deploy) = copy.get_mut("deploy").and_then(Value::as_object_mut) {
            deploy.remove("replicas");
            deploy.remove("labels");
        }
        if !self.made.gpu {
            let reservations = copy
                .get_mut("deploy")
                .and_then(|d| d.get_mut("resources"))
                .and_then(|r| r.get_mut("reservations"))
                .and_then(Value::as_object_mut);
            let reserved = reservations.and_then(|r| r.remove("devices")).is_some();
            let runtime = copy.get("runtime").and_then(Value::as_str) == Some("nvidia");
            if runtime {
                copy.remove("runtime");
            }
            if copy.remove("gpus").is_some() || reserved || runtime {
                self.note(service, "removed its GPU: the engine has none".to_owned());
            }
        }
        if let Some(Value::Array(devices)) = copy.get_mut("devices") {
            let before = devices.len();
            devices.retain(|device| {
                let path = device.as_str().or_else(|| device.get("source").and_then(Value::as_str)).unwrap_or_default();
                Path::new(path.split(':').next().unwrap_or(path)).exists()
            });
            if devices.len() < before {
                self.note(service, "removed devices that this machine does not have".to_owned());
            }
        }
    }

    fn mount(&mut self, service: &Service, mount: &Mount, volumes: &mut Map<String, Value>) -> Vec<Value> {
        let target = escaped(&mount.target);
        if let Some(path) = bind_key(mount) {
            let Some(parts) = self.made.binds.get(path) else {
                self.note(service, format!("removed {}: {path} is not a file or a directory", mount.target));
                return Vec::new();
            };
            return parts.iter().map(|part| self.bound(mount, part, volumes)).collect();
        }
        match (mount.owner(), mount.kind) {
            // `tmpfs:` is kept as written; only entries of `volumes:` are rewritten.
            (Owner::Tmpfs, MountKind::Volume(_)) => vec![json!({ "type": "tmpfs", "target": target })],
            (Owner::AnonymousVolume, _) => vec![json!({ "type": "volume", "target": target })],
            (Owner::Volume, MountKind::Volume(Type::Volume)) => {
                let mut name = mount.source.clone().unwrap_or_default();
                // Each subpath becomes a separate volume: a new volume would not contain it.
                if let Some(below) = &mount.subpath {
                    name = format!("{name}-{}", plain(below));
                }
                let real = self.made.kept.get(&name);
                let declared = match real {
                    Some(real) => json!({ "external": true, "name": real }),
                    None => json!({
                        "name": format!("{}-vol-{}", self.made.prefix, plain(&name)),
                        "labels": labels(&self.made.labels),
                    }),
                };
                if real.is_some() && !volumes.contains_key(&name) {
                    self.note(service, format!("replaced the external volume `{name}` with an empty one"));
                }
                volumes.insert(name.clone(), declared);
                vec![json!({
                    "type": "volume", "source": name, "target": target, "read_only": mount.read_only,
                    "volume": { "nocopy": !mount.filled },
                })]
            }
            _ => Vec::new(),
        }
    }

    fn bound(&self, mount: &Mount, part: &BoundTo, volumes: &mut Map<String, Value>) -> Value {
        let target = escaped(format!("{}/{}", mount.target, part.below).trim_end_matches('/'));
        match &part.source {
            Source::Path(path) => {
                json!({ "type": "bind", "source": escaped(path), "target": target, "read_only": mount.read_only })
            }
            Source::Volume(real) => {
                volumes.insert(real.clone(), json!({ "external": true, "name": real }));
                json!({
                    "type": "volume", "source": real, "target": target, "read_only": mount.read_only,
                    "volume": { "nocopy": !mount.filled },
                })
            }
        }
    }

    fn note(&mut self, service: &Service, text: String) {
        self.notes.push(format!("{}: {text}", service.name));
    }
}

fn labels(labels: &HashMap<String, String>) -> Value {
    labels.iter().map(|(name, value)| (name.clone(), Value::from(escaped(value)))).collect::<Map<_, _>>().into()
}

/// Escapes `$`, because Compose interpolates its input.
fn escaped(text: &str) -> String {
    text.replace('$', "$$")
}

/// Replaces characters that engines do not allow in names.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockproof_compose::Environment;

    const FILE: &str = "
services:
  comfyui:
    image: comfyui:cpu
    container_name: comfyui-qwen
    restart: unless-stopped
    ports: ['8188:8188', '0.0.0.0:9000:9000']
    labels: { traefik.enable: 'true' }
    environment: { TOKEN: 'a$$b', UNSET: }
    depends_on: [db, asleep]
    networks: { front: { ipv4_address: 10.0.0.2, aliases: [comfy] } }
    deploy: { replicas: 2, resources: { reservations: { devices: [{ capabilities: [gpu] }] } } }
    volumes:
      - ./ws:/workspace
      - /run/some.sock:/run/some.sock
      - nodes:/nodes
      - models:/models:ro
      - /cache
      - { type: tmpfs, target: /scratch }
      - { type: volume, source: nodes, target: /some, volume: { subpath: some/part } }
    privileged: true
    pid: host
    secrets: [token]
  db: { image: 'db:1', network_mode: host, ports: ['5432:5432'] }
  asleep: { image: 'x:1', profiles: [never] }
  other: { image: 'x:1', profiles: [never] }
networks: { front: { external: true } }
volumes: { nodes: , models: { external: true } }
secrets: { token: { file: ./token } }
";

    fn copy(isolated: bool) -> (Value, Vec<String>) {
        let project = Project::parse(FILE, Environment::of([])).expect("it is right");
        let bound = |source| vec![BoundTo { below: String::new(), source }];
        let made = Made {
            binds: BTreeMap::from([
                ("/nowhere/ws".to_owned(), bound(Source::Volume("layer".to_owned()))),
                ("/nowhere/token".to_owned(), bound(Source::Path("/copies/token".to_owned()))),
            ]),
            kept: BTreeMap::from([("models".to_owned(), "stand-in".to_owned())]),
            labels: HashMap::from([("lockproof.run".to_owned(), "r".to_owned())]),
            prefix: "lockproof-r-s0u1".to_owned(),
            isolated,
            ..Made::default()
        };
        rewrite(&project, "comfyui", 8188, &made)
    }

    #[test]
    fn the_copy_touches_nothing_outside_the_run() {
        let (file, notes) = copy(false);
        let text = serde_json::to_string_pretty(&file).expect("it can be written");
        insta::assert_snapshot!(format!("{text}\n\n{}", notes.join("\n")));
    }

    #[test]
    fn without_a_route_out_nothing_is_published_and_every_network_is_internal() {
        let (file, _) = copy(true);
        assert!(file["services"]["comfyui"].get("ports").is_none());
        let networks = file["networks"].as_object().expect("an object");
        assert!(!networks.is_empty() && networks.values().all(|n| n["internal"] == true), "{networks:?}");
    }

    #[test]
    fn the_whole_copy_carries_the_labels() {
        let (file, _) = copy(false);
        let labelled = |part: &str| -> Vec<bool> {
            let entries = file[part].as_object().expect("an object").values();
            entries.filter(|v| v["external"] != true).map(|v| v["labels"]["lockproof.run"] == "r").collect()
        };
        for part in ["services", "networks", "volumes"] {
            assert!(!labelled(part).is_empty() && labelled(part).iter().all(|l| *l), "{part}: {file}");
        }
    }
}
