//! The credentials of a lock: its token of record, the password of its login form, and a session.

use base64::Engine as _;
use http::Method;

use crate::{client::Client, message::Request};
use lockproof_model::{
    scheme::{LoginFacts, Presentation, Scheme},
    secret,
};

/// Replaces the password in evidence.
const PASSWORD: &str = "$LOCKPROOF_PASSWORD";

/// The credentials of a lock. They are secrets: never print them unredacted.
#[derive(Clone)]
pub struct Keys {
    token: String,
    password: Option<String>,
    session: Option<String>,
    forms: Vec<String>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("password", &self.password.is_some())
            .field("session", &self.session.is_some())
            .finish_non_exhaustive()
    }
}

impl Keys {
    /// Credentials from known values.
    pub fn new(token: String, password: Option<String>, session: Option<String>) -> Self {
        hide(&token);
        password.as_deref().inspect(|p| hide_password(p));
        if let Some(session) = &session {
            for pair in session.split("; ") {
                secret::register_as(pair.split_once('=').map_or(pair, |(_, value)| value), "<the session cookie>");
            }
        }
        let forms = forms(&token, password.as_deref());
        Self { token, password, session, forms }
    }

    /// The encodings in which the token and the password may appear.
    pub(crate) fn forms(&self) -> &[String] {
        &self.forms
    }

    /// The token of record.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Its password, if known.
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The cookies of a browser session, if one could be opened.
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }
}

/// Redacts a password in all output.
pub fn hide_password(password: &str) {
    secret::register_as(password, PASSWORD);
}

/// Redacts the token in all output, in Base64 too.
pub fn hide(token: &str) {
    secret::register(token);
    hide_encoded(token, "$COMFYUI_API_TOKEN");
}

/// The encodings by which a token and its password are found in foreign text.
pub fn forms(token: &str, password: Option<&str>) -> Vec<String> {
    let mut forms = secret::spellings(token);
    // Some JSON writers escape the slash.
    forms.push(token.replace('/', "\\/"));
    // Without padding, which some encoders omit.
    let url_safe = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token);
    forms.extend([base64(token).trim_end_matches('=').to_owned(), url_safe]);
    forms.extend(password.map(str::to_owned));
    // Shorter values could match ordinary words.
    forms.retain(|form| form.len() >= 8);
    forms.sort();
    forms.dedup();
    forms
}

/// A header value with `token` inserted, plain or encoded for HTTP Basic authentication (RFC 7617).
pub(crate) fn filled(pattern: &str, token: &str) -> String {
    pattern.replace("{token}", token).replace("{basic}", &base64(token))
}

fn base64(token: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(token)
}

/// Redacts the encoded form of `token` in all output, because it can be decoded. `shown` is the
/// shell expression for the token.
pub(crate) fn hide_basic(token: &str, shown: &str) {
    if token.contains(':') {
        hide_encoded(token, shown);
    }
}

/// The same for any token.
fn hide_encoded(token: &str, shown: &str) {
    secret::register_as(&base64(token), &format!("$(printf %s \"{shown}\" | base64 -w0)"));
}

/// Adds `token` to a request, as defined by `how`.
pub fn present(request: Request, how: &Presentation, token: &str) -> Request {
    match how {
        Presentation::Header { header, value } => request.header(header, filled(value, token)),
        Presentation::Query { query } => request.query(query, token),
    }
}

/// Adds `token` to a request in the scheme's preferred way.
pub fn authorised(request: Request, scheme: &Scheme, token: &str) -> Request {
    match scheme.present.first() {
        Some(how) => present(request, how, token),
        None => request,
    }
}

/// Logs in through the form; `None` without a form, a password or success.
pub async fn open_session(
    client: &Client,
    login: Option<&LoginFacts>,
    username: &str,
    password: Option<&str>,
) -> Option<String> {
    let answer = client.send(&form(login?, username, password?)).await.ok()?;
    // Whether the cookie works is only known when it is used; a wrong password may set one too.
    answer.cookies()
}

/// A request that submits the login form.
pub fn form(login: &LoginFacts, username: &str, password: &str) -> Request {
    let body = format!(
        "{}={}&{}={}",
        login.username,
        secret::percent_encode(username),
        login.password,
        secret::percent_encode(password)
    );
    Request::new(Method::POST, login.path.clone())
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(body)
}
