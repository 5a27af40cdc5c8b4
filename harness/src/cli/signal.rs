//! SIGINT and SIGTERM: stop, clean up, and set the exit code.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

use lockproof_deploy::engine::{Engine, Run};
use lockproof_model::error::{Error, ErrorKind, Result};

/// Runs `work`. On a signal, drops it and removes the objects of the run. It also cleans up after
/// an error or a panic of `work`.
///
/// # Errors
/// The error of `work`, or `Interrupted` or `Terminated` after a signal.
pub(super) async fn guard<T>(engine: &Engine, run: &Run, work: impl Future<Output = Result<T>>) -> Result<T> {
    let no_signals = |e: std::io::Error| Error::environment("cannot install signal handlers").detail(e);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let work = std::panic::AssertUnwindSafe(work);
    let ended = tokio::select! {
        ended = futures_util::FutureExt::catch_unwind(work) => ended,
        _ = interrupt.recv() => Ok(Err(Error::new(ErrorKind::Interrupted, "interrupted"))),
        _ = terminate.recv() => Ok(Err(Error::new(ErrorKind::Terminated, "terminated"))),
    };
    let result = match ended {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => Err(error),
        Err(panic) => {
            sweep(engine, run, &mut interrupt, &mut terminate).await;
            std::panic::resume_unwind(panic);
        }
    };
    sweep(engine, run, &mut interrupt, &mut terminate).await;
    result
}

/// Cleans up; a second signal aborts the clean-up.
async fn sweep(
    engine: &Engine,
    run: &Run,
    interrupt: &mut tokio::signal::unix::Signal,
    terminate: &mut tokio::signal::unix::Signal,
) {
    tracing::info!("cleaning up");
    tokio::select! {
        swept = engine.sweep_run(run.id()) => {
            if let Err(e) = swept {
                tracing::warn!("{e}");
            }
        }
        _ = interrupt.recv() => tracing::warn!("clean-up aborted; run `lockproof clean` to remove what is left"),
        _ = terminate.recv() => tracing::warn!("clean-up aborted; run `lockproof clean` to remove what is left"),
    }
}
