//! The keys to a lock: its token of record, a password for its form, and a session.

use base64::Engine as _;
use http::Method;

use crate::{client::Client, message::Request};
use lockproof_model::{
    scheme::{LoginFacts, Presentation, Scheme},
    secret,
};

/// What stands for the password in evidence.
const PASSWORD: &str = "$LOCKPROOF_PASSWORD";

/// The keys to a lock. They are secrets: nothing here may be printed unredacted.
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
    /// Keys made of what is known.
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

    /// The forms in which the token and the password travel.
    pub(crate) fn forms(&self) -> &[String] {
        &self.forms
    }

    /// The token of record.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The password behind it, where it is known.
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The cookies of a browser session, where one could be opened.
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }
}

/// Keeps a password out of everything that is printed.
pub fn hide_password(password: &str) {
    secret::register_as(password, PASSWORD);
}

/// Keeps the token of record out of everything that is printed, in Base64 as well.
pub fn hide(token: &str) {
    secret::register(token);
    hide_encoded(token, "$COMFYUI_API_TOKEN");
}

/// The forms by which a token, and the password behind it, are found in what others write.
pub fn forms(token: &str, password: Option<&str>) -> Vec<String> {
    let mut forms = secret::spellings(token);
    // JSON writers escape the slash, some of them.
    forms.push(token.replace('/', "\\/"));
    // Without the padding, which not every writer adds.
    let url_safe = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token);
    forms.extend([base64(token).trim_end_matches('=').to_owned(), url_safe]);
    forms.extend(password.map(str::to_owned));
    // Shorter ones are words, which are found everywhere.
    forms.retain(|form| form.len() >= 8);
    forms.sort();
    forms.dedup();
    forms
}

/// A header's value with `token` in it, as it stands or as RFC 7617 encodes a name and a password.
pub(crate) fn filled(pattern: &str, token: &str) -> String {
    pattern.replace("{token}", token).replace("{basic}", &base64(token))
}

fn base64(token: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(token)
}

/// Keeps the encoded form of `token` out of everything that is printed: anybody can decode it.
/// `shown` is what a shell finds the token by.
pub(crate) fn hide_basic(token: &str, shown: &str) {
    if token.contains(':') {
        hide_encoded(token, shown);
    }
}

/// The same, whatever the token is.
fn hide_encoded(token: &str, shown: &str) {
    secret::register_as(&base64(token), &format!("$(printf %s \"{shown}\" | base64 -w0)"));
}

/// Shows `token` in a request, as `how` says.
pub fn present(request: Request, how: &Presentation, token: &str) -> Request {
    match how {
        Presentation::Header { header, value } => request.header(header, filled(value, token)),
        Presentation::Query { query } => request.query(query, token),
    }
}

/// Shows `token` in the way that the scheme prefers.
pub fn authorised(request: Request, scheme: &Scheme, token: &str) -> Request {
    match scheme.present.first() {
        Some(how) => present(request, how, token),
        None => request,
    }
}

/// Logs in by the form; `None` without a form, a password or success.
pub async fn open_session(
    client: &Client,
    login: Option<&LoginFacts>,
    username: &str,
    password: Option<&str>,
) -> Option<String> {
    let answer = client.send(&form(login?, username, password?)).await.ok()?;
    // Whether the cookie opens anything shows when it is used; a wrong password may set one, too.
    answer.cookies()
}

/// The login form, filled in.
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
