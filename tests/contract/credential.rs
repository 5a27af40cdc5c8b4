//! What each recorded credential shows.

use anyhow::{Result, bail};
use reqwest::header::{ACCEPT, AUTHORIZATION};

/// The password behind the token of the recordings.
pub(crate) const PASSWORD: &str = "s3cret";
/// `owner:s3cret`
const BASIC: &str = "Basic b3duZXI6czNjcmV0";

/// What goes into a request so that it shows a credential.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) header: Option<(reqwest::header::HeaderName, String)>,
    /// The value of `?token=`.
    pub(super) query: Option<String>,
}

/// How the credential of that name is shown, given the token of the server.
pub(super) fn shown(name: &str, token: &str) -> Result<Shown> {
    let authorization = |value: String| Shown { header: Some((AUTHORIZATION, value)), query: None };
    let query = |value: &str| Shown { header: None, query: Some(value.to_owned()) };
    Ok(match name {
        "anonymous" => Shown::default(),
        "anonymous-html" => Shown { header: Some((ACCEPT, "text/html".to_owned())), query: None },
        "query-empty" => query(""),
        "query-valid" => query(token),
        "bearer-empty" => authorization("Bearer".to_owned()),
        "bearer-two-words" => authorization("Bearer two words".to_owned()),
        "bearer-garbage" => authorization("Bearer garbage".to_owned()),
        "bearer-valid" => authorization(format!("Bearer {token}")),
        "bearer-lowercase-scheme" => authorization(format!("bearer {token}")),
        "bearer-truncated" => {
            authorization(format!("Bearer {}", token.get(..token.len().saturating_sub(1)).unwrap_or("")))
        }
        "bearer-extended" => authorization(format!("Bearer {token}x")),
        "raw-password" => authorization(format!("Bearer {PASSWORD}")),
        "basic" => authorization(BASIC.to_owned()),
        other => bail!("no such credential: {other}"),
    })
}
