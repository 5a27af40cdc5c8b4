//! Checks with markers that the engine shares this machine's files and loopback interface.
//!
//! An engine on another machine, or in a virtual machine, would mount other files than those in the
//! configuration, and publish ports on another 127.0.0.1.

use std::net::TcpListener;

use super::{
    Engine, Run,
    archive::unreadable,
    container::{Attachment, ContainerSpec},
    is_port_taken,
};
use lockproof_model::{
    error::{Error, Result},
    secret,
};

impl Engine {
    /// Checks with a container of `image` that the engine sees a file of this machine, and that it
    /// cannot publish a port of 127.0.0.1 that is in use here.
    ///
    /// # Errors
    /// An environment error with instructions, if it does not.
    pub async fn check_shares_this_machine(&self, run: &Run, image: &str) -> Result<()> {
        let marker = secret::random(24);
        let directory = tempfile::Builder::new()
            .prefix("lockproof-marker-")
            .tempdir()
            .map_err(|e| unreadable(&std::env::temp_dir(), &e))?;
        let file = directory.path().join("marker");
        std::fs::write(&file, &marker).map_err(|e| unreadable(&file, &e))?;
        let held = TcpListener::bind(("127.0.0.1", 0))
            .and_then(|listener| Ok((listener.local_addr()?.port(), listener)))
            .map_err(|e| Error::environment("no free port on 127.0.0.1").detail(e))?;

        let spec = ContainerSpec {
            name: run.name("preflight"),
            image: image.to_owned(),
            labels: run.labels(""),
            entrypoint: Some(vec!["true".to_owned()]),
            mounts: vec![Attachment::Bind {
                source: directory.path().display().to_string(),
                target: "/lockproof-marker".to_owned(),
                read_only: true,
            }],
            ..Default::default()
        };
        let id = match self.create(&spec).await {
            Ok(id) => id,
            Err(e) if e.to_string().contains("bind source path does not exist") => return Err(no_files(self)),
            Err(e) => return Err(e),
        };
        let seen = self.read_file(&id, "/lockproof-marker/marker").await;
        self.remove(&id).await?;
        if !matches!(seen, Ok(Some(bytes)) if bytes == marker.as_bytes()) {
            return Err(no_files(self));
        }
        if self.can_publish(run, image, held.0).await? {
            return Err(Error::environment(
                "the engine publishes ports on a different loopback interface than this machine's",
            )
            .detail(format!(
                "port {} of 127.0.0.1 is in use here, but free for the engine at {}",
                held.0,
                self.address()
            ))
            .fix(
                "run lockproof on the engine's host (or in its network namespace);\nin CI, use the host's \
                network: docker run --network host …",
            ));
        }
        Ok(())
    }

    /// Whether the engine can publish `port` of 127.0.0.1, which is in use here.
    async fn can_publish(&self, run: &Run, image: &str, port: u16) -> Result<bool> {
        let spec = ContainerSpec {
            name: run.name("preflight-port"),
            image: image.to_owned(),
            labels: run.labels(""),
            entrypoint: Some(vec!["true".to_owned()]),
            port: Some(port),
            host_port: Some(port),
            ..Default::default()
        };
        let id = self.create(&spec).await?;
        let started = self.start(&id).await;
        self.remove(&id).await?;
        match started {
            Ok(()) => Ok(true),
            // Any other start failure (such as a missing `true` in the image) comes after the port
            // was published: the engine sets up the network before it starts the process.
            Err(e) => Ok(!is_port_taken(&e.to_string())),
        }
    }
}

fn no_files(engine: &Engine) -> Error {
    Error::environment("the engine cannot see this machine's files")
        .detail(format!("a file written here does not exist for the engine at {}", engine.address()))
        .fix(
            "run lockproof on the engine's host; if lockproof runs in a container,\nmount its temporary \
            directory and the workspace at the same paths as on the host",
        )
}
