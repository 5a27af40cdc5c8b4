//! How a lock gets into a subject: its plugin by copy or by the deployment's own script, and its
//! dependencies with the subject's own Python.

pub mod ahead;
pub mod carry;
pub mod check;
mod front;
pub mod source;

use std::path::Path;

use globset::{Glob, GlobSet, GlobSetBuilder};

use source::Fetched;

use crate::{
    deployment::Deployment,
    engine::{
        archive::{Owners, Ownership, Tarball, unreadable},
        exec::{Command, Output},
    },
    layout::Layout,
    pip,
    subject::Install,
};
use lockproof_model::{
    error::{Error, Result},
    path::normalise,
    scheme::Scheme,
};

/// Where a script of the deployment finds what lockproof lends it.
const STAGE: &str = "/tmp/lockproof-install";

/// Where the lock's plugin is, once it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The plugin's directory in the container.
    pub plugin_dir: String,
    /// The files in it that list its Python dependencies.
    pub requirements: Vec<String>,
    /// The credential's file, where a configuration in the container names it; else empty.
    pub found: String,
}

impl Installed {
    /// Fills in the names of a scheme's path; empty, where it needs a file that was not found.
    pub fn fill(&self, pattern: &str, layout: &Layout) -> String {
        if pattern.contains("{found}") && self.found.is_empty() {
            return String::new();
        }
        check::fill(pattern, layout, &self.plugin_dir).replace("{found}", &self.found)
    }
}

/// Installs the lock, and tells where it is. It takes effect at the next start.
///
/// # Errors
/// An undecided error when the installation fails, with what it printed.
pub async fn install(deployment: &Deployment, layout: &Layout) -> Result<Installed> {
    let lock = &deployment.subject.lock;
    if lock.scheme.in_front() {
        let found = front::credential_file(deployment).await?.unwrap_or_default();
        return Ok(Installed { plugin_dir: String::new(), requirements: Vec::new(), found });
    }
    if let Some(install) = &lock.install {
        match &install.script {
            Some(script) => run_script(deployment, layout, install, script).await?,
            None => copy(deployment, layout, install).await?,
        }
    }
    find(deployment, layout).await?.ok_or_else(|| {
        let looked = search_path(deployment, layout).join(", ");
        let script = lock.install.as_ref().is_some_and(|i| i.script.is_some());
        let fix = if script {
            "the script ended with 0, but put no plugin there; say with `into:` where it puts it"
        } else if lock.install.is_some() {
            "say with `into:` where the plugin goes"
        } else {
            "the deployment was expected to bring its lock; say with `install: { from: … }` what to install, \
             or with `into:` where it lies"
        };
        Error::undecided(format!("no login plugin is found below {looked}")).fix(fix)
    })
}

/// The plugin's directory, if there is one: the name of the source, or a name by which the scheme
/// knows it.
///
/// # Errors
/// An environment error when the container cannot be read.
pub async fn find(deployment: &Deployment, layout: &Layout) -> Result<Option<Installed>> {
    let lock = &deployment.subject.lock;
    let named = lock.install.as_ref().and_then(|i| i.from.as_ref()).map(source::name);
    for directory in search_path(deployment, layout) {
        for name in plugin_names(deployment, &directory, &lock.scheme, named.as_deref()).await? {
            let plugin_dir = format!("{directory}/{name}");
            if exists(deployment, &format!("{plugin_dir}/{}", lock.scheme.plugin.entry)).await? {
                let mut requirements = Vec::new();
                for file in &lock.scheme.plugin.requirements {
                    let path = format!("{plugin_dir}/{file}");
                    if exists(deployment, &path).await? {
                        requirements.push(path);
                    }
                }
                return Ok(Some(Installed { plugin_dir, requirements, found: String::new() }));
            }
        }
    }
    Ok(None)
}

/// Where the plugin may lie: where the file says, then wherever ComfyUI loads custom nodes from.
fn search_path(deployment: &Deployment, layout: &Layout) -> Vec<String> {
    let asked = deployment.subject.lock.install.as_ref().and_then(|i| i.into.as_deref()).map(normalise);
    asked.into_iter().chain(layout.custom_nodes.iter().cloned()).collect()
}

async fn exists(deployment: &Deployment, path: &str) -> Result<bool> {
    deployment.exists(path).await
}

