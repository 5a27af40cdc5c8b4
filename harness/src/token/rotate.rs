//! Replaces a credential, proves the old token dead and the new one alive, and puts the old one back
//! when it cannot.

use std::{future::Future, path::PathBuf, time::Duration};

use tokio::time::Instant;

use super::{Credential, Gatekeeper, Login, Place, Takes};
use lockproof_compose::env_file::{self as dotenv, Spelling, TOKEN};
use lockproof_deploy::engine::Engine;
use lockproof_model::{
    error::{Error, Result},
    scheme::Scheme,
    secret,
};
use lockproof_probe::server::Trust;

/// How long between two questions to a server that is coming up.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a server may take to notice a changed file, when nothing restarts it.
const NOTICE: Duration = Duration::from_secs(6);

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// Where the credential lies.
    pub place: Place,
    /// How the lock works.
    pub scheme: Scheme,
    /// The new password; the user name stays what it is.
    pub login: Login,
    /// The server's URL; `None`: the port that the container publishes, asked for again after each
    /// start.
    pub url: Option<String>,
    /// Certificates to trust beside this machine's own.
    pub ca: Option<PathBuf>,
    /// Whether any certificate will do.
    pub insecure: bool,
    /// What makes the server read its credential anew.
    pub restart: Restart,
    /// How long the server may take to come back.
    pub ready_timeout: Duration,
    /// The `.env` files that get the new token, each with its spelling.
    pub env_files: Vec<(PathBuf, Spelling)>,
}

/// What makes a server read its credential anew.
#[derive(Clone, Debug)]
pub enum Restart {
    /// A restart of its container.
    Container {
        /// The engine.
        engine: Engine,
        /// The container's name or id.
        name: String,
        /// How long the container has to stop by itself.
        grace: Duration,
    },
    /// A command of a shell.
    Command(String),
    /// Nothing: the server looks at the file itself.
    No,
}

/// Rotates. When it fails after the credential was changed, or `interrupted` comes first, the old
/// credential and the old `.env` files are put back and the server is restarted on them.
///
/// # Errors
/// What failed, and whether everything is as it was; the error of `interrupted` when that came
/// first.
pub async fn rotate(rotation: &Rotation, interrupted: impl Future<Output = Error>) -> Result<String> {
    let Some(old) = rotation.place.read(&rotation.scheme).await? else {
        return Err(Error::usage("there is no credential to replace")
            .at(&rotation.place)
            .fix("`lockproof token mint` makes the first one; --path says where it lies"));
    };
    let Some(old_token) = old.token(&rotation.scheme) else {
        return Err(Error::usage("the credential file is empty").at(&old.path).fix("`lockproof token mint` fills it"));
    };
    secret::register(&old_token);
    rotation.recognise(&old_token).await?;
    let env_files = remember(&rotation.env_files)?;
    let token = rotation.login.hash()?;
    // From here on everything is put back unless all of it succeeds. The write itself is not given
    // up half-way: an engine would finish it after the old file was put back.
    let done = match rotation.place.write(&old.with_first_line(&token)).await {
        Err(e) => Err(e),
        Ok(()) => tokio::select! {
            biased;
            e = interrupted => Err(e),
            done = rotation.prove(&old_token, &token) => done,
        },
    };
    let done = done.and_then(|()| {
        rotation.env_files.iter().try_for_each(|(path, spelling)| dotenv::store(path, TOKEN, &token, *spelling))
    });
    match done {
        Ok(()) => Ok(token),
        Err(why) => Err(rotation.put_back(&old, &old_token, &env_files, why).await),
    }
}

impl Rotation {
    /// Before anything is changed: the server must take the token that is to be replaced, or it is
    /// not this server's.
    async fn recognise(&self, old_token: &str) -> Result<()> {
        let server = self.server().await?;
        match server.takes(Some(old_token)).await {
            Takes::Yes => {}
            Takes::No => {
                return Err(Error::undecided(format!(
                    "{} does not take the token that is to be replaced",
                    server.base()
                ))
                .at(&self.place)
                .fix("check that this is the credential of that server; nothing was changed"));
            }
            Takes::Unknown(why) => {
                return Err(Error::environment(format!("{} does not answer: {why}", server.base()))
                    .fix("start the server first; nothing was changed"));
            }
        }
        match server.takes(None).await {
            Takes::Yes => Err(Error::undecided(format!("{} is open: no token can be proved dead", server.base()))
                .fix("lock it first (`lockproof probe` shows what is wrong); nothing was changed")),
            _ => Ok(()),
        }
    }

    /// Restarts, and waits until the new token is taken and the old one is not.
    async fn prove(&self, old_token: &str, token: &str) -> Result<()> {
        self.restart().await?;
        self.wait_for(token, old_token, "the new token").await.map_err(|why| why.fix("the old credential is put back"))
    }

