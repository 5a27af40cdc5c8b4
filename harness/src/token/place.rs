//! The location of a credential: a file of this machine, a container, a volume.

use std::{
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use lockproof_compose::env_file as dotenv;
use lockproof_deploy::engine::{
    Engine, Run,
    archive::{Ownership, Tarball, resolve},
    container::{Attachment, ContainerSpec},
    exec::Command,
};
use lockproof_model::{
    error::{Error, Result},
    path::normalise,
    scheme::Scheme,
};

/// Usual paths of ComfyUI's code in an image; tried after the container's working directory.
const CODE_DIRS: [&str; 8] = [
    "/opt/ComfyUI",
    "/app",
    "/app/ComfyUI",
    "/ComfyUI",
    "/comfyui",
    "/workspace/ComfyUI",
    "/root/ComfyUI",
    "/home/runner/ComfyUI",
];

/// The mount point of a volume in the helper container, which never runs.
const VOLUME: &str = "/lockproof-volume";

/// The location of a credential.
#[derive(Clone, Debug)]
pub enum Place {
    /// A credential file of this machine.
    File(PathBuf),
    /// A directory of this machine that contains the credential file, directly or below.
    Directory(PathBuf),
    /// A container, running or not.
    Container {
        /// The engine.
        engine: Engine,
        /// Its name or id.
        name: String,
        /// The path of the file, if known.
        path: Option<String>,
    },
    /// A volume.
    Volume {
        /// The engine.
        engine: Engine,
        /// The run that owns the helper container.
        run: Run,
        /// Its name.
        name: String,
        /// The path of the file, if known.
        path: Option<String>,
    },
}

/// The content of a credential file.
#[derive(Clone)]
pub struct Credential {
    /// Its path.
    pub path: String,
    bytes: Vec<u8>,
    mode: u32,
    owner: Ownership,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Credential {
    /// The token in it.
    pub fn token(&self, scheme: &Scheme) -> Option<String> {
        scheme.credential.as_ref()?.token.of(&String::from_utf8_lossy(&self.bytes))
    }

    /// The same file with another first line.
    #[must_use]
    pub fn with_first_line(&self, line: &str) -> Self {
        let old = String::from_utf8_lossy(&self.bytes).into_owned();
        let rest = old.split_once('\n').map_or(String::new(), |(_, rest)| format!("\n{rest}"));
        Self { bytes: format!("{line}{rest}").into_bytes(), ..self.clone() }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) | Self::Directory(path) => path.display().fmt(f),
            Self::Container { name, .. } => write!(f, "container {name}"),
            Self::Volume { name, .. } => write!(f, "volume {name}"),
        }
    }
}

impl Place {
    /// The credential file; `None` if it does not exist.
    ///
    /// # Errors
    /// A usage error if the location does not exist; an environment error if it cannot be read.
    pub async fn read(&self, scheme: &Scheme) -> Result<Option<Credential>> {
        match self {
            Self::File(path) => read_here(path),
            Self::Directory(directory) => match find_here(directory, &below(scheme)?)? {
                Some(path) => read_here(&path),
                None => Ok(None),
            },
            Self::Container { engine, name, path } => {
                exists(engine, name).await?;
                match path {
                    Some(path) => read_there(engine, name, path).await,
                    None => find_in_container(engine, name, &below(scheme)?).await,
                }
            }
            Self::Volume { engine, run, name, path } => {
                let looking = look_into(engine, run, name).await?;
                let found = match path {
                    Some(path) => read_there(engine, &looking, &format!("{VOLUME}/{path}")).await,
                    None => find_in_volume(engine, &looking, &below(scheme)?).await,
                };
                engine.remove(&looking).await?;
                found
            }
        }
    }

    /// Writes a credential file, with its original mode and owner.
    ///
    /// # Errors
    /// An environment error if it cannot be written.
    pub async fn write(&self, credential: &Credential) -> Result<()> {
        match self {
            Self::File(_) | Self::Directory(_) => {
                let path = Path::new(&credential.path);
                dotenv::replace(path, &credential.bytes, credential.mode)
                    .map_err(|e| Error::environment(format!("cannot write {}", path.display())).detail(e))
            }
            Self::Container { engine, name, .. } => put(engine, name, credential).await,
            Self::Volume { engine, run, name, .. } => {
                let looking = look_into(engine, run, name).await?;
                let written = put(engine, &looking, credential).await;
                engine.remove(&looking).await?;
                written
            }
        }
    }