/// Names of directories below `directory` that may be the plugin, the likeliest first.
async fn plugin_names(
    deployment: &Deployment,
    directory: &str,
    scheme: &Scheme,
    named: Option<&str>,
) -> Result<Vec<String>> {
    if let Some(name) = named {
        return Ok(vec![name.to_owned()]);
    }
    let script = format!("ls -1 {} 2>/dev/null", shlex::try_quote(directory).unwrap_or_default());
    let command = Command::new(["sh", "-c", &script]).user("0");
    let listed = deployment.engine.exec(&deployment.container_id(), command).await?.stdout;
    let mut names = Vec::new();
    for pattern in &scheme.plugin.names {
        let Ok(glob) = Glob::new(&pattern.to_lowercase()) else { continue };
        let glob = glob.compile_matcher();
        for name in listed.lines() {
            let lower = name.to_lowercase();
            // ComfyUI itself leaves these out.
            let disabled = lower.ends_with(".disabled") || lower == "__pycache__";
            if glob.is_match(&lower) && !disabled && !names.iter().any(|n| n == name) {
                names.push(name.to_owned());
            }
        }
    }
    Ok(names)
}

async fn copy(deployment: &Deployment, layout: &Layout, install: &Install) -> Result<()> {
    let Some(from) = &install.from else { return Ok(()) };
    let fetched = source::fetch(from, &deployment.subject.lock.scheme).await?;
    let into = plugin_parent(install, layout);
    make_directory(deployment, &into).await?;
    copy_plugin(deployment, layout, &into, &fetched).await?;
    let plugin_dir = format!("{into}/{}", fetched.name);
    for file in &deployment.subject.lock.scheme.plugin.requirements {
        let path = format!("{plugin_dir}/{file}");
        if exists(deployment, &path).await? {
            install_requirements(Place::Subject(deployment), &layout.python, install, &path).await?;
        }
    }
    Ok(())
}

/// The directory that the plugin's own directory goes into.
fn plugin_parent(install: &Install, layout: &Layout) -> String {
    install.into.as_deref().map_or_else(|| layout.custom_nodes_dir().to_owned(), normalise)
}

/// Copies the plugin into a directory of the container, which need not run.
async fn copy_plugin(deployment: &Deployment, layout: &Layout, into: &str, fetched: &Fetched) -> Result<()> {
    let owner = Ownership { uid: layout.ids.0, gid: layout.ids.1 };
    let volatile = globs(&deployment.subject.lock.scheme.plugin.volatile);
    let archive = archive_of(&fetched.path, &fetched.name, owner, &volatile)?;
    deployment.upload(into, archive).await.map_err(|e| {
        Error::undecided(format!("the plugin cannot be written to {into}"))
            .at(format!("subject `{}`", deployment.subject.name))
            .detail(e.one_line())
            .fix("a lock cannot be installed on a read-only mount: mount it writable, or bake the lock into the image")
    })
}

/// `mkdir -p`, as the user that the container runs commands as.
async fn make_directory(deployment: &Deployment, path: &str) -> Result<()> {
    let command = Command::new(["mkdir", "-p", path]);
    let output = deployment.engine.exec(&deployment.container_id(), command).await?;
    if output.ok() {
        return Ok(());
    }
    Err(Error::undecided(format!("{path} cannot be made in the container"))
        .at(format!("subject `{}`", deployment.subject.name))
        .detail(output.tail(3))
        .fix("mount it writable for the user that the container runs as, or give another directory with `into:`"))
}

fn archive_of(path: &Path, name: &str, owner: Ownership, skip: &GlobSet) -> Result<bytes::Bytes> {
    let mut tarball = Tarball::new();
    tarball
        .tree(path, name, Owners::All(owner), &|name| skip.is_match(name))
        .and_then(|()| tarball.finish())
        .map_err(|e| unreadable(path, &e))
}

/// The globs of a scheme; one that is none matches nothing.
pub fn globs(patterns: &[String]) -> GlobSet {
    let mut set = GlobSetBuilder::new();
    for glob in patterns.iter().filter_map(|p| Glob::new(p).ok()) {
        set.add(glob);
    }
    set.build().unwrap_or_else(|_| GlobSet::empty())
}

/// The container in which pip runs.
#[derive(Clone, Copy)]
enum Place<'a> {
    /// The subject's own.
    Subject(&'a Deployment),
    /// A throw-away one of the subject's image, without its mounts.
    Apart(&'a Deployment, &'a str),
}

