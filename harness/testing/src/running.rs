//! A running ComfyUI container, and the events that it supports.

use std::{fmt, path::Path, time::Duration};

use testcontainers::{ContainerAsync, ImageExt, core::WaitFor, runners::AsyncRunner};

use super::{
    ComfyUi,
    belongings::{Belongings, remove_container},
};
use lockproof_deploy::{
    deployment::{Deployment, ready::Readiness},
    engine::{
        Engine,
        exec::{Command, Output},
    },
    install::{self, Installed},
    lab::Kit,
    layout::{self, Layout},
    mint,
    subject::{Install, PluginSource, Subject},
};
use lockproof_model::{
    config::SchemeEntry,
    error::{Error, Result},
    verdict::Verdict,
};
use lockproof_probe::{
    claim::empty_token,
    client::Client,
    judge::{Case, judge},
    keys::{self, Keys},
    look::{Reference, look},
    message::{Answer, Request},
};

/// The number of log lines in an error.
const LOG_LINES: usize = 20;
/// The stop timeout of the restart after an installation.
const INSTALL_GRACE: Duration = Duration::from_secs(1);

/// A running ComfyUI container, with its own volumes and network. Dropping it removes everything.
pub struct RunningComfyUi {
    image: ComfyUi,
    deployment: Deployment,
    client: Option<Client>,
    layout: Option<Layout>,
    installed: Option<Installed>,
    belongings: Belongings<ComfyUi>,
}

impl fmt::Debug for RunningComfyUi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Only names: the environment may contain a token.
        f.debug_struct("RunningComfyUi").field("run", &self.run_id()).field("id", &self.id()).finish_non_exhaustive()
    }
}

impl ComfyUi {
    /// Starts a container, published on 127.0.0.1 only, and waits until the server answers.
    ///
    /// # Errors
    /// A usage error if the specification is invalid. An environment error, with the last log
    /// lines, if the container exits or the server does not answer. In both cases, everything is
    /// removed.
    pub async fn start(self) -> Result<RunningComfyUi> {
        let here = std::env::current_dir()
            .map_err(|e| Error::environment("cannot read the current directory").detail(e).fix("change into one"))?;
        let subject = Subject::new(&self.entry, &SchemeEntry::default(), &here)?;
        let engine = Engine::connect().await?;
        let belongings = Belongings::new();
        let deployment = Deployment::prepare(&engine, &belongings.run, "tc", &subject).await?;
        let mut running = RunningComfyUi::new(self.of_image(deployment.image()), deployment, belongings);
        running.make_container().await?;
        Ok(running)
    }
}

impl RunningComfyUi {
    fn new(image: ComfyUi, deployment: Deployment, belongings: Belongings<ComfyUi>) -> Self {
        Self { image, deployment, client: None, layout: None, installed: None, belongings }
    }

    /// Creates the next container, and waits until its server answers.
    async fn make_container(&mut self) -> Result<()> {
        let specification = self.deployment.next_specification();
        // Readiness is checked here, not by log lines.
        let request = self.image.build(&specification).with_ready_conditions(vec![WaitFor::Nothing]);
        let container = request.start().await.map_err(|e| {
            Error::environment("testcontainers could not start the container").detail(e).fix(format!(
                "if testcontainers uses another engine than lockproof, set DOCKER_HOST={0}",
                self.deployment.engine.address()
            ))
        })?;
        self.deployment.adopt(container.id().to_owned());
        self.belongings.container = Some(container);
        self.until_ready().await
    }

    async fn until_ready(&mut self) -> Result<()> {
        self.client = None;
        match self.deployment.wait_ready().await? {
            Readiness::Ready { client, .. } => {
                self.client = Some(client);
                Ok(())
            }
            Readiness::Down(down) => {
                let mut error = Error::environment(format!("{}: {}", self.deployment.image(), down.why));
                for line in down.log {
                    error = error.detail(line);
                }
                Err(error.fix(down.fix))
            }
        }
    }

    /// The id of the current container.
    pub fn id(&self) -> String {
        self.deployment.container_id()
    }

    /// The id of the run, which is in the label `lockproof.run` of all objects of this test.
    pub fn run_id(&self) -> &str {
        self.belongings.run.id()
    }

