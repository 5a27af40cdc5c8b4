//! A whole compose project, started as a copy with the installed Compose, so that the test runs the
//! operator's commands.
//!
//! Compose creates the anonymous volumes, without labels. While a container uses them, they are
//! found through it; before it is removed, they are recorded in a
//! [journal](crate::engine::journal).

pub mod command;
pub mod rewrite;

mod binds;
mod images;

use crate::{
    engine::{Engine, Run, cow::CowBinds, image::ImageFacts},
    subject::{ComposeSubject, Subject},
};
use command::Compose;
pub use images::images;
use lockproof_model::{
    error::{Error, Result},
    secret,
};
use rewrite::Made;

/// Compose's label for the project, in v1 and v2.
const LABEL_PROJECT: &str = "com.docker.compose.project";
/// Compose's label for the service.
const LABEL_SERVICE: &str = "com.docker.compose.service";

/// A copied project.
#[derive(Debug)]
pub(super) struct Stack {
    compose: Compose,
    subject: ComposeSubject,
    port: u16,
    /// The name of the project, and the prefix of every name in it.
    name: String,
    made: Made,
    /// Volumes that Compose does not create, in the order in which they can be removed.
    volumes: Vec<String>,
}

/// A stack that is not started yet, with the image of its gated service.
pub(super) struct Prepared {
    pub(super) stack: Stack,
    pub(super) image: String,
    pub(super) facts: ImageFacts,
    pub(super) binds: CowBinds,
}

impl Stack {
    /// Creates what Compose does not: images, layers for binds, replacements of external volumes.
    pub(super) async fn prepare(engine: &Engine, run: &Run, key: &str, subject: &Subject) -> Result<Prepared> {
        let Some(of) = &subject.compose else {
            return Err(Error::usage("not a compose subject"));
        };
        let compose = Compose::find(engine).await?;
        let mut found = images(engine, run, subject).await?;
        let mut made = Made {
            images: found.iter().map(|(service, image)| (service.clone(), image.name.clone())).collect(),
            labels: run.labels(&subject.name),
            prefix: run.name(key),
            isolated: !subject.network,
            gpu: std::path::Path::new("/dev/nvidiactl").exists(),
            ..Made::default()
        };
        let gated = found
            .remove(&of.service)
            .ok_or_else(|| Error::usage(format!("the service `{}` has neither `image` nor `build`", of.service)))?;
        let mut volumes = Vec::new();
        let binds = binds::make(engine, run, key, subject, of, &gated.name).await?;
        made.binds = binds.by_path;
        volumes.extend(binds.volumes);
        for name in binds::made_elsewhere(of) {
            let real = engine.create_volume(run, &subject.name, &format!("{key}-external-{name}")).await?;
            volumes.push(real.clone());
            made.kept.insert(name, real);
        }
        let stack = Self { compose, subject: of.clone(), port: subject.port, name: run.name(key), made, volumes };
        if key.ends_with("u1") {
            for note in stack.file().1.iter().chain(&binds.notes) {
                tracing::warn!("{}: {note}", subject.name);
            }
        }
        Ok(Prepared { stack, image: gated.name, facts: gated.facts, binds: CowBinds::default() })
    }

    /// The real name of the gated service's network.
    pub(super) fn network(&self) -> String {
        let door = rewrite::door(&self.subject.project, &self.subject.service);
        let (file, _) = self.file();
        let network = file["services"][door]["networks"].as_object().and_then(|n| n.keys().next().cloned());
        let name = network.and_then(|n| file["networks"][n]["name"].as_str().map(str::to_owned));
        name.unwrap_or_else(|| "none".to_owned())
    }

    fn file(&self) -> (serde_json::Value, Vec<String>) {
        rewrite::rewrite(&self.subject.project, &self.subject.service, self.port, &self.made)
    }

    async fn run(&self, arguments: &[&str]) -> Result<()> {
        tracing::debug!("{}: compose {}", self.name, arguments.join(" "));
        self.compose.run(&self.name, self.file().0.to_string().as_bytes(), arguments).await
    }

    /// Runs a command that may stop containers, with a matching time limit.
    async fn run_stopping(&self, arguments: &[&str]) -> Result<()> {
        let seconds = self.subject.stop_timeout.map(|t| t.as_secs().to_string());
        let mut all = arguments.to_vec();
        if let Some(seconds) = &seconds {
            all.extend(["-t", seconds]);
        }
        self.run(&all).await
    }

    fn of_project(&self) -> String {
        format!("{LABEL_PROJECT}={}", self.name)
    }

    /// The id of the gated service's container.
    async fn container(&self, engine: &Engine) -> Result<Option<String>> {
        let service = format!("{LABEL_SERVICE}={}", self.subject.service);
        Ok(engine.containers_with(&[&self.of_project(), &service]).await?.into_iter().next())
    }

    /// `down`, followed by the removal of anonymous volumes, which `down` leaves.
    pub(super) async fn down(&self, engine: &Engine, run: &Run, arguments: &[&str]) -> Result<()> {
        let anonymous = engine.anonymous_volumes_with(&[&self.of_project()]).await?;
        let journal = self.journal(engine, run, &anonymous).await?;
        self.run_stopping(arguments).await?;
        for volume in &anonymous {
            engine.remove_volume(volume).await?;
        }
        engine.remove_volume(&journal).await
    }

    async fn journal(&self, engine: &Engine, run: &Run, volumes: &[String]) -> Result<String> {
        engine.write_journal(run, &format!("{}-journal-{}", self.name, secret::random(4)), volumes).await
    }

    /// Removes everything.
    pub(super) async fn take_down(self, engine: &Engine, run: &Run) -> Result<()> {
        let down = self.down(engine, run, &["down", "--volumes", "--remove-orphans"]).await;
        for volume in &self.volumes {
            engine.remove_volume(volume).await?;
        }
        down
    }

    /// Runs a command that starts the stack. Returns its result, and the container of the gated service if
    /// Compose created one.
    pub(super) async fn up(&self, engine: &Engine, arguments: &[&str]) -> Result<(Result<()>, Option<String>)> {
        let done = self.run_stopping(arguments).await;
        Ok((done, self.container(engine).await?))
    }

    /// `restart`.
    pub(super) async fn restart(&self) -> Result<()> {
        self.run_stopping(&["restart"]).await
    }

    /// `stop`.
    pub(super) async fn stop(&self) -> Result<()> {
        self.run_stopping(&["stop"]).await
    }

    /// `start`.
    pub(super) async fn start(&self) -> Result<()> {
        self.run(&["start"]).await
    }

    /// `kill`.
    pub(super) async fn kill(&self) -> Result<()> {
        self.run(&["kill"]).await
    }

    /// Records the anonymous volumes, which a re-creation may leave behind. Returns the journal's name.
    pub(super) async fn note_volumes(&self, engine: &Engine, run: &Run) -> Result<String> {
        let anonymous = engine.anonymous_volumes_with(&[&self.of_project()]).await?;
        self.journal(engine, run, &anonymous).await
    }

    /// Writes the compose file for the next `up`. Returns the network of the gated service.
    pub(super) fn set_next(&mut self, isolated: bool, image: String) -> String {
        self.made.isolated = isolated;
        self.made.images.insert(self.subject.service.clone(), image);
        self.network()
    }
}
