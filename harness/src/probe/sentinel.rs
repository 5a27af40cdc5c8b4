//! The plain requests by which a lock is judged first.

use http::Method;

use super::message::Request;
use crate::scheme::Scheme;

/// The sentinels of a scheme: the four of the contract, and its own; those that it declares public
/// are left out.
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
