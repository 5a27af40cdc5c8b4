//! Forged credentials: tokens in every possible place, and sessions that were never opened.

use super::{Maker, Probe, Target};
use crate::{
    keys::{Keys, filled, hide_basic},
    message::Request,
};
use lockproof_model::{finding::Rule, scheme::Presentation, secret};

/// A wrong token.
pub(crate) const WRONG: &str = "lockproof";
/// Tokens that no lock should accept.
const GUESSES: [&str; 26] = [
    WRONG,
    "null",
    "undefined",
    "None",
    "nil",
    "true",
    "false",
    "0",
    "1",
    "-1",
    "NaN",
    "*",
    "%",
    ".*",
    "[]",
    "{}",
    "\"\"",
    "admin",
    "guest",
    "default",
    "password",
    "changeme",
    "comfyui",
    "test",
    "token",
    "$2b$12$",
];
/// The hash of an empty input, by several hash functions.
const HASHES_OF_NOTHING: [&str; 5] = [
    "d41d8cd98f00b204e9800998ecf8427e",
    "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "$2b$12$LQv3c1yqBWVHxkd0LHAkCOYz6TtxMQJqhN8/LewdBPj6hsxq9w5KS",
    "$2b$04$zVHmKQtGGQob.b/Nc7l9NO8UlrYcW05FiuCj/SxsFO/ZtiN9.mNzy",
];
/// JSON web tokens without a signature: `{"alg":"none"}` in several spellings.
const UNSIGNED_JWT: [&str; 4] = [
    "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJhZG1pbiIsImxvZ2dlZF9pbiI6dHJ1ZX0.",
    "eyJhbGciOiJOb25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJhZG1pbiIsImxvZ2dlZF9pbiI6dHJ1ZX0.",
    "eyJhbGciOiJub25lIn0.eyJ1c2VyIjoiYWRtaW4ifQ.x",
    "eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyIjoiYWRtaW4ifQ.AAAA",
];
/// Token headers of other servers.
const KEY_HEADERS: [&str; 10] = [
    "X-API-Key",
    "Api-Key",
    "X-Auth-Token",
    "X-Access-Token",
    "X-Token",
    "Token",
    "X-Authorization",
    "Proxy-Authorization",
    "X-CSRF-Token",
    "X-Session-Token",
];
/// Session cookies of other servers.
const COOKIES: [&str; 19] = [
    "token=lockproof",
    "auth=1",
    "auth=lockproof",
    "session=lockproof",
    "session=1",
    "sessionid=lockproof",
    "sid=lockproof",
    "logged_in=true",
    "logged_in=1",
    "authenticated=1",
    "authenticated=true",
    "user=admin",
    "username=admin",
    "admin=1",
    "guest_mode=1",
    "guest=1",
    "remember=1",
    "jwt=lockproof",
    "access_token=lockproof",
];
/// Unsigned values of a session cookie.
const UNSIGNED_SESSIONS: [&str; 9] = [
    "1",
    "true",
    "lockproof",
    "{\"logged_in\": true}",
    "%7B%22created%22%3A%201%2C%20%22session%22%3A%20%7B%22logged_in%22%3A%20true%7D%7D",
    "eyJsb2dnZWRfaW4iOiB0cnVlfQ==",
    "eyJjcmVhdGVkIjogMSwgInNlc3Npb24iOiB7ImxvZ2dlZF9pbiI6IHRydWV9fQ==",
    "eyJsb2dnZWRfaW4iOnRydWV9.AAAA",
    "gAAAAAA=",
];
/// Signing keys from tutorials.
const KNOWN_KEYS: [&str; 20] = [
    "secret",
    "changeme",
    "comfyui",
    "ComfyUI",
    "password",
    "key",
    "your-256-bit-secret",
    "your-secret-key",
    "your_secret_key",
    "supersecret",
    "super-secret",
    "SECRET_KEY",
    "secret_key",
    "secretkey",
    "jwt_secret",
    "jwt-secret",
    "change-me",
    "change_me",
    "default",
    "admin",
];
/// Credentials for `Basic`: admin:admin, lockproof:lockproof, `:`, admin:, and invalid base64.
const BASIC: [&str; 5] = ["YWRtaW46YWRtaW4=", "bG9ja3Byb29mOmxvY2twcm9vZg==", "Og==", "YWRtaW46", "*"];

