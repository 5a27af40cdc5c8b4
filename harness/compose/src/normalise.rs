//! Converts a document to a [`Project`]: the short and the long syntax become equal.

use std::{collections::BTreeSet, path::Path};

use super::{
    dotenv,
    env::Environment,
    error::Trouble,
    load::Loaded,
    merge,
    model::{Build, Healthcheck, Mount, MountKind, Project, Service, Text, Variable, Volume, Words},
    paths, port,
    source::Span,
    volume::Type,
    yaml::{Entry, Kind, Node, Remark},
};
use crate::{text, volume};
use lockproof_model::error::{Error, Result};

/// Converts a document to a project.
///
/// # Errors
/// A usage error with position for a value of the wrong type.
pub(super) fn project(loaded: Loaded, directory: &Path, profiles: Vec<String>) -> Result<Project> {
    let Loaded { sources, document, remarks, unread, comments, env } = loaded;
    let mut reader = Reader { env, remarks, volumes: Vec::new() };
    let explain = |trouble: Trouble| trouble.explain(&sources);
    reader.volumes = volumes(&document);
    let mut services = Vec::new();
    let entries = document.get("services").map_or(&[][..], Node::entries);
    for entry in entries {
        services.push(reader.service(entry, &document, directory).map_err(|e| match e {
            Wrong::Here(trouble) => explain(trouble),
            Wrong::File(error) => error,
        })?);
    }
    borrow_volumes(&mut services, &document, &mut reader.remarks).map_err(explain)?;
    Ok(Project {
        name: name(&document, directory, &reader.env),
        directory: directory.to_owned(),
        files: Vec::new(),
        services,
        volumes: reader.volumes,
        profiles,
        remarks: reader.remarks,
        unread,
        comments,
        env: reader.env,
        sources,
        document,
    })
}

fn name(document: &Node, directory: &Path, env: &Environment) -> String {
    let given = env.get("COMPOSE_PROJECT_NAME").or_else(|| document.get("name").and_then(Node::as_str)).map_or_else(
        || directory.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
        str::to_owned,
    );
    let plain: String =
        given.to_lowercase().chars().filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect();
    plain.trim_start_matches(['-', '_']).to_owned()
}

fn volumes(document: &Node) -> Vec<Volume> {
    let entries = document.get("volumes").map_or(&[][..], Node::entries);
    let volume = |entry: &Entry| {
        let external = entry.value.get("external");
        let option = |name: &str| entry.value.at(&["driver_opts", name]).and_then(Node::as_str);
        let flags: Vec<&str> = option("o").map(|o| o.split(',').map(str::trim).collect()).unwrap_or_default();
        Volume {
            name: entry.key.clone(),
            external: external.is_some_and(|e| e.as_bool().unwrap_or(matches!(e.kind, Kind::Map(_)))),
            device: option("device").filter(|_| flags.iter().any(|f| *f == "bind" || *f == "rbind")).map(str::to_owned),
            filesystem: option("type").filter(|t| *t != "none" && !t.is_empty()).map(str::to_owned),
            at: entry.at,
        }
    };
    entries.iter().map(volume).collect()
}

/// An error in a service: in one of its values, or in a file that it refers to.
enum Wrong {
    Here(Trouble),
    File(Error),
}

impl From<Trouble> for Wrong {
    fn from(trouble: Trouble) -> Self {
        Self::Here(trouble)
    }
}

struct Reader {
    env: Environment,
    remarks: Vec<Remark>,
    volumes: Vec<Volume>,
}

