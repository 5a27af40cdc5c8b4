//! Reads files into one document: parses, interpolates, resolves `include` and `extends`, and
//! merges.

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

/// The maximum number of included files.
const MOST_FILES: usize = 100;

/// The size limit of all files of a project, in bytes.
const MOST_BYTES: usize = 2 * LARGEST as usize;

/// The maximum length of an `extends` chain.
const LONGEST_CHAIN: usize = 50;

/// The file names that Compose looks for, in order.
pub const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];

/// The merged document of all files.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    /// The files.
    pub sources: Sources,
    /// The merged document; host paths are absolute.
    pub document: Node,
    /// Remarks about the files.
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
/// A usage error with position if a file cannot be read.
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
    let mut document = document.ok_or_else(|| Error::usage("no compose file given"))?;
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
    /// The files being read, each included by the previous one.
    chain: Vec<PathBuf>,
    /// Parsed files by path, before interpolation.
    parsed: BTreeMap<PathBuf, Node>,
    /// The number of files read, counting every inclusion.
    loads: usize,
    /// The bytes and nodes of all files.
    bytes: usize,
    nodes: usize,
}

/// The `extends` chain that is being resolved.
#[derive(Default)]
struct Chain {
    seen: Vec<(PathBuf, String)>,
    /// Other files read for it, interpolated.
    files: BTreeMap<PathBuf, std::rc::Rc<Node>>,
}

impl Loader {
    /// Reads one file with everything that it includes and extends.
    fn file(&mut self, path: &Path, directory: &Path, env: &Environment) -> Result<Node> {
        let here = paths::clean(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        if self.chain.contains(&here) {
            return Err(Error::usage("the compose files include each other in a cycle")
                .at(path.display())
                .fix("remove one of the `include` entries"));
        }
        self.loads += 1;
        if self.loads > MOST_FILES {
            return Err(Error::usage(format!("more than {MOST_FILES} files are included"))
                .at(path.display())
                .fix("merge some of the files"));
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
                .fix("merge some of the files"));
        }
        let text = read_text(path, &name, "a compose file")?;
        let whole = self.parse_text(&text, &name, here)?;
        self.parsed.insert(here.to_owned(), whole.clone());
        Ok(whole)
    }

    fn parse_text(&mut self, text: &str, name: &str, here: &Path) -> Result<Node> {
        self.bytes += text.len();
        if self.bytes > MOST_BYTES {
            return Err(Error::usage(format!("the project's files are larger than {MOST_BYTES} bytes in total"))
                .at(name)
                .fix("check the list of files"));
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
            Error::usage("the file is empty").at(name).fix("a compose file needs `services:` with at least one service")
        })
    }

    /// Resolves `include`, and returns the merged result.
    fn includes(&mut self, document: &mut Node, directory: &Path, env: &Environment) -> Result<Option<Node>> {
        let Some(include) = take(document, "include") else { return Ok(None) };
        let mut whole: Option<Node> = None;
        for item in include.items() {
            let files = match item.get("path") {
                Some(path) => path.strings(),
                None => item.strings(),
            };
            let Some((first, _)) = files.first() else {
                let wrong = Trouble::new("an `include` entry has no path", item.span)
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

    /// Adds the referring position to an error of an included or extended file.
    fn through(&self, error: Error, at: Span) -> Error {
        error.detail(format!("(referenced by {})", self.sources.place(at)))
    }

    /// Resolves `extends` in every service.
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

    /// The service `name` of `document`, merged into the service that it extends.
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
            return Err(wrong(format!("the `extends` chain is longer than {LONGEST_CHAIN} services"), &self.sources));
        }
        if chain.seen.iter().any(|(file, other)| file == here && other == name) {
            return Err(wrong(format!("the service `{name}` extends itself in a cycle"), &self.sources));
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
                    return Err(wrong(format!("no such service: `{base_name}` in {file}"), &self.sources));
                }
                let mut base = self.extended(&other, &path, &base_name, env, chain)?;
                paths::resolve_service(&mut base, path.parent().unwrap_or(Path::new("/")));
                base
            }
            None => {
                if document.at(&["services", &base_name]).is_none() {
                    return Err(wrong(format!("no such service: `{base_name}`, needed by `extends`"), &self.sources));
                }
                self.extended(document, here, &base_name, env, chain)?
            }
        };
        Ok(merge::services(base, service))
    }
}

/// Converts a document to the current format: a mapping with `services`.
fn shape(mut document: Node) -> std::result::Result<Option<Node>, Trouble> {
    if document.is_null() {
        return Ok(None);
    }
    if !matches!(document.kind, Kind::Map(_)) {
        return Err(Trouble::new(format!("a compose file must be a mapping, not {}", document.word()), document.span)
            .fix("a compose file needs `services:` with at least one service"));
    }
    // In the first compose format, services are at the top level.
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
                format!("`services` must be a mapping of names, not {}", services.word()),
                services.span,
            )
            .fix("write each service as `name:` with its keys indented below"));
        }
        for entry in services.entries() {
            if !matches!(entry.value.kind, Kind::Map(_) | Kind::Null) {
                return Err(Trouble::new(
                    format!("the service `{}` must be a mapping, not {}", entry.key, entry.value.word()),
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

/// Removes a key and returns its value.
fn take(node: &mut Node, key: &str) -> Option<Node> {
    let Kind::Map(entries) = &mut node.kind else { return None };
    let place = entries.iter().position(|entry| entry.key == key)?;
    Some(entries.remove(place).value)
}

/// Whether an included file is one of a remote repository or registry.
fn is_remote(file: &str) -> bool {
    file.contains("://") || file.starts_with("git@") || file.starts_with("oci:") || file.starts_with("github.com/")
}

/// A path relative to the current directory, if it is below it.
fn relative(path: &Path) -> PathBuf {
    let path = paths::clean(path);
    match std::env::current_dir() {
        Ok(here) => path.strip_prefix(here).map_or_else(|_| path.clone(), Path::to_owned),
        Err(_) => path,
    }
}