impl Place<'_> {
    fn deployment(&self) -> &Deployment {
        match self {
            Self::Subject(deployment) | Self::Apart(deployment, _) => deployment,
        }
    }

    fn container(&self) -> String {
        match self {
            Self::Subject(deployment) => deployment.container_id(),
            Self::Apart(_, container) => (*container).to_owned(),
        }
    }

    async fn exec(&self, command: Command) -> Result<Output> {
        self.deployment().engine.exec(&self.container(), command).await
    }

    async fn upload(&self, directory: &str, archive: bytes::Bytes) -> Result<()> {
        match self {
            Self::Subject(deployment) => deployment.upload(directory, archive).await,
            Self::Apart(deployment, container) => deployment.engine.upload(container, directory, archive).await,
        }
    }
}

/// Installs what a requirements file lists, with the subject's own Python and as its own user.
async fn install_requirements(place: Place<'_>, python: &str, install: &Install, file: &str) -> Result<()> {
    let settings = pip::Settings::of_this_machine();
    // Compiling everything takes half of pip's time; what is imported is compiled at the first start.
    let mut arguments = vec!["install", "--no-input", "--disable-pip-version-check", "--no-compile", "-r", file];
    let wheels = format!("{STAGE}/wheels");
    if let Some(directory) = &install.wheels {
        stage(place, directory, "wheels").await?;
        arguments.extend(["--no-index", "--find-links", &wheels]);
    } else if let Some((directory, archive)) = settings.certificates()? {
        place.upload(directory, archive).await?;
    }
    let mut user = None;
    let mut output = run_pip(place, python, &settings, &arguments, user).await?;
    if !output.ok() && output.stderr.contains("externally-managed-environment") {
        // The system's own Python, without a virtual environment: what its users do then.
        arguments.push("--break-system-packages");
        output = run_pip(place, python, &settings, &arguments, user).await?;
    }
    if !output.ok() && output.stderr.contains("Permission denied") {
        // The process runs as a user that may not install: whoever deploys it does.
        user = Some("0");
        output = run_pip(place, python, &settings, &arguments, user).await?;
    }
    clean_stage(place, &settings).await?;
    if output.ok() {
        return Ok(());
    }
    Err(Error::undecided("the lock's Python dependencies cannot be installed")
        .at(format!("subject `{}`, {python} -m pip {}", place.deployment().subject.name, arguments.join(" ")))
        .detail(output.tail(8))
        .fix(
            "where the container does not reach an index, give the wheels: install: { wheels: ./wheels };\n\
             behind a proxy that intercepts TLS, set PIP_CERT to the bundle of its certificates",
        ))
}

async fn run_pip(
    place: Place<'_>,
    python: &str,
    settings: &pip::Settings,
    arguments: &[&str],
    user: Option<&str>,
) -> Result<Output> {
    let words = [python, "-m", "pip"].into_iter().chain(arguments.iter().copied());
    let mut command = Command::new(words);
    if let Some(user) = user {
        command = command.user(user);
    }
    for (name, value) in settings.pairs() {
        command = command.env(&name, &value);
    }
    place.exec(command).await
}

/// Lends a directory of this machine to the container, below [`STAGE`].
async fn stage(place: Place<'_>, directory: &Path, name: &str) -> Result<()> {
    let stage = STAGE.trim_start_matches("/tmp/");
    let mut tarball = Tarball::new();
    let archive = tarball
        .directory(stage, 0o755, Ownership::ROOT)
        .and_then(|()| tarball.tree(directory, &format!("{stage}/{name}"), Owners::Lent, &|n| n == "__pycache__"))
        .and_then(|()| tarball.finish())
        .map_err(|e| unreadable(directory, &e))?;
    place.upload("/tmp", archive).await
}

/// Lends a text to the container, below [`STAGE`], and gives its path there.
async fn stage_text(place: Place<'_>, name: &str, text: &str) -> Result<String> {
    let stage = STAGE.trim_start_matches("/tmp/");
    let mut tarball = Tarball::new();
    let archive = tarball
        .directory(stage, 0o755, Ownership::ROOT)
        .and_then(|()| tarball.file(&format!("{stage}/{name}"), text.as_bytes(), 0o644, Ownership::ROOT))
        .and_then(|()| tarball.finish())
        .map_err(|e| unreadable(Path::new(name), &e))?;
    place.upload("/tmp", archive).await?;
    Ok(format!("{STAGE}/{name}"))
}

