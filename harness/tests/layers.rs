//! The architecture, kept by tests: which crate may use which, what the lower ones never compile, and
//! that the files of each crate depend on each other in one direction only.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// The crates of the workspace with their directories, the lowest first: each may use those before it.
const LAYERS: [(&str, &str); 9] = [
    ("lockproof-model", "harness/model"),
    ("lockproof-compose", "harness/compose"),
    ("lockproof-audit", "harness/audit"),
    ("lockproof-probe", "harness/probe"),
    ("lockproof-replay", "harness/replay"),
    ("lockproof-deploy", "harness/deploy"),
    ("lockproof-testcontainers", "harness/testing"),
    ("lockproof", "harness"),
    ("e2e", "tests"),
];

/// What a crate must not compile, whatever brings it in.
const NEVER: [(&str, &[&str]); 6] = [
    ("lockproof-model", &["tokio", "hyper", "bollard", "clap"]),
    ("lockproof-compose", &["tokio", "hyper", "bollard", "clap"]),
    ("lockproof-audit", &["tokio", "hyper", "bollard", "clap"]),
    ("lockproof-probe", &["bollard", "clap"]),
    ("lockproof-replay", &["bollard", "clap"]),
    ("lockproof-testcontainers", &["clap", "askama", "lockproof-audit", "lockproof-replay", "lockproof"]),
];

/// Circles of files that are meant, by crate, each with the reason for it.
const CIRCLES: [(&str, &[&str], &str); 0] = [];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What cargo prints.
fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().expect("cargo is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The packages that `cargo metadata` resolves, by id: the name, and the ids of the normal dependencies.
struct Graph(BTreeMap<String, (String, Vec<String>)>);

impl Graph {
    fn read() -> Self {
        // Crates for other systems have not been downloaded.
        let version = cargo(&["-vV"]);
        let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("it says for what it builds");
        let arguments = ["metadata", "--offline", "--locked", "--format-version", "1", "--filter-platform", host];
        let metadata: Value = serde_json::from_str(&cargo(&arguments)).expect("JSON");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let list = |value: &Value| value.as_array().expect("a list").clone();
        let names: BTreeMap<String, String> =
            list(&metadata["packages"]).iter().map(|p| (text(&p["id"]), text(&p["name"]))).collect();
        let normal = |dependency: &Value| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
        let nodes = list(&metadata["resolve"]["nodes"]);
        let nodes = nodes.iter().map(|node| {
            let used = list(&node["deps"]).iter().filter(|d| normal(d)).map(|d| text(&d["pkg"])).collect();
            let id = text(&node["id"]);
            (id.clone(), (names[&id].clone(), used))
        });
        Self(nodes.collect())
    }

    fn id(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(_, (of, _))| of == name);
        found.map(|(id, _)| id.as_str()).unwrap_or_else(|| panic!("there is no crate {name}"))
    }

    /// The crates of the workspace that one of them uses itself.
    fn layers_below(&self, name: &str) -> BTreeSet<&str> {
        let used = self.0[self.id(name)].1.iter().map(|id| self.0[id].0.as_str());
        used.filter(|used| LAYERS.iter().any(|(layer, _)| layer == used)).collect()
    }

    /// Every crate that is compiled for one of them.
    fn all_below(&self, name: &str) -> BTreeSet<&str> {
        let mut seen = BTreeSet::new();
        let mut next = vec![self.id(name)];
        while let Some(id) = next.pop() {
            if seen.insert(id) {
                next.extend(self.0[id].1.iter().map(String::as_str));
            }
        }
        seen.into_iter().map(|id| self.0[id].0.as_str()).collect()
    }
}

#[test]
fn no_crate_depends_upwards() {
    let graph = Graph::read();
    for (height, (name, _)) in LAYERS.iter().enumerate() {
        for used in graph.layers_below(name) {
            let below = LAYERS[..height].iter().any(|(layer, _)| *layer == used);
            assert!(below, "{name} uses {used}, which is not below it");
        }
    }
}

#[test]
fn the_lower_crates_compile_neither_an_engine_nor_a_command_line() {
    let graph = Graph::read();
    for (name, never) in NEVER {
        let compiled = graph.all_below(name);
        let found: Vec<&&str> = never.iter().filter(|never| **never != name && compiled.contains(**never)).collect();
        assert!(found.is_empty(), "{name} compiles {found:?}");
    }
}

