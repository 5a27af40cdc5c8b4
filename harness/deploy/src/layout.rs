//! Detects paths in the running container, so that a subject needs no `layout:`.
//!
//! | what | source |
//! |---|---|
//! | code directory | the process with a `main.py` argument, and its working directory |
//! | Python | `argv[0]` of that process, resolved in its `PATH`; the link `/proc/…/exe` would be the system's Python behind a venv |
//! | custom_nodes | `/internal/folder_paths` while the server is open; else `--base-directory`, `extra_model_paths.yaml`, and the code directory |

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::{deployment::Deployment, engine::exec::Command};
use lockproof_model::{
    config::LayoutEntry,
    error::{Error, Result},
    path::normalise,
};
use lockproof_probe::{client::Client, message::Request};

/// The paths inside the subject, and the user of its process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// ComfyUI's code directory.
    pub code_dir: String,
    /// The directories from which custom nodes are loaded, in order.
    pub custom_nodes: Vec<String>,
    /// The Python interpreter.
    pub python: String,
    /// The user and group id of the process.
    pub ids: (u64, u64),
}

impl Layout {
    /// The layout of a container that runs a proxy instead of ComfyUI.
    pub fn of_a_front() -> Self {
        Self { code_dir: String::new(), custom_nodes: Vec::new(), python: String::new(), ids: (0, 0) }
    }

    /// Whether the lock's installation is the same in both layouts; an open server reports
    /// additional custom node directories.
    pub fn installs_alike(&self, other: &Self) -> bool {
        let parts = |l: &Self| (l.code_dir.clone(), l.custom_nodes_dir().to_owned(), l.python.clone(), l.ids);
        parts(self) == parts(other)
    }

    /// The directory to install a custom node into.
    pub fn custom_nodes_dir(&self) -> &str {
        self.custom_nodes.first().map_or("", String::as_str)
    }
}

/// One process in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    id: u32,
    cwd: String,
    arguments: Vec<String>,
    path: String,
    ids: (u64, u64),
}

