//! A reverse proxy in front of the server that records the credential of each request.
//!
//! It listens on a loopback port, or on a Unix socket that is mounted into a container: this needs
//! no network route from the container to this machine, which a firewall may block.

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, UnixListener},
    task::{JoinHandle, JoinSet},
};

use super::{
    Traffic,
    queued::{self, Asked, Queued},
};
use lockproof_model::{
    error::{Error, Result},
    secret,
};
use lockproof_probe::{
    keys,
    server::{Server, Stream},
};

type Body = BoxBody<Bytes, hyper::Error>;

/// The size limit of an answer to `POST /prompt`, which is an ID or a list of errors, in bytes.
const LARGEST_ANSWER: usize = 16 * 1024 * 1024;

/// A proxy that runs until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: Option<SocketAddr>,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    server: Server,
    token: Option<String>,
    traffic: Mutex<Traffic>,
    queued: Mutex<Vec<Queued>>,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// An environment error if it cannot listen.
    pub async fn on_loopback(server: Server, token: Option<String>) -> Result<Self> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.map_err(|e| deaf(&e))?;
        let address = listener.local_addr().map_err(|e| deaf(&e))?;
        Ok(Self::begin(Listener::Tcp(listener), Some(address), server, token))
    }

    /// Listens on a Unix socket at `path`, which is accessible to every user who can reach the
    /// path.
    ///
    /// # Errors
    /// An environment error if it cannot listen.
    pub async fn on_socket(path: &Path, server: Server, token: Option<String>) -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let listener = UnixListener::bind(path).map_err(|e| deaf(&e))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(|e| deaf(&e))?;
        Ok(Self::begin(Listener::Unix(listener), None, server, token))
    }

    fn begin(listener: Listener, address: Option<SocketAddr>, server: Server, token: Option<String>) -> Self {
        let shared = Arc::new(Shared { server, token, traffic: Mutex::default(), queued: Mutex::default() });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, accepting }
    }

    /// Its address, unless it listens on a Unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The requests so far.
    pub fn traffic(&self) -> Traffic {
        self.shared.traffic.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The prompts that the server has accepted so far.
    pub(super) fn queued(&self) -> Vec<Queued> {
        self.shared.queued.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn deaf(error: &std::io::Error) -> Error {
    Error::environment("the proxy for the notebook cannot listen").detail(error)
}

async fn accept(listener: Listener, shared: Arc<Shared>) {
    // Dropped with this task, which closes every connection.
    let mut connections = JoinSet::new();
    loop {
        let stream: std::io::Result<Box<dyn Stream>> = match &listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                let _slower = stream.set_nodelay(true);
                Box::new(stream) as Box<dyn Stream>
            }),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| Box::new(stream) as Box<dyn Stream>),
        };
        let Ok(stream) = stream else {
            // For example out of file descriptors: wait until some are free.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(shared.answer(request).await) }
            });
            let serving = hyper::server::conn::http1::Builder::new()
                .preserve_header_case(true)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            // How the client ends its connection does not matter.
            let _ended = serving.await;
        });
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        self.note(&request);
        self.pass_on(request).await.unwrap_or_else(|why| {
            let text = format!("lockproof: cannot reach the server: {why}\n");
            let mut response = Response::new(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed());
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        })
    }

    fn note(&self, request: &Request<Incoming>) {
        let shown = shown(request.headers(), request.uri().query().unwrap_or_default(), self.token.as_deref());
        let mut traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        match shown {
            Shown::Token => traffic.with_token += 1,
            Shown::Another => traffic.with_another += 1,
            Shown::InQuery => traffic.in_query += 1,
            Shown::Nothing => traffic.anonymous += 1,
        }
        if shown != Shown::Token && traffic.first_without.is_none() {
            traffic.first_without = Some(format!("{} {}", request.method(), request.uri().path()));
        }
    }

    async fn pass_on(&self, mut request: Request<Incoming>) -> Result<Response<Body>, String> {
        let stream = self.server.connect().await.map_err(|fault| fault.to_string())?;
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .preserve_header_case(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
        tokio::spawn(async move {
            // Its end is noticed by the request that uses it.
            let _ended = connection.with_upgrades().await;
        });
        let target = request.uri().path_and_query().map_or("/", |p| p.as_str());
        let asked = Asked::of(request.method(), target, request.headers());
        let target = self.server.target(target).parse().map_err(|e: http::uri::InvalidUri| e.to_string())?;
        let wants_upgrade = request.headers().contains_key(header::UPGRADE);
        let from_client = wants_upgrade.then(|| hyper::upgrade::on(&mut request));
        let (mut parts, body) = request.into_parts();
        parts.uri = target;
        parts.version = http::Version::HTTP_11;
        self.readdress(&mut parts.headers);
        let mut response = sender.send_request(Request::from_parts(parts, body)).await.map_err(|e| e.to_string())?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some(from_client) = from_client
        {
            let from_server = hyper::upgrade::on(&mut response);
            tokio::spawn(async move {
                if let (Ok(client), Ok(server)) = tokio::join!(from_client, from_server) {
                    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
                    // Either side may close at any time.
                    let _ended = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
        match asked {
            Some(asked) => self.note_prompt(asked, response).await,
            None => Ok(response.map(|body| body.boxed())),
        }
    }

    /// Records the prompt if the server accepted it, and forwards the answer.
    async fn note_prompt(&self, asked: Asked, response: Response<Incoming>) -> Result<Response<Body>, String> {
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, LARGEST_ANSWER).collect().await.map_err(|e| e.to_string())?.to_bytes();
        if let Some(prompt) = asked.accepted(parts.status, &body) {
            queued::note(&mut self.queued.lock().unwrap_or_else(PoisonError::into_inner), prompt);
        }
        Ok(Response::from_parts(parts, Full::new(body).map_err(|never| match never {}).boxed()))
    }

    /// Sets the server's own `Host`. ComfyUI compares it with the origin of a request, so an origin
    /// that equals the proxy's becomes the server's.
    fn readdress(&self, headers: &mut HeaderMap) {
        let host = headers.get(header::HOST).and_then(|v| v.to_str().ok()).map(str::to_owned);
        if let Ok(value) = HeaderValue::from_str(self.server.authority()) {
            headers.insert(header::HOST, value);
        }
        let own = host.map(|host| format!("http://{host}"));
        let origin = headers.get(header::ORIGIN).and_then(|v| v.to_str().ok());
        if origin.is_some() && origin == own.as_deref() {
            let base = self.server.base();
            let end = base.find("://").map_or(0, |at| at + 3);
            let end = base[end..].find('/').map_or(base.len(), |at| end + at);
            if let Ok(value) = HeaderValue::from_str(&base[..end]) {
                headers.insert(header::ORIGIN, value);
            }
        }
    }
}

/// The credential of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Token,
    Another,
    InQuery,
    Nothing,
}

/// Classifies the credential of a request.
///
/// | `Authorization` | `token` in the query | result |
/// |---|---|---|
/// | `Bearer` and the token, once | any | the token |
/// | anything else | any | another |
/// | none | the token of record | in the query |
/// | none | something else | another |
/// | none | none, or empty | nothing |
fn shown(headers: &HeaderMap, query: &str, token: Option<&str>) -> Shown {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    if let Some(first) = values.next() {
        let bearer = first.to_str().ok().and_then(|value| {
            let (scheme, shown) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| shown.trim())
        });
        let is_token = values.next().is_none() && bearer.is_some() && bearer == token;
        return if is_token { Shown::Token } else { Shown::Another };
    }
    let mut given = query.split('&').filter_map(|pair| pair.strip_prefix("token=")).filter(|value| !value.is_empty());
    let is_it = |value: &str| token.is_some_and(|token| secret::spellings(token).iter().any(|form| form == value));
    match given.next() {
        None => Shown::Nothing,
        Some(value) if is_it(value) => Shown::InQuery,
        Some(_) => Shown::Another,
    }
}

/// Redacts the token in all output.
pub(super) fn guard(token: Option<&str>) {
    token.into_iter().for_each(keys::hide);
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(&["Bearer t0ken"], "", Shown::Token)]
    #[case(&["bearer t0ken"], "token=x", Shown::Token)]
    #[case(&["Bearer other"], "", Shown::Another)]
    #[case(&["Bearer t0ken", "Bearer t0ken"], "", Shown::Another)]
    #[case(&["Basic t0ken"], "token=t0ken", Shown::Another)]
    #[case(&["Bearer"], "", Shown::Another)]
    #[case(&[], "a=b&token=t0ken", Shown::InQuery)]
    #[case(&[], "token=another", Shown::Another)]
    #[case(&[], "token=", Shown::Nothing)]
    #[case(&[], "", Shown::Nothing)]
    fn what_a_request_shows_is_the_table(#[case] values: &[&str], #[case] query: &str, #[case] expected: Shown) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).expect("a value"));
        }
        assert_eq!(shown(&headers, query, Some("t0ken")), expected);
    }

    #[test]
    fn without_a_token_no_bearer_is_the_token() {
        let mut headers = HeaderMap::new();
        headers.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        assert_eq!(shown(&headers, "", None), Shown::Another);
    }
}