impl Reader {
    fn service(&mut self, entry: &Entry, document: &Node, directory: &Path) -> std::result::Result<Service, Wrong> {
        let node = &entry.value;
        let text = |key: &str| node.get(key).and_then(text_of);
        let keys = |key: &str| -> Vec<String> {
            match node.get(key) {
                Some(Node { kind: Kind::Map(entries), .. }) => entries.iter().map(|e| e.key.clone()).collect(),
                Some(node) => node.strings().into_iter().map(|(s, _)| s.to_owned()).collect(),
                None => Vec::new(),
            }
        };
        let (environment, environment_incomplete) = self.environment(node, directory)?;
        let mut ports = Vec::new();
        for item in node.get("ports").map_or(&[][..], Node::items) {
            match port::parse(item) {
                Ok(port) => ports.push(port),
                Err(_) if is_from_unset(item) => {
                    let text = "this port depends on unset variables: Compose would reject it".to_owned();
                    self.remarks.push(Remark { at: item.span, text });
                }
                Err(trouble) => return Err(trouble.into()),
            }
        }
        Ok(Service {
            name: entry.key.clone(),
            at: entry.at,
            directory: directory.to_owned(),
            image: text("image"),
            build: node.get("build").and_then(build),
            command: node.get("command").and_then(words),
            entrypoint: node.get("entrypoint").and_then(words),
            environment,
            environment_incomplete,
            mounts: self.mounts(node, document)?,
            mounts_incomplete: false,
            ports,
            healthcheck: node.get("healthcheck").map(healthcheck),
            user: text("user"),
            working_dir: text("working_dir"),
            restart: text("restart"),
            profiles: keys("profiles"),
            depends_on: keys("depends_on"),
            networks: keys("networks"),
            network_mode: text("network_mode"),
            node: node.clone(),
        })
    }

    fn environment(&mut self, node: &Node, directory: &Path) -> std::result::Result<(Vec<Variable>, bool), Wrong> {
        let mut found: Vec<Variable> = Vec::new();
        let mut incomplete = false;
        let mut set = |variable: Variable| match found.iter_mut().find(|other| other.name == variable.name) {
            Some(other) => *other = variable,
            None => found.push(variable),
        };
        let files = match node.get("env_file") {
            Some(Node { kind: Kind::List(items), .. }) => items.clone(),
            Some(node) if !node.is_null() => vec![node.clone()],
            _ => Vec::new(),
        };
        for item in &files {
            let Some(path) = item.get("path").unwrap_or(item).as_str() else { continue };
            let shown = Path::new(path).strip_prefix(directory).map_or(path, |p| p.to_str().unwrap_or(path));
            if Path::new(path).symlink_metadata().is_err() {
                incomplete = true;
                if item.get("required").and_then(Node::as_bool) != Some(false) {
                    let text = format!("`{shown}` does not exist, and Compose rejects that; its variables are unknown");
                    self.remarks.push(Remark { at: item.span, text });
                }
                continue;
            }
            let text = text::read_text(Path::new(path), shown, "an env file").map_err(Wrong::File)?;
            let variables = dotenv::parse(&text, &|name| self.env.get(name).map(str::to_owned))
                .map_err(|wrong| Wrong::File(wrong.explain(shown)))?;
            for variable in variables {
                set(Variable {
                    name: variable.name,
                    value: variable.value,
                    at: item.span,
                    env_file: Some(shown.to_owned()),
                    passed: false,
                    raw: None,
                });
            }
        }
        if let Some(environment) = node.get("environment") {
            for Entry { key, at, value } in merge::as_names(environment.clone()).entries() {
                let passed = value.is_null();
                let given =
                    if passed { self.env.get(key).map(str::to_owned) } else { value.as_str().map(str::to_owned) };
                let raw = match &value.kind {
                    Kind::Scalar(scalar) => scalar.raw.clone(),
                    _ => None,
                };
                // The whole line: name and value.
                let at = if passed || value.span.file != at.file { *at } else { cover(*at, value.span) };
                set(Variable { name: key.clone(), value: given, at, env_file: None, passed, raw });
            }
        }
        Ok((found, incomplete))
    }

