//! A running subject: its container, volumes and network.
//!
//! Every container is created from a specification, because a request to the engine cannot be
//! cloned and a re-created container must be identical to the first one.

pub mod admission;
pub mod files;
pub mod lifecycle;
pub mod pace;
pub mod ready;
pub mod stack;

use std::{collections::BTreeMap, path::PathBuf};

use tokio::sync::watch;

use admission::{Admission, Places};

use crate::{
    engine::{
        Engine, Run,
        container::{Attachment, ContainerSpec, Life},
        cow::{BindRequest, CowBinds, Maker},
        image::ImageFacts,
        sweep::Leftovers,
    },
    subject::{Mount, MountSource, Subject},
};
use lockproof_model::{
    error::{Error, Result},
    state::Owner,
    state_map::Mounted,
};

/// A running subject.
#[derive(Debug)]
pub struct Deployment {
    /// Its engine.
    pub engine: Engine,
    /// Its configuration.
    pub subject: Subject,
    run: Run,
    /// Distinguishes containers of parallel subjects, and of one subject that is started again.
    key: String,
    image: String,
    facts: ImageFacts,
    network: String,
    isolated: bool,
    /// Real names of the named volumes, by their name in the file.
    named: BTreeMap<String, String>,
    /// Real names of the anonymous volumes, by target.
    anonymous: BTreeMap<String, String>,
    /// Copy-on-write binds.
    binds: CowBinds,
    containers_made: u32,
    volumes_made: u32,
    container: watch::Sender<String>,
    /// The creator of its containers.
    made_by: MadeBy,
    /// Its start permits.
    admission: Admission,
}

/// The creator of a deployment's containers, with its resources.
#[derive(Debug)]
enum MadeBy {
    /// The engine, from lockproof's specification.
    Engine,
    /// Compose, from a copy of the subject's project.
    Compose(Box<stack::Stack>),
}

/// The engine, for the exposure watch.
#[derive(Clone, Debug)]
pub struct Host {
    engine: Engine,
    port: u16,
}

impl lockproof_probe::watch::Host for Host {
    async fn life(&self, container: &str) -> Result<Option<lockproof_probe::watch::Life>> {
        let life = self.engine.life(container).await?.filter(|life| life.running);
        Ok(life.map(|life| {
            let address = life.address(self.port);
            lockproof_probe::watch::Life { identity: (life.id, life.started_at), address }
        }))
    }
}

impl Deployment {
    /// Creates networks, volumes and container of a subject, and starts it.
    ///
    /// # Errors
    /// An environment error if the image is missing or the engine fails.
    pub async fn bring_up(engine: &Engine, run: &Run, key: &str, subject: &Subject) -> Result<Self> {
        let mut deployment = Self::create(engine, run, key, subject).await?;
        deployment.start().await?;
        Ok(deployment)
    }

    /// Creates everything that a subject needs, including its container, without starting it. The
    /// container of a compose project is created by [`Deployment::start`].
    ///
    /// # Errors
    /// As [`Deployment::bring_up`].
    pub async fn create(engine: &Engine, run: &Run, key: &str, subject: &Subject) -> Result<Self> {
        if subject.compose.is_some() {
            return Self::prepare_stack(engine, run, key, subject).await;
        }
        let mut deployment = Self::prepare(engine, run, key, subject).await?;
        deployment.make_container().await?;
        Ok(deployment)
    }

    /// Starts what [`Deployment::create`] created, for the first time.
    ///
    /// # Errors
    /// An environment error if the engine fails.
    pub async fn start(&mut self) -> Result<()> {
        match &self.made_by {
            MadeBy::Compose(stack) => {
                self.admission.enter().await;
                self.up_by(stack, &["up", "-d"]).await
            }
            MadeBy::Engine => self.start_container().await,
        }
    }

    /// Shares the permits of a run: further starts wait for one.
    pub fn share(&mut self, places: &Places) {
        self.admission = Admission::among(places);
    }

