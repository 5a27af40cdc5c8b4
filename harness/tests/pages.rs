//! What README.md and the pages of `docs/` show can be done: a shell reads their command blocks, the
//! real command line takes every `lockproof` command of them, the real loaders read their YAML, and
//! what they name is there. No engine and no server is needed: a command passes when it gets past
//! everything that is a usage error.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use boon::{Compiler, Schemas};
use serde_json::Value;
use tempfile::TempDir;

const USAGE: i32 = 2;
const ENVIRONMENT: i32 = 3;

/// The README is one screen of story, one of proof, one of use.
const README_WORDS: usize = 1400;

/// Where nothing listens, instead of the server of the examples.
const NO_SERVER: &str = "127.0.0.1:1";

/// Programs that a reader may be told to run, other than those that are looked at closely.
const PROGRAMS: [&str; 6] = ["lockproof", "make", "cargo", "docker", "curl", "mkdir"];

/// Directories of this repository: a path that begins with one names a file of ours.
const OURS: [&str; 9] =
    [".ci/", ".config/", "docs/", "fixtures/", "fuzz/", "harness/", "scripts/", "tests/", "workflows/"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

struct Page {
    /// Relative to the repository.
    path: String,
    text: String,
}

/// One fenced block: what stands behind its fence, its first line in the page, its lines.
struct Block {
    kind: String,
    line: usize,
    body: String,
}

impl Page {
    fn read(path: &str) -> Self {
        let text = fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        Self { path: path.to_owned(), text }
    }

    /// README.md and docs/*.md.
    fn all() -> Vec<Self> {
        let mut names: Vec<String> = fs::read_dir(root().join("docs"))
            .expect("there are docs")
            .map(|entry| format!("docs/{}", entry.expect("an entry").file_name().to_string_lossy()))
            .filter(|name| name.ends_with(".md"))
            .collect();
        names.sort();
        names.insert(0, "README.md".to_owned());
        names.iter().map(|name| Self::read(name)).collect()
    }

    fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path)
    }

    /// The blocks, and the text outside of them with as many lines.
    fn parts(&self) -> (Vec<Block>, String) {
        let (mut blocks, mut prose) = (Vec::new(), String::new());
        let mut open: Option<Block> = None;
        for (number, line) in self.text.lines().enumerate() {
            match (&mut open, line.strip_prefix("```")) {
                (None, Some(kind)) => {
                    open = Some(Block { kind: kind.trim().to_owned(), line: number + 2, body: String::new() });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(block), None) => {
                    block.body.push_str(line);
                    block.body.push('\n');
                }
                (None, None) => prose.push_str(line),
            }
            prose.push('\n');
        }
        assert!(open.is_none(), "{}: a block is not closed", self.path);
        (blocks, prose)
    }

    /// The inline code, each with its line.
    fn inline(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (number, line) in self.parts().1.lines().enumerate() {
            let code = line.split('`').skip(1).step_by(2);
            found.extend(code.map(|code| (number + 1, code.to_owned())));
        }
        found
    }
}

/// The troubles of all pages at once, so that one run shows everything.
#[derive(Default)]
struct Troubles(String);

impl Troubles {
    fn add(&mut self, place: &str, what: impl std::fmt::Display) {
        writeln!(self.0, "{place}: {what}").expect("a string");
    }

    #[track_caller]
    fn none(&self) {
        assert!(self.0.is_empty(), "\n{}", self.0);
    }
}

