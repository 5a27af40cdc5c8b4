//! Where a service has code, custom nodes and packages. Sources: its command, the image catalogue,
//! a local Dockerfile and entry point, and the names of its mounts.

use std::{cell::RefCell, path::Path};

use crate::images::{
    Code, Family, Starts,
    dockerfile::Dockerfile,
    script::{self, Come, Script},
};
use crate::inside::{self, Unread};
use lockproof_compose::{Service, in_container};
use lockproof_model::{
    path::is_within,
    state::{Owner, State},
};

/// The known facts about a service, and their sources.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The directory with `main.py`.
    pub code_dir: Option<String>,
    /// The directory from which ComfyUI loads custom nodes.
    pub custom_nodes: Option<String>,
    /// The Python interpreter.
    pub python: Option<String>,
    /// The value of `--base-directory`.
    pub base_directory: Option<String>,
    /// The directories where pip installs packages; `None`: unknown.
    pub packages: Option<Vec<String>>,
    /// The volumes that the image declares.
    pub volumes: Vec<String>,
    /// Symbolic links to directories, as (link, target).
    pub links: Vec<(String, String)>,
    /// When the requirements of every custom node are installed.
    pub requirements: Come,
    /// Whether it is documented what a start does.
    knows_start: bool,
    /// Whether the image contains the code at `code_dir`.
    pub code_in_image: bool,
    /// Whether the layout was read; `false` if it was guessed from the names of mounts.
    pub layout_known: bool,
    /// The port in the container.
    pub port: u16,
    /// States whose path is known to vary.
    pub unknown: Vec<State>,
    /// Whether the image contains the login plugin.
    pub baked: bool,
    /// The health check that the image declares.
    pub healthcheck: Vec<String>,
    /// The environment variables of the image, if known.
    pub image_env: Vec<(String, String)>,
    /// What the command and the entry point do.
    pub script: Script,
    /// The entry point script, if it was read.
    pub script_file: Option<ScriptFile>,
    /// Whether the command, entry point or Dockerfile starts ComfyUI.
    pub starts_comfyui: bool,
    /// Whether the Dockerfile installs ComfyUI.
    pub builds_comfyui: bool,
    /// Whether a start continues when an installation fails.
    pub fails_open: bool,
    /// The sources of the facts, for output.
    pub from: Vec<String>,
    /// Descriptions of files that were not read because they are outside the project.
    pub unread: Vec<String>,
}

/// An entry point script beside the compose file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptFile {
    /// Its path.
    pub path: String,
    /// Its content.
    pub text: String,
}

/// Subdirectories that identify ComfyUI's code directory.
const BELOW_CODE: [&str; 8] = ["custom_nodes", "models", "input", "output", "user", "temp", "login", "workflows"];

/// Reads a service. `image` is the engine's metadata of its image, if available.
pub fn of(service: &Service, image: Option<&Dockerfile>) -> Facts {
    let mut facts = Facts { port: 8188, ..Facts::default() };
    let dockerfile = image.cloned().or_else(|| dockerfile(service, &mut facts.unread));
    let variable = |name: &str| {
        let own = service.value(name).map(str::to_owned);
        own.or_else(|| dockerfile.as_ref().and_then(|d| d.variable(name)))
    };
    let family = service
        .image
        .as_ref()
        .and_then(|image| Family::of(&image.text))
        .or_else(|| dockerfile.as_ref().and_then(|d| Family::of(d.from.as_deref()?)))
        .map(|family| family.with(&variable));
    read_start(&mut facts, service, dockerfile.as_ref(), &variable);
    if let Some(dockerfile) = &dockerfile {
        take_dockerfile(&mut facts, dockerfile);
    }
    if let Some(family) = &family {
        take_family(&mut facts, family, service);
    }
    take_mounts(&mut facts, service);
    finish(&mut facts);
    facts
}

