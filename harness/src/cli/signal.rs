//! SIGINT and SIGTERM: stop, clean up, and say so with the exit code.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

use lockproof_deploy::engine::{Engine, Run};
use lockproof_model::error::{Error, ErrorKind, Result};

/// Runs `work`; when a signal comes first, drops it, removes what the run has made, and gives the
/// error that stands for the signal. After an error or a panic of `work` it cleans up as well.
///
/// # Errors
/// The error of `work`, or the one that stands for the signal.
pub(super) async fn guard<T>(engine: &Engine, run: &Run, work: impl Future<Output = Result<T>>) -> Result<T> {
    let no_signals = |e: std::io::Error| Error::environment("signals cannot be received").detail(e);
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

/// Cleans up; a second signal means that the person will not wait.
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
        _ = interrupt.recv() => tracing::warn!("not everything was removed; run `lockproof clean`"),
        _ = terminate.recv() => tracing::warn!("not everything was removed; run `lockproof clean`"),
    }
}