const COMPOSE: &str = "\
services:
  comfyui:
    image: lockproof/comfyui-lab:latest
    environment: { COMFYUI_WORKSPACE_PATH: /workspace }
    volumes: [\"./workspace:/workspace\"]
  nginx:
    image: nginx:1.27
    ports: [\"127.0.0.1:8080:80\"]
";

const CONFIG: &str = "subjects: [{ name: production, image: comfyui:cpu }]\n";

/// The files that the examples assume, in a directory of their own.
fn sandbox() -> TempDir {
    let place = tempfile::tempdir().expect("a directory");
    let path = |name: &str| place.path().join(name);
    for directory in ["ComfyUI-Login", "api-key", "wheels", "workspace", "gate", "other"] {
        fs::create_dir(path(directory)).expect("it can be made");
    }
    let baseline = fs::read_to_string(root().join("docs/reports.md")).expect("there is a page");
    let baseline = baseline.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).expect("it shows one");
    let workflow = fs::read_to_string(root().join("workflows/blend.json")).expect("there is one");
    for (name, text) in [
        (".env", "COMFYUI_API_TOKEN=abcdefgh\n"),
        ("ComfyUI-Login/__init__.py", ""),
        ("api-key/__init__.py", ""),
        ("api-key/requirements.txt", ""),
        ("baseline.json", baseline),
        ("compose.gate.yaml", "services: { comfyui: { init: true } }\n"),
        ("compose.yaml", COMPOSE),
        ("docker-compose.yml", COMPOSE),
        ("install.sh", ""),
        ("lockproof.yaml", CONFIG),
        ("other/compose.yaml", COMPOSE),
        ("photo.json", &workflow),
        ("photo.png", ""),
        ("token.txt", "abcdefgh\n"),
    ] {
        fs::write(path(name), text).expect("it can be written");
    }
    symlink(root().join("workflows"), path("workflows")).expect("a link");
    place
}

/// What a command said when it ended with `code`.
struct Done {
    code: Option<i32>,
    stderr: String,
}

/// Runs the real command in `place`, where there is neither an engine nor a server.
fn lockproof(place: &Path, arguments: &[impl AsRef<str>]) -> Done {
    let arguments = arguments.iter().map(|argument| argument.as_ref().replace("127.0.0.1:8188", NO_SERVER));
    let output = Command::new(env!("CARGO_BIN_EXE_lockproof"))
        .args(arguments)
        .current_dir(place)
        .env_clear()
        .env("DOCKER_HOST", "unix:///no/such/engine.sock")
        .env("COMFYUI_API_TOKEN", "abcdefgh")
        .env("LOCKPROOF_PASSWORD", "abcdefgh")
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    Done { code: output.status.code(), stderr: String::from_utf8_lossy(&output.stderr).into_owned() }
}

/// The commands that a shell reads in `script`, each a program and its arguments; else its complaint.
fn commands(script: &str) -> Result<Vec<Vec<String>>, String> {
    let place = sandbox();
    let (bin, record) = (place.path().join("bin"), place.path().join("record"));
    fs::create_dir(&bin).expect("it can be made");
    fs::write(&record, "").expect("it can be written");
    for program in PROGRAMS {
        let path = bin.join(program);
        let stub = "#!/bin/sh\nprintf '%s\\037' \"${0##*/}\" \"$@\" >>\"$RECORD\"\nprintf '\\036' >>\"$RECORD\"\n";
        fs::write(&path, stub).expect("it can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it can be run");
    }
    let shell = Command::new("/bin/sh")
        .args(["-e", "-c", script])
        .current_dir(place.path())
        .env_clear()
        .env("PATH", &bin)
        .env("RECORD", &record)
        .stdin(Stdio::null())
        .output()
        .expect("there is a shell");
    if !shell.status.success() {
        return Err(format!("a shell says: {}", String::from_utf8_lossy(&shell.stderr).trim()));
    }
    let record = fs::read_to_string(&record).expect("it was written");
    let words = |command: &str| command.split_terminator('\u{1f}').map(str::to_owned).collect();
    Ok(record.split_terminator('\u{1e}').map(words).collect())
}

/// Whether one command can be run here; else why not.
fn check(command: &[String]) -> Result<(), String> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let shown = command.join(" ");
    match program.as_str() {
        "lockproof" => {
            let place = sandbox();
            // It leaves a file alone that is there.
            if arguments.first().is_some_and(|name| name == "init") {
                fs::remove_file(place.path().join("lockproof.yaml")).expect("it is there");
            }
            let done = lockproof(place.path(), arguments);
            if done.code == Some(USAGE) || done.code.is_none() {
                return Err(format!("`{shown}` is refused: {}", done.stderr.trim()));
            }
            Ok(())
        }
        "make" => targets_exist(arguments),
        "cargo" => cargo_knows(arguments).map_err(|why| format!("`{shown}`: {why}")),
        _ => Ok(()),
    }
}

fn targets_exist(words: &[String]) -> Result<(), String> {
    let makefile = fs::read_to_string(root().join("Makefile")).expect("there is one");
    let there = |target: &str| makefile.lines().any(|line| line.split(':').next() == Some(target));
    match words.iter().find(|word| !word.contains('=') && !there(word)) {
        Some(target) => Err(format!("there is no target `{target}` in the Makefile")),
        None => Ok(()),
    }
}