/// The Dockerfile of the build, if it is a local file.
fn dockerfile(service: &Service, unread: &mut Vec<String>) -> Option<Dockerfile> {
    let build = service.build.as_ref()?;
    let text = match &build.inline {
        Some(text) => text.clone(),
        None => {
            let name = build.dockerfile.as_deref().unwrap_or("Dockerfile");
            let context = Path::new(&build.context);
            let path = context.join(name);
            // Docker takes one from outside the context; a project has it inside itself.
            let text =
                inside::text(context, &path).or_else(|_| inside::text(&inside::project(&service.directory), &path));
            note(unread, &path, text)?
        }
    };
    Some(Dockerfile::read(&text, &build.args, build.target.as_deref()))
}

/// The text of a file, if it was read. A file outside the project is recorded.
fn note(unread: &mut Vec<String>, path: &Path, text: Result<String, Unread>) -> Option<String> {
    if text == Err(Unread::Outside) {
        let line = format!("{} is outside the project and was not read", path.display());
        if !unread.contains(&line) {
            unread.push(line);
        }
    }
    text.ok()
}

/// The command and entry point of the service or its image, and the scripts that they run.
fn read_start(
    facts: &mut Facts,
    service: &Service,
    dockerfile: Option<&Dockerfile>,
    variable: &dyn Fn(&str) -> Option<String>,
) {
    let words = |own: &Option<lockproof_compose::model::Words>, other: Option<&Vec<String>>| -> Vec<String> {
        own.as_ref().map(|w| w.words.clone()).or_else(|| other.cloned()).unwrap_or_default()
    };
    let entrypoint = words(&service.entrypoint, dockerfile.map(|d| &d.entrypoint));
    // A new entry point resets the image's command.
    let command = words(&service.command, dockerfile.map(|d| &d.command).filter(|_| service.entrypoint.is_none()));
    let workdir =
        service.working_dir.as_ref().map(|w| w.text.clone()).or_else(|| dockerfile.and_then(|d| d.workdir.clone()));
    // The first script that is read is usually the entry point.
    let first = RefCell::new(None);
    let unread = RefCell::new(std::mem::take(&mut facts.unread));
    let file = |path: &str| {
        let file = local_script(service, dockerfile, path, &mut unread.borrow_mut())?;
        first.borrow_mut().get_or_insert_with(|| file.clone());
        Some((file.path, file.text))
    };
    let environment = script::Environment { variable, complete: !service.environment_incomplete, file: &file };
    let words = entrypoint.iter().chain(&command);
    let quoted = words.map(|w| shlex::try_quote(w).map_or_else(|_| w.clone(), std::borrow::Cow::into_owned));
    let mut script = script::read(&quoted.collect::<Vec<_>>().join(" "), workdir.as_deref(), &environment);
    facts.script_file = first.take();
    facts.unread = unread.take();
    match &facts.script_file {
        Some(file) => facts.from.push(from_here(&file.path)),
        // The unknown entry point of an image may do more than the command shows.
        None => script.incomplete |= service.entrypoint.is_none() && !knows_entry_point(service, dockerfile),
    }
    facts.starts_comfyui = script.starts;
    facts.script = script;
}

/// Whether the code that runs before the command is known: none, or a plain wrapper such as tini.
fn knows_entry_point(service: &Service, dockerfile: Option<&Dockerfile>) -> bool {
    let Some(dockerfile) = dockerfile else {
        return service.image.as_ref().is_some_and(|image| Family::is_plain(&image.text));
    };
    match dockerfile.entrypoint.first() {
        Some(first) => {
            let name = first.rsplit('/').next().unwrap_or(first);
            name.starts_with("python") || matches!(name, "tini" | "dumb-init" | "sh" | "bash" | "comfy" | "env")
        }
        None => dockerfile.cloned_to.is_some() || dockerfile.from.as_deref().is_none_or(Family::is_plain),
    }
}

/// A path relative to the current directory, if it is below it.
pub(super) fn from_here(path: &str) -> String {
    if path.contains("://") {
        return path.to_owned();
    }
    let here = std::env::current_dir().unwrap_or_default();
    let plain: std::path::PathBuf = Path::new(path).components().collect();
    plain.strip_prefix(here).unwrap_or(&plain).display().to_string()
}