/// Lists processes, one per line: id, working directory, PATH, uid, gid and arguments, separated by
/// control characters.
const LIST_PROCESSES: &str = r#"
for d in /proc/[0-9]*; do
  p=${d#/proc/}
  [ "$p" = "$$" ] && continue
  a=$(tr '\000\n' '\037 ' < "$d/cmdline" 2>/dev/null)
  [ -n "$a" ] || continue
  c=$(readlink "$d/cwd" 2>/dev/null)
  s=$(tr '\000' '\n' < "$d/environ" 2>/dev/null | sed -n 's/^PATH=//p' | head -n 1)
  u=$(sed -n 's/^Uid:[^0-9]*\([0-9]*\).*/\1/p' "$d/status" 2>/dev/null)
  g=$(sed -n 's/^Gid:[^0-9]*\([0-9]*\).*/\1/p' "$d/status" 2>/dev/null)
  printf '%s\036%s\036%s\036%s\036%s\036%s\n' "$p" "$c" "$s" "$u" "$g" "$a"
done
"#;

/// Detects the layout of a running subject; configured paths are used as given.
///
/// # Errors
/// An undecided error with what to configure, if a path is not found.
pub async fn detect(deployment: &Deployment, client: &Client) -> Result<Layout> {
    if deployment.subject.lock.scheme.in_front() {
        return Ok(Layout::of_a_front());
    }
    let given = &deployment.subject.layout;
    let processes = processes(deployment).await?;
    let server = find_server(deployment, &processes, given).await?;
    let code_dir = match (&given.code_dir, server) {
        (Some(dir), _) => normalise(dir),
        (None, Some((_, dir))) => dir.clone(),
        (None, None) => return Err(not_found("ComfyUI's code directory", "code_dir: /opt/ComfyUI", &processes)),
    };
    let process = server_process(&processes, &code_dir);
    let python = match (&given.python, process) {
        (Some(python), _) => normalise(python),
        (None, Some(process)) => match interpreter(deployment, process).await? {
            Some(python) => python,
            None => return Err(not_found("the Python that runs ComfyUI", "python: /opt/venv/bin/python", &processes)),
        },
        (None, None) => {
            return Err(not_found("the Python that runs ComfyUI", "python: /opt/venv/bin/python", &processes));
        }
    };
    let custom_nodes = match &given.custom_nodes {
        Some(dir) => vec![normalise(dir)],
        None => custom_nodes(deployment, client, process, &code_dir).await?,
    };
    Ok(Layout { code_dir, custom_nodes, python, ids: process.map_or((0, 0), |p| p.ids) })
}

/// The layout of a container that is created but not started, from its command, environment and
/// files; `None` if only the running container shows it, for example behind a start script.
///
/// # Errors
/// An environment error if the engine does not answer.
pub async fn foresee(deployment: &Deployment) -> Result<Option<Layout>> {
    let given = &deployment.subject.layout;
    let Some(process) = Process::foreseen(deployment) else { return Ok(None) };
    let processes = [process];
    let Some((process, code_dir)) = find_server(deployment, &processes, given).await? else { return Ok(None) };
    let python = match &given.python {
        Some(python) => normalise(python),
        None => match interpreter(deployment, process).await? {
            Some(python) => python,
            None => return Ok(None),
        },
    };
    let custom_nodes = match &given.custom_nodes {
        Some(dir) => vec![normalise(dir)],
        None => configured_custom_nodes(deployment, Some(process), &code_dir).await?,
    };
    Ok(Some(Layout { code_dir, custom_nodes, python, ids: process.ids }))
}

fn not_found(what: &str, example: &str, processes: &[Process]) -> Error {
    let mut error = Error::undecided(format!("{what} not found in the running container"));
    for process in processes.iter().take(8) {
        error = error.detail(format!("process: {} (in {})", process.arguments.join(" "), process.cwd));
    }
    error.fix(format!("set it on the subject: layout: {{ {example} }}"))
}

async fn processes(deployment: &Deployment) -> Result<Vec<Process>> {
    let mut found = processes_as(deployment, "0").await?;
    // Root in a container sees another user's arguments, but not its directory and environment:
    // these need that user.
    let hidden: BTreeSet<(u64, u64)> = found.iter().filter(|p| p.cwd.is_empty()).map(|p| p.ids).collect();
    for ids in hidden {
        let seen = processes_as(deployment, &format!("{}:{}", ids.0, ids.1)).await?;
        for process in found.iter_mut().filter(|p| p.cwd.is_empty()) {
            if let Some(full) = seen.iter().find(|p| p.id == process.id && !p.cwd.is_empty()) {
                *process = full.clone();
            }
        }
    }
    Ok(found)
}

async fn processes_as(deployment: &Deployment, user: &str) -> Result<Vec<Process>> {
    let command = Command::new(["sh", "-c", LIST_PROCESSES]).user(user);
    let output = deployment.engine.exec(&deployment.container_id(), command).await?;
    Ok(parse_processes(&output.stdout))
}

fn parse_processes(text: &str) -> Vec<Process> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(6, '\u{1e}');
            let id = fields.next()?.parse().unwrap_or(0);
            let cwd = fields.next()?.to_owned();
            let path = fields.next()?.to_owned();
            let uid = fields.next()?.parse().unwrap_or(0);
            let gid = fields.next()?.parse().unwrap_or(0);
            let arguments = fields.next()?.split('\u{1f}').filter(|a| !a.is_empty()).map(str::to_owned).collect();
            Some(Process { id, cwd, arguments, path, ids: (uid, gid) })
        })
        .collect()
}

impl Process {
    /// The process that a container will run, if its command is Python itself.
    fn foreseen(deployment: &Deployment) -> Option<Self> {
        /// The engine's default, if the image sets none.
        const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let (subject, facts) = (&deployment.subject, deployment.image_facts());
        let arguments = match (&subject.entrypoint, &subject.command) {
            // A replaced entry point resets the image's command.
            (Some(entrypoint), command) => [entrypoint.as_slice(), command.as_deref().unwrap_or_default()].concat(),
            (None, Some(command)) => [facts.entrypoint.as_slice(), command.as_slice()].concat(),
            (None, None) => facts.command.clone(),
        };
        let program = arguments.first()?.rsplit('/').next()?;
        let user = subject.user.as_deref().unwrap_or(&facts.user);
        let ids = match user {
            "" | "root" | "0" => (0, 0),
            other => {
                let (user, group) = other.split_once(':')?;
                (user.parse().ok()?, group.parse().ok()?)
            }
        };
        program.starts_with("python").then(|| Self {
            id: 0,
            cwd: subject.working_dir.clone().unwrap_or_else(|| facts.working_dir.clone()),
            path: deployment.env("PATH").unwrap_or(PATH).to_owned(),
            arguments,
            ids,
        })
    }

