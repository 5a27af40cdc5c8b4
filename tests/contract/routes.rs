//! Every recorded route must be there.

use anyhow::Result;
use serde::Deserialize;

use super::body::Body;
use super::http::Http;
use super::record::{self, State};
use super::report::{Difference, Report};

#[derive(Debug, Deserialize)]
struct Route {
    method: String,
    path: String,
}

/// Asks each route for something that there is not, with a credential that is accepted: a route that
/// is missing falls through to the static files, which know neither its method nor its path.
pub(super) async fn check(http: &Http, report: &mut Report) -> Result<()> {
    for route in record::lines::<Route>("routes.jsonl")? {
        if http.subject.state == State::NoPlugin && belongs_to_plugin(&route.path) {
            continue;
        }
        // These are prefixes of static files, whose files a stand-in does not have.
        if STATIC.contains(&route.path.as_str()) {
            continue;
        }
        let path = filled(&route.path);
        // What is not JSON changes nothing, whatever the route does.
        let body = if route.method == "GET" { Body::None } else { Body::Text("not json".to_owned()) };
        let answer = http.accepted(&route.method, &path, body).await?;
        let fell_through =
            answer.status == 405 || (answer.status == 404 && answer.content_type == "application/octet-stream");
        let differences =
            if fell_through { vec![Difference::new("route", &"registered", &answer.status)] } else { Vec::new() };
        report.other(&format!("{} {}", route.method, route.path), &route.path, differences);
    }
    Ok(())
}

const STATIC: [&str; 5] = ["", "/docs", "/templates", "/old_css", "/extensions/ComfyUI-Login"];

fn belongs_to_plugin(path: &str) -> bool {
    let path = path.strip_prefix("/api").unwrap_or(path);
    ["/login", "/logout", "/guest_mode"].contains(&path)
}

/// The path with something in each of its braces.
fn filled(path: &str) -> String {
    path.split('/')
        .map(|segment| match segment {
            "{path_index}" => "0",
            _ if segment.starts_with('{') => "nothing-of-that-name",
            _ => segment,
        })
        .collect::<Vec<_>>()
        .join("/")
}