impl Maker<'_> {
    pub(super) fn credentials(&self) -> Vec<Probe> {
        let mut probes = Vec::new();
        for target in self.samples() {
            probes.extend(self.forged(target));
            probes.extend(self.sessions(target));
        }
        probes
    }

    fn forged(&self, target: &Target) -> Vec<Probe> {
        let mut requests: Vec<(Rule, Request)> = Vec::new();
        let plain = || target.plain.clone();
        let tokens = self.forged_tokens();
        for how in &self.scheme.present {
            match how {
                Presentation::Header { header, value } => {
                    for token in &tokens {
                        requests.push((Rule::LockForgedCredential, plain().header(header, filled(value, token))));
                    }
                    for empty in empty_values(value) {
                        requests.push((Rule::LockEmptyToken, plain().header(header, empty)));
                    }
                    for odd in odd_values(value, self.keys) {
                        requests.push((Rule::LockForgedCredential, plain().header(header, odd)));
                    }
                    // Twice: the lock may check the first, the last, or neither.
                    let wrong = filled(value, WRONG);
                    requests.push((
                        Rule::LockForgedCredential,
                        plain().header(header, wrong.clone()).header(header, wrong),
                    ));
                }
                Presentation::Query { query } => {
                    for token in &tokens {
                        requests.push((Rule::LockForgedCredential, plain().query(query, token)));
                    }
                    requests.push((Rule::LockEmptyToken, plain().query(query, "")));
                    let bare = |text: &str| {
                        let mut request = plain();
                        let separator = if request.target.contains('?') { '&' } else { '?' };
                        request.target.push_str(&format!("{separator}{text}"));
                        request
                    };
                    requests.push((Rule::LockEmptyToken, bare(query)));
                    for odd in [
                        format!("{query}=&{query}="),
                        format!("{query}=a&{query}=b"),
                        format!("{query}=lockproof&{query}="),
                        format!("{query}=&{query}=lockproof"),
                        format!("{query}[]=lockproof"),
                        format!("{query}%00=lockproof"),
                        format!("{}=", query.to_uppercase()),
                        format!("{query}=%00"),
                        format!("{query}=%20"),
                        format!("{query}=%C3%A4"),
                    ] {
                        requests.push((Rule::LockForgedCredential, bare(&odd)));
                    }
                }
            }
        }
        let own = |name: &&str| {
            let is_own = |how: &Presentation| matches!(how, Presentation::Header { header, .. } if header.eq_ignore_ascii_case(name));
            self.scheme.present.iter().any(is_own)
        };
        for name in KEY_HEADERS.into_iter().filter(|name| !own(name)) {
            for value in ["lockproof", "1", ""] {
                requests.push((Rule::LockForgedCredential, plain().header(name, value)));
            }
        }
        for name in ["api_key", "apikey", "key", "access_token", "auth", "jwt", "password", "secret"] {
            requests.push((Rule::LockForgedCredential, plain().query(name, "lockproof")));
        }
        for cookie in COOKIES {
            requests.push((Rule::LockForgedCredential, plain().header("Cookie", cookie)));
        }
        requests
            .into_iter()
            .map(|(rule, request)| Probe::trick(rule, &target.route, &target.plain, request, false))
            .collect()
    }

    /// Tokens that are not the token.
    fn forged_tokens(&self) -> Vec<String> {
        let mut forged: Vec<String> =
            GUESSES.iter().chain(&HASHES_OF_NOTHING).chain(&UNSIGNED_JWT).map(|t| (*t).to_owned()).collect();
        // A token of the same form as the real one.
        forged.push("$2b$12$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234".to_owned());
        let Some(keys) = self.keys else { return forged };
        let token = keys.token();
        let start = |count: usize| token.chars().take(count).collect::<String>();
        let length = token.chars().count();
        forged.extend([start(length.saturating_sub(1)), start(8), start(1), start(length / 2)]);
        forged.push(token.chars().skip(1).collect());
        forged.push(token.chars().skip(length / 2).collect());
        forged.extend([format!("{token}x"), format!("x{token}"), format!("{token}{token}"), format!("{token}%00")]);
        // A number in base 16 is the same in upper and lower case.
        if !token.chars().all(|c| c.is_ascii_hexdigit() || c == '-') {
            forged.extend([token.to_lowercase(), token.to_uppercase(), flip_case(token)]);
        }
        forged.push(token.chars().rev().collect());
        forged.push(format!("{}*", start(length / 2)));
        // With one character changed: the first, and the last.
        forged.push(token.char_indices().map(|(i, c)| if i == 0 { 'x' } else { c }).collect());
        forged.push(format!("{}{}", start(length.saturating_sub(1)), if token.ends_with('A') { 'B' } else { 'A' }));
        // The same length, but only the first eight characters are correct.
        forged.push(format!("{}{}", start(8), "x".repeat(length.saturating_sub(8))));
        forged.push(secret::percent_encode(&secret::percent_encode(token)));
        forged.extend(keys.password().map(str::to_owned));
        let (unsigned, signed) = resigned(token);
        forged.extend(unsigned);
        forged.retain(|t| t != token);
        hide(token, &forged);
        // These have their own placeholders, and a user name is not a secret.
        forged.extend(signed);
        if let Some((user, _)) = token.split_once(':').filter(|_| self.scheme.is_basic()) {
            forged.extend([format!("{user}:"), user.to_owned(), format!("{user}:wrong"), format!("{user}:{user}")]);
        }
        let mut seen = std::collections::BTreeSet::new();
        forged.retain(|t| seen.insert(t.clone()));
        forged
    }

    fn sessions(&self, target: &Target) -> Vec<Probe> {
        let mut cookies = Vec::new();
        let own = self.keys.and_then(Keys::session);
        let mut names: Vec<&str> =
            own.unwrap_or_default().split("; ").filter_map(|pair| Some(pair.split_once('=')?.0)).collect();
        for known in ["AIOHTTP_SESSION", "session", "lab_session"] {
            if !names.contains(&known) {
                names.push(known);
            }
        }
        for name in names {
            cookies.extend(UNSIGNED_SESSIONS.iter().map(|value| format!("{name}={value}")));
        }
        if let Some(session) = own {
            let changed = tampered(session);
            for value in changed.iter().filter_map(|cookie| Some(cookie.split_once('=')?.1)) {
                secret::register_as(value, "<a changed session cookie>");
            }
            cookies.extend(changed);
        }
        cookies
            .into_iter()
            .map(|cookie| {
                let request = target.plain.clone().header("Cookie", cookie);
                Probe::trick(Rule::LockTamperedSession, &target.route, &target.plain, request, false)
            })
            .collect()
    }
}

