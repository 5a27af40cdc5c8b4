//! The HTTP/1.1 client of the probes: uses hyper's connection without a URL library, so that every
//! target and header is sent as written.

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

/// The maximum number of bytes read from a body: enough for the largest `/object_info` seen.
const LARGEST_BODY: usize = 8 * 1024 * 1024;

/// The maximum total pause for a server that answers 429 or sends `Retry-After`.
const PATIENCE: Duration = Duration::from_secs(30);

/// The time limit for a WebSocket's first message. ComfyUI sends its queue at once.
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

/// The total pause requested by the server; parallel pauses count once.
#[derive(Default)]
struct Throttled {
    spent: Duration,
    until: Option<Instant>,
}

impl Throttled {
    /// Adds a pause; returns whether the limit is not exceeded.
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
    /// A client of the server at `address`. A longer answer than `timeout` is a fault.
    pub fn new(address: SocketAddr, timeout: Duration) -> Self {
        Self::of(Server::at(address), timeout)
    }

    /// A client of any server.
    pub fn of(server: Server, timeout: Duration) -> Self {
        Self::sharing(Arc::new(server), timeout, LARGEST_BODY)
    }

    /// A client of the same server with other limits.
    pub fn with_limits(&self, timeout: Duration, largest_body: usize) -> Self {
        Self::sharing(Arc::clone(&self.shared.server), timeout, largest_body)
    }

    fn sharing(server: Arc<Server>, timeout: Duration, largest_body: usize) -> Self {
        let (idle, sent, throttled) = (Mutex::default(), AtomicU64::new(0), Mutex::default());
        Self { shared: Arc::new(Shared { server, timeout, largest_body, idle, sent, throttled }) }
    }

    /// The server itself, for other protocols.
    pub fn server(&self) -> &Server {
        &self.shared.server
    }

    /// The server's base URL.
    pub fn base(&self) -> String {
        self.shared.server.base()
    }

    /// The server's address, if it was given as one.
    pub fn address(&self) -> Option<SocketAddr> {
        self.shared.server.address()
    }

    /// The number of sent requests.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Waits as the server requests; returns `false` at once if the limit is exceeded.
    pub async fn wait(&self, pause: Duration) -> bool {
        let worth_it = self.throttled().wait(Instant::now(), pause);
        if worth_it {
            tokio::time::sleep(pause).await;
        }
        worth_it
    }

    /// Whether the server requested longer pauses than the limit.
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
        // The connection would continue with HTTP/1.0, so it is not reused.
        if request.old_protocol {
            let fresh = self.connect().await?;
            return self.round_trip(fresh, message, false).await;
        }
        // An idle connection may have been closed, which is only noticed when it is used; so the
        // request is sent once more on a new connection.
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
                // A switched protocol has no body that ends.
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

/// The first message of a WebSocket; `None` if there is none within the time limit.
async fn first_frame(upgrade: hyper::upgrade::OnUpgrade) -> Option<Frame> {
    const CLOSE: u8 = 8;
    let read = async {
        let mut stream = TokioIo::new(upgrade.await.ok()?);
        let mut head = [0_u8; 1];
        match stream.read_exact(&mut head).await {
            Ok(_) if head[0] & 0x0f != CLOSE => Some(Frame::Message),
            // Closed, with or without a close frame.
            _ => Some(Frame::Close),
        }
    };
    tokio::time::timeout(FIRST_FRAME, read).await.ok().flatten()
}

#[expect(clippy::needless_pass_by_value, reason = "map_err passes it by value")]
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
