//! Values in an answer that could be credentials: cookies, header values, and strings in JSON, pages and
//! redirects.

use std::{collections::BTreeSet, sync::LazyLock};

use regex::Regex;
use serde_json::Value;

use super::pattern::pattern;
use crate::message::Answer;

/// The maximum number of candidates per answer.
const MOST: usize = 24;
/// The searched length of a body, in bytes.
const LARGEST: usize = 256 * 1024;

/// Where a candidate was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// `Set-Cookie`.
    Cookie,
    /// Another header.
    Header,
    /// A redirect's target, or a link.
    Link,
    /// The body.
    Body,
}

/// A possible credential.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    /// Whether neither its name nor its format suggests a credential.
    pub(super) is_weak: bool,
    /// Where it was found.
    pub(super) origin: Origin,
    /// The name of the cookie, header, parameter or JSON member; empty if it has none.
    pub(super) name: String,
    /// The value.
    pub(super) value: String,
}

/// Headers that never contain a credential.
const USUAL: [&str; 25] = [
    "accept-ranges",
    "age",
    "allow",
    "cache-control",
    "connection",
    "content-disposition",
    "content-encoding",
    "content-length",
    "content-security-policy",
    "content-type",
    "date",
    "etag",
    "expires",
    "keep-alive",
    "last-modified",
    "location",
    "pragma",
    "referrer-policy",
    "server",
    "set-cookie",
    "strict-transport-security",
    "transfer-encoding",
    "vary",
    "x-content-type-options",
    "x-frame-options",
];

/// The candidates of an answer, the most likely first.
pub(super) fn candidates(answer: &Answer) -> Vec<Candidate> {
    let (mut found, mut found_together) = (BTreeSet::new(), Vec::new());
    let mut add = |origin: Origin, name: &str, value: &str| {
        let value = value.trim().trim_matches('"');
        let is_named = is_name_of_a_key(name);
        // A cookie or a member named like a token is a candidate unless its value is a word or a flag.
        let could_be = match (origin, is_named) {
            (Origin::Cookie, _) => !value.is_empty(),
            (_, true) => value.len() >= 6 && !value.contains(char::is_whitespace),
            (_, false) => has_the_shape(value),
        };
        if could_be && value.len() <= 4096 && value.bytes().all(|b| (0x21..0x7f).contains(&b)) {
            let is_weak = !is_named && origin != Origin::Cookie && !is_jwt(value);
            found.insert(Candidate { is_weak, origin, name: name.to_owned(), value: value.to_owned() });
        }
    };
    for pair in answer.cookies().unwrap_or_default().split("; ") {
        if let Some((name, value)) = pair.split_once('=') {
            add(Origin::Cookie, name, value);
        }
    }
    // Some sessions need all their cookies.
    let all = answer.cookies().unwrap_or_default();
    if let Some((first, rest)) = all.split_once('=')
        && rest.contains("; ")
    {
        let (name, value) = (first.to_owned(), rest.to_owned());
        found_together.push(Candidate { is_weak: false, origin: Origin::Cookie, name, value });
    }
    for (name, value) in &answer.headers {
        if !USUAL.contains(&name.as_str())
            && let Ok(value) = value.to_str()
        {
            add(Origin::Header, name.as_str(), value.rsplit(' ').next().unwrap_or_default());
        }
    }
    for link in links(answer) {
        let (path, query) = link.split_once(['?', '#']).unwrap_or((&link, ""));
        for (name, value) in query.split(['&', '#']).filter_map(|pair| pair.split_once('=')) {
            add(Origin::Link, name, &percent_decoded(value));
        }
        for part in path.split('/').filter(|part| !part.contains('.')) {
            add(Origin::Link, "", part);
        }
    }
    let body = &answer.body[..answer.body.len().min(LARGEST)];
    match serde_json::from_slice::<Value>(body) {
        Ok(json) => strings(&json, "", &mut |name, value| match value.contains(char::is_whitespace) {
            true => in_text(value, &mut |name, value| add(Origin::Body, name, value)),
            false => add(Origin::Body, name, value),
        }),
        Err(_) => in_text(&String::from_utf8_lossy(body), &mut |name, value| add(Origin::Body, name, value)),
    }
    found.into_iter().take(MOST).chain(found_together).collect()
}

/// The links of an answer: a redirect's target, and URLs in its JSON.
pub(super) fn links(answer: &Answer) -> Vec<String> {
    let mut found: Vec<String> = Some(answer.location()).filter(|location| !location.is_empty()).into_iter().collect();
    if let Ok(json) = serde_json::from_slice::<Value>(&answer.body[..answer.body.len().min(LARGEST)]) {
        strings(&json, "", &mut |_, value| {
            if value.starts_with('/') && value.len() > 1
                || value.starts_with("http://")
                || value.starts_with("https://")
            {
                found.push(value.to_owned());
            }
        });
    }
    found
}

