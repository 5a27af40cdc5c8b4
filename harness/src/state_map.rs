//! The state map: where each state of the lock is stored, the owner of its paths, and which events
//! it survives. The run then proves or refutes it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use lockproof_deploy::{
    deployment::Deployment,
    engine::{
        archive::Entry,
        container::ContainerSpec,
        exec::{Command, Output},
    },
    install::{Installed, globs},
    layout::Layout,
};
use lockproof_model::{
    error::{Error, Result},
    event::Event,
    path::is_within,
    scheme::Scheme,
    state::{Owner, State},
    state_map::{self, Mounted, StateEntry},
    verdict::Verdict,
};

/// A fingerprint of a state, to detect changes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Print {
    /// The files in a directory.
    Files(BTreeSet<String>),
    /// The names of distributions.
    Names(BTreeSet<String>),
    /// The content of a file; `None` if it does not exist.
    Bytes(Option<Vec<u8>>),
}

/// How the lock was installed, as far as it decides whether it is restored by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Whether lockproof installed it; a deployment that installs its own lock may do so again.
    pub by_us: bool,
    /// Whether lockproof created the credential.
    pub minted: bool,
}

/// All states of one subject.
#[derive(Clone, Debug, Default)]
pub struct StateMap {
    /// In the order of [`State`].
    pub entries: Vec<StateEntry>,
    /// The fingerprint of each state after the installation.
    prints: BTreeMap<State, Print>,
}

impl StateMap {
    /// Creates the map of a subject after the installation of its lock.
    ///
    /// # Errors
    /// An environment error if the container cannot be read.
    pub async fn draw(deployment: &Deployment, layout: &Layout, installed: &Installed, origin: Origin) -> Result<Self> {
        let mounts = deployment.mounted();
        let here = Bare::of(deployment, deployment.image()).await?;
        let next = match &deployment.subject.upgrade_to {
            Some(image) => Some(
                Bare::of(deployment, &lockproof_deploy::lab::require(&deployment.engine, image).await?.name).await?,
            ),
            None => None,
        };
        let elsewhere = match &next {
            Some(next) => Elsewhere::of(deployment, layout, &mounts, next).await?,
            None => Elsewhere::default(),
        };
        let mut entries = Vec::new();
        let mut prints = BTreeMap::new();
        let (found, dependencies) = states(deployment, layout, installed, None).await?;
        let records: BTreeMap<&str, &str> = dependencies
            .values()
            .map(|d| (d.place.as_str(), d.record.as_str()))
            .filter(|(_, r)| !r.is_empty())
            .collect();
        for (state, paths, print) in found {
            let paths = real_paths(deployment, paths).await?;
            let entry = &deployment.subject.lock.scheme.plugin.entry;
            let mut owned = Vec::new();
            for path in &paths {
                // Files may have been added beside the image's own. A plugin is identified by its
                // file, a package by the record of its version and files.
                let witness = match state {
                    State::Plugin => format!("{path}/{entry}"),
                    State::Deps => records.get(path.as_str()).map_or_else(|| path.clone(), |&record| record.to_owned()),
                    _ => path.clone(),
                };
                // An import needs the package itself, regardless of the location of its record.
                let needed = if state == State::Deps { path } else { &witness };
                let owner = match mount_of(needed, &mounts) {
                    Some(mount) => (mount.owner, Some(mount.clone())),
                    None if here.holds(deployment, &witness).await? => (Owner::Image, None),
                    None => (Owner::ContainerLayer, None),
                };
                owned.push((path.clone(), owner.0, owner.1));
            }
            // Packages of the image do not depend on the installation.
            if state == State::Deps && owned.iter().any(|(_, owner, _)| *owner != Owner::Image) {
                owned.retain(|(_, owner, _)| *owner != Owner::Image);
            }
            let least = owned.iter().min_by_key(|(_, owner, _)| *owner).cloned();
            let mut predicted = BTreeMap::new();
            for event in Event::ALL {
                let mut survival = Some(true);
                for (path, owner, _) in &owned {
                    let one = survives(*owner, event, path, &here, next.as_ref()).await?;
                    let one =
                        if one == Some(false) && may_come_back(state, *owner, event, origin) { None } else { one };
                    survival = match (survival, one) {
                        (Some(false), _) | (_, Some(false)) => Some(false),
                        (None, _) | (_, None) => None,
                        _ => Some(true),
                    };
                }
                if event == Event::Upgrade && elsewhere.hides(state) && survival == Some(true) {
                    survival = None;
                }
                predicted.insert(event, if owned.is_empty() { None } else { survival });
            }
            entries.push(StateEntry {
                state,
                paths: owned.iter().map(|(path, _, _)| path.clone()).collect(),
                owner: least.as_ref().map(|(_, owner, _)| *owner),
                mount: least.and_then(|(_, _, mount)| mount),
                predicted,
            });
            prints.insert(state, print);
        }
        here.remove(deployment).await?;
        if let Some(next) = next {
            next.remove(deployment).await?;
        }
        Ok(Self { entries, prints })
    }