    /// Creates a credential file.
    ///
    /// # Errors
    /// A usage error if its path is unknown; an environment error if it cannot be written.
    pub async fn create(&self, scheme: &Scheme, text: &str) -> Result<()> {
        let below = below(scheme)?;
        let path = match self {
            Self::File(path) => path.display().to_string(),
            Self::Directory(directory) => {
                let name = if directory.ends_with(parent(&below)) { file_name(&below) } else { &below };
                directory.join(name).display().to_string()
            }
            Self::Container { path: Some(path), .. } => normalise(path),
            Self::Container { engine, name, path: None } => match code_dir(engine, name).await? {
                Some(dir) => format!("{dir}/{below}"),
                None => {
                    return Err(Error::usage("cannot find ComfyUI's code directory in the container")
                        .at(self)
                        .fix(format!("give the path of the credential file: --path /path/to/ComfyUI/{below}")));
                }
            },
            Self::Volume { path: Some(path), .. } => format!("{VOLUME}/{path}"),
            Self::Volume { path: None, .. } => {
                return Err(Error::usage("the path of the credential file in the volume is unknown")
                    .at(self)
                    .fix(format!("add --path {} if the volume is mounted as its directory", file_name(&below))));
            }
        };
        if matches!(self, Self::File(_) | Self::Directory(_)) {
            let directory = Path::new(&path).parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(directory)
                .map_err(|e| Error::environment(format!("cannot make {}", directory.display())).detail(e))?;
        }
        let owner = Ownership::ROOT;
        // The server may run as another user.
        self.write(&Credential { path, bytes: text.as_bytes().to_vec(), mode: 0o644, owner }).await
    }

    /// The server's log, if the location has one.
    ///
    /// # Errors
    /// An environment error if the engine does not return it.
    pub async fn log(&self) -> Result<Option<String>> {
        match self {
            Self::Container { engine, name, .. } => Ok(Some(engine.last_lines(name, LOG_LINES).await?.join("\n"))),
            Self::File(_) | Self::Directory(_) | Self::Volume { .. } => Ok(None),
        }
    }
}

/// The number of log lines to search: a start of ComfyUI prints some hundred lines.
const LOG_LINES: usize = 100_000;

