//! ComfyUI's API for running workflows, with the token.

use std::{sync::Mutex, time::Duration};

use http::Method;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::{info::ObjectInfo, json};
use lockproof_model::{scheme::Scheme, secret};
use lockproof_probe::{
    client::Client,
    keys::authorised,
    look::is_refusal,
    message::{Answer, Fault, Request, in_words},
};

/// The time limit of one answer. A busy server answers late.
const PATIENCE: Duration = Duration::from_secs(60);
/// The size limit of an answer: a picture, or the nodes of a server with many custom ones.
const LARGEST: usize = 512 * 1024 * 1024;

/// A server with its token.
#[derive(Debug)]
pub struct Server {
    client: Client,
    scheme: Scheme,
    token: Option<String>,
    info: OnceCell<ObjectInfo>,
    /// The current prompt, for cancelling it.
    pub(super) under_way: Mutex<Option<UnderWay>>,
}

/// A prompt that was sent.
#[derive(Clone, Debug)]
pub(super) struct UnderWay {
    pub(super) prompt: String,
    /// Whether the server confirmed the prompt. An unconfirmed prompt may still be queued.
    pub(super) accepted: bool,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The lock rejected it.
    Locked {
        /// The answer.
        answer: String,
        /// Whether a token was presented.
        with_token: bool,
    },
    /// It did not answer.
    Gone(String),
    /// The answer was not as expected.
    Strange(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Locked { answer, with_token: true } => write!(f, "the server rejects the token ({answer})"),
            Self::Locked { answer, with_token: false } => {
                write!(f, "the server requires a token, but none was given ({answer})")
            }
            Self::Gone(why) => write!(f, "the server does not answer: {why}"),
            Self::Strange(what) => f.write_str(what),
        }
    }
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Gone(fault.to_string())
    }
}

impl Trouble {
    /// Instructions to fix it, if known.
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Locked { with_token: true, .. } => Some("create or read a token with `lockproof token`"),
            Self::Locked { with_token: false, .. } => {
                Some("set COMFYUI_API_TOKEN, or use --token-env NAME or --token-file FILE")
            }
            Self::Gone(_) | Self::Strange(_) => None,
        }
    }
}

impl Server {
    /// The server behind `client`.
    pub fn new(client: &Client, scheme: &Scheme, token: Option<&str>) -> Self {
        if let Some(token) = token {
            secret::register(token);
        }
        Self {
            client: client.with_limits(PATIENCE, LARGEST),
            scheme: scheme.clone(),
            token: token.map(str::to_owned),
            info: OnceCell::new(),
            under_way: Mutex::default(),
        }
    }

    /// Its base URL.
    pub fn base(&self) -> String {
        self.client.base()
    }

    /// Its client.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Adds the token to a request.
    pub(super) fn authorised(&self, request: Request) -> Request {
        match &self.token {
            Some(token) => authorised(request, &self.scheme, token),
            None => request,
        }
    }

    /// Sends a request with the token, and returns any answer except a rejection by the lock.
    ///
    /// # Errors
    /// If the lock rejects it, or there is no answer.
    pub async fn ask(&self, request: Request) -> Result<Answer, Trouble> {
        let answer = self.client.send(&self.authorised(request)).await?;
        if is_refusal(&answer) {
            let with_token = self.token.is_some();
            return Err(Trouble::Locked { answer: in_words(&Ok(answer)), with_token });
        }
        Ok(answer)
    }

    /// Requests JSON.
    ///
    /// # Errors
    /// As [`Server::ask`], and if the answer is not JSON.
    pub async fn json(&self, request: Request) -> Result<Value, Trouble> {
        let path = request.path().to_owned();
        let answer = self.ask(request).await?;
        let strange = |why: &str| Trouble::Strange(format!("{path} returned {why}"));
        if !answer.status.is_success() {
            return Err(strange(&in_words(&Ok(answer))));
        }
        let kind = answer.media_type();
        json::parse(&String::from_utf8_lossy(&answer.body))
            .map_err(|_| strange(&format!("{kind} that is not valid JSON")))
    }

    /// The nodes of the server; requested once.
    ///
    /// # Errors
    /// As [`Server::ask`], and if the answer is invalid.
    pub async fn info(&self) -> Result<&ObjectInfo, Trouble> {
        self.info
            .get_or_try_init(|| async {
                let answer = self.ask(Request::get("/object_info")).await?;
                let strange = |why: &str| Trouble::Strange(format!("/object_info returned {why}"));
                if !answer.status.is_success() {
                    return Err(strange(&in_words(&Ok(answer))));
                }
                if answer.body.len() > LARGEST {
                    return Err(strange(&format!("more than {LARGEST} bytes")));
                }
                ObjectInfo::parse(&String::from_utf8_lossy(&answer.body)).map_err(|why| strange(&why))
            })
            .await
    }

    /// The server's `GET /system_stats`.
    ///
    /// # Errors
    /// As [`Server::json`].
    pub async fn stats(&self) -> Result<Value, Trouble> {
        self.json(Request::get("/system_stats")).await
    }

    /// The model files in a folder; `None` if the folder does not exist, or the server is too old
    /// to list it.
    ///
    /// # Errors
    /// As [`Server::ask`].
    pub async fn models(&self, folder: &str) -> Result<Option<Vec<String>>, Trouble> {
        let answer = self.ask(Request::get(format!("/models/{}", secret::percent_encode(folder)))).await?;
        Ok(answer.status.is_success().then(|| serde_json::from_slice(&answer.body).ok()).flatten())
    }

    /// Uploads an input file, and returns its name on the server, which differs if another file
    /// already has its name.
    ///
    /// # Errors
    /// As [`Server::json`].
    pub async fn upload(&self, name: &str, bytes: &[u8], kind: &str) -> Result<String, Trouble> {
        let (content_type, body) = form(name, bytes, kind);
        let request = Request::new(Method::POST, "/upload/image").header("Content-Type", content_type).body(body);
        let kept = self.json(request).await?;
        let kept = kept.get("name").and_then(Value::as_str).map(str::to_owned);
        kept.ok_or_else(|| Trouble::Strange("/upload/image did not return the name of the stored file".to_owned()))
    }
}

/// Whether a list of `GET /queue` contains a prompt: an entry is `[number, id, …]`.
pub fn holds(list: &Value, prompt: &str) -> bool {
    list.as_array().into_iter().flatten().any(|entry| entry.get(1).and_then(Value::as_str) == Some(prompt))
}

/// The form of `POST /upload/image`, and its content type.
pub fn form(name: &str, bytes: &[u8], kind: &str) -> (String, Vec<u8>) {
    let boundary = format!("lockproof-{}", secret::random(24));
    // Quotes and line breaks in a name would end the header.
    let name: String = name.chars().filter(|c| !matches!(c, '"' | '\r' | '\n')).collect();
    let mut body = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"type\"\r\n\r\n{kind}\r\n\
         --{boundary}\r\nContent-Disposition: form-data; name=\"image\"; filename=\"{name}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(bytes);
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}
