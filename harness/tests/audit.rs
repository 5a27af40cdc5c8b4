//! What is read out of the compose files in `fixtures/compose`, against the data beside each, and
//! against what Compose itself prints.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use lockproof_audit::{self as audit, Audit, states::EVENTS};
use lockproof_compose::{Environment, Options, Project, in_container, volume};
use lockproof_model::{
    event::Event,
    scheme::Scheme,
    state::{Owner, State},
    verdict::Verdict,
};
use serde::Deserialize;
use serde_json::Value;

/// `expected.yaml` beside a fixture.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    #[expect(dead_code, reason = "said for readers")]
    about: String,
    #[serde(default)]
    files: Vec<PathBuf>,
    service: String,
    #[serde(default)]
    #[expect(dead_code, reason = "how a gate brings it up on the lab, for the tests that start containers")]
    gate: Option<Value>,
    states: BTreeMap<State, Option<Owner>>,
    predicted: BTreeMap<Event, Option<Verdict>>,
    findings: Vec<String>,
    #[serde(default)]
    accepted: Vec<String>,
    /// What v1 of Compose lacks for it.
    compose_v1: Option<String>,
    /// What v2 refuses in it.
    compose_v2: Option<String>,
}

struct Fixture {
    name: String,
    directory: PathBuf,
    expected: Expected,
}

impl Fixture {
    fn files(&self) -> Vec<PathBuf> {
        let names = &self.expected.files;
        let names = if names.is_empty() { vec![PathBuf::from("docker-compose.yml")] } else { names.clone() };
        names.iter().map(|name| self.directory.join(name)).collect()
    }

    fn project(&self) -> Project {
        let options = Options { files: self.files(), ..Options::default() };
        Project::read(&options, Environment::of([])).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }
}

