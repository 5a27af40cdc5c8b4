//! Python's JSON, with `NaN` and `Infinity`.

use std::borrow::Cow;

use serde_json::Value;

/// Parses JSON; `NaN` and both infinities become null.
///
/// # Errors
/// The parse error with its position.
pub fn parse(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str(text).or_else(|e| match without_nan(text) {
        Cow::Owned(tidied) => serde_json::from_str(&tidied),
        Cow::Borrowed(_) => Err(e),
    })
}

/// Replaces `NaN` and infinities by `null`.
fn without_nan(text: &str) -> Cow<'_, str> {
    const NONE: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    let mut out = String::new();
    let (mut kept, mut at, mut quoted) = (0, 0, false);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'-' | b'I' | b'N' if !quoted => {
                if let Some(word) = NONE.iter().find(|word| text[at..].starts_with(**word)) {
                    out.push_str(&text[kept..at]);
                    out.push_str("null");
                    at += word.len();
                    kept = at;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if kept == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[kept..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_is_read_as_it_stands() {
        for text in ["0.49999999999999956", "1.1000000000000003", "5e-324", "18446744073709551615"] {
            assert_eq!(parse(text).expect("JSON").to_string(), text);
        }
    }
}