    /// The map of the same subject after another installation: the same paths with new content.
    ///
    /// # Errors
    /// An environment error if the container cannot be read.
    pub async fn renew(&self, deployment: &Deployment, layout: &Layout, installed: &Installed) -> Result<Self> {
        let mut map = self.clone();
        for (state, _, print) in states(deployment, layout, installed, None).await?.0 {
            if let Some(known) = map.prints.get_mut(&state) {
                *known = print;
            }
        }
        Ok(map)
    }

    /// Whether each state is unchanged.
    ///
    /// # Errors
    /// An environment error if the container cannot be read.
    pub async fn observe(
        &self,
        deployment: &Deployment,
        layout: &Layout,
        installed: &Installed,
    ) -> Result<BTreeMap<State, bool>> {
        // Their names come from the plugin, which may be lost by now.
        let dependencies = self.prints.values().find_map(|print| match print {
            Print::Names(names) => Some(names),
            _ => None,
        });
        let now: BTreeMap<State, Print> = states(deployment, layout, installed, dependencies)
            .await?
            .0
            .into_iter()
            .map(|(state, _, print)| (state, print))
            .collect();
        Ok(self
            .prints
            .iter()
            .filter_map(|(state, print)| {
                print.says_something().then(|| Some((*state, print.is_kept(now.get(state)?))))?
            })
            .collect())
    }

    /// The predicted verdict after `event`.
    pub fn predict(&self, scheme: &Scheme, installed: Verdict, event: Event) -> Option<Verdict> {
        let survives = |entry: &StateEntry| (entry.state, entry.predicted.get(&event).copied().flatten());
        state_map::predict(scheme, installed, self.entries.iter().map(survives))
    }
}

impl Print {
    /// Whether it can be lost: no files at all are a plugin that was not found, of which nothing can be said.
    fn says_something(&self) -> bool {
        !matches!(self, Self::Files(files) if files.is_empty())
    }

    fn is_kept(&self, now: &Self) -> bool {
        match (self, now) {
            // Additional files are not a loss: a newer version of the plugin or a package contains
            // what it needs.
            (Self::Files(before), Self::Files(now)) | (Self::Names(before), Self::Names(now)) => before.is_subset(now),
            _ => self == now,
        }
    }
}

/// The current paths and fingerprints of all states. Uses the known names of dependencies, else
/// those that the plugin requires.
async fn states(
    deployment: &Deployment,
    layout: &Layout,
    installed: &Installed,
    known: Option<&BTreeSet<String>>,
) -> Result<(Vec<(State, Vec<String>, Print)>, Dependencies)> {
    let scheme = &deployment.subject.lock.scheme;
    let mut found = Vec::new();
    let mut packages = Dependencies::new();
    if !scheme.in_front() {
        found.push((State::Plugin, vec![installed.plugin_dir.clone()], plugin_files(deployment, installed).await?));
    }
    if !scheme.in_front()
        && let Some(dependencies) = dependencies(deployment, layout, installed, known).await?
    {
        found.push((
            State::Deps,
            dependencies.values().map(|d| d.place.clone()).filter(|p| !p.is_empty()).collect(),
            Print::Names(dependencies.keys().cloned().collect()),
        ));
        packages = dependencies;
    }
    let files = [
        (State::Credential, scheme.credential.as_ref().map(|c| &c.file)),
        (State::SessionKey, scheme.session_key.as_ref().map(|k| &k.file)),
    ];
    for (state, pattern) in files {
        if let Some(pattern) = pattern {
            let path = installed.fill(pattern, layout);
            if path.is_empty() {
                continue;
            }
            let bytes = deployment.read_file(&path).await?;
            let paths = if bytes.is_some() { vec![path] } else { Vec::new() };
            found.push((state, paths, Print::Bytes(bytes)));
        }
    }
    Ok((found, packages))
}