/// Takes back what was lent: it must not be taken for a part of the installation.
async fn clean_stage(place: Place<'_>, settings: &pip::Settings) -> Result<()> {
    let command = Command::new(["rm", "-rf", STAGE, &settings.bundle_in_container()]).user("0");
    place.exec(command).await.map(|_| ())
}

/// Runs the deployment's own install script in the container.
///
/// | variable | is |
/// |---|---|
/// | `COMFYUI_WORKSPACE_PATH` | the container's own, or this machine's; unset when neither has it |
/// | `LOCKPROOF_PLUGIN` | the plugin's directory, lent for the script |
/// | `LOCKPROOF_WHEELS` | the directory of wheels, where one is given |
/// | `LOCKPROOF_PYTHON` | the subject's Python |
/// | `LOCKPROOF_CUSTOM_NODES` | where ComfyUI loads custom nodes from |
async fn run_script(deployment: &Deployment, layout: &Layout, install: &Install, script: &Path) -> Result<()> {
    let place = Place::Subject(deployment);
    let text =
        lockproof_model::read::bytes(script, lockproof_model::read::SHORT).map_err(|e| unreadable(script, &e))?;
    let mut tarball = Tarball::new();
    let stage_name = STAGE.trim_start_matches("/tmp/");
    let archive = tarball
        .directory(stage_name, 0o755, Ownership::ROOT)
        .and_then(|()| tarball.file(&format!("{stage_name}/install.sh"), &text, 0o755, Ownership::ROOT))
        .and_then(|()| tarball.finish())
        .map_err(|e| unreadable(script, &e))?;
    deployment.upload("/tmp", archive).await?;

    let settings = pip::Settings::of_this_machine();
    let mut command = Command::new([interpreter(&text), format!("{STAGE}/install.sh")])
        .directory(&layout.code_dir)
        .env("LOCKPROOF_PYTHON", &layout.python)
        .env("LOCKPROOF_CUSTOM_NODES", layout.custom_nodes_dir());
    for (name, value) in settings.pairs() {
        command = command.env(&name, &value);
    }
    if let Some(workspace) = check::workspace(deployment) {
        command = command.env(check::WORKSPACE, &workspace);
    }
    if let Some(from) = &install.from {
        let fetched = source::fetch(from, &deployment.subject.lock.scheme).await?;
        stage(place, &fetched.path, &fetched.name).await?;
        command = command.env("LOCKPROOF_PLUGIN", &format!("{STAGE}/{}", fetched.name));
    }
    if let Some(wheels) = &install.wheels {
        stage(place, wheels, "wheels").await?;
        command = command.env("LOCKPROOF_WHEELS", &format!("{STAGE}/wheels"));
    } else if let Some((directory, archive)) = settings.certificates()? {
        deployment.upload(directory, archive).await?;
    }
    let output = deployment.engine.exec(&deployment.container_id(), command).await?;
    clean_stage(place, &settings).await?;
    if output.ok() {
        return Ok(());
    }
    Err(Error::undecided(format!("the install script ended with {}", output.code))
        .at(format!("subject `{}`, {}", deployment.subject.name, script.display()))
        .detail(output.tail(12))
        .fix(format!(
            "correct the script, or what it needs; it runs in the container with {} and the variables that \
             `lockproof gate --help` lists",
            check::WORKSPACE
        )))
}

/// The shell that a script asks for in its first line; `sh` when it asks for nothing.
///
/// The script is given to it as an argument, because the directory that it is lent in may be
/// mounted without the right to execute.
fn interpreter(script: &[u8]) -> String {
    let first = script.split(|b| *b == b'\n').next().unwrap_or_default();
    let first = String::from_utf8_lossy(first);
    let asked = first.strip_prefix("#!").unwrap_or_default();
    let words: Vec<&str> = asked.split_whitespace().collect();
    match words.as_slice() {
        [env, name, ..] if env.ends_with("/env") => (*name).to_owned(),
        [path, ..] => (*path).to_owned(),
        [] => "sh".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_s_first_line_names_its_interpreter() {
        assert_eq!(interpreter(b"#!/usr/bin/env bash\nset -e"), "bash");
        assert_eq!(interpreter(b"#!/bin/sh -e\n"), "/bin/sh");
        assert_eq!(interpreter(b"echo hello"), "sh");
    }
}
