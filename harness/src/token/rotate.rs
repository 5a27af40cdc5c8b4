//! Replaces a credential, checks that the old token is rejected and the new one accepted, and
//! restores the old credential if not.

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

/// The pause between two requests to a starting server.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a server may take to notice a changed file without a restart.
const NOTICE: Duration = Duration::from_secs(6);

/// The parameters of a rotation.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The location of the credential.
    pub place: Place,
    /// The login scheme.
    pub scheme: Scheme,
    /// The new password; the user name is kept.
    pub login: Login,
    /// The server's URL; `None`: the container's published port, which is read again after each
    /// start.
    pub url: Option<String>,
    /// A file with CA certificates to trust, in addition to this machine's own.
    pub ca: Option<PathBuf>,
    /// Whether to skip certificate verification.
    pub insecure: bool,
    /// How to make the server read the new credential.
    pub restart: Restart,
    /// The time limit for the server's answer after the restart.
    pub ready_timeout: Duration,
    /// The `.env` files to write the new token to, each with its spelling.
    pub env_files: Vec<(PathBuf, Spelling)>,
}

/// How to make a server read the new credential.
#[derive(Clone, Debug)]
pub enum Restart {
    /// Restart its container.
    Container {
        /// The engine.
        engine: Engine,
        /// The container's name or id.
        name: String,
        /// The time limit of a stop before SIGKILL.
        grace: Duration,
    },
    /// Run a shell command.
    Command(String),
    /// Nothing: the server reloads the file by itself.
    No,
}

/// Rotates the credential. If it fails after the change, or `interrupted` resolves first, restores
/// the old credential and the old `.env` files, and restarts the server.
///
/// # Errors
/// What failed, and whether everything was restored; the error of `interrupted` if it resolved
/// first.
pub async fn rotate(rotation: &Rotation, interrupted: impl Future<Output = Error>) -> Result<String> {
    let Some(old) = rotation.place.read(&rotation.scheme).await? else {
        return Err(Error::usage("there is no credential to replace")
            .at(&rotation.place)
            .fix("create the first one with `lockproof token mint`, or give its path with --path"));
    };
    let Some(old_token) = old.token(&rotation.scheme) else {
        return Err(Error::usage("the credential file is empty")
            .at(&old.path)
            .fix("create a credential with `lockproof token mint`"));
    };
    secret::register(&old_token);
    rotation.recognise(&old_token).await?;
    let env_files = remember(&rotation.env_files)?;
    let token = rotation.login.hash()?;
    // From here on, everything is restored unless all steps succeed. The write itself is not
    // cancelled: an engine would finish it after the old file was restored.
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
    /// Before any change, checks that the server accepts the token to be replaced, so that it is
    /// this server's.
    async fn recognise(&self, old_token: &str) -> Result<()> {
        let server = self.server().await?;
        match server.takes(Some(old_token)).await {
            Takes::Yes => {}
            Takes::No => {
                return Err(Error::undecided(format!(
                    "{} does not accept the token that is to be replaced",
                    server.base()
                ))
                .at(&self.place)
                .fix("check that the credential belongs to this server; nothing was changed"));
            }
            Takes::Unknown(why) => {
                return Err(Error::environment(format!("{} does not answer: {why}", server.base()))
                    .fix("start the server first; nothing was changed"));
            }
        }
        match server.takes(None).await {
            Takes::Yes => Err(Error::undecided(format!(
                "{} is open, so it cannot be shown that the old token is rejected",
                server.base()
            ))
            .fix("fix the lock first (see `lockproof probe`); nothing was changed")),
            _ => Ok(()),
        }
    }

    /// Restarts, and waits until the new token is accepted and the old one is rejected.
    async fn prove(&self, old_token: &str, token: &str) -> Result<()> {
        self.restart().await?;
        self.wait_for(token, old_token, "the new token").await.map_err(|why| why.fix("the old credential is restored"))
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
                    .map_err(|e| Error::environment("cannot run the restart command").detail(e))?;
                if output.status.success() {
                    return Ok(());
                }
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                Err(Error::environment(format!("the restart command exited with {}", output.status)).detail(said))
            }
        }
    }

    /// Waits until `alive` is accepted and `dead` is rejected.
    async fn wait_for(&self, alive: &str, dead: &str, what: &str) -> Result<()> {
        let limit = if matches!(self.restart, Restart::No) { NOTICE } else { self.ready_timeout };
        let end = Instant::now() + limit;
        loop {
            let state = match self.server().await {
                // The new token first: both answers then come from a server that has read it.
                Ok(server) => match server.takes_now(Some(alive)).await {
                    Takes::Yes => match server.takes_now(Some(dead)).await {
                        Takes::No => return Ok(()),
                        Takes::Yes => "the server still accepts the old token".to_owned(),
                        Takes::Unknown(why) => format!("the server's answer to the old token: {why}"),
                    },
                    Takes::No => "the server rejects it".to_owned(),
                    Takes::Unknown(why) => format!("the server's answer: {why}"),
                },
                Err(e) => e.one_line(),
            };
            if Instant::now() >= end {
                let error = Error::undecided(format!(
                    "timed out after {} s waiting for {what} to take effect",
                    limit.as_secs()
                ))
                .detail(state);
                return Err(match self.restart {
                    Restart::No => error.detail(
                        "ComfyUI-Login reads its credential only at its start: use --container, or --restart-command",
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
            return Err(Error::usage("the address of the server is unknown").fix("add --url"));
        };
        match engine.published(name).await? {
            Some(address) => Gatekeeper::named(&format!("http://{address}"), &trust, &self.scheme),
            None => Err(Error::environment(format!("the container {name} publishes no port and has no address"))
                .fix("add --url")),
        }
    }

    /// Restores everything, and returns `why` with the result.
    async fn put_back(&self, old: &Credential, old_token: &str, env_files: &[EnvFile], why: Error) -> Error {
        tracing::info!("restoring the old credential");
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
            return why.detail("the old credential was restored, and no .env was changed");
        }
        let mut why = why.detail("the old credential could NOT be restored completely:");
        for line in failed {
            why = why.detail(line);
        }
        why.fix("write the current token with `lockproof token extract`, then restart the server")
    }
}

/// The original content of a `.env` file.
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