fn fixtures() -> Vec<Fixture> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/compose");
    let mut found: Vec<Fixture> = std::fs::read_dir(root)
        .expect("fixtures are there")
        .map(|entry| {
            let directory = entry.expect("an entry").path();
            let name = directory.file_name().expect("a name").to_string_lossy().into_owned();
            let text =
                std::fs::read_to_string(directory.join("expected.yaml")).unwrap_or_else(|e| panic!("{name}: {e}"));
            let expected = serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
            Fixture { name, directory, expected }
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn audit(project: &Project) -> Audit {
    let scheme = Scheme::find(Scheme::DEFAULT, Path::new("")).expect("built in");
    let options = audit::Options { services: Vec::new(), scheme, images: BTreeMap::new() };
    audit::audit(project, &options, "").expect("it can be audited")
}

/// Each rule once for each place and message, sorted.
fn rules(audit: &Audit, accepted: bool) -> Vec<String> {
    let mut seen = Vec::new();
    for (finding, placed) in audit.findings.iter().filter(|(f, _)| f.accepted == accepted) {
        let key = (finding.rule.id().to_owned(), finding.message.clone(), placed.clone());
        // States that share a mount are several findings.
        let key = (key, finding.evidence.first().cloned());
        if !seen.contains(&key) {
            seen.push(key);
        }
    }
    let mut rules: Vec<String> = seen.into_iter().map(|((rule, _, _), _)| rule).collect();
    rules.sort();
    rules
}

#[test]
fn there_are_enough_fixtures() {
    assert!(fixtures().len() >= 20, "{}", fixtures().len());
}

/// The model: service, states, predictions and findings of every fixture.
#[test]
fn every_fixture_is_read_as_the_data_beside_it_says() {
    let mut wrong = Vec::new();
    for fixture in fixtures() {
        let Fixture { name, expected, .. } = &fixture;
        let audit = audit(&fixture.project());
        let services: Vec<&str> = audit.subjects.iter().map(|s| s.service.as_str()).collect();
        if !services.contains(&expected.service.as_str()) {
            wrong.push(format!("{name}: the services are {services:?}"));
            continue;
        }
        let subject = audit.subjects.iter().find(|s| s.service == expected.service).expect("it is there");
        let states: BTreeMap<State, Option<Owner>> = subject.readings.iter().map(|r| (r.state, r.owner)).collect();
        let mut differ = |what: &str, got: String, wanted: String| {
            if got != wanted {
                wrong.push(format!("{name}, {what}:\n   got {got}\n  want {wanted}"));
            }
        };
        differ("states", format!("{states:?}"), format!("{:?}", expected.states));
        differ("predicted", format!("{:?}", subject.predicted), format!("{:?}", expected.predicted));
        let sorted = |list: &[String]| {
            let mut list = list.to_vec();
            list.sort();
            format!("{list:?}")
        };
        differ("findings", format!("{:?}", rules(&audit, false)), sorted(&expected.findings));
        differ("accepted", format!("{:?}", rules(&audit, true)), sorted(&expected.accepted));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_event_is_predicted_in_every_fixture() {
    for fixture in fixtures() {
        assert_eq!(fixture.expected.predicted.keys().copied().collect::<Vec<_>>(), EVENTS, "{}", fixture.name);
    }
}

/// What of a service is compared with what Compose prints.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plain {
    image: Option<String>,
    environment: BTreeMap<String, Option<String>>,
    mounts: Vec<String>,
    ports: Vec<String>,
    command: Option<Vec<String>>,
}

fn ours(project: &Project, all: bool) -> BTreeMap<String, Plain> {
    let plain = |service: &lockproof_compose::Service| {
        let mut mounts: Vec<String> = service
            .node
            .get("volumes")
            .map_or(&[][..], |v| v.items())
            .iter()
            .map(|item| volume::parse(item).expect("it was read already"))
            .map(|v| {
                format!(
                    "{}:{}:{}",
                    v.source.unwrap_or_default(),
                    in_container(&v.target),
                    if v.read_only { "ro" } else { "rw" }
                )
            })
            .collect();
        mounts.sort();
        let mut ports: Vec<String> = service
            .ports
            .iter()
            .map(|p| {
                let range = |(a, b): (u16, u16)| if a == b { a.to_string() } else { format!("{a}-{b}") };
                format!(
                    "{}|{}|{}|{}",
                    p.address.clone().unwrap_or_default(),
                    p.published.map(range).unwrap_or_default(),
                    range(p.target),
                    p.protocol
                )
            })
            .collect();
        ports.sort();
        Plain {
            image: service.image.as_ref().map(|i| i.text.clone()),
            environment: service.environment.iter().map(|v| (v.name.clone(), v.value.clone())).collect(),
            mounts,
            ports,
            command: service.command.as_ref().map(|c| c.words.clone()),
        }
    };
    project.services.iter().filter(|s| all || project.is_active(s)).map(|s| (s.name.clone(), plain(s))).collect()
}

/// The same out of what `config` printed, read without our own reader.
fn theirs(printed: &Value) -> BTreeMap<String, Plain> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    // What is printed can be read by Compose again: a `$` is doubled.
    let value = |v: &Value| text(v).replace("$$", "$");
    let services = printed["services"].as_object().cloned().unwrap_or_default();
    let plain = |service: &Value| {
        let environment = match &service["environment"] {
            Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), (!v.is_null()).then(|| value(v)))).collect(),
            Value::Array(list) => list
                .iter()
                .map(|item| {
                    let item = value(item);
                    item.split_once('=').map_or((item.clone(), None), |(k, v)| (k.to_owned(), Some(v.to_owned())))
                })
                .collect(),
            _ => BTreeMap::new(),
        };
        let mount = |item: &Value| match item {
            Value::String(short) => {
                let (rest, mode) = match short.rsplit_once(':') {
                    Some((rest, mode @ ("ro" | "rw"))) => (rest, mode),
                    _ => (short.as_str(), "rw"),
                };
                // Labels of SELinux: `:Z`, which v1 prints before the mode.
                let rest = rest.strip_suffix(":Z").or_else(|| rest.strip_suffix(":z")).unwrap_or(rest);
                let (source, target) = rest.rsplit_once(':').unwrap_or(("", rest));
                format!("{source}:{target}:{mode}")
            }
            long => {
                let mode = if long["read_only"] == true { "ro" } else { "rw" };
                format!("{}:{}:{mode}", text(&long["source"]), text(&long["target"]))
            }
        };
        let port = |item: &Value| match item {
            Value::String(short) => {
                let (rest, protocol) = short.rsplit_once('/').unwrap_or((short, "tcp"));
                let parts: Vec<&str> = rest.split(':').collect();
                match parts.as_slice() {
                    [target] => format!("||{target}|{protocol}"),
                    [published, target] => format!("|{published}|{target}|{protocol}"),
                    [address, published, target] => format!("{address}|{published}|{target}|{protocol}"),
                    _ => short.clone(),
                }
            }
            long => {
                let protocol = long["protocol"].as_str().unwrap_or("tcp");
                format!("{}|{}|{}|{protocol}", text(&long["host_ip"]), text(&long["published"]), text(&long["target"]))
            }
        };
        let list = |key: &str, read: &dyn Fn(&Value) -> String| {
            let mut list: Vec<String> = service[key].as_array().into_iter().flatten().map(read).collect();
            list.sort();
            list
        };
        Plain {
            image: service["image"].as_str().map(str::to_owned),
            environment,
            mounts: list("volumes", &mount),
            ports: list("ports", &port),
            command: match &service["command"] {
                Value::Array(words) => Some(words.iter().map(value).collect()),
                Value::String(line) => shlex::split(&line.replace("$$", "$")),
                _ => None,
            },
        }
    };
    services.iter().map(|(name, service)| (name.clone(), plain(service))).collect()
}