/// The token's header with an empty token.
pub(crate) fn empty_values(pattern: &str) -> Vec<String> {
    let scheme = pattern.split('{').next().unwrap_or_default();
    let mut values = vec![String::new()];
    if !scheme.trim().is_empty() {
        values.extend([scheme.trim_end().to_owned(), scheme.to_owned(), format!("{scheme} ")]);
    }
    values
}

/// Malformed values of the token's header.
fn odd_values(pattern: &str, keys: Option<&Keys>) -> Vec<String> {
    let scheme = pattern.split('{').next().unwrap_or_default();
    let mut values = vec!["lockproof".to_owned(), "\u{e4}".to_owned()];
    if !scheme.trim().is_empty() {
        let word = scheme.trim_end();
        values.extend([
            format!("{scheme}a b"),
            format!("{scheme}{word}"),
            format!("{scheme}\u{e4}"),
            format!("{scheme},"),
            format!("{},{word} lockproof", scheme.trim_end()),
        ]);
        values.extend(BASIC.iter().map(|credential| format!("Basic {credential}")));
        values.extend(["Basic".to_owned(), "Basic ".to_owned()]);
        for other in ["Token", "ApiKey", "Digest", "Negotiate", "JWT", "OAuth", "Key", "None"] {
            values.push(format!("{other} lockproof"));
        }
        if let Some(keys) = keys {
            values.push(format!("Lockproof x{}x", keys.token()));
            if let Some(password) = keys.password() {
                values.push(format!("Basic {password}"));
            }
        }
    }
    values
}

