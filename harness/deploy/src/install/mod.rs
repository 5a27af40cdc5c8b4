//! Installs a lock in a subject: its plugin by copying or with the deployment's script, and its
//! dependencies with the subject's Python.

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

/// The directory in the container with the files for an install script.
const STAGE: &str = "/tmp/lockproof-install";

/// The paths of an installed plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The plugin's directory in the container.
    pub plugin_dir: String,
    /// Its files that list Python dependencies.
    pub requirements: Vec<String>,
    /// The credential file, if a configuration in the container names it; else empty.
    pub found: String,
}

impl Installed {
    /// Fills in the placeholders of a scheme's path; empty if it needs a file that was not found.
    pub fn fill(&self, pattern: &str, layout: &Layout) -> String {
        if pattern.contains("{found}") && self.found.is_empty() {
            return String::new();
        }
        check::fill(pattern, layout, &self.plugin_dir).replace("{found}", &self.found)
    }
}

/// Installs the lock, and returns its paths. It takes effect at the next start.
///
/// # Errors
/// An undecided error with the output, if the installation fails.
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
            "the script succeeded but installed no plugin there; set the plugin's directory with `into:`"
        } else if lock.install.is_some() {
            "set the plugin's directory with `into:`"
        } else {
            "without `install`, the deployment must contain its lock; set the plugin with `install: { from: \
            … }`, or its directory with `into:`"
        };
        Error::undecided(format!("no login plugin found below {looked}")).fix(fix)
    })
}

/// The plugin's directory, if found: by the name of its source, or a name in the scheme.
///
/// # Errors
/// An environment error if the container cannot be read.
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

/// The possible parents of the plugin's directory: the configured one, then those from which
/// ComfyUI loads custom nodes.
fn search_path(deployment: &Deployment, layout: &Layout) -> Vec<String> {
    let asked = deployment.subject.lock.install.as_ref().and_then(|i| i.into.as_deref()).map(normalise);
    asked.into_iter().chain(layout.custom_nodes.iter().cloned()).collect()
}

async fn exists(deployment: &Deployment, path: &str) -> Result<bool> {
    deployment.exists(path).await
}

/// Directory names below `directory` that may be the plugin, the most likely first.
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
            // ComfyUI ignores these too.
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

/// The directory into which the plugin's directory is installed.
fn plugin_parent(install: &Install, layout: &Layout) -> String {
    install.into.as_deref().map_or_else(|| layout.custom_nodes_dir().to_owned(), normalise)
}

/// Copies the plugin into a directory of the container, which may be stopped.
async fn copy_plugin(deployment: &Deployment, layout: &Layout, into: &str, fetched: &Fetched) -> Result<()> {
    let owner = Ownership { uid: layout.ids.0, gid: layout.ids.1 };
    let volatile = globs(&deployment.subject.lock.scheme.plugin.volatile);
    let archive = archive_of(&fetched.path, &fetched.name, owner, &volatile)?;
    deployment.upload(into, archive).await.map_err(|e| {
        Error::undecided(format!("cannot write the plugin to {into}"))
            .at(format!("subject `{}`", deployment.subject.name))
            .detail(e.one_line())
            .fix("a read-only mount cannot take a plugin: mount it writable, or build the plugin into the image")
    })
}

/// Runs `mkdir -p` as the container's user.
async fn make_directory(deployment: &Deployment, path: &str) -> Result<()> {
    let command = Command::new(["mkdir", "-p", path]);
    let output = deployment.engine.exec(&deployment.container_id(), command).await?;
    if output.ok() {
        return Ok(());
    }
    Err(Error::undecided(format!("cannot create {path} in the container"))
        .at(format!("subject `{}`", deployment.subject.name))
        .detail(output.tail(3))
        .fix("make the mount writable for the container's user, or set another directory with `into:`"))
}

fn archive_of(path: &Path, name: &str, owner: Ownership, skip: &GlobSet) -> Result<bytes::Bytes> {
    let mut tarball = Tarball::new();
    tarball
        .tree(path, name, Owners::All(owner), &|name| skip.is_match(name))
        .and_then(|()| tarball.finish())
        .map_err(|e| unreadable(path, &e))
}

/// The glob patterns of a scheme; an invalid one matches nothing.
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
    /// A temporary container of the subject's image, without its mounts.
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

/// Installs a requirements file with the subject's Python and user.
async fn install_requirements(place: Place<'_>, python: &str, install: &Install, file: &str) -> Result<()> {
    let settings = pip::Settings::of_this_machine();
    // Compiling takes half of pip's time; imported modules are compiled at the first start.
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
        // The system's own Python, without a virtual environment: this is what users do.
        arguments.push("--break-system-packages");
        output = run_pip(place, python, &settings, &arguments, user).await?;
    }
    if !output.ok() && output.stderr.contains("Permission denied") {
        // The process runs as a user without permission to install: the operator would do it as
        // root.
        user = Some("0");
        output = run_pip(place, python, &settings, &arguments, user).await?;
    }
    clean_stage(place, &settings).await?;
    if output.ok() {
        return Ok(());
    }
    Err(Error::undecided("cannot install the lock's Python dependencies")
        .at(format!("subject `{}`, {python} -m pip {}", place.deployment().subject.name, arguments.join(" ")))
        .detail(output.tail(8))
        .fix(
            "if the container cannot reach a package index, provide wheels: install: { wheels: ./wheels \
            };\nbehind a proxy that intercepts TLS, set PIP_CERT to its CA bundle",
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

/// Copies a local directory to the container, below [`STAGE`].
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

/// Copies a text to the container, below [`STAGE`], and returns its path there.
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

/// Removes the copied files, so that they do not count as part of the installation.
async fn clean_stage(place: Place<'_>, settings: &pip::Settings) -> Result<()> {
    let command = Command::new(["rm", "-rf", STAGE, &settings.bundle_in_container()]).user("0");
    place.exec(command).await.map(|_| ())
}

/// Runs the deployment's install script in the container.
///
/// | variable | value |
/// |---|---|
/// | `COMFYUI_WORKSPACE_PATH` | from the container, else from this machine; unset if neither has it |
/// | `LOCKPROOF_PLUGIN` | the plugin's directory, copied for the script |
/// | `LOCKPROOF_WHEELS` | the directory of wheels, if given |
/// | `LOCKPROOF_PYTHON` | the subject's Python |
/// | `LOCKPROOF_CUSTOM_NODES` | the directory from which ComfyUI loads custom nodes |
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
    Err(Error::undecided(format!("the install script exited with {}", output.code))
        .at(format!("subject `{}`, {}", deployment.subject.name, script.display()))
        .detail(output.tail(12))
        .fix(format!(
            "correct the script; it runs in the container with {} and the variables listed by `lockproof \
            gate --help`",
            check::WORKSPACE
        )))
}

/// The shell in a script's first line; `sh` by default.
///
/// The script is passed to it as an argument, because its directory may be mounted `noexec`.
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
