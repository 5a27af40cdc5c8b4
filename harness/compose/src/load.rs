//! From files to one document: parse, interpolate, follow `include` and `extends`, merge.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    env::Environment,
    error::Trouble,
    merge, paths,
    source::{Sources, Span},
    text::{LARGEST, read_text},
    values,
    yaml::{Entry, Kind, Node, Remark},
};
use crate::yaml;
use lockproof_model::error::{Error, Result};

/// How often files may be included in all.
const MOST_FILES: usize = 100;

/// The bytes that the files of a project may have together.
const MOST_BYTES: usize = 2 * LARGEST as usize;

/// How long a chain of `extends` may be.
const LONGEST_CHAIN: usize = 50;

/// The names under which Compose looks for a file, in its order.
pub const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];

/// One document, out of all files.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    /// The files.
    pub sources: Sources,
    /// What they say together; every path of the host is absolute.
    pub document: Node,
    /// What is odd.
    pub remarks: Vec<Remark>,
    /// Included files that were not read.
    pub unread: Vec<Remark>,
    /// The comments of all files.
    pub comments: Vec<Remark>,
    /// The variables of the project.
    pub env: Environment,
}

/// Reads and merges `files`, whose relative paths are relative to `directory`.
///
/// # Errors
/// A usage error with place for everything that cannot be read.
pub(super) fn load(files: &[PathBuf], directory: &Path, env: Environment) -> Result<Loaded> {
    let mut loader = Loader::default();
    let mut document: Option<Node> = None;
    for file in files {
        let next = loader.file(file, directory, &env)?;
        document = Some(match document {
            Some(base) => merge::documents(base, next),
            None => next,
        });
    }
    let mut document = document.ok_or_else(|| Error::usage("there is no compose file to read"))?;
    merge::settle(&mut document);
    Ok(Loaded {
        sources: loader.sources,
        document,
        remarks: loader.remarks,
        unread: loader.unread,
        comments: loader.comments,
        env,
    })
}

/// Reads a text as if it were a file in `directory`.
///
/// # Errors
/// As [`load`].
pub(super) fn load_text(text: &str, directory: &Path, env: Environment) -> Result<Loaded> {
    let path = directory.join("compose.yaml");
    let mut loader = Loader::default();
    let whole = loader.parse_text(text, "compose.yaml", &path)?;
    loader.parsed.insert(path.clone(), whole);
    let mut document = loader.file(&path, directory, &env)?;
    merge::settle(&mut document);
    Ok(Loaded {
        sources: loader.sources,
        document,
        remarks: loader.remarks,
        unread: loader.unread,
        comments: loader.comments,
        env,
    })
}

#[derive(Default)]
struct Loader {
    sources: Sources,
    remarks: Vec<Remark>,
    unread: Vec<Remark>,
    comments: Vec<Remark>,
    /// The files that are being read, each included by the one before.
    chain: Vec<PathBuf>,
    /// What was parsed already, by path, before interpolation.
    parsed: BTreeMap<PathBuf, Node>,
    /// How often a file was included, or read for itself.
    loads: usize,
    /// The bytes and the nodes of all files.
    bytes: usize,
    nodes: usize,
}

/// A chain of `extends` that is being followed.
#[derive(Default)]
struct Chain {
    seen: Vec<(PathBuf, String)>,
    /// Other files that were read for it, interpolated.
    files: BTreeMap<PathBuf, std::rc::Rc<Node>>,
}