    async fn restart(&self) -> Result<()> {
        match &self.restart {
            Restart::No => Ok(()),
            Restart::Container { engine, name, grace } => engine.restart(name, *grace).await,
            Restart::Command(command) => {
                let output = tokio::process::Command::new("sh")
                    .args(["-c", command])
                    .stdin(std::process::Stdio::null())
                    .kill_on_drop(true)
                    .output()
                    .await
                    .map_err(|e| Error::environment("the restart command cannot be run").detail(e))?;
                if output.status.success() {
                    return Ok(());
                }
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                Err(Error::environment(format!("the restart command ended with {}", output.status)).detail(said))
            }
        }
    }

    /// Waits until `alive` is taken and `dead` is refused.
    async fn wait_for(&self, alive: &str, dead: &str, what: &str) -> Result<()> {
        let limit = if matches!(self.restart, Restart::No) { NOTICE } else { self.ready_timeout };
        let end = Instant::now() + limit;
        loop {
            let state = match self.server().await {
                // The new one is asked first: both answers then come from a server that has read it.
                Ok(server) => match server.takes_now(Some(alive)).await {
                    Takes::Yes => match server.takes_now(Some(dead)).await {
                        Takes::No => return Ok(()),
                        Takes::Yes => "it takes the old token as well".to_owned(),
                        Takes::Unknown(why) => format!("asked with the old token, it answers {why}"),
                    },
                    Takes::No => "it refuses it".to_owned(),
                    Takes::Unknown(why) => format!("it answers {why}"),
                },
                Err(e) => e.one_line(),
            };
            if Instant::now() >= end {
                let error =
                    Error::undecided(format!("{what} is not in force after {} s", limit.as_secs())).detail(state);
                return Err(match self.restart {
                    Restart::No => error.detail(
                        "ComfyUI-Login reads its credential at its start: name its container with --container, \
                         or give --restart-command",
                    ),
                    _ => error,
                });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn server(&self) -> Result<Gatekeeper> {
        let trust = Trust { ca: self.ca.as_deref(), insecure: self.insecure };
        if let Some(url) = &self.url {
            return Gatekeeper::named(url, &trust, &self.scheme);
        }
        let Restart::Container { engine, name, .. } = &self.restart else {
            return Err(Error::usage("it is not known where the server is").fix("give its address with --url"));
        };
        match engine.published(name).await? {
            Some(address) => Gatekeeper::named(&format!("http://{address}"), &trust, &self.scheme),
            None => Err(Error::environment(format!("the container {name} publishes no port and has no address"))
                .fix("give the server's address with --url")),
        }
    }

    /// Puts everything back, and gives `why` with how that went.
    async fn put_back(&self, old: &Credential, old_token: &str, env_files: &[EnvFile], why: Error) -> Error {
        tracing::info!("putting the old credential back");
        let mut failed = Vec::new();
        for file in env_files {
            if let Err(e) = file.put_back() {
                failed.push(format!("{}: {e}", file.path.display()));
            }
        }
        match self.place.write(old).await {
            Err(e) => failed.push(e.one_line()),
            Ok(()) => {
                let new = "never-in-force";
                let back = match self.restart().await {
                    Ok(()) => self.wait_for(old_token, new, "the old token").await,
                    Err(e) => Err(e),
                };
                failed.extend(back.err().map(|e| e.one_line()));
            }
        }
        if failed.is_empty() {
            return why.detail("the old credential is in force again, and no .env was changed");
        }
        let mut why = why.detail("the old credential could NOT be put back in full:");
        for line in failed {
            why = why.detail(line);
        }
        why.fix(
            "`lockproof token extract` writes the token that the credential file holds now; then restart the server",
        )
    }
}

/// A `.env` as it was.
struct EnvFile {
    path: PathBuf,
    bytes: Option<Vec<u8>>,
}

fn remember(files: &[(PathBuf, Spelling)]) -> Result<Vec<EnvFile>> {
    files
        .iter()
        .map(|(path, _)| match lockproof_model::read::bytes(path, lockproof_model::read::SHORT) {
            Ok(bytes) => Ok(EnvFile { path: path.clone(), bytes: Some(bytes) }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(EnvFile { path: path.clone(), bytes: None }),
            Err(e) => Err(Error::environment(format!("cannot read {}", path.display())).detail(e)),
        })
        .collect()
}

impl EnvFile {
    fn put_back(&self) -> std::io::Result<()> {
        match &self.bytes {
            Some(bytes) if std::fs::read(&self.path).ok().as_ref() != Some(bytes) => {
                dotenv::replace(&dotenv::behind_links(&self.path), bytes, 0o600)
            }
            Some(_) => Ok(()),
            None => match std::fs::remove_file(&self.path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
                _ => Ok(()),
            },
        }
    }
}
