//! The commands that read compose files, as people run them: `audit`, `workspace`, `init`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use lockproof::config;
use lockproof_compose::{Environment, Options, Project};
use serde_json::Value;
use tempfile::TempDir;

/// A directory with files, and the command in it.
struct Place(TempDir);

impl Place {
    fn with(files: &[(&str, &str)]) -> Self {
        let place = Self(tempfile::tempdir().expect("a directory"));
        for (name, text) in files {
            let path = place.path(name);
            fs::create_dir_all(path.parent().expect("it has one")).expect("it can be made");
            fs::write(path, text).expect("it can be written");
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lockproof"));
        for (name, _) in std::env::vars_os().filter(|(n, _)| {
            let name = n.to_string_lossy();
            name.starts_with("LOCKPROOF_") || name.starts_with("COMPOSE_") || name.starts_with("GITHUB_")
        }) {
            command.env_remove(name);
        }
        let command = command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null());
        command.env("COLUMNS", "100").env("NO_COLOR", "1").output().expect("it runs")
    }

    #[track_caller]
    fn code(&self, arguments: &[&str]) -> i32 {
        self.run(arguments).status.code().expect("it ended by itself")
    }
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

const OPEN: &str = "services:
  comfyui:
    image: lockproof/comfyui-lab:latest
    ports: [\"8188:8188\"]
    volumes:
      - nodes:/opt/ComfyUI/custom_nodes
volumes:
  nodes:
";

const FIXED: &str = "services:
  comfyui:
    image: lockproof/comfyui-lab:latest
    volumes:
      - all:/opt/ComfyUI/custom_nodes
      - login:/opt/ComfyUI/login
      - venv:/opt/venv
      - user:/opt/ComfyUI/user
      - output:/opt/ComfyUI/output
      - input:/opt/ComfyUI/input
volumes: { all: , login: , venv: , user: , output: , input: }
";

#[test]
fn a_file_is_reported_with_its_states_findings_and_remedies() {
    let place = Place::with(&[("compose.yaml", OPEN)]);
    let output = place.run(&["audit", "--no-engine"]);
    insta::assert_snapshot!(out(&output));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn exit_codes_are_the_contract_s() {
    let place = Place::with(&[
        ("open.yaml", OPEN),
        ("fixed.yaml", FIXED),
        ("none.yaml", "services: { web: { image: nginx:1 } }"),
        ("unknown.yaml", "services: { comfyui: { image: example/comfyui:1, volumes: [./w:/workspace] } }"),
        ("broken.yaml", "services: ["),
    ]);
    for (file, code) in [
        ("fixed.yaml", 0),
        ("open.yaml", 1),
        ("broken.yaml", 2),
        ("missing.yaml", 2),
        ("none.yaml", 4),
        ("unknown.yaml", 4),
    ] {
        assert_eq!(place.code(&["audit", "--no-engine", file]), code, "{file}");
    }
    assert_eq!(place.code(&["audit", "--no-engine", "--fail-on", "error", "open.yaml"]), 0);
    assert_eq!(place.code(&["audit", "--no-engine", "fixed.yaml", "open.yaml"]), 1);
    assert_eq!(place.code(&["audit", "--no-engine", "open.yaml", "broken.yaml"]), 2);
    assert_eq!(place.code(&["audit", "--no-engine", "--service", "comfy", "open.yaml"]), 2);
}

/// Every mistake with its place, in one snapshot.
#[test]
fn an_unreadable_file_is_reported_with_its_position() {
    let laughs = format!(
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n{}services: {{}}\n",
        ('b'..='k')
            .map(|c| format!("{c}: &{c} [{}]\n", vec![format!("*{}", (c as u8 - 1) as char); 10].join(", ")))
            .collect::<String>()
    );
    let deep = format!("services: {}1{}", "[".repeat(3000), "]".repeat(3000));
    let place = Place::with(&[
        ("malformed.yaml", "services:\n  comfyui:\n   - a\n  b: c\n"),
        ("tab.yaml", "services:\n\tcomfyui:\n"),
        ("laughs.yaml", &laughs),
        ("deep.yaml", &deep),
        ("anchor.yaml", "services:\n  comfyui: *nowhere\n"),
        ("list.yaml", "- services\n"),
        ("services.yaml", "services: [comfyui]\n"),
        ("service.yaml", "services:\n  comfyui: image\n"),
        ("empty.yaml", "# nothing\n"),
        (
            "needs.yaml",
            "services:\n  comfyui:\n    image: x\n    environment:\n      TOKEN: ${COMFYUI_API_TOKEN:?the token of the lock}\n",
        ),
        ("dollar.yaml", "services:\n  comfyui:\n    environment:\n      TOKEN: $2b$12$secretsecretsecret\n"),
        ("extends.yaml", "services:\n  a: { extends: b }\n  b: { extends: { service: a } }\n"),
        ("extends-nothing.yaml", "services:\n  a:\n    extends: { file: base.yaml, service: b }\n"),
        ("include.yaml", "include: [include2.yaml]\nservices: {}\n"),
        ("include2.yaml", "include: [include.yaml]\n"),
        ("volume.yaml", "services:\n  a:\n    volumes:\n      - one:two:three:four\n"),
        ("type.yaml", "services:\n  a:\n    volumes:\n      - { type: bnid, source: ., target: /a }\n"),
        ("port.yaml", "services:\n  a:\n    ports: [\"eighty:80\"]\n"),
        ("circle.yaml", "services:\n  a: { volumes_from: [b] }\n  b: { volumes_from: [a] }\n"),
        ("env.yaml", "services:\n  a:\n    env_file: bad.env\n"),
        ("bad.env", "this is no variable\n"),
        (
            "accept.yaml",
            "services:\n  # lockproof: accept persist/dpes — x\n  comfyui: { image: lockproof/comfyui-lab }\n",
        ),
        (
            "accept-why.yaml",
            "services:\n  # lockproof: accept persist/deps\n  comfyui: { image: lockproof/comfyui-lab }\n",
        ),
        (
            "accept-open.yaml",
            "services:\n  # lockproof: accept lock/open — x\n  comfyui: { image: lockproof/comfyui-lab }\n",
        ),
    ]);
    fs::write(place.path("latin.yaml"), b"services:\n  caf\xe9: {}\n").expect("it can be written");
    fs::File::create(place.path("huge.yaml")).and_then(|f| f.set_len(50 * 1024 * 1024)).expect("it can be made");
    fs::create_dir(place.path("empty")).expect("it can be made");
    let mut names: Vec<String> = fs::read_dir(place.0.path())
        .expect("it is there")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|n| n != "bad.env" && n != "include2.yaml")
        .collect();
    names.sort();
    let mut said = String::new();
    for name in &names {
        let output = place.run(&["audit", "--no-engine", name]);
        assert_eq!(output.status.code(), Some(2), "{name}: {}", out(&output));
        said.push_str(&format!("## {name}\n{}\n", err(&output)));
    }
    assert!(!said.contains("secretsecret"), "a token is shown");
    insta::assert_snapshot!(said);
}

/// What a stranger may put into a repository ends, and ends soon: each of these would take hours, or
/// all memory, if it were followed.
#[test]
fn what_would_grow_without_end_is_refused() {
    let anchors = format!("a: &a [{}]\nservices: {{}}\n", "x, ".repeat(1900));
    let nested: String = (0..90).map(|n| format!("{}- &n{n}\n", " ".repeat(n))).collect::<String>();
    let row = format!("{}- [{}]\n", " ".repeat(90), "x, ".repeat(1900));
    let wide = |list: &str| format!("{list}{row}{row}{row}");
    let chain: String = (0..1500).map(|n| format!("  s{n}: {{ extends: s{} }}\n", n + 1)).collect();
    let lend: String = (0..300)
        .map(|n| {
            format!(
                "  s{n}: {{ volumes_from: [s{}, t{}] }}\n  t{n}: {{ volumes_from: [s{}, t{}] }}\n",
                n + 1,
                n + 1,
                n + 1,
                n + 1
            )
        })
        .collect();
    let doubled: String = (1..60).map(|n| format!("V{n}=$V{0}$V{0}\n", n - 1)).collect();
    let uses = "      - $V12$V12$V12$V12\n".repeat(1900);
    let place = Place::with(&[
        ("wide.yaml", &anchors),
        ("nested.yaml", &format!("services: {{}}\nx:\n{}", wide(&nested))),
        ("chain.yaml", &format!("services:\n{chain}  s1500: {{ image: x }}\n")),
        ("lend.yaml", &format!("services:\n{lend}  s300: {{ image: x }}\n  t300: {{ image: x }}\n")),
        ("again.yaml", &format!("include: [{}]\nservices: {{}}\n", "small.yaml, ".repeat(1900))),
        ("small.yaml", "services: {}\n"),
        (
            "keys.yaml",
            &format!("services: {{}}\nx:\n{}", (0..5000).map(|n| format!("  k{n}: 1\n")).collect::<String>()),
        ),
        ("doubled.env", &format!("V0=xxxxxxxxxxxxxxxx\n{doubled}")),
        (
            "much.env",
            &format!("V0=xxxxxxxxxxxxxxxx\n{}", doubled.lines().take(12).map(|l| format!("{l}\n")).collect::<String>()),
        ),
        ("uses.yaml", &format!("services:\n  comfyui:\n    image: x\n    environment:\n{uses}")),
        ("plain.yaml", "services: {}\n"),
        ("device.yaml", "include: [/dev/zero]\n"),
    ]);
    let refused = [
        (vec!["nested.yaml"], "more than 200000 values"),
        (vec!["chain.yaml"], "`extends` chain"),
        (vec!["lend.yaml"], "`volumes_from` chain"),
        (vec!["again.yaml"], "files are included"),
        (vec!["keys.yaml"], "more than 2000 entries"),
        (vec!["--env-file", "much.env", "uses.yaml"], "longer than"),
        (vec!["device.yaml"], "it is not a regular file"),
    ];
    for (arguments, what) in refused {
        let all: Vec<&str> = ["audit", "--no-engine"].into_iter().chain(arguments.iter().copied()).collect();
        let output = place.run(&all);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", out(&output));
        assert!(err(&output).contains(what), "{arguments:?}: {}", err(&output));
    }
    for arguments in [&["wide.yaml"][..], &["--env-file", "doubled.env", "plain.yaml"]] {
        let all: Vec<&str> = ["audit", "--no-engine"].into_iter().chain(arguments.iter().copied()).collect();
        assert_eq!(place.code(&all), 4, "{arguments:?}");
    }
}

#[test]
fn an_unreadable_env_file_is_an_error_and_a_missing_one_a_note() {
    let place = Place::with(&[(
        "compose.yaml",
        "services:\n  comfyui:\n    image: lockproof/comfyui-lab\n    env_file: [gone.env]\n",
    )]);
    let output = place.run(&["audit", "--no-engine"]);
    assert!(err(&output).contains("compose.yaml:4:16: `gone.env` does not exist"), "{}", err(&output));
    fs::create_dir(place.path(".env")).expect("it can be made");
    let output = place.run(&["audit", "--no-engine"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("it is a directory"), "{}", err(&output));
}

#[test]
fn annotations_name_file_line_and_column() {
    let place = Place::with(&[("a,b.yaml", OPEN)]);
    let output = place.run(&["audit", "--no-engine", "--format", "github", "a,b.yaml"]);
    let lines = out(&output);
    assert!(lines.lines().all(|l| l.starts_with("::error file=a%2Cb.yaml,line=")), "{lines}");
    assert!(lines.contains("line=4,col=13,title=deploy/published-port::"), "{lines}");
}

#[test]
fn reports_hold_what_was_read() {
    let place = Place::with(&[("compose.yaml", OPEN)]);
    let output = place.run(&["audit", "--no-engine", "--report", "json=r.json", "--report", "sarif=r.sarif"]);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    let read = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(place.path(name)).expect("it is there")).expect("JSON")
    };
    let report = read("r.json");
    assert_eq!(report["subjects"][0]["events"][2]["event"], "down-up");
    assert_eq!(report["subjects"][0]["events"][2]["predicted"], "open");
    assert_eq!(report["subjects"][0]["events"][2]["verdict"], Value::Null);
    let ports = report["findings"].as_array().expect("a list").iter().find(|f| f["rule"] == "deploy/published-port");
    let stands = ports.map(|f| [&f["file"], &f["line"], &f["column"]].map(ToString::to_string));
    assert_eq!(stands, Some(["\"compose.yaml\"", "4", "13"].map(str::to_owned)));
    let sarif = read("r.sarif");
    let lines: Vec<&Value> = sarif["runs"][0]["results"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|r| &r["locations"][0]["physicalLocation"]["region"]["startLine"])
        .collect();
    assert!(lines.iter().all(|l| l.as_u64() > Some(1)), "{lines:?}");
    // What is in the baseline does not count.
    assert_eq!(place.code(&["audit", "--no-engine", "--baseline", "r.json"]), 0);
}

/// The patched file loses nothing that a volume can keep, and is written only when asked.
#[test]
fn the_fix_is_a_diff_that_makes_the_states_last() {
    for text in [OPEN.to_owned(), OPEN.replace('\n', "\r\n"), format!("\u{feff}{OPEN}"), OPEN.trim_end().to_owned()] {
        let place = Place::with(&[("compose.yaml", &text)]);
        let output = place.run(&["audit", "--no-engine", "--fix"]);
        assert_eq!(fs::read_to_string(place.path("compose.yaml")).expect("it is there"), text, "it was written");
        let diff = out(&output);
        assert!(diff.starts_with("--- a/compose.yaml\n+++ b/compose.yaml\n"), "{diff}");
        place.run(&["audit", "--no-engine", "--fix", "--write"]);
        let written = fs::read_to_string(place.path("compose.yaml")).expect("it is there");
        assert_eq!(written.starts_with('\u{feff}'), text.starts_with('\u{feff}'));
        assert_eq!(written.matches("\r\n").count() > 0, text.contains("\r\n"), "{written:?}");
        let again = place.run(&["audit", "--no-engine", "--report", "json=r.json"]);
        let report: Value =
            serde_json::from_slice(&fs::read(place.path("r.json")).expect("it is there")).expect("JSON");
        assert_eq!(report["subjects"][0]["events"][2]["predicted"], "locked", "{written}\n{}", out(&again));
        let rules: Vec<&Value> = report["findings"].as_array().expect("a list").iter().map(|f| &f["rule"]).collect();
        assert!(rules.is_empty(), "{rules:?}\n{written}");
    }
}

#[test]
fn the_diff_reads_as_a_person_would_write_it() {
    let place = Place::with(&[("compose.yaml", OPEN)]);
    insta::assert_snapshot!(out(&place.run(&["audit", "--no-engine", "--fix"])));
}

#[test]
fn what_comes_from_an_anchor_is_left_to_people() {
    let text = "x-v: &v [nodes:/opt/ComfyUI/custom_nodes]\nservices:\n  comfyui: { image: lockproof/comfyui-lab:latest, volumes: *v }\nvolumes: { nodes: }\n";
    let place = Place::with(&[("compose.yaml", text)]);
    let output = place.run(&["audit", "--no-engine", "--fix"]);
    assert_eq!(out(&output), "");
    assert!(err(&output).contains("add by hand"), "{}", err(&output));
    // Two services, one line: it is neither's own.
    let shared = "x-p: &p\n  ports: [\"8188:8188\"]\nservices:\n  one: { <<: *p, image: lockproof/comfyui-lab:latest }\n  two: { <<: *p, image: lockproof/comfyui-lab:app }\n";
    let place = Place::with(&[("compose.yaml", shared)]);
    let output = place.run(&["audit", "--no-engine", "--fix"]);
    assert!(!out(&output).contains("127.0.0.1"), "{}", out(&output));
    assert!(err(&output).contains("two: fix deploy/published-port by hand"), "{}", err(&output));
}

#[test]
fn the_workspace_is_what_a_shell_can_read() {
    let with = |text: &str| Place::with(&[("compose.yaml", text)]);
    let comfyui = |rest: &str| format!("services:\n  comfyui:\n    image: lockproof/comfyui-lab:latest\n{rest}");
    let place = with(&comfyui("    volumes: [\"./my work:/workspace\", ./models:/workspace/models]\n"));
    let host = place.path("my work").canonicalize().unwrap_or(place.path("my work"));
    assert_eq!(
        out(&place.run(&["workspace"])),
        format!("COMFYUI_WORKSPACE_PATH=/workspace\nCOMFYUI_WORKSPACE_HOST='{}'\n", host.display())
    );
    assert_eq!(out(&place.run(&["workspace", "--format", "plain"])), "/workspace\n");
    let named = with(&comfyui(
        "    environment: { COMFYUI_WORKSPACE_PATH: /data/here }\n    volumes: [vol:/data]\nvolumes: { vol: }\n",
    ));
    let json: Value = serde_json::from_str(&out(&named.run(&["workspace", "--format", "json"]))).expect("JSON");
    assert_eq!((json["container"].as_str(), json["volume"].as_str()), (Some("/data/here"), Some("vol")));
}

#[test]
fn a_workspace_that_is_not_one_is_an_error_that_names_the_candidates() {
    let with = |text: &str| Place::with(&[("compose.yaml", text)]);
    let none = with("services:\n  comfyui:\n    image: lockproof/comfyui-lab:latest\n");
    let several = with(
        "services:\n  comfyui:\n    image: lockproof/comfyui-lab:latest\n    volumes: [./a:/data/a, ./b:/data/b]\n",
    );
    let services = with(
        "services:\n  one: { image: lockproof/comfyui-lab:latest }\n  two: { image: lockproof/comfyui-lab:app }\n",
    );
    let mut said = String::new();
    for place in [none, several, services] {
        let output = place.run(&["workspace"]);
        assert_eq!(output.status.code(), Some(2));
        said.push_str(&err(&output).replace(&place.0.path().display().to_string(), "/project"));
        said.push('\n');
    }
    insta::assert_snapshot!(said);
}

#[test]
fn what_init_writes_is_a_configuration() {
    let place = Place::with(&[("compose.yaml", OPEN)]);
    let output = place.run(&["init"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let text = fs::read_to_string(place.path("lockproof.yaml")).expect("it is there");
    insta::assert_snapshot!(text);
    let file = config::load::parse(&text, "lockproof.yaml").expect("it can be read");
    assert_eq!(file.subjects[0].service.as_deref(), Some("comfyui"));
    // A file that is there is somebody's.
    assert_eq!(place.code(&["init"]), 2);
    assert_eq!(place.code(&["init", "--force"]), 0);
    assert_eq!(out(&place.run(&["init", "--output", "-"])), text);
}

#[test]
fn what_init_writes_of_every_fixture_is_a_configuration() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/compose");
    let place = Place::with(&[]);
    for entry in fs::read_dir(root).expect("fixtures are there") {
        let directory = entry.expect("an entry").path();
        let expected = fs::read_to_string(directory.join("expected.yaml")).expect("it is there");
        let expected: Value = serde_yaml::from_str(&expected).expect("it is YAML");
        let service = expected["service"].as_str().expect("a name");
        let directory = directory.display().to_string();
        let output = place.run(&["init", &directory, "--service", service, "--output", "-"]);
        let text = out(&output);
        assert_eq!(output.status.code(), Some(0), "{directory}: {}", err(&output));
        config::load::parse(&text, &directory).unwrap_or_else(|e| panic!("{directory}: {e}\n{text}"));
    }
}

#[test]
fn a_project_in_a_directory_takes_its_override_and_compose_file_names_others() {
    let place = Place::with(&[
        ("compose.yaml", OPEN),
        ("compose.override.yaml", "services: { comfyui: { ports: [\"127.0.0.1:1:1\"] } }\n"),
        ("other.yaml", FIXED),
    ]);
    let options = |files: &[&str]| Options {
        files: files.iter().map(|f| place.path(f)).collect(),
        directory: Some(place.0.path().to_owned()),
        ..Options::default()
    };
    let read = |files: &[&str], env: &[(&str, &str)]| {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Project::read(&options(files), Environment::of(env)).expect("it can be read").services[0].ports.len()
    };
    assert_eq!(read(&[], &[]), 2);
    assert_eq!(read(&["compose.yaml"], &[]), 1);
    assert_eq!(read(&[], &[("COMPOSE_FILE", "other.yaml")]), 0);
}