async fn plugin_files(deployment: &Deployment, installed: &Installed) -> Result<Print> {
    let volatile = globs(&deployment.subject.lock.scheme.plugin.volatile);
    let tree = deployment.tree(&installed.plugin_dir).await?.unwrap_or_default();
    let files = tree
        .into_iter()
        .filter(|(name, entry)| matches!(entry, Entry::File(_)) && !name.split('/').any(|part| volatile.is_match(part)))
        .map(|(name, _)| name)
        .collect();
    Ok(Print::Files(files))
}

/// A Python distribution of the subject.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Dependency {
    /// The path of its package.
    place: String,
    /// The path of its metadata; empty if unknown.
    record: String,
}

/// Distributions by name.
type Dependencies = BTreeMap<String, Dependency>;

/// The distributions that the plugin needs, with their paths; `None` if the container is not
/// running, because only its own Python knows them.
async fn dependencies(
    deployment: &Deployment,
    layout: &Layout,
    installed: &Installed,
    known: Option<&BTreeSet<String>>,
) -> Result<Option<Dependencies>> {
    let script = include_str!("dependencies.py");
    let asked: Vec<&str> = match known {
        Some(names) if names.is_empty() => return Ok(Some(Dependencies::new())),
        Some(names) => std::iter::once("--").chain(names.iter().map(String::as_str)).collect(),
        None => {
            let files = installed.requirements.iter().map(String::as_str);
            std::iter::once(installed.plugin_dir.as_str()).chain(files).collect()
        }
    };
    let words = [layout.python.as_str(), "-c", script].into_iter().chain(asked);
    // In the code directory, the subject's own modules would shadow installed ones.
    match deployment.engine.exec(&deployment.container_id(), Command::new(words).directory("/")).await {
        // Without a working Python, there is no package to import.
        Ok(output) if matches!(output.code, 126 | 127) => Ok(Some(Dependencies::new())),
        Ok(output) => read_dependencies(&output, &layout.python).map(Some),
        Err(_) if !deployment.life().await?.running => Ok(None),
        Err(e) => Err(e),
    }
}

/// # Errors
/// An undecided error if the script failed, which says nothing about the installed packages.
fn read_dependencies(output: &Output, python: &str) -> Result<Dependencies> {
    let unreadable = |why: String| {
        Error::undecided(format!("{python} could not list the packages that the plugin needs"))
            .detail(why)
            .detail(output.tail(3))
            .fix("run it in the container to see the error: it must be able to import importlib.metadata")
    };
    if !output.ok() {
        return Err(unreadable(format!("it exited with {}", output.code)));
    }
    serde_json::from_str(output.stdout.trim()).map_err(|e| unreadable(e.to_string()))
}

/// The paths with links resolved inside the container.
async fn real_paths(deployment: &Deployment, paths: Vec<String>) -> Result<Vec<String>> {
    if paths.is_empty() {
        return Ok(paths);
    }
    let words = ["readlink", "-f", "--"].into_iter().chain(paths.iter().map(String::as_str));
    let output = deployment.engine.exec(&deployment.container_id(), Command::new(words).user("0")).await?;
    let real: Vec<String> = output.stdout.lines().map(str::to_owned).collect();
    let mut paths = if output.ok() && real.len() == paths.len() { real } else { paths };
    paths.sort();
    paths.dedup();
    Ok(paths)
}

/// The nearest mount above a path; without one, its owner is the image or the writable layer.
fn mount_of<'m>(path: &str, mounts: &'m [Mounted]) -> Option<&'m Mounted> {
    mounts.iter().filter(|m| is_within(path, &m.target)).max_by_key(|m| m.target.len())
}

