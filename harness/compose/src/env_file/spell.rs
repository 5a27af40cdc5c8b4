//! Spells a value so that all programs read the same bytes, and checks existing spellings.

use super::Assignment;
use lockproof_model::error::{Error, Result};

/// The programs that read the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// For python-dotenv, Compose v1 and v2, and a shell: in single quotes if needed.
    Quoted,
    /// For `docker run --env-file`: without quotes.
    Literal,
}

/// Characters without a special meaning, which need no quotes.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._/:@%+,-".contains(c)
}

/// The value as written after `NAME=`.
pub(super) fn spell(value: &str, spelling: Spelling) -> Result<String> {
    if let Some(why) = cannot_be_spelled(value) {
        return Err(Error::usage(format!("the value {why}, so programs read it from a .env in different ways"))
            .fix("a token may contain only printable ASCII characters, without quotes, backslashes and white space"));
    }
    Ok(match spelling {
        Spelling::Literal => value.to_owned(),
        Spelling::Quoted if value.chars().all(is_plain) => value.to_owned(),
        Spelling::Quoted => format!("'{value}'"),
    })
}

fn cannot_be_spelled(value: &str) -> Option<&'static str> {
    if value.is_empty() {
        Some("is empty")
    } else if value.contains(['\'', '"', '\\', '`']) {
        Some("contains a quote or a backslash")
    } else if value.contains("${") {
        // python-dotenv expands it even in single quotes.
        Some("contains `${`")
    } else if value.chars().any(|c| !c.is_ascii_graphic()) {
        Some("contains white space or non-ASCII characters")
    } else {
        None
    }
}

/// Which programs read this assignment differently; `None` if only `docker run --env-file` may.
pub fn disagreement(assignment: &Assignment) -> Option<&'static str> {
    let value = &assignment.text;
    match assignment.quote {
        _ if value.contains("${") => Some("python-dotenv expands `${…}` inside any quotes"),
        Some('\'') => None,
        Some(_) if value.contains('$') => {
            Some("in double quotes, Compose v2 and a shell expand `$…`, and python-dotenv keeps backslashes")
        }
        None if value.contains('$') => Some("without quotes, Compose v2 and a shell expand `$…`"),
        None if !value.chars().all(is_plain) => Some("without quotes, a shell interprets some of its characters"),
        Some(_) | None => None,
    }
}