    /// The container as a testcontainers object.
    ///
    /// Stop and start it with the methods of this type, which wait until it answers.
    ///
    /// # Panics
    /// After a failed [`RunningComfyUi::recreate`], when there is no container.
    pub fn container(&self) -> &ContainerAsync<ComfyUi> {
        self.belongings.container.as_ref().expect("the container exists unless a re-creation failed")
    }

    /// The current base URL, as `http://127.0.0.1:PORT`. The engine assigns a new port at each
    /// start, so call it again afterwards; a container [without a
    /// network](ComfyUi::without_network) is reached by its own address.
    ///
    /// # Errors
    /// An environment error, with the last log lines, if the container is not running.
    pub async fn base_url(&self) -> Result<String> {
        let life = self.deployment.life().await?;
        match life.address(self.deployment.subject.port).filter(|_| life.running) {
            Some(address) => Ok(format!("http://{address}")),
            None => {
                let mut error = Error::environment(format!(
                    "the container is not running; its last exit code is {}",
                    life.exit_code
                ));
                for line in self.log().await? {
                    error = error.detail(line);
                }
                Err(error.fix("start it with `start`"))
            }
        }
    }

    /// Sends a request as written, and returns the complete answer.
    ///
    /// # Errors
    /// An environment error if there is no answer.
    pub async fn send(&self, request: &Request) -> Result<Answer> {
        let client = self.client()?;
        client.send(request).await.map_err(|fault| {
            Error::environment(format!("{} {} got no answer", request.method, request.target)).detail(fault)
        })
    }

    /// The status of an anonymous `GET`.
    ///
    /// # Errors
    /// As [`RunningComfyUi::send`].
    pub async fn status(&self, target: &str) -> Result<u16> {
        Ok(self.send(&Request::get(target)).await?.status.as_u16())
    }

    /// The status of a `GET` with the token.
    ///
    /// # Errors
    /// As [`RunningComfyUi::send`].
    pub async fn status_with(&self, target: &str, keys: &Keys) -> Result<u16> {
        let scheme = &self.deployment.subject.lock.scheme;
        let request = keys::authorised(Request::get(target), scheme, keys.token());
        Ok(self.send(&request).await?.status.as_u16())
    }

    fn client(&self) -> Result<&Client> {
        self.client
            .as_ref()
            .ok_or_else(|| Error::environment("the container is not running").fix("start it with `start`"))
    }

    /// Restarts the container with the engine.
    ///
    /// # Errors
    /// An environment error if the engine fails, or the server does not answer again.
    pub async fn restart(&mut self) -> Result<()> {
        self.deployment.restart().await?;
        self.until_ready().await
    }

    /// Stops the container: SIGTERM, then SIGKILL after the stop timeout.
    ///
    /// # Errors
    /// An environment error if the engine fails.
    pub async fn stop(&mut self) -> Result<()> {
        self.client = None;
        self.deployment.engine.stop(&self.id(), self.deployment.subject.stop_timeout).await
    }

    /// Kills the container with SIGKILL; it stays down until [`RunningComfyUi::start`].
    ///
    /// # Errors
    /// An environment error if the engine fails.
    pub async fn kill(&mut self) -> Result<()> {
        self.client = None;
        self.deployment.engine.kill(&self.id()).await?;
        // The engine's kill returns before the process has exited, and a start would still find it
        // running.
        self.deployment.engine.stop(&self.id(), Duration::ZERO).await
    }

    /// Starts the container after a stop, and waits until the server answers.
    ///
    /// # Errors
    /// An environment error if the engine fails, or the server does not answer.
    pub async fn start(&mut self) -> Result<()> {
        self.deployment.engine.start(&self.id()).await?;
        self.until_ready().await
    }

    /// Replaces the container with a new one with the same named and anonymous volumes, as `docker
    /// compose up --force-recreate` does: its writable layer is lost.
    ///
    /// # Errors
    /// An environment error if the engine fails, or the server does not answer.
    pub async fn recreate(&mut self) -> Result<()> {
        self.stop().await?;
        remove_container(self.belongings.container.take()).await?;
        self.make_container().await
    }

    /// Runs a command in the container, as its own user.
    ///
    /// # Errors
    /// An environment error if the container is not running. A command that fails is not an error:
    /// see [`Output::code`].
    pub async fn exec<S: Into<String>>(&self, words: impl IntoIterator<Item = S>) -> Result<Output> {
        self.deployment.engine.exec(&self.id(), Command::new(words)).await
    }