/// Whether a path survives an event, as its owner does. In addition, a new volume is filled from
/// the image, and the new image may contain the path too.
async fn survives(owner: Owner, event: Event, path: &str, here: &Bare, next: Option<&Bare>) -> Result<Option<bool>> {
    let filled = matches!(owner, Owner::Volume | Owner::AnonymousVolume);
    match owner.survives(event) {
        Some(false) if filled => match (event, next) {
            (Event::Upgrade, Some(next)) => Ok(Some(next.has_same(here, path).await?)),
            (Event::Upgrade, None) => Ok(None),
            _ => Ok(Some(here.has(path).await?)),
        },
        None => match next {
            Some(next) => Ok(Some(next.has(path).await?)),
            None => Ok(None),
        },
        known => Ok(known),
    }
}

/// Whether the deployment may restore a lost state at its start. What was in the image was not
/// installed by a start, so the next start will not restore it.
fn may_come_back(state: State, owner: Owner, event: Event, origin: Origin) -> bool {
    if owner == Owner::Image {
        return false;
    }
    let by_deployment = match state {
        State::Credential => !origin.minted,
        _ => !origin.by_us,
    };
    // The content of the image was not installed by a start.
    by_deployment && owner != Owner::Image && (event.new_container() || owner == Owner::Tmpfs)
}

/// The paths that differ in the next image: a state that survives may then be useless.
#[derive(Clone, Copy, Debug, Default)]
struct Elsewhere {
    code: bool,
    python: bool,
}

impl Elsewhere {
    async fn of(deployment: &Deployment, layout: &Layout, mounts: &[Mounted], next: &Bare) -> Result<Self> {
        let mounted = |path: &str| mounts.iter().any(|m| is_within(path, &m.target));
        let code = !mounted(&layout.code_dir) && !next.has(&format!("{}/main.py", layout.code_dir)).await?;
        // The interpreter of a virtual environment on a volume belongs to the image.
        let real = real_paths(deployment, vec![layout.python.clone()]).await?;
        let mut python = false;
        for path in real.iter().filter(|path| !mounted(path)) {
            python |= !next.has(path).await?;
        }
        Ok(Self { code, python })
    }

    fn hides(self, state: State) -> bool {
        self.code || self.python && state == State::Deps
    }
}

/// A container of an image without mounts that is never started: only the image's own files.
struct Bare {
    engine: lockproof_deploy::engine::Engine,
    id: String,
}

impl Bare {
    async fn of(deployment: &Deployment, image: &str) -> Result<Self> {
        let spec = ContainerSpec {
            name: deployment.scratch_name("image"),
            image: image.to_owned(),
            labels: deployment.labels(),
            entrypoint: Some(vec!["true".to_owned()]),
            ..Default::default()
        };
        let id = deployment.engine.create(&spec).await?;
        Ok(Self { engine: deployment.engine.clone(), id })
    }

    async fn has(&self, path: &str) -> Result<bool> {
        self.engine.exists(&self.id, path).await
    }

    /// Whether a path of the running container has the image's content. The engine's diff would
    /// tell too, but compares all files, which takes some engines ten seconds. Cached byte code is
    /// ignored.
    async fn holds(&self, deployment: &Deployment, path: &str) -> Result<bool> {
        if !self.has(path).await? {
            return Ok(false);
        }
        let files = |tree: Option<BTreeMap<String, Entry>>| -> BTreeMap<String, Entry> {
            let cached = |name: &str| name.ends_with(".pyc") || name.split('/').any(|part| part == "__pycache__");
            tree.unwrap_or_default().into_iter().filter(|(name, _)| !cached(name)).collect()
        };
        let of_image = files(self.engine.tree(&self.id, path).await?);
        Ok(of_image == files(deployment.tree(path).await?))
    }

    /// Whether both images have the same content at a path.
    async fn has_same(&self, other: &Self, path: &str) -> Result<bool> {
        Ok(self.has(path).await? && other.has(path).await?)
    }

    async fn remove(self, deployment: &Deployment) -> Result<()> {
        deployment.engine.remove(&self.id).await
    }
}

