//! Searches answers, logs and pictures for the token.

use std::{collections::BTreeSet, time::Duration};

use http::Method;
use serde_json::json;

use super::{
    client::Client,
    look::when_asked,
    message::{Answer, Request, in_words},
};
use crate::keys::{Keys, authorised};
use lockproof_model::{
    scheme::{Presentation, Scheme},
    secret,
};

/// The time limit for generating the test picture.
const PICTURE: Duration = Duration::from_secs(20);

/// The maximum number of extension scripts to search.
const EXTENSIONS: usize = 60;

/// A place that contains the token.
#[derive(Clone, Debug)]
pub struct Leak {
    /// Who can see it.
    pub seen_by: SeenBy,
    /// The request that shows it.
    pub request: Request,
    /// Its answer.
    pub got: String,
}

/// Who can see a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeenBy {
    /// Anonymous clients.
    Anybody,
    /// Clients that already have a token.
    TokenHolders,
}

/// The result of a search for the token.
#[derive(Clone, Debug, Default)]
pub struct Searched {
    /// The places that show it.
    pub leaks: Vec<Leak>,
    /// The number of places without an answer, which are unknown.
    pub unanswered: u64,
}

/// Searches for the token in the answers for visitors and for token holders. With `mutating`, also
/// generates a picture and searches its metadata.
pub async fn search(client: &Client, scheme: &Scheme, keys: &Keys, mutating: bool) -> Searched {
    let (mut leaks, mut unanswered) = (Vec::new(), 0);
    for request in visited(scheme) {
        let outcome = when_asked(client, &request).await;
        unanswered += u64::from(outcome.is_err());
        if outcome.as_ref().is_ok_and(|answer| holds(answer, keys)) {
            leaks.push(Leak { seen_by: SeenBy::Anybody, request, got: in_words(&outcome) });
        }
    }
    // The frontend loads them, before anybody has logged in where the lock leaves them public.
    let (scripts, listed) = extensions(client, scheme, keys).await;
    unanswered += u64::from(!listed);
    for path in scripts {
        let request = Request::get(path);
        let outcome = when_asked(client, &request).await;
        unanswered += u64::from(outcome.is_err());
        if outcome.as_ref().is_ok_and(|answer| holds(answer, keys)) {
            leaks.push(Leak { seen_by: SeenBy::Anybody, request, got: in_words(&outcome) });
        }
    }
    if mutating {
        // A log may contain queries, but only its last few hundred lines are returned.
        for how in &scheme.present {
            if let Presentation::Query { query } = how {
                let _logged = client.send(&Request::get("/queue").query(query, keys.token())).await;
            }
        }
    }
    for target in ["/system_stats", "/internal/logs/raw", "/internal/logs", "/settings", "/users", "/"] {
        let request = authorised(Request::get(target), scheme, keys.token());
        let outcome = client.send(&request).await;
        if outcome.as_ref().is_ok_and(|answer| holds(answer, keys)) {
            leaks.push(Leak { seen_by: SeenBy::TokenHolders, request, got: in_words(&outcome) });
        }
    }
    if mutating && let Some(request) = picture(client, scheme, keys).await {
        let outcome = client.send(&request).await;
        if outcome.as_ref().is_ok_and(|answer| holds(answer, keys)) {
            leaks.push(Leak { seen_by: SeenBy::TokenHolders, request, got: in_words(&outcome) });
        }
    }
    Searched { leaks, unanswered }
}

/// What a visitor can request: pages, redirects, errors.
fn visited(scheme: &Scheme) -> Vec<Request> {
    let page = |target: &str| Request::get(target).header("Accept", "text/html");
    let mut requests = vec![
        page("/"),
        page("/system_stats"),
        page("/lockproof-nowhere"),
        Request::get("/"),
        Request::get("/lockproof-nowhere"),
        Request::get("/logout"),
        Request::new(Method::OPTIONS, "/system_stats"),
        Request::get("/system_stats").header("Authorization", "Bearer a b"),
        Request::get("/system_stats?token=lockproof"),
    ];
    let login = scheme.login.as_ref().map_or("/login", |login| &login.path);
    // Public routes are not a bypass, but must not contain the token.
    let public = scheme.public.iter().map(|route| route.path.as_str()).filter(|path| !path.contains(['*', '{']));
    let pages: BTreeSet<&str> = public.chain([login]).collect();
    for path in pages {
        requests.extend([Request::get(path), page(path)]);
    }
    requests.push(page(&format!("{login}?wrong_password=1")));
    requests
}