    /// The last lines of the container's log, over all its starts.
    ///
    /// # Errors
    /// An environment error if the engine does not return it.
    pub async fn log(&self) -> Result<Vec<String>> {
        self.deployment.engine.last_lines(&self.id(), LOG_LINES).await
    }

    /// Installs the lab's login plugin with its dependencies, which are downloaded once, and
    /// restarts to activate it.
    ///
    /// # Errors
    /// An undecided error if it cannot be installed; an environment error if the server does not
    /// start again.
    pub async fn install_lab_login(&mut self) -> Result<()> {
        let kit = Kit::prepare(&self.deployment.engine, &self.belongings.run).await?;
        self.install_plugin(kit.plugin(), Some(&kit.wheels())).await
    }

    /// Copies a plugin into custom_nodes, installs its requirements, optionally from a directory of
    /// `wheels`, and restarts to activate it.
    ///
    /// # Errors
    /// A usage error if the directory is not a plugin, else as
    /// [`RunningComfyUi::install_lab_login`].
    pub async fn install_plugin(&mut self, plugin: impl AsRef<Path>, wheels: Option<&Path>) -> Result<()> {
        let scheme = &self.deployment.subject.lock.scheme;
        let from = PluginSource::new(&plugin.as_ref().display().to_string(), scheme, Path::new("."))?;
        self.install(Install { from: Some(from), into: None, script: None, wheels: wheels.map(Path::to_owned) }).await
    }

    /// Installs a lock like `install:` in a `lockproof.yaml`, for example with a script, and
    /// restarts to activate it.
    ///
    /// # Errors
    /// As [`RunningComfyUi::install_lab_login`].
    pub async fn install(&mut self, install: Install) -> Result<()> {
        let layout = self.layout().await?;
        self.deployment.subject.lock.install = Some(install);
        self.installed = Some(install::install(&self.deployment, &layout).await?);
        self.deployment.engine.restart(&self.id(), INSTALL_GRACE).await?;
        self.until_ready().await
    }

    /// The paths in the container. Detected once, because a locked server reveals less.
    ///
    /// # Errors
    /// An undecided error if they are not found.
    pub async fn layout(&mut self) -> Result<Layout> {
        if let Some(layout) = &self.layout {
            return Ok(layout.clone());
        }
        let layout = layout::detect(&self.deployment, self.client()?).await?;
        Ok(self.layout.insert(layout).clone())
    }

    /// Sets a random password through the first-run form, or reads the existing credential, and
    /// returns the token and a session.
    ///
    /// # Errors
    /// An undecided error if there is no plugin, or no token is created.
    pub async fn mint(&mut self) -> Result<Keys> {
        let layout = self.layout().await?;
        let installed = match &self.installed {
            Some(installed) => installed.clone(),
            // The image, or its entry point, installed it: only search for it.
            None => self.installed.insert(install::install(&self.deployment, &layout).await?).clone(),
        };
        mint::mint(&self.deployment, self.client()?, &layout, &installed).await
    }

    /// The current verdict: `locked`, `open`, `claimable` (by the empty token), `leaky` (if a
    /// sentinel is served), or `locked-out`.
    ///
    /// It sends the sentinels without a credential and with the token, and changes nothing. Use
    /// `lockproof gate` to find bypasses and to test the login form.
    ///
    /// # Errors
    /// An undecided error if the answers say nothing about the lock.
    pub async fn verdict(&self, keys: &Keys) -> Result<Verdict> {
        let client = self.client()?;
        let scheme = &self.deployment.subject.lock.scheme;
        let seen = look(client, scheme, Some(keys), &Reference::default()).await;
        let claimed = !seen.all_through() && empty_token(client, scheme, &seen).await.is_some();
        let leaks = !seen.through().is_empty();
        judge(Case { look: &seen, claimed, leaks })
            .map_err(|why| Error::undecided(why).fix("check the container's log"))
    }

    /// Removes the container, its volumes and its network. Dropping it does the same, but cannot
    /// report errors.
    ///
    /// # Errors
    /// An environment error that lists what could not be removed.
    pub async fn remove(mut self) -> Result<()> {
        let engine = self.deployment.engine.clone();
        self.belongings.remove(&engine).await
    }
}
