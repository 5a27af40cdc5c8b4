//! Registers tokens and passwords, so that all output can be redacted.
//!
//! A secret is registered when it is created or read; [`redact`] is applied to everything that is
//! printed, reported or logged. Encoded forms of a secret (percent-encoded, as a cookie) are
//! registered with it.

use std::sync::{OnceLock, PoisonError, RwLock};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The replacement of a secret.
pub const PLACEHOLDER: &str = "<redacted>";

/// Shorter strings are not redacted: replacing `a` everywhere would garble the output.
const SHORTEST: usize = 6;

/// A secret with its replacement.
type Known = (String, String);

fn registry() -> &'static RwLock<Vec<Known>> {
    static SECRETS: OnceLock<RwLock<Vec<Known>>> = OnceLock::new();
    SECRETS.get_or_init(RwLock::default)
}

/// Redacts `secret` from now on.
pub fn register(secret: &str) {
    register_as(secret, PLACEHOLDER);
}

/// Redacts `secret` from now on, with its own `placeholder`. For values derived from a secret that
/// reveal most of it, such as a token without its last character.
pub fn register_as(secret: &str, placeholder: &str) {
    let secret = secret.trim();
    if secret.len() < SHORTEST {
        return;
    }
    // A panic elsewhere must not keep a secret from being redacted.
    let mut secrets = registry().write().unwrap_or_else(PoisonError::into_inner);
    for form in spellings(secret) {
        // The secret itself keeps its own placeholder.
        if !secrets.iter().any(|(known, _)| *known == form) {
            secrets.push((form, placeholder.to_owned()));
        }
    }
    // The longest first, so that a secret that contains another one is replaced as a whole.
    secrets.sort_by_key(|(form, _)| std::cmp::Reverse(form.len()));
}

/// A secret as it is, and percent-encoded in the variants of RFC 3986 and other encoders.
pub fn spellings(secret: &str) -> Vec<String> {
    let encoded = percent_encode(secret);
    // Python's `urllib.parse.quote` keeps the slash; some libraries use lower case.
    let slashes = encoded.replace("%2F", "/");
    let mut spellings = vec![secret.to_owned(), lower_hex(&encoded), lower_hex(&slashes), encoded, slashes];
    spellings.sort_unstable();
    spellings.dedup();
    spellings
}

fn lower_hex(encoded: &str) -> String {
    let mut out = String::with_capacity(encoded.len());
    let mut small = 0;
    for c in encoded.chars() {
        out.push(if small > 0 { c.to_ascii_lowercase() } else { c });
        small = if c == '%' { 2 } else { small.max(1) - 1 };
    }
    out
}

/// `text` with all registered secrets redacted.
pub fn redact(text: &str) -> String {
    replace(text, str::to_owned)
}

/// Replaces every registered secret with `stand_in` of its placeholder.
pub fn replace(text: &str, stand_in: impl Fn(&str) -> String) -> String {
    let Ok(secrets) = registry().read() else { return PLACEHOLDER.to_owned() };
    let mut out = text.to_owned();
    for (secret, placeholder) in secrets.iter() {
        if out.contains(secret.as_str()) {
            out = out.replace(secret.as_str(), &stand_in(placeholder));
        }
    }
    out
}

/// Percent-encodes all but unreserved characters (RFC 3986, section 2.3).
pub fn percent_encode(text: &str) -> String {
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, RESERVED).to_string()
}

/// `length` random letters and digits, for run ids, passwords and nonces.
///
/// # Panics
/// If the operating system provides no random bytes.
pub fn random(length: usize) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = vec![0_u8; length];
    getrandom::fill(&mut bytes).expect("the operating system provides random bytes");
    bytes.iter().map(|b| char::from(ALPHABET[usize::from(b % 32)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registered_secret_is_left_out_in_every_form() {
        register("$2b$12$abcdefghijk/secret");
        let text = redact("token=$2b$12$abcdefghijk/secret and %242b%2412%24abcdefghijk%2Fsecret");
        assert_eq!(text, "token=<redacted> and <redacted>");
        let quoted = redact("?token=%242b%2412%24abcdefghijk/secret&x=%242b%2412%24abcdefghijk%2fsecret");
        assert_eq!(quoted, "?token=<redacted>&x=<redacted>");
    }

    #[test]
    fn a_derived_secret_has_its_own_placeholder() {
        register("$2b$12$abcdefghijk/other");
        register_as("$2b$12$abcdefghijk/othe", "${TOKEN%?}");
        assert_eq!(redact("$2b$12$abcdefghijk/othe"), "${TOKEN%?}");
        assert_eq!(redact("$2b$12$abcdefghijk/other"), "<redacted>");
    }

    #[test]
    fn a_short_word_is_not_a_secret() {
        register("gate");
        assert_eq!(redact("the gate"), "the gate");
    }
}
