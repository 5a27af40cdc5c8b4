//! The known routes of ComfyUI, as data.

use std::sync::OnceLock;

use http::Method;
use serde::Deserialize;

use crate::message::Request;
use lockproof_model::parse::parse_as;

/// One route.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The method.
    #[serde(default = "get")]
    method: String,
    /// The path, with placeholders in braces.
    pub path: String,
    /// Whether it also exists below `/api`.
    #[serde(default = "yes")]
    pub api: bool,
    /// A request body that has no effect.
    #[serde(default)]
    body: String,
    /// Whether the handler changes data.
    #[serde(default)]
    pub changes: bool,
    /// Whether even that request leaves data behind, under a `lockproof-` name.
    #[serde(default)]
    pub writes: bool,
    /// The handler and its file, if the server listed it.
    #[serde(skip)]
    pub handler: Option<String>,
}

fn yes() -> bool {
    true
}

fn get() -> String {
    "GET".to_owned()
}

/// Values for the placeholders in braces.
#[derive(Clone, Debug)]
pub struct Fill {
    /// A unique name: `lockproof-<nonce>`.
    pub nonce: String,
}

impl Route {
    /// All known routes.
    ///
    /// # Panics
    /// If the built-in list, which is tested, is invalid.
    pub fn all() -> &'static [Self] {
        static ROUTES: OnceLock<Vec<Route>> = OnceLock::new();
        ROUTES.get_or_init(|| parse_as(include_str!("routes.yaml"), "routes.yaml").expect("the inventory is tested"))
    }

    /// A discovered route. Any method other than GET may change data.
    pub fn discovered(method: &str, path: &str) -> Self {
        let reads = matches!(method, "GET" | "HEAD");
        let body = if reads || method == "DELETE" { String::new() } else { "{}".to_owned() };
        let (method, path) = (method.to_owned(), path.to_owned());
        Self { method, path, api: false, body, changes: !reads, writes: false, handler: None }
    }

    /// A route from the server's own list, with its handler.
    pub fn listed(method: &str, path: &str, handler: String) -> Self {
        Self { handler: Some(handler), ..Self::discovered(method, path) }
    }

    /// Whether it is the same route, regardless of placeholder names; a route that also exists below `/api`
    /// matches both.
    pub fn is(&self, method: &str, path: &str) -> bool {
        let bare = path.strip_prefix("/api").filter(|rest| self.api && rest.starts_with('/')).unwrap_or(path);
        self.method == method && shape(&self.path) == shape(bare)
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.method.parse().unwrap_or(Method::GET)
    }

    /// A request without a credential, below `prefix`.
    pub fn request(&self, prefix: &str, fill: &Fill) -> Request {
        let mut request = Request::new(self.method(), format!("{prefix}{}", fill.apply(&self.path)));
        if !self.body.is_empty() {
            request = request.header("Content-Type", "application/json").body(fill.apply(&self.body));
        }
        request
    }

    /// Whether the last segment of its path is a free name.
    pub fn free_ending(&self) -> bool {
        self.path.ends_with('}') && !self.path.contains('?')
    }
}

/// A path without its query, with each placeholder as `{}`.
pub(crate) fn shape(path: &str) -> Vec<&str> {
    let path = path.split('?').next().unwrap_or_default();
    path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part }).collect()
}

impl Fill {
    /// Replaces placeholders in aiohttp's syntax (`{name}`, `{name:pattern}`) with an existing
    /// value if known, else with a unique name. Other braces, such as those of a JSON body, are
    /// kept.
    pub fn apply(&self, text: &str) -> String {
        static NAME: OnceLock<Option<regex::Regex>> = OnceLock::new();
        let name = NAME.get_or_init(|| regex::Regex::new(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::[^{}]*)?\}").ok());
        let Some(name) = name else { return text.to_owned() };
        let value = |found: &regex::Captures<'_>| match &found[1] {
            "directory" => "output".to_owned(),
            "folder" => "checkpoints".to_owned(),
            "node_class" => "SaveImage".to_owned(),
            _ => self.nonce.clone(),
        };
        name.replace_all(text, value).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_filled_and_no_other_brace() {
        let fill = Fill { nonce: "lockproof-x".into() };
        assert_eq!(fill.apply("/a/{anything}/{folder}/{tail:.*}.js"), "/a/lockproof-x/checkpoints/lockproof-x.js");
        assert_eq!(fill.apply(r#"{"a": {}, "b": "{id}"}"#), r#"{"a": {}, "b": "lockproof-x"}"#);
    }

    #[test]
    fn a_route_is_known_by_method_and_shape() {
        let route = Route { api: true, ..Route::discovered("GET", "/history/{prompt_id}?max=1") };
        assert!(route.is("GET", "/history/{id}"));
        assert!(route.is("GET", "/api/history/{id}"));
        assert!(!route.is("POST", "/history/{id}"));
        assert!(!Route::discovered("GET", "/x").is("GET", "/api/x"));
    }

    #[test]
    fn the_inventory_can_be_read_and_filled() {
        let fill = Fill { nonce: "lockproof-x".into() };
        for route in Route::all() {
            let request = route.request("", &fill);
            assert!(!request.target.contains('{'), "{}", request.target);
            assert!(request.target.parse::<http::Uri>().is_ok(), "{}", request.target);
            assert_eq!(request.method, route.method.as_str());
        }
    }
}