/// Whether packages, benches, examples, profiles and paths of a cargo command are there.
fn cargo_knows(words: &[String]) -> Result<(), String> {
    let profiles = fs::read_to_string(root().join(".config/nextest.toml")).expect("there is one");
    for pair in words.windows(2) {
        let [option, value] = pair else { continue };
        let there = match option.as_str() {
            "--path" => root().join(value).join("Cargo.toml").is_file(),
            "--package" | "-p" => packages().contains(value),
            "--bench" => target_exists("benches", value),
            "--example" => target_exists("examples", value),
            "--profile" => profiles.contains(&format!("[profile.{value}]")),
            _ => true,
        };
        if !there {
            return Err(format!("there is no `{value}` for {option}"));
        }
    }
    Ok(())
}

/// The directories of the crates of this workspace.
fn crates() -> Vec<PathBuf> {
    let below = |path: PathBuf| {
        fs::read_dir(path).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect::<Vec<_>>()
    };
    let mut places = below(root());
    places.extend(below(root().join("harness")));
    places.into_iter().filter(|path| path.join("Cargo.toml").is_file()).collect()
}

fn packages() -> BTreeSet<String> {
    let name = |path: PathBuf| {
        let text = fs::read_to_string(path.join("Cargo.toml")).ok()?;
        text.lines().find_map(|line| Some(line.strip_prefix("name = \"")?.strip_suffix('"')?.to_owned()))
    };
    crates().into_iter().filter_map(name).collect()
}

fn target_exists(kind: &str, name: &str) -> bool {
    crates().iter().any(|path| path.join(kind).join(format!("{name}.rs")).is_file())
}

/// The lines of a `console` block that are typed; a `sh` block is typed as a whole.
fn script(block: &Block) -> Option<String> {
    match block.kind.as_str() {
        "sh" => Some(block.body.clone()),
        "console" => Some(
            block
                .body
                .lines()
                .filter_map(|line| line.strip_prefix("$ "))
                .fold(String::new(), |all, line| all + line + "\n"),
        ),
        _ => None,
    }
}

#[test]
fn every_command_can_be_typed() {
    let mut troubles = Troubles::default();
    let mut ran = 0;
    for page in Page::all() {
        for block in page.parts().0 {
            let Some(script) = script(&block) else { continue };
            let commands = commands(&script).unwrap_or_else(|why| {
                troubles.add(&page.at(block.line), why);
                Vec::new()
            });
            for command in commands {
                ran += 1;
                check(&command).unwrap_or_else(|why| troubles.add(&page.at(block.line), why));
            }
        }
    }
    troubles.none();
    assert!(ran > 50, "only {ran} commands were found");
}

#[test]
fn a_command_with_a_mistake_is_found() {
    for line in [
        "lockproof gaet",
        "lockproof gate --evnets restart",
        "lockproof gate --events re-create",
        "lockproof gate --compose compose.yaml --config lockproof.yaml",
        "lockproof audit --write",
        "lockproof explain lock/opne",
        "lockproof replay workflows/none.json --url http://127.0.0.1:8188",
        "eval \"$(lockproof workspaces)\"",
        "make gaet",
        "cargo install --path none",
        "cargo bench --bench none",
        "lokproof gate",
    ] {
        let found = commands(line).and_then(|commands| commands.iter().try_for_each(|command| check(command)));
        assert!(found.is_err(), "{line}");
    }
}

#[test]
fn every_command_within_a_sentence_is_one_of_ours() {
    let mut troubles = Troubles::default();
    let place = sandbox();
    for page in Page::all() {
        // Made from the help and from the catalogue, which have tests of their own.
        if page.path == "docs/cli.md" {
            continue;
        }
        for (line, code) in page.inline() {
            let words: Vec<String> = code.split_whitespace().map(str::to_owned).collect();
            let fault = match words.first().map(String::as_str) {
                Some("lockproof") if words.len() > 1 => {
                    let arguments: Vec<String> = words[1..].iter().cloned().chain(["--help".to_owned()]).collect();
                    let done = lockproof(place.path(), &arguments);
                    (done.code != Some(0)).then(|| format!("`{code}`: {}", done.stderr.trim()))
                }
                Some("make") => targets_exist(&words[1..]).err(),
                Some("cargo") => cargo_knows(&words[1..]).err(),
                _ => None,
            };
            fault.into_iter().for_each(|fault| troubles.add(&page.at(line), fault));
        }
    }
    troubles.none();
}