/// The local file that is the container's script `inside`.
fn local_script(
    service: &Service,
    dockerfile: Option<&Dockerfile>,
    inside: &str,
    unread: &mut Vec<String>,
) -> Option<ScriptFile> {
    let mut read = |root: &Path, path: &Path| {
        let text = note(unread, path, inside::text(root, path))?;
        Some(ScriptFile { path: path.display().to_string(), text })
    };
    if let Some(mount) = service.mount_of(inside)
        && let Some(source) = &mount.source
    {
        let below = inside.strip_prefix(&mount.target).unwrap_or_default().trim_start_matches('/');
        let path = if below.is_empty() { source.into() } else { Path::new(source).join(below) };
        return read(&inside::project(&service.directory), &path);
    }
    let context = &service.build.as_ref()?.context;
    for (from, to) in &dockerfile?.copies {
        if let Some(below) = inside.strip_prefix(to.as_str()) {
            let below = below.trim_start_matches('/');
            let path = inside::in_context(Path::new(context), from);
            let path = if below.is_empty() { path } else { path.join(below) };
            if let Some(file) = read(Path::new(context), &path) {
                return Some(file);
            }
        }
    }
    None
}

fn take_dockerfile(facts: &mut Facts, dockerfile: &Dockerfile) {
    facts.from.push("the Dockerfile".to_owned());
    facts.volumes.extend(dockerfile.volumes.iter().cloned());
    facts.healthcheck = dockerfile.healthcheck.clone();
    facts.image_env = dockerfile.env.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    facts.builds_comfyui = dockerfile.cloned_to.is_some();
    facts.code_in_image = facts.builds_comfyui;
    if facts.script.code_dir.is_none() {
        facts.code_dir = dockerfile.cloned_to.clone();
    }
    // The first Python in `PATH` runs ComfyUI, unless the start command says otherwise.
    let path = dockerfile.env.get("PATH").cloned().unwrap_or_default();
    let first = dockerfile.environments.iter().find(|e| path.contains(&format!("{e}/bin")));
    // A virtual environment outside `PATH` counts if the start command does not say which Python it
    // uses.
    let made = dockerfile.environments.last().filter(|_| !facts.script.plain_python);
    let environment = first.or(made).cloned();
    if facts.script.environment.is_none() && (facts.builds_comfyui || facts.starts_comfyui) {
        facts.packages = Some(environment.into_iter().collect());
    }
}

fn take_family(facts: &mut Facts, family: &Family, service: &Service) {
    let own_command = service.command.is_some() || service.entrypoint.is_some();
    facts.from.push(format!("the catalogue ({})", family.name));
    let layout = &family.layout;
    facts.code_dir = facts.code_dir.take().or_else(|| layout.code_dir.clone());
    facts.custom_nodes = layout.custom_nodes.clone();
    facts.python = layout.python.clone();
    facts.base_directory = layout.base_directory.clone();
    if facts.script.environment.is_none() && !family.packages.is_empty() {
        facts.packages = Some(family.packages.clone());
    }
    for volume in &family.volumes {
        if !facts.volumes.contains(volume) {
            facts.volumes.push(volume.clone());
        }
    }
    facts.links.extend(family.links.iter().map(|(a, b)| (a.clone(), b.clone())));
    facts.code_in_image = family.code == Code::Image && layout.code_dir.is_some();
    facts.unknown.clone_from(&family.unknown);
    facts.port = family.port.unwrap_or(facts.port);
    // A replaced entry point does not do what the image's entry point does.
    if !(own_command && service.entrypoint.is_some()) {
        facts.requirements = match family.starts {
            Starts::Requirements => Come::Always,
            Starts::Keeps => Come::Never,
            Starts::Unknown => Come::Maybe,
        };
        facts.knows_start = true;
        facts.fails_open = family.fails_open;
    }
    facts.layout_known = layout.code_dir.is_some();
}