    /// The script that it runs, as an absolute path: the first argument that ends in `main.py`.
    fn script(&self) -> Option<String> {
        let script = self.arguments.iter().skip(1).find(|a| *a == "main.py" || a.ends_with("/main.py"))?;
        Some(self.absolute(script))
    }

    fn absolute(&self, path: &str) -> String {
        if path.starts_with('/') { normalise(path) } else { normalise(&format!("{}/{path}", self.cwd)) }
    }

    /// The value of an option, written as `--name value` or `--name=value`.
    fn option(&self, name: &str) -> Option<&str> {
        self.options(name).into_iter().last()
    }

    /// The values of an option that is repeated or has several values.
    fn options(&self, name: &str) -> Vec<&str> {
        let mut values = Vec::new();
        let mut taking = false;
        for argument in &self.arguments {
            if let Some(value) = argument.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
                values.push(value);
                taking = false;
            } else if argument == name {
                taking = true;
            } else if argument.starts_with("--") {
                taking = false;
            } else if taking {
                values.push(argument.as_str());
            }
        }
        values
    }
}

/// The process that runs ComfyUI, and its code directory: its `main.py` is beside a
/// `folder_paths.py`, unlike that of other programs.
async fn find_server<'p>(
    deployment: &Deployment,
    processes: &'p [Process],
    given: &LayoutEntry,
) -> Result<Option<(&'p Process, String)>> {
    let candidates: Vec<(&Process, String)> = processes
        .iter()
        .filter_map(|p| Some((p, parent(&p.script()?).to_owned())))
        .filter(|(_, dir)| given.code_dir.as_ref().is_none_or(|g| normalise(g) == *dir))
        .collect();
    for (process, dir) in &candidates {
        if deployment.exists(&format!("{dir}/folder_paths.py")).await? {
            return Ok(Some((process, dir.clone())));
        }
    }
    Ok(None)
}

fn server_process<'p>(processes: &'p [Process], code_dir: &str) -> Option<&'p Process> {
    let mut running = processes.iter().filter(|p| p.script().is_some_and(|s| parent(&s) == code_dir));
    // A shell that started it (`sh -c "python main.py …"`) also has the argument; Python comes
    // last.
    running
        .clone()
        .find(|p| p.arguments[0].rsplit('/').next().is_some_and(|n| n.starts_with("python")))
        .or_else(|| running.next())
}

async fn interpreter(deployment: &Deployment, process: &Process) -> Result<Option<String>> {
    let Some(name) = process.arguments.first() else { return Ok(None) };
    if name.contains('/') {
        return Ok(Some(process.absolute(name)));
    }
    for dir in process.path.split(':').filter(|d| !d.is_empty()) {
        let candidate = normalise(&format!("{dir}/{name}"));
        if deployment.exists(&candidate).await? {
            return Ok(Some(candidate));
        }
    }
    Ok(None)
}

async fn custom_nodes(
    deployment: &Deployment,
    client: &Client,
    process: Option<&Process>,
    code_dir: &str,
) -> Result<Vec<String>> {
    match asked(client).await {
        Some(paths) => Ok(paths),
        None => configured_custom_nodes(deployment, process, code_dir).await,
    }
}

/// The custom_nodes paths from arguments and files.
async fn configured_custom_nodes(
    deployment: &Deployment,
    process: Option<&Process>,
    code_dir: &str,
) -> Result<Vec<String>> {
    let base =
        process.and_then(|p| Some(p.absolute(p.option("--base-directory")?))).unwrap_or_else(|| code_dir.to_owned());
    let mut found = vec![format!("{base}/custom_nodes")];
    let mut files = vec![format!("{code_dir}/extra_model_paths.yaml")];
    if let Some(process) = process {
        files.extend(process.options("--extra-model-paths-config").iter().map(|f| process.absolute(f)));
    }
    for file in files {
        if let Some(bytes) = deployment.read_file(&file).await? {
            let text = String::from_utf8_lossy(&bytes);
            for (path, first) in extra_custom_nodes(&text, parent(&file)) {
                if first { found.insert(0, path) } else { found.push(path) }
            }
        }
    }
    Ok(found)
}

