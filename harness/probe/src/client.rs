//! The HTTP/1.1 client of the probes: hyper's connection, without a URL library above it, so that
//! every target and header goes out as it was written.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;

use super::{
    connection::Connection,
    message::{Answer, Fault, Frame, Outcome, Request},
    server::Server,
};

/// As much of a body as is looked at: enough for the largest `/object_info` seen.
const LARGEST_BODY: usize = 8 * 1024 * 1024;

/// How long is waited altogether for a server that says 429, or to come again later.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a web socket may take until it says something. ComfyUI sends its queue at once.
const FIRST_FRAME: Duration = Duration::from_millis(1500);

/// A client of one server; clones share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    server: Arc<Server>,
    timeout: Duration,
    largest_body: usize,
    idle: Mutex<Vec<Connection>>,
    sent: AtomicU64,
    throttled: Mutex<Throttled>,
}

/// How long the server has made its client wait, several waits at once counted once.
#[derive(Default)]
struct Throttled {
    spent: Duration,
    until: Option<Instant>,
}

impl Throttled {
    /// Takes a pause into account; whether it is still worth waiting for.
    fn wait(&mut self, now: Instant, pause: Duration) -> bool {
        let end = now + pause;
        let from = self.until.map_or(now, |until| until.max(now));
        if self.spent >= PATIENCE && end > from {
            return false;
        }
        self.spent += end.saturating_duration_since(from);
        self.until = Some(from.max(end));
        true
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the server at `address`. An answer that takes longer than `timeout` is a fault.
    pub fn new(address: SocketAddr, timeout: Duration) -> Self {
        Self::of(Server::at(address), timeout)
    }

    /// A client of any server.
    pub fn of(server: Server, timeout: Duration) -> Self {
        Self::sharing(Arc::new(server), timeout, LARGEST_BODY)
    }

    /// A client of the same server, for whom an answer may take longer and be larger.
    pub fn with_limits(&self, timeout: Duration, largest_body: usize) -> Self {
        Self::sharing(Arc::clone(&self.shared.server), timeout, largest_body)
    }

    fn sharing(server: Arc<Server>, timeout: Duration, largest_body: usize) -> Self {
        let (idle, sent, throttled) = (Mutex::default(), AtomicU64::new(0), Mutex::default());
        Self { shared: Arc::new(Shared { server, timeout, largest_body, idle, sent, throttled }) }
    }

    /// The server itself, for those who speak another protocol with it.
    pub fn server(&self) -> &Server {
        &self.shared.server
    }

    /// The start of a URL of the server.
    pub fn base(&self) -> String {
        self.shared.server.base()
    }

    /// The address of the server, where it was given as one.
    pub fn address(&self) -> Option<SocketAddr> {
        self.shared.server.address()
    }

    /// How many requests were sent.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Waits, as the server asks; `false`, at once, when it has asked for too much already.
    pub async fn wait(&self, pause: Duration) -> bool {
        let worth_it = self.throttled().wait(Instant::now(), pause);
        if worth_it {
            tokio::time::sleep(pause).await;
        }
        worth_it
    }

    /// Whether the server has asked for more patience than there is.
    pub fn is_out_of_patience(&self) -> bool {
        self.throttled().spent >= PATIENCE
    }

    fn throttled(&self) -> MutexGuard<'_, Throttled> {
        self.shared.throttled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends one request and reads its answer.
    pub async fn send(&self, request: &Request) -> Outcome {
        self.shared.server.turn().await;
        self.shared.sent.fetch_add(1, Ordering::Relaxed);
        tokio::time::timeout(self.shared.timeout, self.exchange(request)).await.unwrap_or(Err(Fault::Timeout))
    }

    async fn exchange(&self, request: &Request) -> Outcome {
        let message = self.message(request)?;
        // After it, a connection would speak HTTP/1.0 on; it is used for nothing else.
        if request.old_protocol {
            let fresh = self.connect().await?;
            return self.round_trip(fresh, message, false).await;
        }
        // A connection that was kept may have been closed meanwhile, which shows only when it is
        // used; that says nothing about the request, so it is sent once more on a new one.
        while let Some(mut kept) = self.take_idle() {
            if !kept.is_ready().await {
                continue;
            }
            match self.round_trip(kept, message.clone(), true).await {
                Err(Fault::Broken(_)) => break,
                outcome => return outcome,
            }
        }
        let fresh = self.connect().await?;
        self.round_trip(fresh, message, true).await
    }

    fn take_idle(&self) -> Option<Connection> {
        self.shared.idle.lock().ok()?.pop()
    }

    async fn connect(&self) -> Result<Connection, Fault> {
        Connection::open(self.shared.server.connect().await?).await.map_err(broken)
    }

    async fn round_trip(&self, mut connection: Connection, message: http::Request<Full<Bytes>>, keep: bool) -> Outcome {
        let (answer, whole) = connection
            .drive(async |sender| {
                let mut response = sender.send_request(message).await.map_err(broken)?;
                let mut frame = None;
                if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
                    frame = first_frame(hyper::upgrade::on(&mut response)).await;
                }
                let (parts, mut body) = response.into_parts();
                let mut bytes = BytesMut::new();
                // A switched protocol has no body that would end.
                let mut whole = parts.status != http::StatusCode::SWITCHING_PROTOCOLS;
                while whole && let Some(frame) = body.frame().await {
                    if let Ok(data) = frame.map_err(broken)?.into_data() {
                        bytes.extend_from_slice(&data);
                    }
                    whole = bytes.len() <= self.shared.largest_body;
                }
                let answer = Answer { status: parts.status, headers: parts.headers, body: bytes.freeze(), frame };
                Ok((answer, whole))
            })
            .await?;
        if whole
            && keep
            && let Ok(mut idle) = self.shared.idle.lock()
        {
            idle.push(connection);
        }
        Ok(answer)
    }