impl Loader {
    /// One file with all that it includes and extends.
    fn file(&mut self, path: &Path, directory: &Path, env: &Environment) -> Result<Node> {
        let here = paths::clean(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        if self.chain.contains(&here) {
            return Err(Error::usage("the files include each other in a circle")
                .at(path.display())
                .fix("remove one of the `include` entries"));
        }
        self.loads += 1;
        if self.loads > MOST_FILES {
            return Err(Error::usage(format!("more than {MOST_FILES} files are included"))
                .at(path.display())
                .fix("merge some of them"));
        }
        self.chain.push(here.clone());
        let mut document = self.parse(path, &here)?;
        values::interpolate(&mut document, env).map_err(|t| t.explain(&self.sources))?;
        let included = self.includes(&mut document, directory, env)?;
        self.extends(&mut document, &here, env)?;
        for service in services_mut(&mut document) {
            paths::resolve_service(&mut service.value, directory);
        }
        paths::resolve_top(&mut document, directory);
        self.chain.pop();
        Ok(match included {
            Some(base) => merge::documents(base, document),
            None => document,
        })
    }

    fn parse(&mut self, path: &Path, here: &Path) -> Result<Node> {
        if let Some(node) = self.parsed.get(here) {
            return Ok(node.clone());
        }
        let name = path.display().to_string();
        if self.parsed.len() >= MOST_FILES {
            return Err(Error::usage(format!("the project has more than {MOST_FILES} files"))
                .at(name)
                .fix("merge some of them"));
        }
        let text = read_text(path, &name, "a compose file")?;
        let whole = self.parse_text(&text, &name, here)?;
        self.parsed.insert(here.to_owned(), whole.clone());
        Ok(whole)
    }

    fn parse_text(&mut self, text: &str, name: &str, here: &Path) -> Result<Node> {
        self.bytes += text.len();
        if self.bytes > MOST_BYTES {
            return Err(Error::usage(format!("the files of the project have more than {MOST_BYTES} bytes"))
                .at(name)
                .fix("give the right files"));
        }
        let file = self.sources.add(name.to_owned(), here.to_owned(), text);
        let trouble = |t: Trouble, sources: &Sources| t.explain(sources);
        let parsed = yaml::parse(&self.sources, file, &mut self.nodes, &mut self.remarks)
            .map_err(|t| trouble(t, &self.sources))?;
        self.comments.extend(parsed.comments);
        let mut whole: Option<Node> = None;
        for document in parsed.documents {
            let document = shape(document).map_err(|t| trouble(t, &self.sources))?;
            whole = match (whole, document) {
                (Some(base), Some(over)) => Some(merge::documents(base, over)),
                (base, over) => over.or(base),
            };
        }
        whole.ok_or_else(|| {
            Error::usage("the file is empty").at(name).fix("a compose file has at least `services:` with one service")
        })
    }

    /// What `include` brings, merged.
    fn includes(&mut self, document: &mut Node, directory: &Path, env: &Environment) -> Result<Option<Node>> {
        let Some(include) = take(document, "include") else { return Ok(None) };
        let mut whole: Option<Node> = None;
        for item in include.items() {
            let files = match item.get("path") {
                Some(path) => path.strings(),
                None => item.strings(),
            };
            let Some((first, _)) = files.first() else {
                let wrong = Trouble::new("an entry of `include` names no file", item.span)
                    .fix("write the path of a compose file, or `path:`");
                return Err(wrong.explain(&self.sources));
            };
            if files.iter().any(|(file, _)| is_remote(file)) {
                let text = format!("`{first}` is not on this machine and was not read: what it includes is unknown");
                self.unread.push(Remark { at: item.span, text });
                continue;
            }
            let base = directory.join(first).parent().unwrap_or(directory).to_owned();
            let base = match item.get("project_directory").and_then(Node::as_str) {
                Some(given) => directory.join(given),
                None => base,
            };
            let mut env = env.clone();
            match item.get("env_file") {
                Some(files) => {
                    for (file, _) in files.strings() {
                        env = env.below(&directory.join(file))?;
                    }
                }
                None => env = env.below(&base.join(".env"))?,
            }
            for (file, at) in files {
                let next = self.file(&relative(&directory.join(file)), &base, &env).map_err(|e| self.through(e, at))?;
                whole = Some(match whole {
                    Some(base) => merge::documents(base, next),
                    None => next,
                });
            }
        }
        Ok(whole)
    }

    /// An error in an included or extended file, with the place that led there.
    fn through(&self, error: Error, at: Span) -> Error {
        error.detail(format!("(read because of {})", self.sources.place(at)))
    }

    /// Carries out `extends` of every service.
    fn extends(&mut self, document: &mut Node, here: &Path, env: &Environment) -> Result<()> {
        let names: Vec<String> =
            document.get("services").map_or(&[][..], Node::entries).iter().map(|e| e.key.clone()).collect();
        let mut chain = Chain::default();
        for name in names {
            if document.at(&["services", &name, "extends"]).is_none() {
                continue;
            }
            chain.seen.clear();
            let whole = self.extended(document, here, &name, env, &mut chain)?;
            if let Some(service) = document.get_mut("services").and_then(|s| s.get_mut(&name)) {
                *service = whole;
            }
        }
        Ok(())
    }

    /// The service `name` of `document`, merged into what it extends.
    fn extended(
        &mut self,
        document: &Node,
        here: &Path,
        name: &str,
        env: &Environment,
        chain: &mut Chain,
    ) -> Result<Node> {
        let Some(service) = document.at(&["services", name]) else {
            return Ok(Node::null(document.span));
        };
        let mut service = service.clone();
        let Some(extends) = take(&mut service, "extends") else { return Ok(service) };
        let at = extends.span;
        let wrong = |what: String, sources: &Sources| {
            Trouble::new(what, at).fix("write `extends: { service: NAME, file: FILE }`").explain(sources)
        };
        if chain.seen.len() >= LONGEST_CHAIN {
            return Err(wrong(format!("more than {LONGEST_CHAIN} services extend each other"), &self.sources));
        }
        if chain.seen.iter().any(|(file, other)| file == here && other == name) {
            return Err(wrong(format!("the service `{name}` extends itself in a circle"), &self.sources));
        }
        chain.seen.push((here.to_owned(), name.to_owned()));
        let (base_name, file) = match extends.as_str() {
            Some(text) => (text.to_owned(), None),
            None => (
                extends.get("service").and_then(Node::as_str).unwrap_or(name).to_owned(),
                extends.get("file").and_then(Node::as_str),
            ),
        };
        let base = match file {
            Some(file) => {
                let directory = here.parent().unwrap_or(Path::new("/"));
                let path = paths::clean(&directory.join(file));
                let other = match chain.files.get(&path) {
                    Some(other) => other.clone(),
                    None => {
                        let mut other = self.parse(&relative(&path), &path).map_err(|e| self.through(e, at))?;
                        values::interpolate(&mut other, env).map_err(|t| t.explain(&self.sources))?;
                        let other = std::rc::Rc::new(other);
                        chain.files.insert(path.clone(), other.clone());
                        other
                    }
                };
                if other.at(&["services", &base_name]).is_none() {
                    return Err(wrong(format!("there is no service `{base_name}` in {file}"), &self.sources));
                }
                let mut base = self.extended(&other, &path, &base_name, env, chain)?;
                paths::resolve_service(&mut base, path.parent().unwrap_or(Path::new("/")));
                base
            }
            None => {
                if document.at(&["services", &base_name]).is_none() {
                    return Err(wrong(format!("there is no service `{base_name}` to extend"), &self.sources));
                }
                self.extended(document, here, &base_name, env, chain)?
            }
        };
        Ok(merge::services(base, service))
    }
}

/// A document in the shape of today: a mapping with `services`.
fn shape(mut document: Node) -> std::result::Result<Option<Node>, Trouble> {
    if document.is_null() {
        return Ok(None);
    }
    if !matches!(document.kind, Kind::Map(_)) {
        return Err(Trouble::new(
            format!("a compose file is a mapping, and this is {}", document.word()),
            document.span,
        )
        .fix("a compose file has at least `services:` with one service"));
    }
    // The first format had the services at the top.
    if document.get("services").is_none() && is_first_format(&document) {
        let span = document.span;
        let entry = Entry { key: "services".to_owned(), at: span, value: document };
        return Ok(Some(Node::map(vec![entry], span)));
    }
    if let Some(services) = document.get_mut("services") {
        if services.is_null() {
            services.kind = Kind::Map(Vec::new());
        }
        if !matches!(services.kind, Kind::Map(_)) {
            return Err(Trouble::new(
                format!("`services` is a mapping of names, and this is {}", services.word()),
                services.span,
            )
            .fix("write each service as `name:` with its keys below"));
        }
        for entry in services.entries() {
            if !matches!(entry.value.kind, Kind::Map(_) | Kind::Null) {
                return Err(Trouble::new(
                    format!("the service `{}` is a mapping, and this is {}", entry.key, entry.value.word()),
                    entry.value.span,
                )
                .fix("write its keys below its name, indented"));
            }
        }
    }
    Ok(Some(document))
}

fn is_first_format(document: &Node) -> bool {
    !document.entries().is_empty()
        && document
            .entries()
            .iter()
            .all(|entry| entry.value.get("image").or_else(|| entry.value.get("build")).is_some())
}

fn services_mut(document: &mut Node) -> &mut [Entry] {
    match document.get_mut("services") {
        Some(Node { kind: Kind::Map(entries), .. }) => entries,
        _ => &mut [],
    }
}

/// Removes a key and gives its value.
fn take(node: &mut Node, key: &str) -> Option<Node> {
    let Kind::Map(entries) = &mut node.kind else { return None };
    let place = entries.iter().position(|entry| entry.key == key)?;
    Some(entries.remove(place).value)
}

/// Whether an included file is one of a remote repository or registry.
fn is_remote(file: &str) -> bool {
    file.contains("://") || file.starts_with("git@") || file.starts_with("oci:") || file.starts_with("github.com/")
}

/// A path as people would write it from here.
fn relative(path: &Path) -> PathBuf {
    let path = paths::clean(path);
    match std::env::current_dir() {
        Ok(here) => path.strip_prefix(here).map_or_else(|_| path.clone(), Path::to_owned),
        Err(_) => path,
    }
}
