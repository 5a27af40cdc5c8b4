//! Sends the recorded requests.

use anyhow::{Context as _, Result};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder};

use super::Subject;
use super::body::{self, Body};
use super::credential::{self, Shown};
use super::record::{Record, State};

/// A client of the subject.
pub(crate) struct Http {
    pub(super) subject: Subject,
    client: Client,
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: u16,
    /// Without its parameters; empty for none.
    pub(super) content_type: String,
    pub(super) location: Option<String>,
    pub(super) body: Vec<u8>,
}

impl Http {
    /// reqwest sends every recorded target as it stands: it changes dot segments only, and there
    /// are none in a path here.
    pub(crate) fn new(subject: &Subject) -> Result<Self> {
        // The first one that is installed serves the whole process.
        let _already = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().redirect(Policy::none()).no_proxy().build()?;
        Ok(Self { subject: subject.clone(), client })
    }

    /// Sends a recorded request.
    pub(super) async fn send(&self, record: &Record) -> Result<Answer> {
        let shown = credential::shown(&record.credential, self.token())?;
        let request = self.request(&record.method, &record.path, shown)?;
        answer(with_body(request, body::of(&record.request))).await
    }

    /// Sends a request with a credential that the subject accepts.
    pub(super) async fn accepted(&self, method: &str, path: &str, body: Body) -> Result<Answer> {
        let shown = credential::shown(self.accepted_credential(), self.token())?;
        answer(with_body(self.request(method, path, shown)?, body)).await
    }

    /// Gets a path with a credential that the subject accepts.
    pub(super) async fn get(&self, path: &str) -> Result<Answer> {
        self.accepted("GET", path, Body::None).await
    }

    /// What the plugin lets in: without a password that is the empty token.
    pub(super) fn accepted_credential(&self) -> &'static str {
        match self.subject.state {
            State::NoPlugin => "anonymous",
            State::LoginNoPassword => "query-empty",
            State::LoginPassword => "bearer-valid",
        }
    }

    pub(super) fn token(&self) -> &str {
        self.subject.token.as_deref().unwrap_or_default()
    }

    fn request(&self, method: &str, path: &str, shown: Shown) -> Result<RequestBuilder> {
        let url = format!("{}{path}", self.subject.base);
        let mut request = self.client.request(Method::from_bytes(method.as_bytes())?, url);
        if let Some((name, value)) = shown.header {
            request = request.header(name, value);
        }
        if let Some(token) = shown.query {
            request = request.query(&[("token", token)]);
        }
        Ok(request)
    }
}

fn with_body(request: RequestBuilder, body: Body) -> RequestBuilder {
    match body {
        Body::None => request,
        Body::Text(text) => request.body(text),
        Body::Form(form) => request.multipart(form),
    }
}

async fn answer(request: RequestBuilder) -> Result<Answer> {
    let response = request.send().await.context("no answer")?;
    let header =
        |name: &str| response.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let content_type = header("content-type").unwrap_or_default();
    Ok(Answer {
        status: response.status().as_u16(),
        content_type: content_type.split(';').next().unwrap_or_default().trim().to_owned(),
        location: header("location"),
        body: response.bytes().await.context("the answer broke off")?.to_vec(),
    })
}
