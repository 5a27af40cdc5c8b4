//! Checks whether any web page can use a user's session: the browser sends the cookie with cross-site
//! requests, and CORS lets other sites read the answers.

use http::{HeaderMap, header};

use super::{
    client::Client,
    look::when_asked,
    message::{Fault, Request, in_words},
    visitor::Step,
};
use crate::keys::{Keys, form};
use lockproof_model::{scheme::Scheme, secret};

/// The origin of a foreign page.
const ORIGIN: &str = "https://lockproof.example";

/// The evidence: a login whose cookie is sent cross-site, and an answer that a foreign page can read.
///
/// # Errors
/// If the server does not answer.
pub async fn cross_site(
    client: &Client,
    scheme: &Scheme,
    keys: &Keys,
    username: &str,
) -> Result<Option<[Step; 2]>, Fault> {
    let (Some(login), Some(password)) = (&scheme.login, keys.password()) else { return Ok(None) };
    let login = form(login, username, password);
    let answer = when_asked(client, &login).await?;
    let Some(cookie) = answer.cookies().filter(|_| goes_everywhere(&answer.headers)) else { return Ok(None) };
    for pair in cookie.split("; ") {
        secret::register_as(pair.split_once('=').map_or(pair, |(_, value)| value), "<the session cookie>");
    }
    let foreign = Request::get("/system_stats").header("Origin", ORIGIN).header("Cookie", cookie);
    let seen = when_asked(client, &foreign).await?;
    let reads = seen.status.is_success() && lets_read(&seen.headers);
    Ok(reads.then(|| {
        [
            Step { request: login, got: format!("{}, with a cookie without SameSite", in_words(&Ok(answer))) },
            Step {
                request: foreign,
                got: format!("{}, with Access-Control-Allow-Origin: {ORIGIN} and credentials", in_words(&Ok(seen))),
            },
        ]
    }))
}

/// Whether an answer sets a cookie without `SameSite=Lax` or `Strict`.
fn goes_everywhere(headers: &HeaderMap) -> bool {
    headers.get_all(header::SET_COOKIE).iter().filter_map(|value| value.to_str().ok()).any(|cookie| {
        let kept = cookie.split(';').skip(1).map(|part| part.trim().to_ascii_lowercase());
        !kept.into_iter().any(|part| part == "samesite=lax" || part == "samesite=strict")
    })
}

/// Whether the foreign page may read an answer to a request with the user's credentials.
fn lets_read(headers: &HeaderMap) -> bool {
    let is = |name: header::HeaderName, value: &str| {
        headers.get(name).is_some_and(|held| held.as_bytes() == value.as_bytes())
    };
    is(header::ACCESS_CONTROL_ALLOW_ORIGIN, ORIGIN) && is(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stand_in::{Reply, StandIn};

    async fn found(same_site: &'static str, allowed: fn(&str) -> String, credentials: &'static str) -> bool {
        let server = StandIn::start(move |request| match request.path() {
            "/login" => Reply::redirect("/").header("set-cookie", &format!("sid=0123456789; HttpOnly{same_site}")),
            _ => {
                let origin = request.headers.iter().find(|(name, _)| name == "origin").map_or("", |(_, value)| value);
                Reply::json(200, r#"{"system":{}}"#)
                    .header("access-control-allow-origin", &allowed(origin))
                    .header("access-control-allow-credentials", credentials)
            }
        })
        .await;
        let scheme = Scheme::find(Scheme::DEFAULT, std::path::Path::new(".")).expect("built in");
        let keys = Keys::new("the-token-of-the-test".to_owned(), Some("the-password".to_owned()), None);
        cross_site(&server.client, &scheme, &keys, "gate").await.expect("it answers").is_some()
    }

    #[tokio::test]
    async fn it_takes_a_cookie_that_goes_everywhere_and_a_page_that_may_read() {
        assert!(found("", str::to_owned, "true").await);
        assert!(found("; SameSite=None; Secure", str::to_owned, "true").await);
        assert!(!found("; SameSite=Lax", str::to_owned, "true").await);
        assert!(!found("; samesite=strict", str::to_owned, "true").await);
        assert!(!found("", |_| "*".to_owned(), "true").await);
        assert!(!found("", |_| "https://editor.example".to_owned(), "true").await);
        assert!(!found("", str::to_owned, "false").await);
    }
}
