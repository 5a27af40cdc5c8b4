//! What is published in `docs/` is what the program does. With `LOCKPROOF_UPDATE_DOCS=1` the
//! generated files are written instead of compared.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use boon::{Compiler, Schemas};
use lockproof::config::{load, plan::Plan};
use lockproof_model::{
    config,
    event::Event,
    exit,
    finding::{Finding, Rule},
    report::{self, EventReport, Report, SubjectReport},
    scheme::{self, Scheme},
    verdict::Verdict,
};
use serde_json::Value;

/// The switch that writes what would be compared.
const UPDATE: &str = "LOCKPROOF_UPDATE_DOCS";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The file at `path` must hold `text`.
#[track_caller]
fn published(path: &str, text: &str) {
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(root().join(path), text).unwrap_or_else(|e| panic!("{path}: {e}"));
        return;
    }
    let there = read(path);
    let first = there.lines().zip(text.lines()).position(|(old, new)| old != new);
    let line = first.unwrap_or_else(|| there.lines().count().min(text.lines().count())) + 1;
    assert!(there == text, "{path} is out of date from line {line} on: run the tests once with {UPDATE}=1");
}

fn pretty(schema: &Value) -> String {
    format!("{schema:#}\n")
}

/// `value` must be as `schema` says; else the validator's own words.
fn validate(schema: &Value, value: &Value) -> Result<(), String> {
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource("schema.json", schema.clone()).map_err(|e| e.to_string())?;
    let index = compiler.compile("schema.json", &mut schemas).map_err(|e| e.to_string())?;
    schemas.validate(value, index).map_err(|e| e.to_string())
}

/// YAML as the data that a schema speaks of.
fn yaml(text: &str) -> Value {
    serde_yaml::from_str(text).expect("it is YAML")
}

#[test]
fn the_schema_of_lockproof_yaml_is_published() {
    published("docs/lockproof.schema.json", &pretty(&config::json_schema()));
}

#[test]
fn the_schema_of_the_json_report_is_published() {
    published("docs/report.schema.json", &pretty(&report::json_schema()));
}

#[test]
fn the_schema_of_scheme_files_is_published() {
    published("docs/scheme.schema.json", &pretty(&scheme::json_schema()));
}

#[test]
fn the_sample_and_the_demo_are_as_the_schema_says() {
    let schema = config::json_schema();
    for path in ["docs/lockproof.yaml", "fixtures/demo/lockproof.yaml"] {
        assert_eq!(validate(&schema, &yaml(&read(path))), Ok(()), "{path}");
    }
}

#[test]
fn the_schema_refuses_what_the_program_refuses() {
    let schema = config::json_schema();
    for (text, wrong) in [
        ("subjects: [{ name: a, imgae: b }]", "an unknown key"),
        ("subjects: [{ image: b }]", "no name"),
        ("scheme: { use: comfyui-login }", "no subjects"),
        ("subjects: []\nevents: [re-create]", "an unknown event"),
        ("subjects: [{ name: a, image: b, expect: { recreate: opened } }]", "an unknown verdict"),
        ("subjects: [{ name: a, image: b, mounts: [{ volume: v }] }]", "a mount without a target"),
    ] {
        assert!(validate(&schema, &yaml(text)).is_err(), "the schema takes {wrong}");
        assert!(load::parse(text, "lockproof.yaml").is_err(), "the program takes {wrong}");
    }
}

#[test]
fn the_sample_is_a_plan_that_can_be_run() {
    // The files that it names, beside it.
    let place = tempfile::tempdir().expect("a directory");
    let path = |name: &str| place.path().join(name);
    for directory in ["workspace", "ComfyUI-Login", "wheels"] {
        std::fs::create_dir(path(directory)).expect("it can be made");
    }
    for file in ["ComfyUI-Login/__init__.py", "install.sh"] {
        std::fs::write(path(file), "").expect("it can be written");
    }
    let sample = load::parse(&read("docs/lockproof.yaml"), "docs/lockproof.yaml").expect("it is one of ours");
    let plan = Plan::new(&sample, place.path()).expect("nothing in it is wrong");
    assert_eq!(plan.events.len(), Event::ALL.len() - 1, "the sample shows every event but `installed`");
}

#[test]
fn the_page_on_the_configuration_shows_every_key() {
    let page = read("docs/configuration.md");
    let schema = config::json_schema();
    let definitions = schema["$defs"].as_object().expect("they are there").values();
    for key in definitions.chain([&schema]).filter_map(|d| d["properties"].as_object()).flat_map(|p| p.keys()) {
        assert!(page.contains(&format!("{key}:")), "docs/configuration.md does not show `{key}`");
    }
}

#[test]
fn every_built_in_scheme_is_as_the_schema_says() {
    let schema = scheme::json_schema();
    let text = read("harness/model/src/scheme/builtin/comfyui-login.yaml");
    assert_eq!(validate(&schema, &yaml(&text)), Ok(()));
    let read_back = serde_json::to_value(Scheme::find(Scheme::DEFAULT, Path::new(".")).expect("built in"));
    assert_eq!(validate(&schema, &read_back.expect("it is data")), Ok(()));
}

