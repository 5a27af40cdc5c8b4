//! A request and its answer.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};

use lockproof_model::secret;

/// Replaces the server's address in evidence: the published port changes at each start.
pub const URL: &str = "$COMFYUI_URL";

/// A request. The target is sent as written: `//x`, `/a/../b` and `/%2e/` are not normalised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The HTTP method.
    pub method: Method,
    /// The request target: a path with its query.
    pub target: String,
    /// The headers, in order; a name may be repeated.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// Whether it is sent as HTTP/1.0.
    pub old_protocol: bool,
}

impl Request {
    /// A request without headers or body.
    pub fn new(method: Method, target: impl Into<String>) -> Self {
        Self { method, target: target.into(), headers: Vec::new(), body: Bytes::new(), old_protocol: false }
    }

    /// `GET target`.
    pub fn get(target: impl Into<String>) -> Self {
        Self::new(Method::GET, target)
    }

    /// `POST target` with a JSON body.
    pub fn post_json(target: impl Into<String>, body: &str) -> Self {
        Self::new(Method::POST, target).header("Content-Type", "application/json").body(body.to_owned())
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Adds a percent-encoded query parameter.
    #[must_use]
    pub fn query(mut self, name: &str, value: &str) -> Self {
        let separator = if self.target.contains('?') { '&' } else { '?' };
        self.target.push_str(&format!("{separator}{name}={}", secret::percent_encode(value)));
        self
    }

    /// Another request with the credential of this one: its headers and its query.
    #[must_use]
    pub fn lending_to(&self, mut other: Self) -> Self {
        let shown = self.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("content-type"));
        other.headers.extend(shown.cloned());
        if let Some((_, query)) = self.target.split_once('?') {
            let separator = if other.target.contains('?') { '&' } else { '?' };
            other.target.push_str(&format!("{separator}{query}"));
        }
        other
    }

    /// The path of the target.
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(&self.target, |(path, _)| path)
    }

    /// The request as a `curl` command; secrets become `$COMFYUI_API_TOKEN`.
    pub fn curl(&self, base: &str) -> String {
        let mut line = "curl -i".to_owned();
        // Otherwise curl would normalise the path.
        if self.target.starts_with('/') && (self.target.contains("/.") || self.target.contains("//")) {
            line.push_str(" --path-as-is");
        }
        if self.old_protocol {
            line.push_str(" -0");
        }
        // A WebSocket stays open until the client closes it.
        if self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key")) {
            line.push_str(" --no-buffer --max-time 2");
        }
        // A target that is not a path cannot be part of a URL.
        let absolute = !self.target.starts_with('/');
        if absolute {
            line.push_str(&format!(" --request-target {}", quote(&self.target)));
        }
        if self.method == Method::HEAD {
            line.push_str(" -I");
        } else if self.method != Method::GET {
            line.push_str(&format!(" -X {}", self.method));
        }
        for (name, value) in &self.headers {
            if value.is_empty() {
                // `curl -H 'Name:'` would omit the header.
                line.push_str(&format!(" -H {}", quote(&format!("{name};"))));
            } else {
                line.push_str(&format!(" -H {}", quote(&format!("{name}: {value}"))));
            }
        }
        if !self.body.is_empty() {
            line.push_str(&format!(" --data-raw {}", quote(&String::from_utf8_lossy(&self.body))));
        }
        let target = if absolute { "" } else { &self.target };
        line.push_str(&format!(" {}", quote(&format!("{base}{target}"))));
        line
    }
}

/// Delimiters of a secret's placeholder while a word is quoted.
const STAND_IN: (char, char) = ('\u{1}', '\u{2}');

/// Quotes a word for a POSIX shell. Secrets become variables in double quotes.
fn quote(word: &str) -> String {
    let marked = secret::replace(word, |placeholder| {
        let variable = if placeholder == secret::PLACEHOLDER { "$COMFYUI_API_TOKEN" } else { placeholder };
        format!("{}{variable}{}", STAND_IN.0, STAND_IN.1)
    });
    let marked = match marked.strip_prefix(URL) {
        Some(rest) => format!("{}{URL}{}{rest}", STAND_IN.0, STAND_IN.1),
        None => marked,
    };
    if !marked.contains(STAND_IN.0) {
        return format!("'{}'", marked.replace('\'', "'\\''"));
    }
    let mut quoted = String::from("\"");
    let mut rest = marked.as_str();
    while let Some((plain, after)) = rest.split_once(STAND_IN.0) {
        quoted.push_str(&escape(plain));
        let (variable, behind) = after.split_once(STAND_IN.1).unwrap_or((after, ""));
        // What follows must not become part of the variable's name.
        let runs_on = behind.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        match variable.strip_prefix('$').filter(|_| runs_on && !variable.starts_with("${")) {
            Some(name) => quoted.push_str(&format!("${{{name}}}")),
            None => quoted.push_str(variable),
        }
        rest = behind;
    }
    quoted.push_str(&escape(rest));
    quoted.push('"');
    quoted
}

/// Escapes special characters between double quotes.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$").replace('`', "\\`")
}