#[test]
fn every_file_that_is_named_is_there() {
    let mut troubles = Troubles::default();
    for page in Page::all() {
        let (blocks, _) = page.parts();
        let typed = blocks.iter().filter_map(|block| Some((block.line, script(block)?)));
        for (line, code) in page.inline().into_iter().chain(typed) {
            for word in code.split_whitespace().filter(|word| OURS.iter().any(|ours| word.starts_with(ours))) {
                // `workflows/*.json` and `path:line` name files as well.
                let path = root().join(word.trim_end_matches([',', ':']));
                let pattern = path.to_string_lossy();
                if glob::glob(&pattern).is_ok_and(|mut found| found.next().is_none()) {
                    troubles.add(&page.at(line), format!("`{word}` is not there"));
                }
            }
        }
    }
    troubles.none();
}

/// What a block of YAML is, and how the real program is made to read it.
fn load(page: &Page, block: &Block) -> Result<(), String> {
    let value: Value = serde_yaml::from_str(&block.body).map_err(|e| e.to_string())?;
    let place = sandbox();
    let write = |name: &str, text: &str| fs::write(place.path().join(name), text).expect("it can be written");
    // Blocks that begin with a comment like `# scheme.yaml` are files of that name for the whole page.
    for other in page.parts().0.iter().filter(|other| other.kind == "yaml") {
        let name = other.body.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap_or_default();
        if !name.contains([' ', '/']) && name.contains('.') {
            write(name, &other.body);
        }
    }
    let run = |arguments: &[&str], wanted: Option<i32>| {
        let done = lockproof(place.path(), arguments);
        let right = wanted.map_or(done.code != Some(USAGE), |code| done.code == Some(code));
        if right { Ok(()) } else { Err(done.stderr) }
    };
    let keys: BTreeSet<&str> = value.as_object().into_iter().flat_map(|map| map.keys().map(String::as_str)).collect();
    let all_in = |known: &BTreeSet<String>| !keys.is_empty() && keys.iter().all(|key| known.contains(*key));
    if keys.contains("runs-on") || keys.contains("on") {
        return steps(&value);
    }
    if keys.contains("services") {
        write("compose.yaml", &block.body);
        return run(&["audit", "--no-engine", "compose.yaml"], None);
    }
    if keys.contains("present") {
        write("scheme.yaml", &block.body);
        return run(&["audit", "--no-engine", "--scheme", "scheme.yaml", "other"], None);
    }
    if keys.contains("needs") || keys.contains("stand_ins") {
        write("photo.lockproof.yaml", &block.body);
        return run(&["replay", "photo.json", "--url", "http://127.0.0.1:8188"], None);
    }
    let (file, subject) = known_keys();
    if keys.contains("subjects") {
        write("lockproof.yaml", &block.body);
    } else if all_in(&file) {
        write("lockproof.yaml", &format!("{CONFIG}{}", block.body));
    } else if all_in(&subject) {
        let body = block.body.lines().fold(String::new(), |all, line| format!("{all}    {line}\n"));
        write("lockproof.yaml", &format!("subjects:\n  - name: production\n    image: comfyui:cpu\n{body}"));
    } else if let Some(entries) = value.as_array() {
        if entries.iter().all(|entry| entry.get("path").is_some()) {
            write("routes.yaml", &block.body);
            return run(&["probe", "http://127.0.0.1:8188", "--routes", "routes.yaml"], Some(ENVIRONMENT));
        }
        if entries.iter().all(|entry| entry.get("run").or(entry.get("uses")).is_some()) {
            return steps(&value);
        }
        return Err("a list of what?".to_owned());
    } else {
        return Err(format!("what has the keys {keys:?}?"));
    }
    // It gets as far as the engine.
    run(&["gate"], Some(ENVIRONMENT))
}