/// The scripts of extensions that the server lists, and whether it answered; ComfyUI's own hold nothing of this
/// server's.
async fn extensions(client: &Client, scheme: &Scheme, keys: &Keys) -> (Vec<String>, bool) {
    let asked = authorised(Request::get("/extensions"), scheme, keys.token());
    let Ok(listed) = when_asked(client, &asked).await else { return (Vec::new(), false) };
    let listed: Vec<String> = serde_json::from_slice(&listed.body).unwrap_or_default();
    let own = |path: &String| path.starts_with("/extensions/") && !path.starts_with("/extensions/core/");
    (listed.into_iter().filter(own).take(EXTENSIONS).collect(), true)
}

/// Generates a picture with the token, and returns the request that fetches it.
async fn picture(client: &Client, scheme: &Scheme, keys: &Keys) -> Option<Request> {
    let prefix = format!("lockproof-{}", secret::random(8));
    let prompt = json!({ "prompt": {
        "1": { "class_type": "EmptyImage", "inputs": { "width": 8, "height": 8, "batch_size": 1, "color": 0 } },
        "2": { "class_type": "SaveImage", "inputs": { "images": ["1", 0], "filename_prefix": prefix } },
    }});
    let sent = authorised(Request::post_json("/prompt", &prompt.to_string()), scheme, keys.token());
    let answer: serde_json::Value = serde_json::from_slice(&client.send(&sent).await.ok()?.body).ok()?;
    let id = answer.get("prompt_id")?.as_str()?.to_owned();
    let deadline = tokio::time::Instant::now() + PICTURE;
    while tokio::time::Instant::now() < deadline {
        let asked = authorised(Request::get(format!("/history/{id}")), scheme, keys.token());
        let history: serde_json::Value = serde_json::from_slice(&client.send(&asked).await.ok()?.body).ok()?;
        if let Some(image) = history.pointer(&format!("/{id}/outputs/2/images/0/filename")).and_then(|f| f.as_str()) {
            let view = Request::get(format!("/view?filename={}", secret::percent_encode(image)));
            return Some(authorised(view, scheme, keys.token()));
        }
        // A failed run creates no picture.
        if history.pointer(&format!("/{id}/status/status_str")).is_some_and(|s| s == "error") {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}

/// Whether an answer contains the token or the password, in its headers or its body.
pub fn holds(answer: &Answer, keys: &Keys) -> bool {
    keys.forms().iter().any(|form| {
        contains(&answer.body, form) || answer.headers.values().any(|value| contains(value.as_bytes(), form))
    })
}

/// Whether a text contains the token or the password.
pub fn holds_text(text: &str, keys: &Keys) -> bool {
    keys.forms().iter().any(|form| contains(text.as_bytes(), form))
}

fn contains(haystack: &[u8], needle: &str) -> bool {
    memchr::memmem::find(haystack, needle.as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    use super::*;

    #[test]
    fn the_token_is_found_in_every_form() {
        let keys = Keys::new("$2b$12$leak.test/token".to_owned(), None, None);
        let answer = |body: &str| Answer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::from(body.to_owned()),
            frame: None,
        };
        assert!(holds(&answer("token=$2b$12$leak.test/token."), &keys));
        assert!(holds(&answer("?token=%242b%2412%24leak.test%2Ftoken"), &keys));
        assert!(holds(&answer(r#"{"a":"$2b$12$leak.test\/token"}"#), &keys));
        assert!(!holds(&answer("$2b$12$leak.test"), &keys));
        // JDJiJDEyJGxlYWsudGVzdC90b2tlbg==
        assert!(holds(&answer("x=JDJiJDEyJGxlYWsudGVzdC90b2tlbg; y"), &keys));
        let mut redirect = answer("");
        redirect.headers.insert("location", "/?token=$2b$12$leak.test/token".parse().expect("a value"));
        assert!(holds(&redirect, &keys));
    }
}