#[test]
fn the_picture_in_the_design_is_the_real_graph() {
    let design = std::fs::read_to_string(root().join("docs/design.md")).expect("it is there");
    let graph = Graph::read();
    let line = |(name, _): &(&str, &str)| {
        let used: Vec<&str> = LAYERS.iter().map(|(l, _)| *l).filter(|l| graph.layers_below(name).contains(l)).collect();
        format!("{name} -> {}", used.join(", ")).trim_end().to_owned()
    };
    // The tests are above everything: their crate is a shell, and what they use are dev-dependencies.
    let picture: Vec<String> = LAYERS.iter().filter(|(name, _)| *name != "e2e").map(line).collect();
    let block = format!("```text\n{}\n```", picture.join("\n"));
    assert!(design.contains(&block), "docs/design.md must show this:\n{block}");
}

/// A module's path in its crate; the crate itself is empty.
type Module = Vec<String>;

/// The files of one crate: what each uses of the others.
struct Crate {
    texts: BTreeMap<Module, String>,
    /// Names that a file passes on from another one.
    passed_on: BTreeMap<(Module, String), Module>,
}

impl Crate {
    fn read(directory: &Path) -> Self {
        let mut texts = BTreeMap::new();
        let mut next = vec![directory.join("src")];
        while let Some(path) = next.pop() {
            if path.is_dir() {
                next.extend(std::fs::read_dir(&path).expect("it lists").map(|entry| entry.expect("an entry").path()));
            } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("main.rs") {
                let relative = path.strip_prefix(directory.join("src")).expect("it is below").with_extension("");
                let mut module: Module =
                    relative.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
                module.pop_if(|last| last == "mod" || last == "lib");
                texts.insert(module, without_tests(&std::fs::read_to_string(&path).expect("it reads")));
            }
        }
        let mut this = Self { texts, passed_on: BTreeMap::new() };
        for (module, text) in &this.texts.clone() {
            for import in imports(text).into_iter().filter(|import| import.public) {
                if let Some(path) = this.absolute(module, &import.path) {
                    this.passed_on.insert((module.clone(), import.name), path);
                }
            }
        }
        this
    }

    /// A path as it stands in `module`, from the root of the crate; none for another crate's.
    fn absolute(&self, module: &[String], path: &[String]) -> Option<Module> {
        let child = || [module, &path[..1]].concat();
        match path.first()?.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([module, &path[1..]].concat()),
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                Some([&module[..module.len().checked_sub(ups)?], &path[ups..]].concat())
            }
            _ if self.texts.contains_key(&child()) => Some([module, path].concat()),
            _ => None,
        }
    }

    /// The file in which a path's item is written down.
    fn file_of(&self, path: &[String], depth: usize) -> Module {
        let length = (0..=path.len()).rev().find(|n| self.texts.contains_key(&path[..*n])).unwrap_or(0);
        let (module, rest) = path.split_at(length);
        if let Some(name) = rest.first()
            && let Some(from) = self.passed_on.get(&(module.to_vec(), name.clone()))
            && depth < 8
        {
            return self.file_of(&[from.as_slice(), &rest[1..]].concat(), depth + 1);
        }
        module.to_vec()
    }

    fn uses(&self) -> BTreeMap<&Module, BTreeSet<Module>> {
        let edges = |(module, text): (&'_ Module, &'_ String)| {
            let mut local: BTreeMap<String, Module> = BTreeMap::new();
            let mut paths = Vec::new();
            for import in imports(text) {
                if let Some(path) = self.absolute(module, &import.path) {
                    local.insert(import.name, path.clone());
                    paths.push(path);
                }
            }
            for path in inline_paths(text) {
                let imported = local.get(&path[0]).map(|from| [from.as_slice(), &path[1..]].concat());
                paths.extend(self.absolute(module, &path).or(imported));
            }
            let files: BTreeSet<Module> = paths.iter().map(|path| self.file_of(path, 0)).collect();
            files.into_iter().filter(|file| file != module).collect()
        };
        self.texts.iter().map(|entry| (entry.0, edges(entry))).collect()
    }

    /// The groups of files each of which reaches all others of its group.
    fn circles(&self) -> Vec<Vec<String>> {
        let uses = self.uses();
        let reached = |from: &Module| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
            while let Some(module) = next.pop() {
                next.extend(uses[module].iter().filter(|to| seen.insert((*to).clone())));
            }
            seen
        };
        let reach: BTreeMap<&Module, BTreeSet<Module>> = uses.keys().map(|module| (*module, reached(module))).collect();
        let name = |module: &Module| if module.is_empty() { "lib".to_owned() } else { module.join("::") };
        let circles: BTreeSet<Vec<String>> = reach
            .iter()
            .filter(|(module, to)| to.contains(**module))
            .map(|(module, to)| to.iter().filter(|other| reach[other].contains(*module)).map(name).collect())
            .collect();
        circles.into_iter().collect()
    }
}

