//! Inspects, pulls, imports and builds images.

use std::{collections::HashMap, path::Path};

use bollard::{
    body_full, body_try_stream,
    query_parameters::{BuildImageOptionsBuilder, CreateImageOptionsBuilder, TagImageOptionsBuilder},
};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};

use super::{Engine, failed, is_missing};
use lockproof_model::error::{Error, Result};

/// The image metadata that a subject depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFacts {
    /// The content-addressed id.
    pub id: String,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// The user.
    pub user: String,
    /// The working directory.
    pub working_dir: String,
    /// The paths that the image declares with `VOLUME`.
    pub volumes: Vec<String>,
    /// The entry point alone.
    pub entrypoint: Vec<String>,
    /// The entry point and command together.
    pub command: Vec<String>,
}

impl ImageFacts {
    /// The value of an environment variable.
    pub fn env(&self, name: &str) -> Option<&str> {
        self.env.iter().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }
}

impl Engine {
    /// The metadata of an image; `None` if it is not local.
    ///
    /// # Errors
    /// An environment error if the engine does not answer.
    pub async fn image(&self, name: &str) -> Result<Option<ImageFacts>> {
        let found = match self.docker.inspect_image(name).await {
            Ok(found) => found,
            Err(e) if is_missing(&e) => return Ok(None),
            Err(e) => return Err(failed(&format!("inspecting the image {name}"), &e)),
        };
        let config = found.config.unwrap_or_default();
        let entrypoint = config.entrypoint.unwrap_or_default();
        let mut command = entrypoint.clone();
        command.extend(config.cmd.unwrap_or_default());
        let mut volumes = config.volumes.unwrap_or_default();
        volumes.sort_unstable();
        Ok(Some(ImageFacts {
            id: found.id.unwrap_or_default(),
            env: config.env.unwrap_or_default(),
            user: config.user.unwrap_or_default(),
            working_dir: config.working_dir.unwrap_or_default(),
            volumes,
            entrypoint,
            command,
        }))
    }

    /// The id of any local image, for a container that is never started.
    ///
    /// # Errors
    /// An environment error if the engine does not answer.
    pub async fn any_image(&self) -> Result<Option<String>> {
        let images = self
            .docker
            .list_images(None::<bollard::query_parameters::ListImagesOptions>)
            .await
            .map_err(|e| failed("listing images", &e))?;
        Ok(images.into_iter().map(|image| image.id).next())
    }

    /// The metadata of an image, which is pulled if it is not local.
    ///
    /// # Errors
    /// An environment error if it is not local and cannot be pulled.
    pub async fn require_image(&self, name: &str) -> Result<ImageFacts> {
        if let Some(facts) = self.image(name).await? {
            return Ok(facts);
        }
        let why = match self.pull(name).await {
            Ok(()) => match self.image(name).await? {
                Some(facts) => return Ok(facts),
                None => "the pull succeeded, but the image is still missing".to_owned(),
            },
            Err(why) => why,
        };
        Err(Error::environment(format!("the image {name} is not on this engine and cannot be pulled")).detail(why).fix(
            format!(
                "check the name (`docker images` lists the local images), build it with `docker build -t \
                {name} …`, or load it with `docker load`"
            ),
        ))
    }

    /// The tagged images with a label of this name, with their labels.
    ///
    /// # Errors
    /// An environment error if the engine does not answer.
    pub(super) async fn images_with(&self, label: &str) -> Result<Vec<(HashMap<String, String>, String)>> {
        let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
        let options = bollard::query_parameters::ListImagesOptionsBuilder::default().filters(&filters).build();
        let images = self.docker.list_images(Some(options)).await.map_err(|e| failed("listing images", &e))?;
        Ok(images
            .into_iter()
            .flat_map(|image| image.repo_tags.into_iter().map(move |tag| (image.labels.clone(), tag)))
            .collect())
    }