    fn mounts(&mut self, node: &Node, document: &Node) -> std::result::Result<Vec<Mount>, Wrong> {
        let mut mounts = Vec::new();
        for item in node.get("volumes").map_or(&[][..], Node::items) {
            let entry = volume::parse(item)?;
            if entry.unknown_source {
                let text =
                    format!("the mount at {} depends on an unset variable: Compose would reject it", entry.target);
                self.remarks.push(Remark { at: item.span, text });
            }
            mounts.push(self.mount(entry, item.span));
        }
        let tmpfs = node.get("tmpfs").map(Node::strings).unwrap_or_default();
        for (text, at) in tmpfs {
            let target = paths::in_container(text.split(':').next().unwrap_or(text));
            mounts.push(Mount {
                kind: MountKind::Tmpfs,
                source: None,
                target,
                read_only: false,
                outlasts_wipe: false,
                filled: false,
                subpath: None,
                at,
            });
        }
        for (section, base) in [("secrets", "/run/secrets"), ("configs", "")] {
            for item in node.get(section).map_or(&[][..], Node::items) {
                let Some(source) = item.as_str().or_else(|| item.get("source").and_then(Node::as_str)) else {
                    continue;
                };
                let target = item.get("target").and_then(Node::as_str).unwrap_or(source);
                let target = if target.starts_with('/') { target.to_owned() } else { format!("{base}/{target}") };
                mounts.push(Mount {
                    kind: MountKind::File,
                    source: document.at(&[section, source, "file"]).and_then(Node::as_str).map(str::to_owned),
                    target: paths::in_container(&target),
                    read_only: true,
                    outlasts_wipe: true,
                    filled: false,
                    subpath: None,
                    at: item.span,
                });
            }
        }
        Ok(mounts)
    }

    fn mount(&mut self, entry: volume::Entry, at: Span) -> Mount {
        let mut kind = entry.kind;
        let mut source = entry.source;
        let mut outlasts_wipe = kind == Type::Bind;
        let mut filled = kind == Type::Volume && !entry.nocopy;
        if kind == Type::Volume
            && let Some(name) = &source
        {
            match self.volumes.iter().find(|volume| volume.name == *name) {
                Some(Volume { device: Some(device), .. }) => {
                    // A named volume that is a bind mount of a host directory.
                    kind = Type::Bind;
                    outlasts_wipe = true;
                    source = Some(match &entry.subpath {
                        Some(below) => format!("{}/{below}", device.trim_end_matches('/')),
                        None => device.clone(),
                    });
                }
                Some(Volume { filesystem: Some(filesystem), .. }) if filesystem == "tmpfs" => {
                    kind = Type::Tmpfs;
                    filled = false;
                }
                Some(Volume { filesystem: Some(_), .. }) => outlasts_wipe = true,
                Some(volume) => outlasts_wipe = volume.external,
                None => {
                    let text = format!("the volume `{name}` is not declared under `volumes`: Compose rejects the file");
                    if !self.remarks.iter().any(|r| r.text == text) {
                        self.remarks.push(Remark { at, text });
                    }
                }
            }
        }
        Mount {
            kind: MountKind::Volume(kind),
            source,
            target: paths::in_container(&entry.target),
            read_only: entry.read_only,
            outlasts_wipe,
            filled,
            subpath: entry.subpath,
            at,
        }
    }
}

/// `volumes_from`: adds the mounts of another service.
fn borrow_volumes(
    services: &mut [Service],
    document: &Node,
    remarks: &mut Vec<Remark>,
) -> std::result::Result<(), Trouble> {
    let names: Vec<String> = services.iter().map(|s| s.name.clone()).collect();
    for name in &names {
        let mut more = Vec::new();
        let mut incomplete = false;
        borrowed(name, services, document, &mut Lent::default(), &mut more, &mut incomplete, remarks)?;
        if let Some(service) = services.iter_mut().find(|s| s.name == *name) {
            service.mounts_incomplete = incomplete;
            for mount in more {
                if !service.mounts.iter().any(|own| own.target == mount.target) {
                    service.mounts.push(mount);
                }
            }
        }
    }
    Ok(())
}

/// The services in the current `volumes_from` chain, and all services visited.
#[derive(Default)]
struct Lent {
    path: Vec<String>,
    seen: BTreeSet<String>,
}

