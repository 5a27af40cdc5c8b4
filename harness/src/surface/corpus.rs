//! The corpus: for each way around a lock, the requests that show it.

use http::Method;

use super::routes::{Fill, Route};
use crate::{
    finding::Rule,
    keys::Keys,
    probe::message::Request,
    scheme::{Presentation, Scheme},
};

/// One probe: a request that must not get what the token gets.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The rule that is broken when it does.
    pub rule: Rule,
    /// The route that it is about, as `accept: … route:` names it.
    pub route: String,
    /// What is sent.
    pub request: Request,
    /// The same request with nothing forged, to which the token is added for comparison; none: the
    /// request itself.
    pub plain: Option<Request>,
    /// Whether the handler may change something.
    pub changes: bool,
}

/// Suffixes that locks take for static files.
const SUFFIXES: [&str; 7] = [".css", ".js", ".ico", ".css.map", ".png", ".html", ".svg"];

/// Every probe for a scheme, in the order in which they are sent: what changes nothing first.
pub fn probes(scheme: &Scheme, keys: &Keys, fill: &Fill) -> Vec<Probe> {
    let mut probes = routes(scheme, fill);
    probes.extend(static_suffixes(fill));
    probes.extend(forgeries(scheme, keys));
    probes.extend(websocket());
    probes.sort_by_key(|probe| probe.changes);
    probes
}

/// Every route with nothing: bare and below `/api`.
fn routes(scheme: &Scheme, fill: &Fill) -> Vec<Probe> {
    let mut probes = Vec::new();
    for route in Route::all() {
        for prefix in ["", "/api"] {
            if !prefix.is_empty() && !route.api {
                continue;
            }
            let request = route.request(prefix, fill);
            if scheme.is_public(request.method.as_str(), request.path()) {
                continue;
            }
            let rule = if prefix.is_empty() { Rule::LockUnprotectedRoute } else { Rule::LockUnprotectedPrefix };
            probes.push(Probe {
                rule,
                route: format!("{prefix}{}", route.path),
                request,
                plain: None,
                changes: route.changes,
            });
        }
    }
    probes
}

/// Routes whose last segment is free, ending like a static file.
fn static_suffixes(fill: &Fill) -> Vec<Probe> {
    let mut probes = Vec::new();
    for route in Route::all().iter().filter(|r| r.free_ending()) {
        for suffix in SUFFIXES {
            for prefix in ["", "/api"] {
                if !prefix.is_empty() && !route.api {
                    continue;
                }
                let mut request = route.request(prefix, fill);
                request.target.push_str(suffix);
                probes.push(Probe {
                    rule: Rule::LockStaticSuffix,
                    route: format!("{prefix}{}", route.path),
                    request,
                    plain: None,
                    changes: route.changes,
                });
            }
        }
    }
    probes
}

/// Credentials that are none.
fn forgeries(scheme: &Scheme, keys: &Keys) -> Vec<Probe> {
    let token = keys.token();
    let mut made: Vec<(Rule, Request)> = Vec::new();
    let target = "/system_stats";
    let get = || Request::get(target);
    for how in &scheme.present {
        match how {
            Presentation::Header { header, value } => {
                for forged in forged_values(value, token, keys.password()) {
                    made.push((Rule::LockForgedCredential, get().header(header, forged)));
                }
            }
            Presentation::Query { query } => {
                made.push((Rule::LockEmptyToken, get().query(query, "")));
                for forged in forged_tokens(token, keys.password()) {
                    made.push((Rule::LockForgedCredential, get().query(query, &forged)));
                }
            }
        }
    }
    made.push((Rule::LockForgedCredential, get().header("X-API-Key", "lockproof")));
    made.push((Rule::LockForgedCredential, get().header("Cookie", "token=lockproof")));
    if let Some(session) = keys.session() {
        for tampered in tampered_sessions(session) {
            made.push((Rule::LockTamperedSession, get().header("Cookie", tampered)));
        }
    }
    made.into_iter()
        .map(|(rule, request)| Probe { rule, route: target.to_owned(), request, plain: Some(get()), changes: false })
        .collect()
}

/// Tokens that are not the token.
fn forged_tokens(token: &str, password: Option<&str>) -> Vec<String> {
    let mut forged = vec!["lockproof".to_owned(), "null".to_owned(), "undefined".to_owned(), "*".to_owned()];
    let shortened: String = token.chars().take(token.chars().count().saturating_sub(1)).collect();
    forged.push(shortened);
    forged.push(format!("{token}x"));
    let flipped = flip_case(token);
    if flipped != token {
        forged.push(flipped);
    }
    forged.extend(password.map(str::to_owned));
    forged
}

/// Values of a header that are not the token's.
fn forged_values(pattern: &str, token: &str, password: Option<&str>) -> Vec<String> {
    let mut values: Vec<String> =
        forged_tokens(token, password).iter().map(|forged| pattern.replace("{token}", forged)).collect();
    let scheme = pattern.split("{token}").next().unwrap_or_default();
    if !scheme.trim().is_empty() {
        values.push(scheme.to_owned());
        values.push(scheme.trim_end().to_owned());
        values.push(format!("{scheme}a b"));
        values.push("Basic bG9ja3Byb29mOmxvY2twcm9vZg==".to_owned());
        values.push(format!("Token {token}x"));
    }
    values
}

fn flip_case(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }).collect()
}

/// Session cookies that were changed: at the start, in the middle, at the end, and cut.
fn tampered_sessions(session: &str) -> Vec<String> {
    let mut tampered = Vec::new();
    for pair in session.split("; ") {
        let Some((name, value)) = pair.split_once('=') else { continue };
        let bytes = value.as_bytes();
        for at in [0, bytes.len() / 2, bytes.len().saturating_sub(2)] {
            let mut changed = bytes.to_vec();
            if let Some(byte) = changed.get_mut(at) {
                *byte = if *byte == b'A' { b'B' } else { b'A' };
            }
            tampered.push(format!("{name}={}", String::from_utf8_lossy(&changed)));
        }
        tampered.push(format!("{name}={}", &value[..value.len() / 2]));
    }
    tampered
}

/// A web socket without a credential, bare and below `/api`.
fn websocket() -> Vec<Probe> {
    ["/ws", "/api/ws"]
        .map(|path| Probe {
            rule: Rule::LockWebsocket,
            route: path.to_owned(),
            request: Request::new(Method::GET, format!("{path}?clientId=lockproof"))
                .header("Connection", "Upgrade")
                .header("Upgrade", "websocket")
                .header("Sec-WebSocket-Version", "13")
                .header("Sec-WebSocket-Key", "bG9ja3Byb29mLXByb2JlIQ=="),
            plain: None,
            changes: false,
        })
        .to_vec()
}
