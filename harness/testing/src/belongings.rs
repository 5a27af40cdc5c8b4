//! The objects of a test on the engine, and their removal when the test ends.

use testcontainers::{ContainerAsync, Image};

use lockproof_deploy::engine::{Engine, Run};
use lockproof_model::error::{Error, Result};

/// The container, and all objects with the run's label.
pub(super) struct Belongings<I: Image + 'static> {
    pub(super) run: Run,
    pub(super) container: Option<ContainerAsync<I>>,
    removed: bool,
}

impl<I: Image + 'static> Belongings<I> {
    pub(super) fn new() -> Self {
        Self { run: Run::new(), container: None, removed: false }
    }

    /// Removes everything now.
    pub(super) async fn remove(&mut self, engine: &Engine) -> Result<()> {
        // Tried only once: dropping could not do more.
        self.removed = true;
        let container = remove_container(self.container.take()).await;
        engine.sweep_run(self.run.id()).await.and(container)
    }
}

/// Removes a container through testcontainers, which would otherwise remove it again.
pub(super) async fn remove_container<I: Image>(container: Option<ContainerAsync<I>>) -> Result<()> {
    match container {
        Some(container) => container.rm().await.map_err(|e| {
            Error::environment("cannot remove the container").detail(e).fix("remove it with `lockproof clean`")
        }),
        None => Ok(()),
    }
}

impl<I: Image + 'static> Drop for Belongings<I> {
    fn drop(&mut self) {
        // testcontainers' own switch to keep containers.
        let keep = std::env::var("TESTCONTAINERS_COMMAND").is_ok_and(|command| command == "keep");
        if keep {
            // Its own drop would need a runtime, which may be gone.
            if let Some(container) = self.container.take() {
                std::mem::forget(container);
            }
            return;
        }
        if self.removed {
            return;
        }
        let (run, container) = (self.run.clone(), self.container.take());
        // A separate thread and runtime: drop is not async, may run on a single-threaded or
        // finished runtime, and a connection belongs to its runtime.
        let removal = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|e| Error::environment("cannot start threads").detail(e))?;
            runtime.block_on(async {
                let container = remove_container(container).await;
                Engine::connect().await?.sweep_run(run.id()).await.and(container)
            })
        });
        // A panic here, while a failed assertion unwinds, would abort the test process.
        if let Ok(Err(e)) = removal.join() {
            tracing::warn!("{e}");
        }
    }
}
