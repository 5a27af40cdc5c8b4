//! Discovers further routes: those that the scripts of the frontend and the extensions request.
//!
//! Discovered routes are probed as protected routes, and always reported.

use std::{collections::BTreeSet, sync::OnceLock};

use regex::Regex;

use super::routes::{Route, shape};
use crate::{
    client::Client,
    keys::{Keys, authorised},
    look::when_asked,
    message::Request,
};
use lockproof_model::{
    error::{Error, Result},
    scheme::Scheme,
};

/// The maximum number of scripts to read, and the maximum size of each.
const SCRIPTS: usize = 60;
const LARGEST: usize = 4 * 1024 * 1024;

/// A request made by a script.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// The path, with a value at its end as `{id}`.
    pub path: String,
    /// The method, in upper case.
    pub method: String,
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

impl From<&Call> for Route {
    fn from(call: &Call) -> Self {
        Self::discovered(&call.method, &call.path)
    }
}

/// The requests of scripts (`fetchApi("/x")`, `fetch("/x")` and similar) to routes that are neither
/// known nor public.
///
/// # Errors
/// An undecided error if the server does not answer: then it may have more routes.
pub async fn discover(client: &Client, scheme: &Scheme, keys: &Keys) -> Result<Vec<Call>> {
    let get = |target: String| async move {
        let answer =
            when_asked(client, &authorised(Request::get(&*target), scheme, keys.token())).await.map_err(|e| {
                Error::undecided("the routes that the server's pages and scripts use are unknown")
                    .detail(format!("GET {target}: {e}"))
                    .fix("check the server's log")
            })?;
        let text = || String::from_utf8_lossy(&answer.body[..answer.body.len().min(LARGEST)]).into_owned();
        Ok::<_, Error>(answer.status.is_success().then(text))
    };
    let mut scripts: BTreeSet<String> = BTreeSet::new();
    if let Some(page) = get("/".to_owned()).await? {
        scripts.extend(sources(&page));
    }
    if let Some(listed) = get("/extensions".to_owned()).await? {
        // A server without extensions may answer with its page.
        let listed: Vec<String> = serde_json::from_str(&listed).unwrap_or_default();
        // ComfyUI's own extensions request nothing beyond the frontend.
        scripts.extend(listed.into_iter().filter(|path| !path.starts_with("/extensions/core/")));
    }
    let mut asked = BTreeSet::new();
    for script in scripts.into_iter().take(SCRIPTS) {
        if let Some(text) = get(script).await? {
            asked.extend(calls(&text));
        }
    }
    asked.retain(|call: &Call| !is_known(&call.path) && !scheme.is_public(&call.method, &call.path));
    Ok(asked.into_iter().collect())
}

/// The scripts of a page, as absolute paths.
fn sources(page: &str) -> Vec<String> {
    static SOURCE: OnceLock<Option<Regex>> = OnceLock::new();
    let Some(source) = SOURCE.get_or_init(|| Regex::new(r#"<script[^>]+src=["']([^"':?]+\.js)["']"#).ok()) else {
        return Vec::new();
    };
    source
        .captures_iter(page)
        .map(|found| format!("/{}", found[1].trim_start_matches("./").trim_start_matches('/')))
        .collect()
}

/// The requests in a script. A path that continues with a value gets a placeholder.
fn calls(script: &str) -> Vec<Call> {
    static CALL: OnceLock<Option<Regex>> = OnceLock::new();
    let pattern = r#"(?:fetchApi|apiURL|\bfetch|axios(?:\.[a-z]+)?)\(\s*["'`](/[A-Za-z0-9_./-]*)(\$?)"#;
    let Some(call) = CALL.get_or_init(|| Regex::new(pattern).ok()) else {
        return Vec::new();
    };
    call.captures_iter(script)
        .filter(|found| found[1].len() > 1 && !found[1].starts_with("//") && !is_static(&found[1]))
        .map(|found| {
            let path = if found[2].is_empty() { found[1].to_owned() } else { format!("{}{{id}}", &found[1]) };
            let end = found.get(0).map_or(0, |all| all.end());
            Call { path, method: method(script.get(end..).unwrap_or_default()) }
        })
        .collect()
}

/// Files of the frontend are not routes.
fn is_static(path: &str) -> bool {
    path.starts_with("/assets/") || path.starts_with("/extensions/") || path.starts_with("/scripts/")
}

/// The method in the options after a call's path; GET by default.
fn method(rest: &str) -> String {
    static METHOD: OnceLock<Option<Regex>> = OnceLock::new();
    // Up to the end of the statement, or the next call.
    let options = rest.split([';', '\n']).take(4).collect::<Vec<_>>().join(" ");
    let options = options.split("fetch").next().unwrap_or_default();
    METHOD
        .get_or_init(|| Regex::new(r#"\bmethod\s*:\s*["'`]([A-Za-z]+)["'`]"#).ok())
        .as_ref()
        .and_then(|method| method.captures(options))
        .map_or_else(|| "GET".to_owned(), |found| found[1].to_ascii_uppercase())
}

/// Whether a path is known, whatever the names of its placeholders.
pub(crate) fn is_known(path: &str) -> bool {
    let wanted = shape(path.strip_prefix("/api").filter(|p| p.starts_with('/')).unwrap_or(path));
    Route::all().iter().any(|route| shape(&route.path) == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_and_their_calls_are_found() {
        let page =
            r#"<script type="module" crossorigin src="./assets/index-x.js"></script><script src="/scripts/app.js">"#;
        assert_eq!(sources(page), ["/assets/index-x.js", "/scripts/app.js"]);
        let script = "api.fetchApi(\"/queue\"); fetchApi( `/jobs/${id}/cancel`, {method: 'post'}); \
                      e.fetchApi('/gallery?x=1')\nawait fetch(api.apiURL('/node/list'), {\n  method: \"DELETE\"\n})\n\
                      fetch('/node/a'); fetch('/node/b', { method: `PUT` }); fetch('//cdn.example/x')";
        let calls: Vec<String> = calls(script).iter().map(ToString::to_string).collect();
        assert_eq!(
            calls,
            ["GET /queue", "POST /jobs/{id}", "GET /gallery", "DELETE /node/list", "GET /node/a", "PUT /node/b"]
        );
    }

    #[test]
    fn what_the_inventory_has_is_known() {
        assert!(is_known("/queue"));
        assert!(is_known("/api/history/{id}"));
        assert!(!is_known("/jobs/{id}"));
    }
}
