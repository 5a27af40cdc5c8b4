//! The wheels of the lab plugin's dependencies, downloaded once with the lab's Python, so that they
//! match it and no subject waits for the network.

use std::path::{Path, PathBuf};

use super::{fixtures, image};
use crate::{
    engine::{
        Engine, Run,
        archive::{Ownership, Tarball, unreadable},
        container::ContainerSpec,
    },
    pip,
};
use lockproof_model::error::{Error, Result};

const REQUIREMENTS: &str = "plugins/lab-login/requirements.txt";
const IN_CONTAINER: &str = "/lockproof-wheels";

/// Fills `root/wheels` if it is empty.
pub(super) async fn ensure(engine: &Engine, run: &Run, root: &Path) -> Result<()> {
    let target = root.join("wheels");
    let complete = target.join(".complete");
    if complete.exists() {
        return Ok(());
    }
    tracing::info!("downloading the wheels of the lab's login plugin (once)");
    let requirements = fixtures::text(REQUIREMENTS)?;
    let image = image::ensure(engine, &image::VARIANTS[0]).await?;
    let mut command: Vec<String> =
        ["-m", "pip", "download", "--no-input", "--disable-pip-version-check", "--dest", IN_CONTAINER]
            .map(str::to_owned)
            .to_vec();
    command.extend(["-r".to_owned(), format!("{IN_CONTAINER}/requirements.txt")]);
    let settings = pip::Settings::of_this_machine();
    let spec = ContainerSpec {
        name: run.name("wheels"),
        image,
        labels: run.labels(""),
        entrypoint: Some(vec!["python".to_owned()]),
        command: Some(command),
        env: settings.environment(),
        ..Default::default()
    };
    let id = engine.create(&spec).await?;
    let fetched = fetch(engine, &id, requirements, &settings).await;
    engine.remove(&id).await?;
    unpack(&fetched?, &target)?;
    std::fs::write(&complete, b"").map_err(|e| unreadable(&complete, &e))
}

async fn fetch(engine: &Engine, id: &str, requirements: &str, settings: &pip::Settings) -> Result<Vec<u8>> {
    let mut tarball = Tarball::new();
    let name = IN_CONTAINER.trim_start_matches('/');
    let broken = |e: std::io::Error| Error::environment("cannot create an archive for the container").detail(e);
    tarball.directory(name, 0o755, Ownership::ROOT).map_err(broken)?;
    tarball
        .file(&format!("{name}/requirements.txt"), requirements.as_bytes(), 0o644, Ownership::ROOT)
        .map_err(broken)?;
    engine.upload(id, "/", tarball.finish().map_err(broken)?).await?;
    if let Some((directory, archive)) = settings.certificates()? {
        engine.upload(id, directory, archive).await?;
    }
    engine.start(id).await?;
    let life = loop {
        match engine.life(id).await? {
            Some(life) if !life.running => break life,
            Some(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            None => return Err(Error::environment("the container that downloads the wheels was removed")),
        }
    };
    if life.exit_code != 0 {
        let mut error = Error::environment("cannot download the wheels of the lab's login plugin");
        for line in engine.last_lines(id, 12).await? {
            error = error.detail(line);
        }
        return Err(error.fix(
            "check that pip can reach its index from a container; behind a proxy that intercepts TLS, set \
            PIP_CERT to its CA bundle",
        ));
    }
    engine
        .download(id, IN_CONTAINER)
        .await?
        .ok_or_else(|| Error::environment("pip downloaded no files").fix("run `lockproof doctor`"))
}

/// Extracts the `.whl` files of the archive into `target`.
fn unpack(archive: &[u8], target: &Path) -> Result<()> {
    std::fs::create_dir_all(target).map_err(|e| unreadable(target, &e))?;
    let broken = |e: std::io::Error| Error::environment("cannot unpack the wheels").detail(e);
    for entry in tar::Archive::new(archive).entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let path: PathBuf = entry.path().map_err(broken)?.into_owned();
        if let Some(name) = path.file_name().filter(|_| path.extension().is_some_and(|e| e == "whl")) {
            // Written to a temporary file first: two runs may do this in parallel.
            let mut file = tempfile::NamedTempFile::new_in(target).map_err(broken)?;
            std::io::copy(&mut entry, &mut file).map_err(broken)?;
            file.persist(target.join(name)).map_err(|e| broken(e.error))?;
        }
    }
    Ok(())
}