fn borrowed(
    name: &str,
    services: &[Service],
    document: &Node,
    lent: &mut Lent,
    more: &mut Vec<Mount>,
    incomplete: &mut bool,
    remarks: &mut Vec<Remark>,
) -> std::result::Result<(), Trouble> {
    let Some(from) = document.at(&["services", name, "volumes_from"]) else { return Ok(()) };
    if lent.path.iter().any(|other| other == name) {
        return Err(Trouble::new(format!("`{name}` mounts its own volumes in a cycle"), from.span)
            .fix("remove one of the `volumes_from` entries"));
    }
    if !lent.seen.insert(name.to_owned()) {
        return Ok(());
    }
    if lent.path.len() >= 50 {
        return Err(Trouble::new("the `volumes_from` chain is longer than 50 services", from.span)
            .fix("mount the volumes directly where they are needed"));
    }
    lent.path.push(name.to_owned());
    for (text, at) in from.strings() {
        if let Some(container) = text.strip_prefix("container:") {
            *incomplete = true;
            let container = container.split(':').next().unwrap_or(container);
            remarks.push(Remark {
                at,
                text: format!("the mounts of `{container}` are not in these files and are unknown"),
            });
            continue;
        }
        let (other, read_only) = text.strip_suffix(":ro").map_or((text.trim_end_matches(":rw"), false), |t| (t, true));
        let Some(service) = services.iter().find(|s| s.name == other) else {
            return Err(Trouble::new(format!("no such service: `{other}`, needed by `volumes_from`"), at)
                .fix("name a service of this project"));
        };
        more.extend(service.mounts.iter().filter(|m| matches!(m.kind, MountKind::Volume(_))).map(|mount| Mount {
            read_only: mount.read_only || read_only,
            at,
            ..mount.clone()
        }));
        borrowed(other, services, document, lent, more, incomplete, remarks)?;
    }
    lent.path.pop();
    Ok(())
}

/// Whether unset variables left gaps in a value.
fn is_from_unset(node: &Node) -> bool {
    match &node.kind {
        Kind::Scalar(scalar) => scalar.raw.as_ref().is_some_and(|raw| raw.unset().next().is_some()),
        Kind::Map(entries) => entries.iter().any(|entry| is_from_unset(&entry.value)),
        _ => false,
    }
}

fn text_of(node: &Node) -> Option<Text> {
    match &node.kind {
        Kind::Scalar(scalar) => Some(Text { text: scalar.text.clone(), at: node.span, raw: scalar.raw.clone() }),
        _ => None,
    }
}

fn words(node: &Node) -> Option<Words> {
    let words = match &node.kind {
        Kind::Scalar(scalar) => {
            shlex::split(&scalar.text).unwrap_or_else(|| scalar.text.split_whitespace().map(str::to_owned).collect())
        }
        Kind::List(items) => items.iter().filter_map(Node::as_str).map(str::to_owned).collect(),
        _ => return None,
    };
    Some(Words { words, at: node.span })
}

fn build(node: &Node) -> Option<Build> {
    let text = |key: &str| node.get(key).and_then(Node::as_str).map(str::to_owned);
    let context = match &node.kind {
        Kind::Scalar(scalar) => scalar.text.clone(),
        Kind::Map(_) => text("context").unwrap_or_default(),
        _ => return None,
    };
    let args = node.get("args").map(|args| merge::as_names(args.clone()));
    let args = args.as_ref().map_or(&[][..], Node::entries);
    Some(Build {
        context,
        dockerfile: text("dockerfile"),
        inline: text("dockerfile_inline"),
        target: text("target"),
        args: args.iter().map(|e| (e.key.clone(), e.value.as_str().map(str::to_owned))).collect(),
        at: node.span,
    })
}

fn healthcheck(node: &Node) -> Healthcheck {
    let test = node.get("test");
    let mut words: Vec<String> =
        test.map(Node::strings).unwrap_or_default().into_iter().map(|(s, _)| s.to_owned()).collect();
    if test.is_some_and(|t| matches!(t.kind, Kind::Scalar(_))) {
        words.insert(0, "CMD-SHELL".to_owned());
    }
    let none = words.first().is_some_and(|w| w == "NONE");
    Healthcheck {
        disabled: none || node.get("disable").and_then(Node::as_bool) == Some(true),
        test: words,
        at: test.map_or(node.span, |t| t.span),
    }
}

fn cover(a: Span, b: Span) -> Span {
    Span { file: a.file, start: a.start.min(b.start), end: a.end.max(b.end) }
}