/// Whether the new image's code runs after an upgrade: `false` if a mount over the code directory
/// hides it.
///
/// # Errors
/// An environment error if the container cannot be read.
pub async fn upgrade_is_effective(deployment: &Deployment, layout: &Layout) -> Result<bool> {
    if deployment.subject.lock.scheme.in_front() {
        return Ok(true);
    }
    let covered = deployment.mounted().iter().any(|m| is_within(&layout.code_dir, &m.target));
    if !covered {
        return Ok(true);
    }
    let bare = Bare::of(deployment, deployment.image()).await?;
    let mut effective = true;
    for file in ["comfyui_version.py", "main.py", "server.py", "nodes.py", "execution.py"] {
        let path = format!("{}/{file}", layout.code_dir);
        let of_image = deployment.engine.read_file(&bare.id, &path).await?;
        let running = deployment.read_file(&path).await?;
        effective &= of_image.is_none() || of_image == running;
    }
    bare.remove(deployment).await?;
    Ok(effective)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// What `dependencies.py` says of the distribution `fake`, run by that Python; `None` where it is not
    /// on this machine.
    fn asked(python: &str, site: &Path) -> Option<Dependencies> {
        let output = std::process::Command::new(python)
            .args(["-c", include_str!("dependencies.py"), "--", "fake"])
            .env("PYTHONPATH", site)
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        serde_json::from_slice(&output.stdout).ok()
    }

    /// From Python 3.12 on, the standard library leaves missing files out of what was installed.
    #[test]
    fn a_package_that_a_mount_hides_is_lost_for_every_python() {
        let site = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = site.path().join(path);
            std::fs::create_dir_all(path.parent().expect("below the directory")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        write("fake-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: fake\nVersion: 1.0\n");
        write("fake-1.0.dist-info/top_level.txt", "fake\n");
        write("fake-1.0.dist-info/RECORD", "fake/__init__.py,,\nfake/part.py,,\ntests/test_it.py,,\n");
        write("fake/__init__.py", "");
        write("fake/part.py", "");
        let mut tried = 0;
        for python in ["python3", "python3.11", "python3.12", "python3.13"] {
            write("fake/__init__.py", "");
            write("fake/part.py", "");
            let Some(whole) = asked(python, site.path()) else { continue };
            assert_eq!(whole.keys().collect::<Vec<_>>(), ["fake"], "{python}");
            std::fs::remove_dir_all(site.path().join("fake")).expect("removed");
            std::fs::create_dir(site.path().join("fake")).expect("made");
            assert_eq!(asked(python, site.path()), Some(Dependencies::new()), "{python}");
            tried += 1;
        }
        assert!(tried > 0, "there is no Python here");
    }

    fn mount(target: &str, owner: Owner) -> Mounted {
        Mounted { target: target.into(), owner, read_only: false, source: None }
    }

    #[test]
    fn a_script_that_failed_does_not_say_that_nothing_is_installed() {
        let read = |code, stdout: &str| {
            read_dependencies(&Output { code, stdout: stdout.to_owned(), stderr: "why".to_owned() }, "python")
        };
        assert_eq!(read(0, "{}\n").map_err(|e| e.kind()), Ok(Dependencies::new()));
        for (code, stdout) in [(1, "{}"), (0, ""), (0, "[1]"), (137, "")] {
            assert_eq!(
                read(code, stdout).map_err(|e| e.kind()),
                Err(lockproof_model::error::ErrorKind::Undecided),
                "{code} {stdout}"
            );
        }
    }

    #[test]
    fn the_nearest_mount_owns_a_path() {
        let mounts = [mount("/opt", Owner::Bind), mount("/opt/ComfyUI/custom_nodes", Owner::Volume)];
        let owner = |path: &str| mount_of(path, &mounts).map(|m| m.owner);
        assert_eq!(owner("/opt/ComfyUI/custom_nodes/a/__init__.py"), Some(Owner::Volume));
        assert_eq!(owner("/opt/ComfyUI/login/PASSWORD"), Some(Owner::Bind));
        assert_eq!(owner("/optional"), None);
    }

    #[test]
    fn only_what_was_put_there_at_a_start_may_come_back() {
        let own = Origin { by_us: false, minted: true };
        assert!(may_come_back(State::Plugin, Owner::ContainerLayer, Event::Recreate, own));
        assert!(!may_come_back(State::Plugin, Owner::Image, Event::Upgrade, own));
        assert!(!may_come_back(State::Credential, Owner::ContainerLayer, Event::Recreate, own));
        let ours = Origin { by_us: true, minted: true };
        assert!(!may_come_back(State::Plugin, Owner::ContainerLayer, Event::Recreate, ours));
    }
}