/// One name that a file imports.
struct Import {
    path: Module,
    name: String,
    public: bool,
}

/// A file without comments, and without what only its tests use.
fn without_tests(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Every name of every `use`, with its whole path.
fn imports(text: &str) -> Vec<Import> {
    let mut found = Vec::new();
    for statement in text.split(';') {
        let Some(at) =
            statement.rfind("use ").filter(|at| statement[..*at].ends_with(['\n', ' ', ')', '}']) || *at == 0)
        else {
            continue;
        };
        let before = statement[..at].trim_end();
        let public = before.ends_with("pub") || before.ends_with(')');
        let tree: String = statement[at + 4..].split_whitespace().collect::<Vec<_>>().join(" ");
        let mut names = Vec::new();
        leaves(&tree, &mut Vec::new(), &mut names);
        found.extend(names.into_iter().map(|(path, name)| Import { path, name, public }));
    }
    found
}

/// The leaves of one tree of a `use`: their paths, and the names that they get.
fn leaves(tree: &str, above: &mut Module, found: &mut Vec<(Module, String)>) {
    let mut depth = 0_usize;
    let parts = tree.split(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    for part in parts.map(str::trim).filter(|part| !part.is_empty()) {
        let before = above.len();
        let (path, group) = part.split_once('{').map_or((part, None), |(path, rest)| (path, rest.rsplit_once('}')));
        let (path, alias) = path.split_once(" as ").map_or((path, None), |(path, alias)| (path, Some(alias.trim())));
        above.extend(path.split("::").map(str::trim).filter(|p| !p.is_empty()).map(str::to_owned));
        match group {
            Some((inner, _)) => leaves(inner, above, found),
            None => {
                let mut path = above.clone();
                path.pop_if(|last| last == "self" || last == "*");
                let name = alias.map(str::to_owned).or(path.last().cloned()).unwrap_or_default();
                found.push((path, name));
            }
        }
        above.truncate(before);
    }
}

/// Paths in the code beside `use`, such as `super::find` or `module::item`.
fn inline_paths(text: &str) -> Vec<Module> {
    let mut found = Vec::new();
    for statement in text.split(';') {
        let code = statement.find("use ").map_or(statement, |at| &statement[..at]);
        for word in code.split(|c: char| !is_name(c) && c != ':').filter(|word| word.contains("::")) {
            let path: Module = word.split("::").filter(|p| !p.is_empty()).map(str::to_owned).collect();
            if !word.starts_with(':') && path.len() > 1 && path[0].starts_with(|c: char| c.is_lowercase()) {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn the_files_of_a_crate_use_each_other_in_one_direction() {
    let mut wrong = Vec::new();
    for (name, directory) in LAYERS.iter().filter(|(name, _)| *name != "e2e") {
        for circle in Crate::read(&root().join(directory)).circles() {
            let meant = CIRCLES.iter().any(|(of, files, _)| of == name && circle == *files);
            if !meant {
                wrong.push(format!("{name}: {}", circle.join(", ")));
            }
        }
    }
    assert!(wrong.is_empty(), "these files use each other:\n{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_imports_sees_what_a_file_uses() {
    let text = "use super::{print, audit::{self, Found as F}};\npub use a::B;\nfn f() { crate::x::y(z::w) }";
    let seen: Vec<(String, String, bool)> =
        imports(text).into_iter().map(|i| (i.path.join("::"), i.name, i.public)).collect();
    let expected = [
        ("super::print", "print", false),
        ("super::audit", "audit", false),
        ("super::audit::Found", "F", false),
        ("a::B", "B", true),
    ];
    assert_eq!(seen, expected.map(|(path, name, public)| (path.to_owned(), name.to_owned(), public)));
    let inline: Vec<String> = inline_paths(text).iter().map(|path| path.join("::")).collect();
    assert_eq!(inline, ["crate::x::y", "z::w"]);
}