    /// Removes a name of an image, and the image with its last name.
    ///
    /// # Errors
    /// An environment error if the engine fails.
    pub(super) async fn remove_image(&self, name: &str) -> Result<()> {
        match self.docker.remove_image(name, None::<bollard::query_parameters::RemoveImageOptions>, None).await {
            Ok(_) => Ok(()),
            Err(e) if super::is_missing(&e) => Ok(()),
            Err(e) => Err(failed("removing an image", &e)),
        }
    }

    /// Pulls an image. The error is the engine's own message.
    pub(crate) async fn pull(&self, name: &str) -> Result<(), String> {
        let (image, tag) = split_tag(name);
        let options = CreateImageOptionsBuilder::default().from_image(image).tag(tag).build();
        self.docker
            .create_image(Some(options), None, None)
            .try_for_each(|_| async { Ok(()) })
            .await
            .map_err(|e| e.to_string())
    }

    /// Imports a root file system from the archive `tar` as an image.
    ///
    /// # Errors
    /// An environment error if the engine fails.
    pub async fn import(&self, tar: &Path, name: &str) -> Result<()> {
        let file = tokio::fs::File::open(tar).await.map_err(|e| super::archive::unreadable(tar, &e))?;
        let (image, tag) = split_tag(name);
        let options = CreateImageOptionsBuilder::default().from_src("-").repo(image).tag(tag).build();
        let body = body_try_stream(tokio_util::io::ReaderStream::new(file));
        self.docker
            .create_image(Some(options), Some(body), None)
            .try_for_each(|_| async { Ok(()) })
            .await
            .map_err(|e| failed(&format!("importing the image {name}"), &e))
    }

    /// Builds an image from a context with a `Dockerfile`.
    ///
    /// # Errors
    /// An environment error with the last lines of the build output, if a step fails.
    pub async fn build(
        &self,
        context: Bytes,
        name: &str,
        arguments: &HashMap<String, String>,
        labels: &HashMap<String, String>,
    ) -> Result<()> {
        let options = BuildImageOptionsBuilder::default()
            .dockerfile("Dockerfile")
            .t(name)
            .buildargs(arguments)
            .labels(labels)
            .rm(true)
            .forcerm(true)
            .build();
        let mut said: Vec<String> = Vec::new();
        let mut stream = std::pin::pin!(self.docker.build_image(options, None, Some(body_full(context))));
        while let Some(step) = stream.next().await {
            match step {
                Ok(info) => said.extend(info.stream.iter().flat_map(|s| s.lines()).map(str::to_owned)),
                Err(e) => {
                    let mut error = failed(&format!("building the image {name}"), &e);
                    for line in &said[said.len().saturating_sub(15)..] {
                        error = error.detail(line);
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Adds a name to an image.
    ///
    /// # Errors
    /// An environment error if the image does not exist.
    pub async fn tag(&self, image: &str, name: &str) -> Result<()> {
        let (repo, tag) = split_tag(name);
        let options = TagImageOptionsBuilder::default().repo(repo).tag(tag).build();
        self.docker.tag_image(image, Some(options)).await.map_err(|e| failed("tagging an image", &e))
    }
}

/// Splits the name of an image from its tag; a registry's port is not a tag.
pub fn split_tag(name: &str) -> (&str, &str) {
    if name.contains('@') {
        return (name, "");
    }
    match name.rfind(':') {
        Some(colon) if !name[colon..].contains('/') => (&name[..colon], &name[colon + 1..]),
        _ => (name, "latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_s_port_is_not_a_tag() {
        assert_eq!(split_tag("comfyui:cpu"), ("comfyui", "cpu"));
        assert_eq!(split_tag("comfyui"), ("comfyui", "latest"));
        assert_eq!(split_tag("host.example:5000/comfyui"), ("host.example:5000/comfyui", "latest"));
        assert_eq!(split_tag("a/b@sha256:00"), ("a/b@sha256:00", ""));
    }
}
