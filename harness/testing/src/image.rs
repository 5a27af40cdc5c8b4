//! The specification of a ComfyUI container.

use std::{borrow::Cow, path::PathBuf, time::Duration};

use testcontainers::{
    ContainerRequest, Image, ImageExt,
    core::{ContainerPort, WaitFor},
};

use lockproof_deploy::{
    engine::{Engine, Run, container::ContainerSpec},
    lab,
    subject::Subject,
};
use lockproof_model::{
    config::{MountEntry, Scalar, SchemeEntry, SubjectEntry, Words},
    duration::Span,
    error::{Error, Result},
};

/// The lab's stop timeout: it has nothing to save.
const LAB_GRACE: Span = Span::seconds(1);
/// testcontainers' time limit for starting the process; readiness is checked here.
const STARTUP: Duration = Duration::from_secs(300);

/// The specification of a ComfyUI container: an image, its mounts, its command. It can be cloned,
/// and every container is created from it.
///
/// Methods have the names of their testcontainers equivalents, and take precedence over those of
/// `ImageExt`. [`ComfyUi::start`] takes precedence over `AsyncRunner::start`, which would publish
/// the server on every interface.
#[derive(Clone, Debug)]
pub struct ComfyUi {
    pub(super) entry: SubjectEntry,
    name: String,
    tag: String,
}

impl ComfyUi {
    /// The lab, lockproof's stand-in for ComfyUI, which is built on first use.
    ///
    /// # Errors
    /// An environment error if there is no engine or the image cannot be built.
    pub async fn lab() -> Result<Self> {
        let engine = Engine::connect().await?;
        let found = lab::require(&engine, lab::REPOSITORY).await?;
        Ok(Self::image(found.name).with_stop_timeout(LAB_GRACE.0))
    }

    /// Any image that runs ComfyUI; it is pulled at the start if it is not local. The lab has
    /// further images: `lockproof/comfyui-lab:app`, `:next` and `:baked`.
    pub fn image(image: impl Into<String>) -> Self {
        let image = image.into();
        let (name, tag) = split(&image);
        let entry = SubjectEntry { name: "comfyui".into(), image: Some(image.clone()), ..SubjectEntry::default() };
        Self { name, tag, entry }
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn with_env_var(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.entry.env.insert(name.into(), Scalar(value.into()));
        self
    }

    /// Replaces the image's command.
    #[must_use]
    pub fn with_cmd<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.entry.command = Some(Words::List(words.into_iter().map(|word| Scalar(word.into())).collect()));
        self
    }

    /// Replaces the image's entry point, which gets the command as arguments.
    #[must_use]
    pub fn with_entrypoint(mut self, program: impl Into<String>) -> Self {
        self.entry.entrypoint = Some(Words::List(vec![Scalar(program.into())]));
        self
    }

    /// Replaces the image's user.
    #[must_use]
    pub fn with_user(mut self, user: impl Into<String>) -> Self {
        self.entry.user = Some(Scalar(user.into()));
        self
    }

    /// Replaces the image's working directory.
    #[must_use]
    pub fn with_working_dir(mut self, directory: impl Into<String>) -> Self {
        self.entry.working_dir = Some(directory.into());
        self
    }

