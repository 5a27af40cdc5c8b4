//! A running server: checks tokens, and logs in through its form.

use std::time::Duration;

use super::{Login, token_in_log};
use lockproof_model::{
    error::{Error, Result},
    scheme::Scheme,
    secret,
};
use lockproof_probe::{
    client::Client,
    decide::is_indeterminate,
    keys::{authorised, form},
    look::{is_refusal, patiently},
    message::{Answer, Outcome, Request, in_words},
    server::{Server, Trust},
};

/// The test request: a read-only sentinel.
const QUESTION: &str = "/system_stats";
/// The route of ComfyUI's log.
const LOG: &str = "/internal/logs/raw";
/// The time limit of one answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server.
#[derive(Clone, Debug)]
pub struct Gatekeeper {
    client: Client,
    scheme: Scheme,
}

/// Whether a server accepts a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Takes {
    /// It is served.
    Yes,
    /// It is refused.
    No,
    /// Unknown, with the answer.
    Unknown(String),
}

impl Gatekeeper {
    /// The server of a URL.
    ///
    /// # Errors
    /// A usage error for an invalid URL.
    pub fn named(url: &str, trust: &Trust<'_>, scheme: &Scheme) -> Result<Self> {
        Ok(Self { client: Client::of(Server::named(url, trust)?, PATIENCE), scheme: scheme.clone() })
    }

    /// Its base URL.
    pub fn base(&self) -> String {
        self.client.base()
    }

    /// Whether it accepts a token; `None`: a request without one.
    pub async fn takes(&self, token: Option<&str>) -> Takes {
        takes(&patiently(&self.client, &self.question(token)).await)
    }

    /// The same without retries, for loops.
    pub(super) async fn takes_now(&self, token: Option<&str>) -> Takes {
        takes(&self.client.send(&self.question(token)).await)
    }

    fn question(&self, token: Option<&str>) -> Request {
        match token {
            Some(token) => authorised(Request::get(QUESTION), &self.scheme, token),
            None => Request::get(QUESTION),
        }
    }

    /// Logs in through the form, which sets the password if there is none, and returns the session
    /// cookies.
    ///
    /// # Errors
    /// A usage error for a scheme without a form or a wrong password; an environment error if the
    /// server does not answer.
    pub async fn log_in(&self, login: &Login) -> Result<String> {
        let facts = self.scheme.login.as_ref().ok_or_else(|| {
            Error::usage(format!("the scheme `{}` has no login form", self.scheme.name))
                .fix("use the credential file: --credential-file, --container, --volume or --directory")
        })?;
        secret::register(&login.password);
        match self.takes(None).await {
            Takes::No => {}
            Takes::Yes => {
                return Err(Error::usage(format!("{} serves requests without a token: it has no lock", self.base()))
                    .fix(
                        "install the login plugin first; if it failed to load, the server's log shows IMPORT FAILED",
                    ));
            }
            Takes::Unknown(why) => return Err(self.silent(&why)),
        }
        let answer = self.client.send(&form(facts, &login.username, &login.password)).await;
        let cookies = match &answer {
            Ok(answer) => answer.cookies(),
            Err(fault) => return Err(self.silent(&fault.to_string())),
        };
        if let Some(cookies) = cookies {
            register_cookies(&cookies);
            let opened = patiently(&self.client, &Request::get(QUESTION).header("Cookie", cookies.as_str())).await;
            if takes(&opened) == Takes::Yes {
                return Ok(cookies);
            }
        }
        Err(Error::usage("the login form rejected the user name and password")
            .at(format!("{}{}", self.base(), facts.path))
            .detail(format!("it returned {}", in_words(&answer)))
            .fix("check the user name and the password"))
    }

    /// The token in the server's own log, if it contains one.
    ///
    /// # Errors
    /// An environment error if the server does not answer.
    pub async fn token_from_log(&self, cookies: &str) -> Result<Option<String>> {
        let request = Request::get(LOG).header("Cookie", cookies);
        match patiently(&self.client, &request).await {
            Err(fault) => Err(self.silent(&fault.to_string())),
            Ok(answer) => Ok(token_in(&answer)),
        }
    }

    fn silent(&self, why: &str) -> Error {
        Error::environment(format!("{} does not answer: {why}", self.base()))
            .fix("check the address and the port, and that the server is running; for a private CA, use --ca FILE")
    }
}

fn token_in(answer: &Answer) -> Option<String> {
    let text = String::from_utf8_lossy(&answer.body);
    let token = answer.status.is_success().then(|| token_in_log(&text))??;
    secret::register(&token);
    Some(token)
}

fn register_cookies(cookies: &str) {
    for pair in cookies.split("; ") {
        secret::register_as(pair.split_once('=').map_or(pair, |(_, value)| value), "<the session cookie>");
    }
}

fn takes(outcome: &Outcome) -> Takes {
    match outcome {
        Ok(answer) if is_indeterminate(answer) => Takes::Unknown(in_words(outcome)),
        Ok(answer) if is_refusal(answer) => Takes::No,
        // A login page may have status 200; the expected answer is JSON.
        Ok(answer) if answer.status.is_success() && answer.media_type() == "text/html" => Takes::No,
        Ok(answer) if answer.status.is_success() => Takes::Yes,
        _ => Takes::Unknown(in_words(outcome)),
    }
}