#[test]
fn a_report_is_as_its_schema_says() {
    let mut event = EventReport::new(Event::Recreate, Verdict::Locked);
    event.verdict = Some(Verdict::Open);
    let subject = SubjectReport { name: "a".into(), events: vec![event], ..SubjectReport::default() };
    let finding = Finding::new(Rule::LockOpen, "a", Some(Event::Recreate), "everybody gets in");
    let started = "2026-01-01T00:00:00Z".parse().expect("a time");
    let report = Report::new(started, std::time::Duration::ZERO, exit::FAILED, vec![subject], vec![finding]);
    let value = serde_json::to_value(report).expect("it is data");
    assert_eq!(validate(&report::json_schema(), &value), Ok(()));
}

#[test]
fn the_rules_are_published() {
    published("docs/rules.md", &rules());
}

/// The catalogue as a page.
fn rules() -> String {
    let mut page = String::from(
        "# Rules\n\n\
         Generated from the catalogue that `lockproof explain RULE` prints; do not edit. Identifiers are stable:\n\
         they are used in reports, in `accept:` and in baselines. *Cannot be accepted*: the rule means that there\n\
         is no working lock.\n\n\
         | rule | severity | what is wrong |\n|---|---|---|\n",
    );
    for rule in Rule::ALL {
        let (id, facts) = (rule.id(), rule.facts());
        let anchor = id.replace('/', "");
        writeln!(page, "| [`{id}`](#{anchor}) | {} | {} |", rule.severity(), facts.title).expect("a string");
    }
    for rule in Rule::ALL {
        let facts = rule.facts();
        let acceptable = if rule.acceptable() { "" } else { ", cannot be accepted" };
        write!(
            page,
            "\n## {}\n\n**{}** ({}{acceptable})\n\n{}\n\n*Evidence:* {}\n\n*Remedy:* {}\n",
            rule.id(),
            facts.title,
            rule.severity(),
            facts.why.trim(),
            facts.evidence.trim(),
            facts.remedy.trim()
        )
        .expect("a string");
    }
    page
}

/// What the command prints on standard output, whatever this machine's settings are.
fn said(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockproof"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LOCKPROOF_")) {
        command.env_remove(name);
    }
    let output = command.args(arguments).env("COLUMNS", "100").stdin(Stdio::null()).output().expect("it runs");
    assert!(output.status.success(), "lockproof {}", arguments.join(" "));
    let text = String::from_utf8(output.stdout).expect("it is text");
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// The examples of a page, by the file name in their first line.
fn examples(page: &str) -> Vec<(String, String)> {
    read(page)
        .split("```yaml\n# ")
        .skip(1)
        .filter_map(|rest| {
            let (name, rest) = rest.split_once('\n')?;
            Some((name.to_owned(), rest.split("```").next()?.to_owned()))
        })
        .collect()
}

#[test]
fn the_walk_through_for_other_locks_can_be_followed() {
    let place = tempfile::tempdir().expect("a directory");
    let examples = examples("docs/schemes.md");
    for (name, text) in &examples {
        std::fs::write(place.path().join(name), text).expect("it can be written");
    }
    std::fs::create_dir(place.path().join("api-key")).expect("it can be made");
    std::fs::write(place.path().join("api-key/__init__.py"), "").expect("it can be written");
    let (_, scheme) = examples.iter().find(|(name, _)| name == "api-key.yaml").expect("it shows a scheme");
    assert_eq!(validate(&scheme::json_schema(), &yaml(scheme)), Ok(()));
    let (_, sample) = examples.iter().find(|(name, _)| name == "lockproof.yaml").expect("it shows a configuration");
    let sample = load::parse(sample, "lockproof.yaml").expect("it is one of ours");
    let plan = Plan::new(&sample, place.path()).expect("nothing in it is wrong");
    assert_eq!(plan.subjects[0].lock.scheme.name, "api-key");
}

#[test]
fn the_command_line_is_published() {
    let help = said(&["--help"]);
    let listed = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("a list");
    let commands = listed.lines().filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next());
    let mut page = String::from("# Command line\n\nGenerated from `--help`; do not edit.\n");
    write!(page, "\n## lockproof\n\n```text\n{help}```\n").expect("a string");
    for command in commands.filter(|name| *name != "help") {
        let help = said(&[command, "--help"]);
        write!(page, "\n## lockproof {command}\n\n```text\n{help}```\n").expect("a string");
    }
    published("docs/cli.md", &page);
}

#[test]
fn the_pages_show_the_sample_the_example_and_every_word_of_the_contract() {
    let body = |text: String| text.lines().skip_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join("\n");
    assert!(read("docs/configuration.md").contains(&read("docs/lockproof.yaml")), "lacks docs/lockproof.yaml");
    let example = body(read("harness/testing/examples/testcontainers.rs"));
    assert!(read("docs/rust-tests.md").contains(example.trim()), "lacks harness/testing/examples/testcontainers.rs");
    let explained = read("docs/how-it-works.md");
    let verdicts = Verdict::ALL.map(Verdict::name);
    let events = Event::ALL.map(Event::name);
    for word in verdicts.into_iter().chain(events) {
        assert!(explained.contains(&format!("| `{word}` |")), "docs/how-it-works.md has no row for `{word}`");
    }
    let codes = [exit::OK, exit::FAILED, exit::USAGE, exit::ENVIRONMENT, exit::UNDECIDED];
    for page in ["README.md", "docs/exit-codes.md"] {
        for code in codes {
            assert!(read(page).contains(&format!("| {code} |")), "{page} has no row for exit code {code}");
        }
    }
}
