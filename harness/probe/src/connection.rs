//! One connection, moved by whoever waits for its answer.
//!
//! hyper gives a connection in two halves: one that takes requests, and one that has to be polled
//! for anything to happen. As a task of its own, the second wakes another thread twice for each
//! request; here both halves are polled by the same task, which is what makes the matrix fast.

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

/// A connection that is polled only while somebody waits for it.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// What moves the bytes; `None` when it has ended.
    driver: Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>,
}

impl Connection {
    /// Speaks HTTP/1.1 over a stream.
    pub(super) async fn open(stream: Box<dyn Stream>) -> hyper::Result<Self> {
        let (sender, connection) = Builder::new().preserve_header_case(true).handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, driver: Some(Box::pin(connection.with_upgrades())) })
    }

    /// Whether another request can be sent: a kept connection may have been closed meanwhile.
    pub(super) async fn is_ready(&mut self) -> bool {
        self.drive(async |sender| sender.ready().await).await.is_ok()
    }

    /// Does some work with the connection, and moves it as long as that takes.
    pub(super) async fn drive<T>(&mut self, work: impl AsyncFnOnce(&mut SendRequest<Full<Bytes>>) -> T) -> T {
        let Self { sender, driver } = self;
        let mut work = pin!(work(sender));
        poll_fn(|context| {
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(done);
            }
            // The end of the connection shows at the work that waits for it.
            if driver.as_mut().is_some_and(|moving| moving.as_mut().poll(context).is_ready()) {
                *driver = None;
            }
            work.as_mut().poll(context)
        })
        .await
    }
}
