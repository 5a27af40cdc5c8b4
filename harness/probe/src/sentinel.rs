//! The sentinels: the plain requests that decide about a lock first.

use http::Method;

use super::message::{Answer, Request};
use lockproof_model::scheme::Scheme;

/// The sentinels of a scheme: the four of the contract, and its own, without routes that it
/// declares public.
pub fn sentinels(scheme: &Scheme) -> Vec<Request> {
    let own = scheme.sentinels.iter().map(|route| {
        let method = route.method.as_deref().and_then(|m| m.parse().ok()).unwrap_or(Method::GET);
        Request::new(method, route.path.clone())
    });
    [
        Request::get("/system_stats"),
        Request::get("/queue"),
        Request::get("/object_info"),
        Request::post_json("/prompt", "{}"),
    ]
    .into_iter()
    .chain(own)
    .filter(|request| !scheme.is_public(request.method.as_str(), request.path()))
    .collect()
}

/// Whether only ComfyUI's own handler sends this answer, so that the lock let the request through:
/// the answer of `POST /prompt` to `{}` (recorded from ComfyUI 0.3.64).
pub fn is_from_the_handler(request: &Request, answer: &Answer) -> bool {
    if request.method != Method::POST || request.path() != "/prompt" || answer.status.as_u16() != 400 {
        return false;
    }
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    body["error"]["type"] == "no_prompt" && body.get("node_errors").is_some()
}