/// A complete answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, up to the size limit.
    pub body: Bytes,
    /// The first frame of a WebSocket after the upgrade.
    pub frame: Option<Frame>,
}

/// The first frame of a WebSocket (RFC 6455, section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message.
    Message,
    /// Closed immediately, which is how a lock rejects after the handshake.
    Close,
}

impl Answer {
    /// The media type without parameters, in lower case; empty if missing.
    pub fn media_type(&self) -> String {
        let value = self.text_header(header::CONTENT_TYPE);
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// The target of a redirect; empty if missing.
    pub fn location(&self) -> String {
        self.text_header(header::LOCATION)
    }

    /// The pause that the server asks for.
    pub fn retry_after(&self) -> Option<Duration> {
        let value = self.text_header(header::RETRY_AFTER);
        if value.is_empty() {
            return None;
        }
        // The other form is a date; it is retried only once, so one second will do.
        Some(Duration::from_secs(value.trim().parse().unwrap_or(1)))
    }

    /// `name=value` of every cookie that the answer sets, in the form of a `Cookie` header.
    pub fn cookies(&self) -> Option<String> {
        let pairs: Vec<&str> = self
            .headers
            .get_all(header::SET_COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .filter_map(|value| value.split(';').next())
            .map(str::trim)
            .filter(|pair| pair.split_once('=').is_some_and(|(_, value)| !value.is_empty() && value != "\"\""))
            .collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    fn text_header(&self, name: header::HeaderName) -> String {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
    }
}

/// Why there is no complete answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection was not accepted.
    Refused(String),
    /// The connection was closed or broken before the answer was complete.
    Broken(String),
    /// There was no complete answer in time.
    Timeout,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(why) => write!(f, "no connection ({why})"),
            Self::Broken(why) => write!(f, "connection broken ({why})"),
            Self::Timeout => f.write_str("request timed out"),
        }
    }
}

/// The result of a request.
pub type Outcome = Result<Answer, Fault>;

/// A short description, for evidence.
pub fn in_words(outcome: &Outcome) -> String {
    match outcome {
        Err(fault) => fault.to_string(),
        Ok(answer) => {
            let mut words = answer.status.as_u16().to_string();
            if answer.status.is_redirection() {
                words.push_str(&format!(" → {}", answer.location()));
            } else if answer.frame == Some(Frame::Close) {
                words.push_str(", and closed immediately");
            } else if !answer.media_type().is_empty() {
                words.push_str(&format!(" {}", answer.media_type()));
            }
            words
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curl_line_can_be_pasted_and_shows_no_secret() {
        secret::register("$2b$12$message-test-token");
        let request = Request::get("/a/../system_stats").header("Authorization", "Bearer $2b$12$message-test-token");
        insta::assert_snapshot!(request.curl("http://127.0.0.1:8188"), @r#"curl -i --path-as-is -H "Authorization: Bearer $COMFYUI_API_TOKEN" 'http://127.0.0.1:8188/a/../system_stats'"#);
        secret::register_as("$2b$12$message-test-toke", "${COMFYUI_API_TOKEN%?}");
        let request =
            Request::get("/queue").header("X", "$2b$12$message-test-toke").header("Y", "$2b$12$message-test-tokenx");
        insta::assert_snapshot!(request.curl(URL), @r#"curl -i -H "X: ${COMFYUI_API_TOKEN%?}" -H "Y: ${COMFYUI_API_TOKEN}x" "$COMFYUI_URL/queue""#);
        let request = Request::post_json("/prompt", "{\"it's\":1}");
        insta::assert_snapshot!(request.curl("http://h"), @r#"curl -i -X POST -H 'Content-Type: application/json' --data-raw '{"it'\''s":1}' 'http://h/prompt'"#);
    }

    #[test]
    fn a_curl_line_sends_what_was_sent() {
        let absolute = Request::get("http://localhost/system_stats");
        insta::assert_snapshot!(absolute.curl(URL), @r#"curl -i --request-target 'http://localhost/system_stats' "$COMFYUI_URL""#);
        let old = Request { old_protocol: true, ..Request::get("/queue") };
        insta::assert_snapshot!(old.curl(URL), @r#"curl -i -0 "$COMFYUI_URL/queue""#);
        let socket = Request::get("/ws").header("Upgrade", "websocket").header("Sec-WebSocket-Key", "eA==");
        insta::assert_snapshot!(socket.curl(URL), @r#"curl -i --no-buffer --max-time 2 -H 'Upgrade: websocket' -H 'Sec-WebSocket-Key: eA==' "$COMFYUI_URL/ws""#);
    }

    #[test]
    fn a_cookie_that_is_deleted_is_none() {
        let mut headers = HeaderMap::new();
        headers.append("set-cookie", "A=1; Path=/".parse().expect("a value"));
        headers.append("set-cookie", "B=\"\"; Max-Age=0".parse().expect("a value"));
        let answer = Answer { status: StatusCode::OK, headers, body: Bytes::new(), frame: None };
        assert_eq!(answer.cookies().as_deref(), Some("A=1"));
    }
}