    /// Its starts so far.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    async fn start_container(&self) -> Result<()> {
        self.admission.enter().await;
        self.engine.start(&self.container_id()).await
    }

    /// Creates everything that a subject needs except its container: image, network, volumes. The
    /// caller may create the container from [`Deployment::next_specification`].
    ///
    /// # Errors
    /// As [`Deployment::bring_up`].
    pub async fn prepare(engine: &Engine, run: &Run, key: &str, subject: &Subject) -> Result<Self> {
        let facts = crate::lab::require(engine, &subject.image).await?;
        let isolated = !subject.network;
        let network = engine.create_network(run, &subject.name, &format!("{key}-net"), isolated).await?;
        let mut deployment = Self {
            engine: engine.clone(),
            subject: subject.clone(),
            run: run.clone(),
            key: key.to_owned(),
            image: facts.name,
            facts: facts.facts,
            network,
            isolated,
            named: BTreeMap::new(),
            anonymous: BTreeMap::new(),
            binds: CowBinds::default(),
            containers_made: 0,
            volumes_made: 0,
            container: watch::Sender::new(String::new()),
            made_by: MadeBy::Engine,
            admission: Admission::default(),
        };
        deployment.make_binds().await?;
        deployment.make_volumes().await?;
        Ok(deployment)
    }

    /// Creates what a compose project needs and Compose does not create.
    async fn prepare_stack(engine: &Engine, run: &Run, key: &str, subject: &Subject) -> Result<Self> {
        let stack::Prepared { stack, image, facts, binds } = stack::Stack::prepare(engine, run, key, subject).await?;
        let mut subject = subject.clone();
        if subject.image.is_empty() {
            subject.image.clone_from(&image);
        }
        Ok(Self {
            engine: engine.clone(),
            run: run.clone(),
            key: key.to_owned(),
            image,
            facts,
            network: stack.network(),
            isolated: !subject.network,
            subject,
            named: BTreeMap::new(),
            anonymous: BTreeMap::new(),
            binds,
            containers_made: 0,
            volumes_made: 0,
            container: watch::Sender::new(String::new()),
            made_by: MadeBy::Compose(Box::new(stack)),
            admission: Admission::default(),
        })
    }

    /// The specification of the next container.
    pub fn next_specification(&mut self) -> ContainerSpec {
        self.containers_made += 1;
        self.specification()
    }

    /// Uses an existing container as the subject's own.
    pub fn adopt(&self, id: String) {
        self.container.send_replace(id);
    }

    /// The id of the current container.
    pub fn container_id(&self) -> String {
        self.container.borrow().clone()
    }

    /// A channel with the container's id, updated when it is replaced.
    pub fn follow(&self) -> watch::Receiver<String> {
        self.container.subscribe()
    }

    /// Tells the exposure watch which process of the container is running.
    pub fn host(&self) -> Host {
        Host { engine: self.engine.clone(), port: self.subject.port }
    }

    /// The current state of the container.
    ///
    /// # Errors
    /// An environment error if the engine does not answer or the container is gone.
    pub async fn life(&self) -> Result<Life> {
        let id = self.container_id();
        self.engine.life(&id).await?.ok_or_else(|| {
            Error::environment(format!("the container of `{}` was removed by another program", self.subject.name))
                .fix("do not remove containers with the label lockproof.run during a run")
        })
    }

    /// The current image.
    pub fn image(&self) -> &str {
        &self.image
    }

    /// The metadata of the current image.
    pub fn image_facts(&self) -> &ImageFacts {
        &self.facts
    }

    /// The real name of its network.
    pub fn network(&self) -> &str {
        &self.network
    }

    /// Whether it currently has no network access.
    pub fn isolated(&self) -> bool {
        self.isolated
    }

    /// The value of an environment variable of the container: from the subject, else from the
    /// image.
    pub fn env(&self, name: &str) -> Option<&str> {
        self.subject.env.get(name).map(String::as_str).or_else(|| self.facts.env(name))
    }

    /// Binds that were copied, because this engine cannot mount them copy-on-write.
    pub fn copied_binds(&self) -> Vec<PathBuf> {
        self.subject
            .mounts
            .iter()
            .filter(|mount| self.binds.copied.contains(&mount.target))
            .filter_map(|mount| match &mount.source {
                MountSource::Bind(path) => Some(path.clone()),
                _ => None,
            })
            .collect()
    }

    /// All mounts: from the configuration, and from `VOLUME` in the image.
    pub fn mounted(&self) -> Vec<Mounted> {
        let asked = self.subject.mounts.iter().map(|mount| {
            let (owner, source) = match &mount.source {
                MountSource::Volume(name) => (Owner::Volume, Some(name.clone())),
                MountSource::Bind(path) => (Owner::Bind, Some(path.display().to_string())),
                MountSource::Anonymous => (Owner::AnonymousVolume, None),
                MountSource::Tmpfs => (Owner::Tmpfs, None),
            };
            Mounted { target: mount.target.clone(), owner, read_only: mount.read_only, source }
        });
        let declared = self.declared_volumes().into_iter().map(|target| Mounted {
            target,
            owner: Owner::AnonymousVolume,
            read_only: false,
            source: None,
        });
        asked.chain(declared).collect()
    }

    /// The image's `VOLUME`s without a mount in the configuration.
    fn declared_volumes(&self) -> Vec<String> {
        self.facts
            .volumes
            .iter()
            .map(|path| path.trim_end_matches('/').to_owned())
            .filter(|path| !path.is_empty() && !self.subject.mounts.iter().any(|m| m.target == *path))
            .collect()
    }

    async fn make_binds(&mut self) -> Result<()> {
        let requests: Vec<BindRequest> = self
            .subject
            .mounts
            .iter()
            .filter_map(|mount| match &mount.source {
                MountSource::Bind(source) => Some(BindRequest {
                    source: source.clone(),
                    target: mount.target.clone(),
                    read_only: mount.read_only,
                }),
                _ => None,
            })
            .collect();
        // The key separates the volumes of a subject that is started again.
        let maker = Maker { engine: &self.engine, run: &self.run, key: &self.key, image: &self.image };
        self.binds = maker.bind(&requests).await?;
        Ok(())
    }

    /// Creates missing volumes with labels; anonymous ones too, so that they can be found.
    async fn make_volumes(&mut self) -> Result<()> {
        let mut anonymous = self.declared_volumes();
        let mut named = Vec::new();
        for Mount { target, source, .. } in &self.subject.mounts {
            match source {
                MountSource::Volume(name) => named.push(name.clone()),
                MountSource::Anonymous => anonymous.push(target.clone()),
                MountSource::Bind(_) | MountSource::Tmpfs => {}
            }
        }
        for name in named {
            if !self.named.contains_key(&name) {
                let real = self.make_volume(&name).await?;
                self.named.insert(name, real);
            }
        }
        for target in anonymous {
            if !self.anonymous.contains_key(&target) {
                let real = self.make_volume(&format!("anonymous{target}")).await?;
                self.anonymous.insert(target, real);
            }
        }
        Ok(())
    }

    async fn make_volume(&mut self, name: &str) -> Result<String> {
        self.volumes_made += 1;
        let name = format!("{}-{}-{name}", self.key, self.volumes_made);
        self.engine.create_volume(&self.run, &self.subject.name, &name).await
    }

    async fn make_container(&mut self) -> Result<()> {
        let spec = self.next_specification();
        let id = self.engine.create(&spec).await?;
        self.adopt(id);
        Ok(())
    }

    fn specification(&self) -> ContainerSpec {
        let subject = &self.subject;
        let mut labels = subject.labels.clone().into_iter().collect::<std::collections::HashMap<_, _>>();
        labels.extend(self.run.labels(&subject.name));
        let asked = subject.mounts.iter().filter_map(|mount| {
            let volume = |name: &String| Attachment::Volume {
                name: name.clone(),
                target: mount.target.clone(),
                read_only: mount.read_only,
                no_copy: false,
            };
            match &mount.source {
                MountSource::Volume(name) => self.named.get(name).map(volume),
                MountSource::Anonymous => self.anonymous.get(&mount.target).map(volume),
                MountSource::Bind(_) => None,
                MountSource::Tmpfs => Some(Attachment::Tmpfs { target: mount.target.clone() }),
            }
        });
        let declared = self.declared_volumes().into_iter().filter_map(|target| {
            let name = self.anonymous.get(&target)?.clone();
            Some(Attachment::Volume { name, target, read_only: false, no_copy: false })
        });
        ContainerSpec {
            name: self.run.name(&format!("{}-{}", self.key, self.containers_made)),
            image: self.image.clone(),
            labels,
            command: subject.command.clone(),
            entrypoint: subject.entrypoint.clone(),
            env: subject.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            user: subject.user.clone(),
            working_dir: subject.working_dir.clone(),
            init: subject.init,
            restart: subject.restart,
            mounts: asked.chain(declared).chain(self.binds.attachments.iter().cloned()).collect(),
            port: Some(subject.port),
            network: Some(self.network.clone()),
            isolated: self.isolated,
            stop_timeout: Some(subject.stop_timeout),
            ..Default::default()
        }
    }

    /// A name for a helper container of this subject.
    pub fn scratch_name(&self, what: &str) -> String {
        self.run.name(&format!("{}-{what}-{}", self.key, lockproof_model::secret::random(4)))
    }

    /// The labels of all objects of this subject.
    pub fn labels(&self) -> std::collections::HashMap<String, String> {
        self.run.labels(&self.subject.name)
    }

    /// Removes the container, its volumes and its network. A failure does not stop the other
    /// removals.
    ///
    /// # Errors
    /// An environment error that lists what could not be removed, after everything was tried.
    pub async fn take_down(self) -> Result<()> {
        if let MadeBy::Compose(stack) = self.made_by {
            return stack.take_down(&self.engine, &self.run).await;
        }
        let volumes = self.binds.volumes.iter().chain(self.named.values()).chain(self.anonymous.values());
        let container = self.container_id();
        self.engine
            .sweep(&Leftovers {
                containers: (!container.is_empty()).then_some(container).into_iter().collect(),
                volumes: volumes.cloned().collect(),
                networks: vec![self.network.clone()],
                ..Leftovers::default()
            })
            .await
    }
}