/// Adds what the targets of the mounts reveal.
fn take_mounts(facts: &mut Facts, service: &Service) {
    if facts.script.code_dir.is_some() || facts.code_dir.is_some() {
        return;
    }
    let mut votes: Vec<(String, usize)> = Vec::new();
    for mount in &service.mounts {
        let parts: Vec<&str> = mount.target.split('/').collect();
        // `/app/ComfyUI/models/checkpoints`: the code directory is above the first such name.
        if let Some(n) = parts.iter().position(|part| BELOW_CODE.contains(part)).filter(|n| *n > 1) {
            let parent = parts[..n].join("/");
            let weight = match parts[n] {
                "custom_nodes" => 6,
                "models" => 2,
                _ => 1,
            };
            let weight = weight + if parent.to_lowercase().contains("comfy") { 4 } else { 0 };
            match votes.iter_mut().find(|(p, _)| *p == parent) {
                Some((_, n)) => *n += weight,
                None => votes.push((parent, weight)),
            }
        }
    }
    let best = votes.into_iter().max_by_key(|(_, n)| *n).filter(|(_, n)| *n >= 2).map(|(parent, _)| parent);
    let mounted = |path: &str| service.mounts.iter().any(|m| is_within(path, &m.target) || is_within(&m.target, path));
    let said = ["COMFYUI_PATH", "COMFYUI_DIR", "COMFYUI_HOME", "COMFY_DIR", "COMFY_PATH"]
        .iter()
        .filter_map(|name| service.value(name).map(in_container))
        .find(|path| path.starts_with('/') && mounted(path));
    let lasting = service.mounts.iter().filter(|m| m.owner() != Owner::Tmpfs);
    let whole = lasting.map(|m| &m.target).find(|target| {
        matches!(target.rsplit('/').next().map(str::to_lowercase).as_deref(), Some("comfyui" | "comfy" | "comfy_ui"))
    });
    if let Some(code_dir) = said.or_else(|| whole.cloned()).or(best) {
        facts.from.push("the paths of its mounts".to_owned());
        facts.code_dir = Some(code_dir);
    }
}

fn finish(facts: &mut Facts) {
    let script = facts.script.clone();
    if let Some(code_dir) = script.code_dir {
        if facts.code_dir.as_deref() != Some(&code_dir) {
            // The catalogue's paths are for another directory.
            facts.custom_nodes = None;
            facts.links.clear();
        }
        facts.code_dir = Some(code_dir);
        facts.layout_known = true;
        if facts.from.is_empty() {
            facts.from.push("its command".to_owned());
        }
    }
    facts.layout_known |= facts.builds_comfyui;
    if let Some(base) = script.base_directory {
        facts.custom_nodes = Some(format!("{base}/custom_nodes"));
        facts.base_directory = Some(base);
    }
    if facts.custom_nodes.is_none() {
        facts.custom_nodes = facts.code_dir.as_ref().map(|code| format!("{code}/custom_nodes"));
    }
    if let Some(environment) = script.environment {
        facts.python = Some(format!("{environment}/bin/python"));
        facts.packages = Some(vec![environment]);
    }
    facts.links.extend(script.links);
    if script.cloned_to.is_some() && script.cloned_to == facts.code_dir {
        facts.code_in_image = false;
    }
    if script.plain_python && !script.incomplete && facts.packages.is_none() {
        // The image's own Python, in `PATH`.
        facts.packages = Some(Vec::new());
    }
    if !facts.knows_start && (script.incomplete || !script.starts) {
        facts.requirements = Come::Maybe;
    }
    let nodes = facts.custom_nodes.as_deref().map(|nodes| facts.real(nodes));
    let here =
        |root: &Option<String>| root.is_none() || nodes.is_none() || root.as_deref().map(|r| facts.real(r)) == nodes;
    let best = script.requirements.iter().filter(|(root, _)| here(root)).map(|(_, when)| when.clone()).max();
    if let Some(best) = best.filter(|best| *best > facts.requirements || facts.requirements == Come::Maybe) {
        facts.requirements = best;
    }
    facts.fails_open |= script.swallowed.is_some();
    facts.port = script.port.unwrap_or(facts.port);
}

impl Facts {
    /// Resolves the links that the entry point creates.
    pub fn real(&self, path: &str) -> String {
        match self.links.iter().find(|(from, _)| is_within(path, from)) {
            Some((from, to)) => format!("{to}{}", path.strip_prefix(from.as_str()).unwrap_or_default()),
            None => path.to_owned(),
        }
    }
}