/// The Composes that are installed: their command, and whether they are v1.
fn composes() -> Vec<(Vec<&'static str>, bool)> {
    let version = |words: &[&str]| {
        let output = Command::new(words[0]).args(&words[1..]).arg("version").stdin(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let mut found = Vec::new();
    for words in [vec!["docker", "compose"], vec!["docker-compose"]] {
        if let Some(text) = version(&words) {
            let v1 = text.contains("version 1.");
            found.push((words, v1));
        }
    }
    found
}

/// Whether a project is read as `config` prints it.
fn compare(words: &[&str], v1: bool, directory: &Path, files: &[PathBuf], project: &Project) -> Result<(), String> {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env_clear().current_dir(directory).stdin(Stdio::null());
    for name in ["PATH", "HOME", "DOCKER_CONFIG"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    for file in files {
        command.arg("-f").arg(file);
    }
    let output = command.arg("config").output().expect("it runs");
    if !output.status.success() {
        return Err(format!("{} refuses it: {}", words.join(" "), String::from_utf8_lossy(&output.stderr)));
    }
    let printed: Value = serde_yaml::from_str(&String::from_utf8_lossy(&output.stdout)).expect("it is YAML");
    // v1 prints what is in no active profile, too.
    let (ours, theirs) = (ours(project, v1), theirs(&printed));
    if ours == theirs { Ok(()) } else { Err(format!("{}:\n   ours {ours:#?}\n theirs {theirs:#?}", words.join(" "))) }
}

/// Files of one's own, named in LOCKPROOF_COMPOSE_FILES (one a line): what Compose takes is taken, and
/// read the same way.
#[test]
fn files_of_one_s_own_are_read_as_compose_reads_them() {
    let Ok(list) = std::env::var("LOCKPROOF_COMPOSE_FILES") else {
        eprintln!("skipped: LOCKPROOF_COMPOSE_FILES names no files");
        return;
    };
    let (mut same, mut refused, mut wrong) = (0, 0, Vec::new());
    for file in list.lines().map(PathBuf::from).filter(|f| f.is_file()) {
        let directory = file.parent().expect("a directory").to_owned();
        let options = Options { files: vec![file.clone()], ..Options::default() };
        let path = std::env::var("PATH").map(|path| ("PATH".to_owned(), path));
        let project = Project::read(&options, Environment::of(path));
        for (words, v1) in composes() {
            match &project {
                Ok(project) => match compare(&words, v1, &directory, std::slice::from_ref(&file), project) {
                    Ok(()) => same += 1,
                    Err(why) if why.contains(" refuses it: ") => {
                        refused += 1;
                        eprintln!("{}: {}", file.display(), why.lines().take(3).collect::<Vec<_>>().join(" "));
                    }
                    Err(why) => wrong.push(format!("{}: {why}", file.display())),
                },
                Err(e) => wrong.push(format!("{}: {e}", file.display())),
            }
        }
    }
    eprintln!("{same} the same, {refused} that Compose refuses");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Differential: what is read is what Compose prints.
#[test]
fn every_fixture_is_read_as_compose_reads_it() {
    let composes = composes();
    if composes.is_empty() {
        eprintln!("skipped: neither `docker compose` nor `docker-compose` is installed");
        return;
    }
    let (mut compared, mut wrong) = (0, Vec::new());
    for (words, v1) in composes {
        for fixture in fixtures() {
            let lacks = if v1 { &fixture.expected.compose_v1 } else { &fixture.expected.compose_v2 };
            if let Some(lacks) = lacks {
                eprintln!("skipped: {} with {}: {lacks}", fixture.name, words.join(" "));
                continue;
            }
            match compare(&words, v1, &fixture.directory, &fixture.files(), &fixture.project()) {
                Ok(()) => compared += 1,
                Err(why) => wrong.push(format!("{}: {why}", fixture.name)),
            }
        }
    }
    eprintln!("compared {compared} projects");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared >= 15, "only {compared} were compared");
}