/// Redacts values derived from the token, which would reveal most of it; if a shell can derive
/// them, the evidence shows how.
fn hide(token: &str, forged: &[String]) {
    let length = token.chars().count();
    for form in forged {
        let count = form.chars().count();
        let stand_in = if token.starts_with(form.as_str()) && count + 1 == length {
            "${COMFYUI_API_TOKEN%?}".to_owned()
        } else if token.starts_with(form.as_str()) {
            format!("${{COMFYUI_API_TOKEN:0:{count}}}")
        } else if token.ends_with(form.as_str()) {
            format!("${{COMFYUI_API_TOKEN:{}}}", length - count)
        } else if *form == token.to_lowercase() {
            "${COMFYUI_API_TOKEN,,}".to_owned()
        } else if *form == token.to_uppercase() {
            "${COMFYUI_API_TOKEN^^}".to_owned()
        } else if !form.contains(token) && gives_away(token, form) {
            "<a forgery made from the token>".to_owned()
        } else {
            hide_basic(form, &form.replace(token, "${COMFYUI_API_TOKEN}"));
            continue;
        };
        secret::register_as(form, &stand_in);
        hide_basic(form, &stand_in);
    }
}

/// Whether a text contains a significant part of the token, in any case or direction.
fn gives_away(token: &str, text: &str) -> bool {
    const PIECE: usize = 10;
    let token = token.to_lowercase();
    let forwards = text.to_lowercase();
    let backwards: String = forwards.chars().rev().collect();
    token
        .as_bytes()
        .windows(PIECE)
        .filter_map(|piece| std::str::from_utf8(piece).ok())
        .any(|piece| forwards.contains(piece) || backwards.contains(piece))
}

fn flip_case(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }).collect()
}

/// Tampered session cookies: changed in many places, truncated, with swapped parts, without a
/// signature, with `alg: none`, and signed with well-known keys.
fn tampered(session: &str) -> Vec<String> {
    let mut changed = Vec::new();
    for pair in session.split("; ") {
        let Some((name, value)) = pair.split_once('=') else { continue };
        // Values that contain `=` are sent in quotes, which are not part of them.
        let value = value.trim_matches('"');
        let bytes = value.as_bytes();
        let length = bytes.len();
        for at in [0, length / 3, length / 2, 2 * length / 3, length.saturating_sub(10), length.saturating_sub(4)] {
            let mut copy = bytes.to_vec();
            if let Some(byte) = copy.get_mut(at) {
                *byte = if *byte == b'A' { b'B' } else { b'A' };
            }
            changed.push(format!("{name}={}", String::from_utf8_lossy(&copy)));
        }
        for kept in [length / 2, length.saturating_sub(1), length.saturating_sub(8)] {
            if let Some(cut) = value.get(..kept) {
                changed.push(format!("{name}={cut}"));
            }
        }
        let parts: Vec<&str> = value.split('.').collect();
        if let [rest @ .., signature] = parts.as_slice()
            && !rest.is_empty()
        {
            let rest = rest.join(".");
            changed.extend([
                format!("{name}={rest}"),
                format!("{name}={rest}."),
                format!("{name}={rest}.AAAA"),
                format!("{name}={rest}.{}", "A".repeat(signature.len())),
                format!("{name}={signature}.{rest}"),
                // As much of the signature as a careless comparison checks.
                format!("{name}={rest}.{}", signature.get(..1).unwrap_or_default()),
            ]);
            for key in KNOWN_KEYS {
                changed.push(format!("{name}={rest}.{}", sign(&rest, key)));
            }
        }
        if let [_, payload, signature] = parts.as_slice() {
            // {"alg":"none","typ":"JWT"}
            let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
            changed.extend([format!("{name}={none}.{payload}."), format!("{name}={none}.{payload}.{signature}")]);
        }
    }
    changed
}