/// The path of the credential file below ComfyUI's code.
fn below(scheme: &Scheme) -> Result<String> {
    let file = scheme.credential.as_ref().map(|c| c.file.as_str()).unwrap_or_default();
    match file.strip_prefix("{code_dir}/") {
        Some(below) => Ok(below.to_owned()),
        None => Err(Error::usage(format!("the scheme `{}` does not define the path of its token", scheme.name))
            .fix("give the file with --credential-file FILE, or with --path for a container or a volume")),
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn read_here(path: &Path) -> Result<Option<Credential>> {
    let read = || -> std::io::Result<Credential> {
        let path = std::fs::canonicalize(path)?;
        let meta = std::fs::metadata(&path)?;
        Ok(Credential {
            bytes: lockproof_model::read::bytes(&path, lockproof_model::read::SHORT)?,
            mode: meta.permissions().mode() & 0o7777,
            owner: Ownership { uid: meta.uid().into(), gid: meta.gid().into() },
            path: path.display().to_string(),
        })
    };
    match read() {
        Ok(credential) => Ok(Some(credential)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::environment(format!("cannot read {}", path.display())).detail(e)),
    }
}

/// The credential file in a directory, which may be the code directory, its parent directory, or a
/// mount above either.
fn find_here(directory: &Path, below: &str) -> Result<Option<PathBuf>> {
    if !directory.is_dir() {
        return Err(Error::usage(format!("{} is not a directory", directory.display())).fix("check the path"));
    }
    let mut candidates = vec![directory.join(below)];
    if directory.ends_with(parent(below)) {
        candidates.push(directory.join(file_name(below)));
    }
    candidates.push(directory.join("ComfyUI").join(below));
    candidates.push(directory.join(file_name(below)));
    Ok(candidates.into_iter().find(|path| path.is_file()))
}

async fn exists(engine: &Engine, container: &str) -> Result<()> {
    match engine.life(container).await? {
        Some(_) => Ok(()),
        None => {
            Err(Error::usage(format!("no such container: `{container}`")).fix("list containers with `docker ps --all`"))
        }
    }
}

async fn read_there(engine: &Engine, container: &str, path: &str) -> Result<Option<Credential>> {
    let mut path = normalise(path);
    for _ in 0..8 {
        let Some(archive) = engine.download(container, &path).await? else { return Ok(None) };
        let broken =
            |e: std::io::Error| Error::environment(format!("the engine sent an invalid archive of {path}")).detail(e);
        let mut archive = tar::Archive::new(archive.as_slice());
        let Some(entry) = archive.entries().map_err(broken)?.next() else { return Ok(None) };
        let mut entry = entry.map_err(broken)?;
        if let Some(target) = entry.link_name().ok().flatten() {
            path = resolve(&path, &target.display().to_string());
            continue;
        }
        if !entry.header().entry_type().is_file() {
            return Ok(None);
        }
        let mode = entry.header().mode().map_err(broken)?;
        let owner =
            Ownership { uid: entry.header().uid().map_err(broken)?, gid: entry.header().gid().map_err(broken)? };
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(broken)?;
        drop(entry);
        return Ok(Some(Credential { path, bytes, mode: mode & 0o7777, owner }));
    }
    Ok(None)
}

async fn put(engine: &Engine, container: &str, credential: &Credential) -> Result<()> {
    let mut tarball = Tarball::new();
    let broken = |e: std::io::Error| Error::environment("cannot create an archive for the container").detail(e);
    let (directory, name) = (parent(&credential.path), file_name(&credential.path));
    // The directory may be missing; the plugin creates it at its first start.
    let (to, within) = if engine.exists(container, directory).await? {
        (directory, name.to_owned())
    } else {
        (parent(directory), format!("{}/{name}", file_name(directory)))
    };
    if let Some((made, _)) = within.split_once('/') {
        tarball.directory(made, 0o755, credential.owner).map_err(broken)?;
    }
    tarball.file(&within, &credential.bytes, credential.mode, credential.owner).map_err(broken)?;
    let archive = tarball.finish().map_err(broken)?;
    engine.upload(container, if to.is_empty() { "/" } else { to }, archive).await
}

/// ComfyUI's code directory in a container: the one that contains `folder_paths.py`.
async fn code_dir(engine: &Engine, container: &str) -> Result<Option<String>> {
    let own = engine.working_dir(container).await?;
    for dir in std::iter::once(own.as_str()).chain(CODE_DIRS).filter(|dir| !dir.is_empty()) {
        let dir = dir.trim_end_matches('/');
        if engine.exists(container, &format!("{dir}/folder_paths.py")).await? {
            return Ok(Some(dir.to_owned()));
        }
    }
    if !engine.life(container).await?.is_some_and(|life| life.running) {
        return Ok(None);
    }
    let search = "find / -xdev -name folder_paths.py -not -path '*/comfy*/*' 2>/dev/null | head -n 1";
    let output = engine.exec(container, Command::new(["sh", "-c", search]).user("0")).await?;
    Ok(output.stdout.lines().next().map(|path| parent(path.trim()).to_owned()).filter(|dir| !dir.is_empty()))
}

async fn find_in_container(engine: &Engine, container: &str, below: &str) -> Result<Option<Credential>> {
    match code_dir(engine, container).await? {
        Some(dir) => read_there(engine, container, &format!("{dir}/{below}")).await,
        None => Ok(None),
    }
}

/// A container with the volume that is never started: its files are accessed through the engine's
/// archives.
async fn look_into(engine: &Engine, run: &Run, volume: &str) -> Result<String> {
    if !engine.volume_exists(volume).await? {
        return Err(Error::usage(format!("no such volume: `{volume}`")).fix("list volumes with `docker volume ls`"));
    }
    let image = engine.any_image().await?.ok_or_else(|| {
        Error::environment(
            "reading a volume requires a container (it is not started), but the engine has no image to \
            create one from",
        )
        .fix("build or pull any image, or use a local file with --credential-file")
    })?;
    let spec = ContainerSpec {
        name: run.name("look"),
        image,
        labels: run.labels(""),
        entrypoint: Some(vec!["/never-started".to_owned()]),
        command: Some(Vec::new()),
        mounts: vec![Attachment::Volume {
            name: volume.to_owned(),
            target: VOLUME.to_owned(),
            read_only: false,
            no_copy: true,
        }],
        ..Default::default()
    };
    engine.create(&spec).await
}

async fn find_in_volume(engine: &Engine, container: &str, below: &str) -> Result<Option<Credential>> {
    for path in [below.to_owned(), file_name(below).to_owned(), format!("ComfyUI/{below}")] {
        if let Some(found) = read_there(engine, container, &format!("{VOLUME}/{path}")).await? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_directory_is_the_code_s_or_the_file_s_own() {
        let scheme = Scheme::find(Scheme::DEFAULT, Path::new(".")).expect("built in");
        let dir = tempfile::tempdir().expect("a directory");
        for (directory, file) in [
            ("a/login", "a/login/PASSWORD"),
            ("b", "b/login/PASSWORD"),
            ("c", "c/ComfyUI/login/PASSWORD"),
            ("d", "d/PASSWORD"),
        ] {
            let file = dir.path().join(file);
            std::fs::create_dir_all(file.parent().expect("below")).expect("made");
            std::fs::write(&file, "the-token\nme").expect("written");
            let found = Place::Directory(dir.path().join(directory)).read(&scheme).await.expect("read").expect("found");
            assert_eq!(found.token(&scheme).as_deref(), Some("the-token"));
        }
        std::fs::create_dir(dir.path().join("e")).expect("made");
        assert!(Place::Directory(dir.path().join("e")).read(&scheme).await.expect("read").is_none());
        assert!(Place::Directory(dir.path().join("none")).read(&scheme).await.is_err());
    }

    #[tokio::test]
    async fn only_the_first_line_changes_and_the_mode_stays() {
        let scheme = Scheme::find(Scheme::DEFAULT, Path::new(".")).expect("built in");
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("PASSWORD");
        std::fs::write(&path, "old\nme\nmore").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("changed");
        let place = Place::File(path.clone());
        let old = place.read(&scheme).await.expect("read").expect("there");
        place.write(&old.with_first_line("new")).await.expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "new\nme\nmore");
        place.write(&old).await.expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "old\nme\nmore");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o640);
    }
}
