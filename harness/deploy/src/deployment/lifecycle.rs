//! The events, one function each, as defined by the contract.

use std::time::Duration;

use super::{Deployment, MadeBy, stack::Stack};
use crate::engine::container::{ContainerSpec, Life};
use lockproof_model::{
    error::{Error, Result},
    event::Event,
    restart::RestartPolicy,
};

/// The result of performing an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Performed {
    /// It was performed.
    Done,
    /// It does not apply to this subject, with the reason.
    Skipped(String),
}

/// How long to wait for a restart policy. The engine waits 100 ms before the first restart, and
/// twice as long after each further crash.
const COMES_BACK: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl Deployment {
    /// Performs `event`. Does not wait until the server answers.
    ///
    /// # Errors
    /// An environment error if the engine fails; an undecided error if this engine does not support
    /// the event.
    pub async fn perform(&mut self, event: Event) -> Result<Performed> {
        match event {
            Event::Installed => {}
            Event::Restart | Event::Rotate => self.restart().await?,
            Event::StopStart => self.stop_start().await?,
            Event::Kill => self.kill().await?,
            Event::Crash => return self.crash().await,
            Event::Recreate => self.recreate().await?,
            Event::DownUp => self.down_up().await?,
            Event::Offline => self.offline().await?,
            Event::Upgrade => self.upgrade().await?,
            Event::Wipe => self.wipe().await?,
        }
        Ok(Performed::Done)
    }

    /// Restarts the container with the engine.
    ///
    /// # Errors
    /// An environment error if the engine fails.
    pub async fn restart(&self) -> Result<()> {
        match &self.made_by {
            MadeBy::Compose(stack) => self.admission.enter_during(stack.restart()).await,
            MadeBy::Engine => {
                let id = self.container_id();
                self.admission.enter_during(self.engine.restart(&id, self.subject.stop_timeout)).await
            }
        }
    }

    /// Restarts the container without a grace period. This is not an event; it is used for what is
    /// read at a start.
    ///
    /// # Errors
    /// An environment error if the engine fails.
    pub async fn restart_at_once(&self) -> Result<()> {
        self.admission.enter().await;
        self.engine.restart(&self.container_id(), Duration::ZERO).await
    }

    /// Stops and starts the container.
    async fn stop_start(&self) -> Result<()> {
        match &self.made_by {
            MadeBy::Compose(stack) => {
                stack.stop().await?;
                self.admission.enter().await;
                stack.start().await
            }
            MadeBy::Engine => {
                self.engine.stop(&self.container_id(), self.subject.stop_timeout).await?;
                self.start_container().await
            }
        }
    }

    /// Kills the container with SIGKILL and starts it. The engine treats its own kill as a manual
    /// stop, so the restart policy does not interfere.
    async fn kill(&self) -> Result<()> {
        match &self.made_by {
            MadeBy::Compose(stack) => {
                stack.kill().await?;
                self.admission.enter().await;
                stack.start().await
            }
            MadeBy::Engine => {
                self.engine.kill(&self.container_id()).await?;
                self.wait_until("the process to exit", |life| !life.running).await?;
                self.start_container().await
            }
        }
    }

    /// Kills the main process from the host, so that the restart policy restarts it.
    ///
    /// The engine's own kill would suppress the policy, and PID 1 of a namespace cannot be killed
    /// from inside. So a short-lived helper container with the host's PID namespace and no network
    /// sends the signal.
    async fn crash(&self) -> Result<Performed> {
        if self.subject.restart == RestartPolicy::No {
            return Ok(Performed::Skipped(
                "the container has no restart policy (add `restart: unless-stopped`)".into(),
            ));
        }
        let before = self.life().await?;
        let spec = ContainerSpec {
            name: self.run.name(&format!("{}-crash-{}", self.key, lockproof_model::secret::random(4))),
            image: self.image.clone(),
            labels: self.run.labels(&self.subject.name),
            entrypoint: Some(vec!["/bin/sh".into(), "-c".into()]),
            command: Some(vec![format!("kill -9 {}", before.pid)]),
            user: Some("0".into()),
            network: Some("none".into()),
            pid_mode: Some("host".into()),
            ..Default::default()
        };
        let helper = self.engine.create(&spec).await?;
        self.admission.enter().await;
        let killed = self.engine.start(&helper).await;
        let ended = match killed {
            Ok(()) => self.wait_for(&helper, "the helper container to exit", |life| !life.running).await,
            Err(e) => Err(e),
        };
        let code = self.engine.life(&helper).await?.map_or(-1, |life| life.exit_code);
        self.engine.remove(&helper).await?;
        ended?;
        if code != 0 {
            return Err(Error::undecided("cannot kill the main process from the host")
                .detail(format!("`kill -9` in the host's PID namespace exited with {code}"))
                .fix("remove `crash` from the events: this engine runs its containers in another PID namespace"));
        }
        self.await_next_life(&before).await?;
        Ok(Performed::Done)
    }

    /// Waits until the restart policy has restarted the process. Does not wait for a process that
    /// exits at once or a policy that gives up: whether the server answers is judged later.
    async fn await_next_life(&self, before: &Life) -> Result<()> {
        let deadline = tokio::time::Instant::now() + COMES_BACK;
        while tokio::time::Instant::now() < deadline {
            let life = self.life().await?;
            if life.started_at != before.started_at || life.restarts > before.restarts || self.has_ended(&life) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Creates a new container with the same named and anonymous volumes.
    async fn recreate(&mut self) -> Result<()> {
        match &self.made_by {
            MadeBy::Compose(stack) => {
                let journal = stack.note_volumes(&self.engine, &self.run).await?;
                self.admission.enter().await;
                self.up_by(stack, &["up", "-d", "--force-recreate"]).await?;
                self.engine.remove_volume(&journal).await
            }
            MadeBy::Engine => {
                self.stop_and_remove().await?;
                self.make_container().await?;
                self.start_container().await
            }
        }
    }

    /// Removes the container, its network and its anonymous volumes, and creates new ones.
    async fn down_up(&mut self) -> Result<()> {
        match &self.made_by {
            MadeBy::Compose(stack) => {
                stack.down(&self.engine, &self.run, &["down"]).await?;
                self.up_again().await
            }
            MadeBy::Engine => {
                self.down().await?;
                self.up().await
            }
        }
    }

    /// `down-up`, started without network access.
    async fn offline(&mut self) -> Result<()> {
        self.isolated = true;
        self.down_up().await
    }

    /// `down-up` with the image in `upgrade_to`.
    async fn upgrade(&mut self) -> Result<()> {
        let Some(image) = self.subject.upgrade_to.clone() else {
            return Err(Error::usage("the event `upgrade` needs the image to upgrade to").fix("add upgrade_to: IMAGE"));
        };
        // A missing image must not leave the subject down.
        let found = crate::lab::require(&self.engine, &image).await?;
        (self.image, self.facts) = (found.name, found.facts);
        self.down_up().await
    }

    /// `compose down --volumes`, `up`: removes named volumes too.
    async fn wipe(&mut self) -> Result<()> {
        match &self.made_by {
            MadeBy::Compose(stack) => {
                stack.down(&self.engine, &self.run, &["down", "--volumes"]).await?;
                self.up_again().await
            }
            MadeBy::Engine => {
                self.down().await?;
                for volume in std::mem::take(&mut self.named).into_values() {
                    self.engine.remove_volume(&volume).await?;
                }
                self.up().await
            }
        }
    }

    /// `up -d` of a project that is down, with the current settings of this deployment.
    async fn up_again(&mut self) -> Result<()> {
        let (isolated, image) = (self.isolated, self.image.clone());
        if let MadeBy::Compose(stack) = &mut self.made_by {
            self.network = stack.set_next(isolated, image);
        }
        self.start().await
    }

    /// Runs a Compose command that starts containers, then follows the container that it created.
    pub(super) async fn up_by(&self, stack: &Stack, arguments: &[&str]) -> Result<()> {
        let (up, found) = stack.up(&self.engine, arguments).await?;
        if let Some(id) = found {
            self.adopt(id);
        }
        match up {
            Ok(()) if self.container_id().is_empty() => {
                Err(Error::environment("Compose did not create a container for the service"))
            }
            // A container whose process cannot start is down, and its state has the reason.
            Err(e) if !matches!(self.life().await, Ok(Life { running: false, .. })) => Err(e),
            Err(e) if !self.life().await?.never_ran() => Err(e),
            _ => Ok(()),
        }
    }

    async fn down(&mut self) -> Result<()> {
        self.stop_and_remove().await?;
        for volume in std::mem::take(&mut self.anonymous).into_values() {
            self.engine.remove_volume(&volume).await?;
        }
        self.engine.remove_network(&self.network).await
    }

    async fn up(&mut self) -> Result<()> {
        let name = format!("{}-net-{}", self.key, self.containers_made);
        self.network = self.engine.create_network(&self.run, &self.subject.name, &name, self.isolated).await?;
        self.make_volumes().await?;
        self.make_container().await?;
        self.start_container().await
    }

    async fn stop_and_remove(&self) -> Result<()> {
        let id = self.container_id();
        self.engine.stop(&id, self.subject.stop_timeout).await?;
        self.engine.remove(&id).await
    }

    async fn wait_until(&self, what: &str, done: impl Fn(&Life) -> bool) -> Result<()> {
        self.wait_for(&self.container_id(), what, done).await
    }

    async fn wait_for(&self, id: &str, what: &str, done: impl Fn(&Life) -> bool) -> Result<()> {
        let deadline = tokio::time::Instant::now() + COMES_BACK;
        loop {
            if let Some(life) = self.engine.life(id).await?
                && done(&life)
            {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                return Err(Error::undecided(format!("timed out after {} s waiting for {what}", COMES_BACK.as_secs()))
                    .at(format!("subject `{}`", self.subject.name)));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}