/// The paths reported by an open server; a locked one does not report them.
async fn asked(client: &Client) -> Option<Vec<String>> {
    let answer = client.send(&Request::get("/internal/folder_paths")).await.ok()?;
    if !answer.status.is_success() {
        return None;
    }
    let paths: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
    let listed = paths.get("custom_nodes")?.as_array()?;
    let found: Vec<String> = listed.iter().filter_map(|p| p.as_str().map(normalise)).collect();
    (!found.is_empty()).then_some(found)
}

/// The custom_nodes paths of an `extra_model_paths.yaml`, each with its `is_default`. Relative
/// paths are resolved against `base_path` or the file's directory.
fn extra_custom_nodes(text: &str, directory: &str) -> Vec<(String, bool)> {
    #[derive(Deserialize)]
    struct Section {
        base_path: Option<String>,
        custom_nodes: Option<String>,
        #[serde(default)]
        is_default: bool,
    }
    let Ok(sections) = serde_yaml::from_str::<std::collections::BTreeMap<String, Section>>(text) else {
        return Vec::new();
    };
    let join = |base: &str, path: &str| {
        if path.starts_with('/') { normalise(path) } else { normalise(&format!("{base}/{path}")) }
    };
    sections
        .into_values()
        .flat_map(|section| {
            let base = section.base_path.map_or_else(|| directory.to_owned(), |b| join(directory, &b));
            let paths = section.custom_nodes.unwrap_or_default();
            paths
                .lines()
                .map(str::trim)
                .filter(|p| !p.is_empty())
                .map(|p| (join(&base, p), section.is_default))
                .collect::<Vec<_>>()
        })
        .collect()
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(arguments: &[&str]) -> Process {
        Process {
            id: 1,
            cwd: "/opt/ComfyUI".into(),
            arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
            path: "/opt/venv/bin:/usr/bin".into(),
            ids: (0, 0),
        }
    }

    #[test]
    fn the_process_table_is_read_back() {
        let text =
            "7\u{1e}/opt/ComfyUI\u{1e}/opt/venv/bin\u{1e}1000\u{1e}1000\u{1e}python\u{1f}main.py\u{1f}--cpu\u{1f}\n";
        let found = parse_processes(text);
        assert_eq!(found[0].arguments, ["python", "main.py", "--cpu"]);
        assert_eq!(found[0].script().as_deref(), Some("/opt/ComfyUI/main.py"));
        assert_eq!(found[0].ids, (1000, 1000));
        assert_eq!(found[0].id, 7);
    }

    #[test]
    fn a_script_may_be_relative_or_absolute() {
        assert_eq!(process(&["python3", "app/main.py"]).script().as_deref(), Some("/opt/ComfyUI/app/main.py"));
        assert_eq!(process(&["python3", "/x/../app/main.py"]).script().as_deref(), Some("/app/main.py"));
        assert_eq!(process(&["bash", "start.sh"]).script(), None);
    }

    #[test]
    fn options_are_read_in_both_spellings() {
        let p = process(&[
            "python",
            "main.py",
            "--base-directory=/data",
            "--extra-model-paths-config",
            "a.yaml",
            "b.yaml",
            "--cpu",
        ]);
        assert_eq!(p.option("--base-directory"), Some("/data"));
        assert_eq!(p.options("--extra-model-paths-config"), ["a.yaml", "b.yaml"]);
    }

    #[test]
    fn the_interpreter_s_process_is_preferred_to_the_shell_that_started_it() {
        let table = [process(&["sh", "/opt/ComfyUI/main.py"]), process(&["/opt/venv/bin/python3", "main.py"])];
        let found = server_process(&table, "/opt/ComfyUI").map(|p| p.arguments[0].as_str());
        assert_eq!(found, Some("/opt/venv/bin/python3"));
    }

    #[test]
    fn extra_model_paths_may_hold_custom_nodes() {
        let text = "a:\n  base_path: /data\n  custom_nodes: nodes\nb:\n  is_default: true\n  custom_nodes: |\n    /x/one\n    two\n";
        assert_eq!(
            extra_custom_nodes(text, "/opt/ComfyUI"),
            [("/data/nodes".to_owned(), false), ("/x/one".to_owned(), true), ("/opt/ComfyUI/two".to_owned(), true),]
        );
    }
}