    /// Adds a label to lockproof's own.
    #[must_use]
    pub fn with_label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.entry.labels.insert(name.into(), Scalar(value.into()));
        self
    }

    /// Sets the server's port in the container. Default: 8188.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.entry.port = Some(port);
        self
    }

    /// Starts the container without network access.
    #[must_use]
    pub fn without_network(mut self) -> Self {
        self.entry.network = Some(false);
        self
    }

    /// Mounts a named volume, which is created for this test and survives [`recreate`](crate::RunningComfyUi::recreate).
    #[must_use]
    pub fn with_volume(self, name: impl Into<String>, target: impl Into<String>) -> Self {
        self.mount(MountEntry { volume: Some(name.into()), target: target.into(), ..MountEntry::default() })
    }

    /// Mounts a host path through a copy-on-write layer: the host's files are never written.
    #[must_use]
    pub fn with_bind(self, source: impl Into<PathBuf>, target: impl Into<String>) -> Self {
        self.mount(MountEntry { bind: Some(source.into()), target: target.into(), ..MountEntry::default() })
    }

    /// Mounts a tmpfs.
    #[must_use]
    pub fn with_tmpfs(self, target: impl Into<String>) -> Self {
        self.mount(MountEntry { tmpfs: Some(true), target: target.into(), ..MountEntry::default() })
    }

    fn mount(mut self, mount: MountEntry) -> Self {
        self.entry.mounts.push(mount);
        self
    }

    /// Sets the time limit for the first HTTP answer after a start. Default: 120 s.
    #[must_use]
    pub fn with_startup_timeout(mut self, timeout: Duration) -> Self {
        self.entry.ready_timeout = Some(Span(timeout));
        self
    }

    /// Sets the time limit of a stop before SIGKILL. Default: 10 s, for the lab 1 s.
    #[must_use]
    pub fn with_stop_timeout(mut self, timeout: Duration) -> Self {
        self.entry.stop_timeout = Some(Span(timeout));
        self
    }

    /// A request for testcontainers alone, published on 127.0.0.1, for tests that combine it with
    /// other containers. It has no volumes, waits for ComfyUI's log line, and cannot be re-created:
    /// use [`ComfyUi::start`] for these.
    ///
    /// # Errors
    /// A usage error if the specification is invalid or has mounts.
    pub fn request(&self) -> Result<ContainerRequest<Self>> {
        if !self.entry.mounts.is_empty() {
            return Err(Error::usage("a request for testcontainers alone cannot have mounts").fix(
                "use ComfyUi::start, which creates and removes the volumes; or add testcontainers' own \
                with_mount to the request",
            ));
        }
        let subject = Subject::new(&self.entry, &SchemeEntry::default(), &std::env::temp_dir())?;
        let run = Run::new();
        let mut labels = run.labels(&subject.name);
        labels.extend(subject.labels);
        Ok(self.build(&ContainerSpec {
            name: run.name("tc"),
            labels,
            user: subject.user,
            working_dir: subject.working_dir,
            port: Some(subject.port),
            network: (!subject.network).then(|| "none".to_owned()),
            isolated: !subject.network,
            ..ContainerSpec::default()
        }))
    }

    /// A request for the next container. Image, command and environment come from the image, the
    /// rest, such as ports and mounts, from the specification.
    pub(super) fn build(&self, spec: &ContainerSpec) -> ContainerRequest<Self> {
        let host_config = spec.host_config();
        let mut request = ImageExt::with_labels(self.clone(), &spec.labels)
            .with_container_name(&spec.name)
            .with_startup_timeout(STARTUP)
            // Replaces testcontainers' host configuration, which would publish ports on 0.0.0.0.
            .with_host_config_modifier(move |config| *config = host_config.clone());
        if let Some(user) = &spec.user {
            request = request.with_user(user);
        }
        if let Some(directory) = &spec.working_dir {
            request = request.with_working_dir(directory);
        }
        request
    }

    /// The same with the resolved image.
    pub(super) fn of_image(mut self, image: &str) -> Self {
        (self.name, self.tag) = split(image);
        self
    }
}

/// Splits an image reference so that testcontainers' `name:tag` is the image again; a digest has a
/// colon too.
fn split(image: &str) -> (String, String) {
    let (name, tag) = match image.split_once('@').and_then(|_| image.rsplit_once(':')) {
        Some(digest) => digest,
        None => lockproof_deploy::engine::image::split_tag(image),
    };
    (name.to_owned(), tag.to_owned())
}

fn words(words: Option<&Words>) -> impl Iterator<Item = &str> {
    match words {
        Some(Words::List(list)) => list.as_slice(),
        Some(Words::Line(_)) | None => &[],
    }
    .iter()
    .map(|word| word.0.as_str())
}

impl Image for ComfyUi {
    fn name(&self) -> &str {
        &self.name
    }

    fn tag(&self) -> &str {
        &self.tag
    }

    /// For a start by testcontainers alone; ComfyUI and the lab log this line when they listen.
    fn ready_conditions(&self) -> Vec<WaitFor> {
        vec![WaitFor::message_on_either_std("To see the GUI go to")]
    }

    fn env_vars(&self) -> impl IntoIterator<Item = (impl Into<Cow<'_, str>>, impl Into<Cow<'_, str>>)> {
        self.entry.env.iter().map(|(name, value)| (name.as_str(), value.0.as_str()))
    }

    fn entrypoint(&self) -> Option<&str> {
        words(self.entry.entrypoint.as_ref()).next()
    }

    fn cmd(&self) -> impl IntoIterator<Item = impl Into<Cow<'_, str>>> {
        words(self.entry.command.as_ref())
    }

    fn expose_ports(&self) -> &[ContainerPort] {
        // `build` publishes it on 127.0.0.1 through the host configuration.
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_tag_give_the_image_again() {
        for (image, descriptor) in [
            ("comfyui:cpu", "comfyui:cpu"),
            ("comfyui", "comfyui:latest"),
            ("host.example:5000/comfyui", "host.example:5000/comfyui:latest"),
            ("a/b@sha256:00", "a/b@sha256:00"),
        ] {
            let request = ComfyUi::image(image).request().expect("it is right");
            assert_eq!(request.descriptor(), descriptor);
        }
    }

    #[test]
    fn a_request_for_testcontainers_alone_cannot_have_mounts() {
        let error = ComfyUi::image("a").with_volume("v", "/v").request().expect_err("it has one");
        assert!(error.to_string().contains("cannot have mounts"), "{error}");
    }
}
