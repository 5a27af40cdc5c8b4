//! One connection, polled by the task that waits for its answer.
//!
//! hyper splits a connection into a request sender and a driver that must be polled. A separate
//! task for the driver would wake another thread twice per request; here both are polled by the
//! same task, which makes the matrix fast.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;

use super::server::Stream;

/// A connection that is only polled while a request waits.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// The driver; `None` when the connection has ended.
    driver: Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>,
}

impl Connection {
    /// Starts HTTP/1.1 on a stream.
    pub(super) async fn open(stream: Box<dyn Stream>) -> hyper::Result<Self> {
        let (sender, connection) = Builder::new().preserve_header_case(true).handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, driver: Some(Box::pin(connection.with_upgrades())) })
    }

    /// Whether another request can be sent: an idle connection may have been closed.
    pub(super) async fn is_ready(&mut self) -> bool {
        self.drive(async |sender| sender.ready().await).await.is_ok()
    }

    /// Runs `work` with the connection, and polls the driver meanwhile.
    pub(super) async fn drive<T>(&mut self, work: impl AsyncFnOnce(&mut SendRequest<Full<Bytes>>) -> T) -> T {
        let Self { sender, driver } = self;
        let mut work = pin!(work(sender));
        poll_fn(|context| {
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(done);
            }
            // The end of the connection is noticed by the waiting work.
            if driver.as_mut().is_some_and(|moving| moving.as_mut().poll(context).is_ready()) {
                *driver = None;
            }
            work.as_mut().poll(context)
        })
        .await
    }
}
