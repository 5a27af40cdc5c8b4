//! How a value is written so that its readers read the same bytes, and whether one that is there is.

use super::Assignment;
use lockproof_model::error::{Error, Result};

/// For whom a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// For python-dotenv, Compose v1 and v2, and a shell: in single quotes where they are needed.
    Quoted,
    /// For `docker run --env-file`: as it is.
    Literal,
}

/// Characters that mean nothing to any reader, so that a value of them needs no quotes.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._/:@%+,-".contains(c)
}

/// The value as it stands behind `NAME=`.
pub(super) fn spell(value: &str, spelling: Spelling) -> Result<String> {
    if let Some(why) = cannot_be_spelled(value) {
        return Err(Error::usage(format!("the value {why}, so the readers of a .env do not read it alike"))
            .fix("a token consists of printable ASCII characters without quotes, backslashes and white space"));
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
        Some("holds a quote or a backslash")
    } else if value.contains("${") {
        // python-dotenv fills it in even between single quotes.
        Some("holds `${`")
    } else if value.chars().any(|c| !c.is_ascii_graphic()) {
        Some("holds white space or characters beyond ASCII")
    } else {
        None
    }
}

/// Which readers do not read this assignment's bytes as they are meant, in words; `None` where all
/// but `docker run --env-file` do.
pub fn disagreement(assignment: &Assignment) -> Option<&'static str> {
    let value = &assignment.text;
    match assignment.quote {
        _ if value.contains("${") => Some("python-dotenv fills in `${…}` in any quotes"),
        Some('\'') => None,
        Some(_) if value.contains('$') => {
            Some("between double quotes, Compose v2 and a shell replace `$…`, and python-dotenv keeps a backslash")
        }
        None if value.contains('$') => Some("without quotes, Compose v2 and a shell replace `$…`"),
        None if !value.chars().all(is_plain) => {
            Some("without quotes, a shell reads some of its characters differently")
        }
        Some(_) | None => None,
    }
}