    fn message(&self, request: &Request) -> Result<http::Request<Full<Bytes>>, Fault> {
        let invalid = |what: &str, e: &dyn std::fmt::Display| Fault::Broken(format!("{what} cannot be sent: {e}"));
        let uri: Uri = self.shared.server.target(&request.target).parse().map_err(|e| invalid("the target", &e))?;
        let mut message = http::Request::new(Full::new(request.body.clone()));
        *message.method_mut() = request.method.clone();
        *message.uri_mut() = uri;
        if request.old_protocol {
            *message.version_mut() = http::Version::HTTP_10;
        }
        let headers = message.headers_mut();
        for (name, value) in &request.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| invalid("a header", &e))?;
            let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|e| invalid("a header", &e))?;
            headers.append(name, value);
        }
        if !headers.contains_key(http::header::HOST) {
            let host = HeaderValue::from_str(self.shared.server.authority()).map_err(|e| invalid("the host", &e))?;
            headers.insert(http::header::HOST, host);
        }
        Ok(message)
    }
}

/// What a web socket says first; `None` when it says nothing for a while.
async fn first_frame(upgrade: hyper::upgrade::OnUpgrade) -> Option<Frame> {
    const CLOSE: u8 = 8;
    let read = async {
        let mut stream = TokioIo::new(upgrade.await.ok()?);
        let mut head = [0_u8; 1];
        match stream.read_exact(&mut head).await {
            Ok(_) if head[0] & 0x0f != CLOSE => Some(Frame::Message),
            // Closed with a frame, or without.
            _ => Some(Frame::Close),
        }
    };
    tokio::time::timeout(FIRST_FRAME, read).await.ok().flatten()
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn broken(error: hyper::Error) -> Fault {
    let mut text = error.to_string();
    if let Some(source) = std::error::Error::source(&error) {
        text.push_str(&format!(": {source}"));
    }
    Fault::Broken(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_and_waits_at_once_count_once() {
        let (mut throttled, begun) = (Throttled::default(), Instant::now());
        let five = Duration::from_secs(5);
        for round in 0..6 {
            for _ in 0..32 {
                assert!(throttled.wait(begun + five * round, five));
            }
        }
        assert!(!throttled.wait(begun + five * 6, five));
    }
}
