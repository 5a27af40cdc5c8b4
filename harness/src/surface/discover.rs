//! Routes beyond the inventory: those that the frontend and the extensions of the server ask for.
//!
//! What is found is probed as protected; it is never left out silently.

use std::{collections::BTreeSet, sync::OnceLock};

use regex::Regex;

use super::routes::Route;
use crate::{
    keys::{Keys, authorised},
    probe::{client::Client, message::Request},
    scheme::Scheme,
};

/// How many scripts are read at the most, and how much of each.
const SCRIPTS: usize = 60;
const LARGEST: usize = 4 * 1024 * 1024;

/// Paths that scripts ask for with `fetchApi("/x")`, and that stand neither in the inventory nor
/// among the scheme's public ones.
pub async fn discover(client: &Client, scheme: &Scheme, keys: &Keys) -> Vec<String> {
    let get = |target: String| async move {
        let answer = client.send(&authorised(Request::get(target), scheme, keys.token())).await.ok()?;
        answer
            .status
            .is_success()
            .then(|| String::from_utf8_lossy(&answer.body[..answer.body.len().min(LARGEST)]).into_owned())
    };
    let mut scripts: BTreeSet<String> = BTreeSet::new();
    if let Some(page) = get("/".to_owned()).await {
        scripts.extend(sources(&page));
    }
    if let Some(listed) = get("/extensions".to_owned()).await {
        let listed: Vec<String> = serde_json::from_str(&listed).unwrap_or_default();
        // ComfyUI's own ask for nothing that the frontend does not ask for.
        scripts.extend(listed.into_iter().filter(|path| !path.starts_with("/extensions/core/")));
    }
    let mut asked = BTreeSet::new();
    for script in scripts.into_iter().take(SCRIPTS) {
        if let Some(text) = get(script).await {
            asked.extend(calls(&text));
        }
    }
    asked.retain(|path| !is_known(path) && !scheme.is_public("GET", path));
    asked.into_iter().collect()
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

/// The paths that a script asks the server for. A path that goes on with a value ends in one of
/// ours.
fn calls(script: &str) -> Vec<String> {
    static CALL: OnceLock<Option<Regex>> = OnceLock::new();
    let Some(call) = CALL.get_or_init(|| Regex::new(r#"fetchApi\(\s*["'`](/[A-Za-z0-9_./-]*)(\$?)"#).ok()) else {
        return Vec::new();
    };
    call.captures_iter(script)
        .map(|found| if found[2].is_empty() { found[1].to_owned() } else { format!("{}{{id}}", &found[1]) })
        .filter(|path| path.len() > 1)
        .collect()
}

/// Whether a path stands in the inventory, whatever its names are called.
fn is_known(path: &str) -> bool {
    let shape = |path: &str| -> Vec<String> {
        path.split('?')
            .next()
            .unwrap_or_default()
            .split('/')
            .map(|part| if part.starts_with('{') { "{}".to_owned() } else { part.to_owned() })
            .collect()
    };
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
        let script = r#"api.fetchApi("/queue"); fetchApi( `/jobs/${id}/cancel`); e.fetchApi('/assets?x=1')"#;
        assert_eq!(calls(script), ["/queue", "/jobs/{id}", "/assets"]);
    }

    #[test]
    fn what_the_inventory_has_is_known() {
        assert!(is_known("/queue"));
        assert!(is_known("/api/history/{id}"));
        assert!(!is_known("/jobs/{id}"));
    }
}