/// The keys of lockproof.yaml and of its subjects, as the published schema has them.
fn known_keys() -> (BTreeSet<String>, BTreeSet<String>) {
    let schema = fs::read_to_string(root().join("docs/lockproof.schema.json")).expect("it is published");
    let schema: Value = serde_json::from_str(&schema).expect("it is JSON");
    let keys = |place: &str| {
        let properties = schema.pointer(place).and_then(Value::as_object).expect("it has properties");
        properties.keys().cloned().collect()
    };
    (keys("/properties"), keys("/$defs/SubjectEntry/properties"))
}

/// The commands of a CI file: every `run` of it.
fn steps(value: &Value) -> Result<(), String> {
    match value {
        Value::Array(entries) => entries.iter().try_for_each(steps),
        Value::Object(map) => map.iter().try_for_each(|(key, value)| match value {
            Value::String(script) if key == "run" => commands(script)?.iter().try_for_each(|command| check(command)),
            other => steps(other),
        }),
        _ => Ok(()),
    }
}

#[test]
fn every_yaml_block_is_loaded_by_the_program() {
    let mut troubles = Troubles::default();
    let mut loaded = 0;
    for page in Page::all() {
        for block in page.parts().0.into_iter().filter(|block| block.kind == "yaml") {
            loaded += 1;
            load(&page, &block).unwrap_or_else(|why| troubles.add(&page.at(block.line), why));
        }
    }
    troubles.none();
    assert!(loaded > 10, "only {loaded} blocks were found");
}

#[test]
fn a_yaml_block_with_a_mistake_is_found() {
    for body in [
        "subjects: [{ name: a, imgae: b }]\n",
        "accept: [{ rule: lock/opne, reason: x }]\n",
        "expect: { recreate: opened }\n",
        "present: [{ query: token }]\nname: a\npublik: []\n",
        "services: { comfyui: [] }\n",
        "needs: { model: [a] }\n",
        "- { path: /a, metod: GET }\n",
        "- { run: lockproof gaet }\n",
    ] {
        let block = Block { kind: "yaml".to_owned(), line: 1, body: body.to_owned() };
        let page = Page { path: "page.md".to_owned(), text: String::new() };
        assert!(load(&page, &block).is_err(), "{body}");
    }
}