/// A JSON web token with the same claims, as made by someone who has read them: with `alg: none`,
/// without a signature, or signed with a well-known key. If such a key is the right one, an added
/// claim makes it a different token. The signed ones are returned separately.
fn resigned(token: &str) -> (Vec<String>, Vec<String>) {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let [head, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else { return Default::default() };
    let claims = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).unwrap_or_default();
    let Ok(serde_json::Value::Object(mut claims)) = serde_json::from_slice(&claims) else { return Default::default() };
    let mut unsigned = vec![format!("{head}.{payload}.")];
    for algorithm in ["none", "None", "NONE"] {
        let none = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{algorithm}","typ":"JWT"}}"#));
        unsigned.extend([format!("{none}.{payload}."), format!("{none}.{payload}.{signature}")]);
    }
    claims.insert("lockproof".to_owned(), true.into());
    let more = URL_SAFE_NO_PAD.encode(serde_json::Value::Object(claims).to_string());
    let mut signed = Vec::new();
    for key in KNOWN_KEYS {
        let mine = sign(&format!("{head}.{payload}"), key);
        let made = if mine == signature.trim_end_matches('=') {
            format!("{head}.{more}.{}", sign(&format!("{head}.{more}"), key))
        } else {
            format!("{head}.{payload}.{mine}")
        };
        secret::register_as(&made, &format!("<the token's claims, signed with the key {key}>"));
        signed.push(made);
    }
    (unsigned, signed)
}

/// The HS256 signature of a JSON web token.
fn sign(text: &str, key: &str) -> String {
    use base64::Engine as _;
    use hmac::{Hmac, Mac};
    let Ok(mut mac) = Hmac::<sha2::Sha256>::new_from_slice(key.as_bytes()) else { return String::new() };
    mac.update(text.as_bytes());
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{"alg":"HS256"}` `{"sub":"admin"}`, signed with `key`.
    fn token(key: &str) -> String {
        let signed = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZG1pbiJ9";
        format!("{signed}.{}", sign(signed, key))
    }

    #[test]
    fn a_token_s_own_claims_are_shown_without_its_signature() {
        let token = token("a key that nobody knows");
        let (forged, signed) = resigned(&token);
        assert!(forged.contains(&"eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJhZG1pbiJ9.".to_owned()));
        assert!(forged.contains(&"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZG1pbiJ9.".to_owned()));
        assert!(!forged.contains(&token) && !signed.contains(&token));
        assert!(resigned("a.b.c").0.is_empty() && resigned("no web token").0.is_empty());
    }

    #[test]
    fn a_well_known_key_signs_other_claims() {
        let (_, forged) = resigned(&token("secret"));
        assert!(!forged.contains(&token("secret")));
        let (signed, signature) = forged
            .iter()
            .filter_map(|made| made.rsplit_once('.'))
            .find(|(signed, _)| {
                signed.starts_with("eyJhbGciOiJIUzI1NiJ9.") && !signed.ends_with("eyJzdWIiOiJhZG1pbiJ9")
            })
            .expect("another token");
        assert_eq!(signature, sign(signed, "secret"));
    }

    #[test]
    fn a_number_in_base_16_has_no_case() {
        let forged = |token: &str| {
            let scheme =
                lockproof_model::scheme::Scheme::find("http-basic", std::path::Path::new(".")).expect("built in");
            let keys = Keys::new(token.to_owned(), None, None);
            let fill = crate::surface::routes::Fill { nonce: "lockproof-x".to_owned() };
            Maker { scheme: &scheme, keys: Some(&keys), fill: &fill, targets: Vec::new() }.forged_tokens()
        };
        let uuid = "6f1c2f0e-58a4-4b0e-9d0a-0123456789ab";
        assert!(!forged(uuid).contains(&uuid.to_uppercase()));
        let word = "6f1c2f0e-58a4-4b0e-9d0a-0123456789az";
        assert!(forged(word).contains(&word.to_uppercase()));
        let basic = forged("owner:a-long-password");
        for form in ["owner:", "owner", "owner:wrong"] {
            assert!(basic.iter().any(|made| made == form), "{form}");
        }
    }
}