fn strings(json: &Value, name: &str, each: &mut impl FnMut(&str, &str)) {
    match json {
        Value::String(text) => each(name, text),
        Value::Array(list) => list.iter().for_each(|value| strings(value, name, each)),
        Value::Object(map) => map.iter().for_each(|(name, value)| strings(value, name, each)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Words of a page, a script or a plain text.
fn in_text(text: &str, each: &mut impl FnMut(&str, &str)) {
    static NAMED: LazyLock<Regex> = LazyLock::new(|| {
        let named =
            r#"(?i)([\w-]*(?:token|key|secret|jwt|passw)[\w-]*)["']?\s*[:=]\s*["']?([A-Za-z0-9._~+/=$-]{6,512})"#;
        let hidden = r#"(?i)name=["']([\w-]+)["'][^>]*\bvalue=["']([^"']{6,512})["']"#;
        pattern(&format!("{named}|{hidden}"))
    });
    static WORD: LazyLock<Regex> = LazyLock::new(|| pattern(r"[A-Za-z0-9._~+=$-]{16,512}"));
    for found in NAMED.captures_iter(text) {
        let group = |one: usize, other: usize| found.get(one).or_else(|| found.get(other)).map_or("", |m| m.as_str());
        each(group(1, 3), group(2, 4));
    }
    WORD.find_iter(text).for_each(|found| each("", found.as_str()));
}

fn is_name_of_a_key(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["token", "key", "jwt", "secret", "session", "sid", "auth", "bearer", "credential", "passw", "ticket"]
        .iter()
        .any(|word| name.contains(word))
}

/// Whether a word looks random: long, with letters and digits, and not a file name.
fn has_the_shape(value: &str) -> bool {
    const FILES: [&str; 12] =
        [".js", ".css", ".png", ".ico", ".svg", ".html", ".json", ".woff", ".woff2", ".jpg", ".map", ".py"];
    let has = |test: fn(&u8) -> bool| value.bytes().any(|b| test(&b));
    let is_plain = value.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~+/=$-".contains(&b));
    (16..=2048).contains(&value.len())
        && is_plain
        && has(u8::is_ascii_digit)
        && has(u8::is_ascii_alphabetic)
        && !FILES.iter().any(|ending| value.ends_with(ending))
        && !value.starts_with("http")
        && value.bytes().collect::<BTreeSet<u8>>().len() >= 8
}

fn is_jwt(value: &str) -> bool {
    value.starts_with("eyJ") && value.split('.').count() == 3
}

fn percent_decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stand_in::Reply;

    fn values(reply: &Reply) -> Vec<String> {
        candidates(&reply.answer()).into_iter().map(|c| format!("{:?} {}={}", c.origin, c.name, c.value)).collect()
    }

    #[test]
    fn a_key_is_seen_wherever_it_stands() {
        assert_eq!(
            values(&Reply::json(
                200,
                r#"{"message":"User registered","data":[{"jwt_token":"abc.def.ghi"}],"ok":"yes"}"#
            )),
            ["Body jwt_token=abc.def.ghi"]
        );
        assert_eq!(
            values(&Reply::redirect("/welcome?token=4f2a%2Bb&lang=en").header("set-cookie", "sid=xyz; Path=/")),
            ["Cookie sid=xyz", "Link token=4f2a+b"]
        );
        assert_eq!(
            values(&Reply::redirect("https://comfy.example/reset#access_token=4f2a%2Bbc")),
            ["Link access_token=4f2a+bc"]
        );
        assert_eq!(
            values(&Reply::html(401, "").header("x-guest", "q7w8e9r0t1y2u3i4")),
            ["Header x-guest=q7w8e9r0t1y2u3i4"]
        );
        assert_eq!(
            values(&Reply::html(
                200,
                r#"<script>const API_KEY = "lab-0123";</script><input name="csrf" value="c0ffee00">"#
            )),
            ["Body API_KEY=lab-0123"]
        );
        assert_eq!(
            values(&Reply::json(401, r#"{"trace":"compared with q7w8e9r0t1y2u3i4 in check()"}"#)),
            ["Body =q7w8e9r0t1y2u3i4"]
        );
        assert_eq!(values(&Reply::new(200, "text/plain", "your pass: q7w8e9r0t1y2u3i4.")), ["Body =q7w8e9r0t1y2u3i4."]);
    }

    #[test]
    fn words_and_files_are_none() {
        let page = r#"<link href="/assets/index-4f2a8b9c0d1e2f3a.js"><p class="some-very-long-class-name">Welcome</p>"#;
        assert_eq!(values(&Reply::html(200, page)), [""; 0]);
        assert_eq!(values(&Reply::json(401, r#"{"error":"Authentication required."}"#)), [""; 0]);
    }
}