#[test]
fn every_json_block_is_what_it_says() {
    let mut troubles = Troubles::default();
    for page in Page::all() {
        for block in page.parts().0.into_iter().filter(|block| block.kind == "json") {
            json(&block.body).unwrap_or_else(|why| troubles.add(&page.at(block.line), why));
        }
    }
    troubles.none();
    assert!(json(r#"{ "lockproof": { "cell_time": 60 } }"#).is_err(), "an unknown key of a notebook is found");
    assert!(json(r#"{ "schema": 1 }"#).is_err(), "a report without its keys is found");
}

/// A JSON report, or what a notebook says of itself.
fn json(text: &str) -> Result<(), String> {
    let value: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if value.get("schema").is_some() {
        let schema = fs::read_to_string(root().join("docs/report.schema.json")).map_err(|e| e.to_string())?;
        let schema = serde_json::from_str(&schema).map_err(|e| e.to_string())?;
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource("schema.json", schema).map_err(|e| e.to_string())?;
        let index = compiler.compile("schema.json", &mut schemas).map_err(|e| e.to_string())?;
        return schemas.validate(&value, index).map_err(|e| e.to_string());
    }
    let place = sandbox();
    let notebook = serde_json::json!({ "metadata": value, "nbformat": 4, "nbformat_minor": 5, "cells": [] });
    fs::write(place.path().join("a.ipynb"), notebook.to_string()).map_err(|e| e.to_string())?;
    let done = lockproof(place.path(), &["replay", "a.ipynb", "--url", "http://127.0.0.1:8188"]);
    if done.code == Some(USAGE) { Err(done.stderr) } else { Ok(()) }
}

#[test]
fn every_rust_block_is_part_of_an_example_that_is_compiled() {
    let lines = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>().join("\n");
    let examples: Vec<String> = crates()
        .iter()
        .flat_map(|path| fs::read_dir(path.join("examples")).into_iter().flatten())
        .map(|entry| lines(&fs::read_to_string(entry.expect("an entry").path()).expect("it is text")))
        .collect();
    let mut troubles = Troubles::default();
    for page in Page::all() {
        for block in page.parts().0.into_iter().filter(|block| block.kind == "rust") {
            if !examples.iter().any(|example| example.contains(&lines(&block.body))) {
                troubles.add(&page.at(block.line), "no example holds these lines");
            }
        }
    }
    troubles.none();
}

#[test]
fn every_dependency_that_is_shown_is_a_package_of_ours() {
    let mut troubles = Troubles::default();
    for page in Page::all() {
        for block in page.parts().0.into_iter().filter(|block| block.kind == "toml") {
            for line in block.body.lines().filter(|line| line.contains("{ git =")) {
                let name = line.split(' ').next().unwrap_or_default();
                if !packages().contains(name) {
                    troubles.add(&page.at(block.line), format!("there is no package `{name}`"));
                }
            }
        }
    }
    troubles.none();
}

#[test]
fn every_block_says_what_it_is() {
    let known = ["sh", "console", "yaml", "json", "toml", "rust", "text", ""];
    let mut troubles = Troubles::default();
    for page in Page::all() {
        for block in page.parts().0.iter().filter(|block| !known.contains(&block.kind.as_str())) {
            troubles.add(&page.at(block.line), format!("no test reads a block of `{}`", block.kind));
        }
    }
    troubles.none();
}

/// The anchors of a page, as GitHub makes them from its headings.
fn anchors(page: &Page) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in page.parts().1.lines().filter(|line| line.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let again = (1..).map(|n| format!("{anchor}-{n}"));
        let free = std::iter::once(anchor.clone()).chain(again).find(|name| !anchors.contains(name));
        anchors.extend(free);
    }
    anchors
}

/// The targets of the links of a page, each with its line.
fn links(page: &Page) -> Vec<(usize, String)> {
    let prose = page.parts().1;
    let places = prose.match_indices("](").map(|(at, _)| at);
    places
        .filter_map(|at| {
            let target = prose[at + 2..].split(')').next()?;
            Some((prose[..at].lines().count(), target.to_owned()))
        })
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut troubles = Troubles::default();
    for page in Page::all() {
        let here = Path::new(&page.path).parent().unwrap_or(Path::new(""));
        for (line, target) in links(&page).into_iter().filter(|(_, target)| !target.contains("://")) {
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let path = if file.is_empty() { PathBuf::from(&page.path) } else { here.join(file) };
            if !root().join(&path).exists() {
                troubles.add(&page.at(line), format!("{target} is not there"));
            } else if !anchor.is_empty() && !anchors(&Page::read(&path.to_string_lossy())).contains(anchor) {
                troubles.add(&page.at(line), format!("{target}: there is no such heading"));
            }
        }
    }
    troubles.none();
}

#[test]
fn the_index_lists_every_page() {
    let listed: BTreeSet<String> =
        links(&Page::read("docs/README.md")).into_iter().map(|(_, target)| format!("docs/{target}")).collect();
    for page in Page::all().iter().filter(|page| !page.path.ends_with("README.md")) {
        assert!(listed.contains(&page.path), "docs/README.md does not list {}", page.path);
    }
}

#[test]
fn the_readme_is_short() {
    let words = Page::read("README.md").text.split_whitespace().count();
    assert!(words <= README_WORDS, "README.md has {words} words; {README_WORDS} are read: move some to docs/");
}

#[test]
fn every_page_is_in_plain_words() {
    let stumbled_over = ["whoever", "it is told", "what there is", "find out", "found out", "brings along", "anew"];
    let mut troubles = Troubles::default();
    for page in Page::all() {
        // Made from the help and the catalogue.
        if ["docs/cli.md", "docs/rules.md"].contains(&page.path.as_str()) {
            continue;
        }
        for (number, line) in page.parts().1.lines().enumerate() {
            for word in stumbled_over.iter().filter(|word| line.to_lowercase().contains(**word)) {
                troubles.add(&page.at(number + 1), format!("`{word}`: say it in plain words"));
            }
        }
    }
    troubles.none();
}

#[test]
fn no_page_names_a_machine() {
    let mut troubles = Troubles::default();
    for page in Page::all() {
        for (number, line) in page.text.lines().enumerate() {
            for word in ["/home/", "/root/", "/tmp/"] {
                if line.contains(word) {
                    troubles.add(&page.at(number + 1), format!("{word} belongs to one machine"));
                }
            }
        }
    }
    troubles.none();
}
