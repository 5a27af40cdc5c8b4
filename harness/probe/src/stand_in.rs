//! A server for unit tests: a function from request to answer, on its own port.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::{
    client::Client,
    message::{Answer, Request},
};

/// Stands for no answer.
const NONE: u16 = 0;

/// An answer of the stand-in.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Reply {
    pub(crate) fn new(status: u16, media: &str, body: &str) -> Self {
        Self { status, headers: vec![("content-type".into(), media.into())], body: body.to_owned() }
    }

    pub(crate) fn json(status: u16, body: &str) -> Self {
        Self::new(status, "application/json", body)
    }

    pub(crate) fn html(status: u16, body: &str) -> Self {
        Self::new(status, "text/html", body)
    }

    pub(crate) fn redirect(location: &str) -> Self {
        Self::html(302, "").header("location", location)
    }

    /// No answer: the connection is closed.
    pub(crate) fn none() -> Self {
        Self::new(NONE, "", "")
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same as a client sees it.
    pub(crate) fn answer(&self) -> Answer {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let name: http::HeaderName = name.parse().expect("a name");
            headers.append(name, value.parse().expect("a value"));
        }
        let status = StatusCode::from_u16(self.status).expect("a status");
        Answer { status, headers, body: Bytes::from(self.body.clone()), frame: None }
    }
}

/// A running stand-in and a client of it.
pub(crate) struct StandIn {
    pub(crate) client: Client,
    task: tokio::task::JoinHandle<()>,
}

impl StandIn {
    pub(crate) async fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let answer = Arc::new(answer);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = Arc::clone(&answer);
                let service = service_fn(move |request: http::Request<Incoming>| {
                    let answer = Arc::clone(&answer);
                    async move {
                        let (parts, body) = request.into_parts();
                        let mut asked = Request::new(parts.method, parts.uri.to_string());
                        for (name, value) in &parts.headers {
                            asked = asked.header(name.as_str(), value.to_str().unwrap_or_default());
                        }
                        let body = body.collect().await.expect("a body").to_bytes();
                        let reply = answer(&asked.body(body));
                        if reply.status == NONE {
                            return Err(io::Error::other("no answer"));
                        }
                        let reply = reply.answer();
                        let mut response = http::Response::new(Full::new(reply.body));
                        *response.status_mut() = reply.status;
                        *response.headers_mut() = reply.headers;
                        Ok(response)
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { client: Client::new(address, Duration::from_secs(5)), task }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}
