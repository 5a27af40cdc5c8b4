//! What a test has on the engine, and its removal when the test ends, however it does.

use testcontainers::{ContainerAsync, Image};

use lockproof_deploy::engine::{Engine, Run};
use lockproof_model::error::{Error, Result};

/// The container, and everything else that carries the run's label.
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
        // Tried once, and told: there is nothing more that the drop could do.
        self.removed = true;
        let container = remove_container(self.container.take()).await;
        engine.sweep_run(self.run.id()).await.and(container)
    }
}

/// Removes a container by testcontainers' own means, which otherwise would do it once more.
pub(super) async fn remove_container<I: Image>(container: Option<ContainerAsync<I>>) -> Result<()> {
    match container {
        Some(container) => container.rm().await.map_err(|e| {
            Error::environment("the container cannot be removed").detail(e).fix("remove it with `lockproof clean`")
        }),
        None => Ok(()),
    }
}

impl<I: Image + 'static> Drop for Belongings<I> {
    fn drop(&mut self) {
        // testcontainers' own switch, for who wants to look at what a test left.
        let keep = std::env::var("TESTCONTAINERS_COMMAND").is_ok_and(|command| command == "keep");
        if keep {
            // Its own drop would need a runtime, which may be gone, to do nothing.
            if let Some(container) = self.container.take() {
                std::mem::forget(container);
            }
            return;
        }
        if self.removed {
            return;
        }
        let (run, container) = (self.run.clone(), self.container.take());
        // A thread and a runtime of its own: there is no asynchronous drop, this one may run on a
        // runtime with one thread or after its end, and a connection belongs to its runtime.
        let removal = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|e| Error::environment("no threads can be had").detail(e))?;
            runtime.block_on(async {
                let container = remove_container(container).await;
                Engine::connect().await?.sweep_run(run.id()).await.and(container)
            })
        });
        // A panic here, while a failed assertion unwinds, would abort all tests of the process.
        if let Ok(Err(e)) = removal.join() {
            tracing::warn!("{e}");
        }
    }
}
