//! Groups hundreds of hits by cause: each bypass is one finding, under the rule of its cause.
//!
//! | observation | rule |
//! |---|---|
//! | a method is served on every route, others are rejected | `lock/unprotected-method` |
//! | a route is served without a prefix | `lock/unprotected-route` |
//! | a route is served below `/api`, but rejected without it | `lock/unprotected-prefix`; if all are, the WebSocket there has the same cause |
//! | a forged credential opens plain routes | its own rule; the WebSocket has the same cause |
//! | a request is rejected but takes effect | `lock/unprotected-route`; other changing requests have the same cause |
//! | an empty token is accepted, and also one beside another | `lock/empty-token` |
//! | a tampered session is accepted, and also a made-up cookie | `lock/tampered-session` |
//! | a spelling with a static suffix is served, and so are static files | `lock/static-suffix` |
//! | a `Host` is trusted, and also the host of an absolute target | `lock/trusted-header` |
//! | anything else | the probe's own rule |

use std::collections::{BTreeMap, BTreeSet};

use http::Method;

use super::{
    decide::Decision,
    look::is_refusal,
    message::Request,
    oracle::{Hit, Result},
};
use crate::surface::corpus::credentials::WRONG;
use lockproof_model::finding::Rule;

/// The minimum number of rejected routes of another method, for a method to count as forgotten.
const ENOUGH: usize = 2;

/// Groups the hits by their cause.
pub(super) fn attribute(results: Vec<Result>) -> BTreeMap<Rule, Vec<Hit>> {
    let methods = unguarded_methods(&results);
    let prefix = is_whole_prefix_unguarded(&results);
    let mut hits: BTreeMap<Rule, Vec<Hit>> = BTreeMap::new();
    for result in results {
        if !result.decision.let_through() {
            continue;
        }
        let Some(outcome) = result.outcome else { continue };
        let mut probe = result.probe;
        if is_plain(probe.rule) && methods.contains(name(&probe.request.method)) {
            probe.rule = Rule::LockUnprotectedMethod;
        }
        hits.entry(probe.rule).or_default().push(Hit { probe, outcome });
    }
    let has = |hits: &BTreeMap<Rule, Vec<Hit>>, rule: Rule| hits.contains_key(&rule);
    let forged = [Rule::LockForgedCredential, Rule::LockEmptyToken, Rule::LockTamperedSession, Rule::LockTrustedHeader]
        .into_iter()
        .any(|rule| has(&hits, rule));
    if forged {
        retain(&mut hits, Rule::LockWebsocket, |hit| hit.probe.control.is_none());
    }
    if prefix {
        retain(&mut hits, Rule::LockWebsocket, |hit| !hit.probe.request.target.starts_with("/api/"));
    }
    // If any token is accepted, the empty one is not a separate cause.
    let wrong: Vec<Slot> = hits.get(&Rule::LockForgedCredential).into_iter().flatten().filter_map(wrong_in).collect();
    retain(&mut hits, Rule::LockEmptyToken, |hit| !wrong.iter().any(|slot| slot.is_in(&hit.probe.request)));
    if has(&hits, Rule::LockEmptyToken) {
        retain(&mut hits, Rule::LockForgedCredential, |hit| !has_empty_value(&hit.probe.request.target));
    }
    // A handler that runs before the check may fail by itself, whatever the spelling.
    if hits.get(&Rule::LockUnprotectedRoute).is_some_and(|plain| plain.iter().any(took_effect)) {
        for rule in hits.keys().copied().filter(|rule| *rule != Rule::LockUnprotectedRoute).collect::<Vec<_>>() {
            let served = |hit: &Hit| hit.outcome.as_ref().is_ok_and(|answer| answer.status.is_success());
            retain(&mut hits, rule, |hit| !hit.probe.changes && served(hit));
        }
    }
    // A lock that accepts a made-up cookie accepts a tampered one too.
    if has(&hits, Rule::LockTamperedSession) {
        retain(&mut hits, Rule::LockForgedCredential, |hit| !is_cookie(&hit.probe.request));
    }
    // The host of an absolute target is equivalent to `Host`.
    let by_host = |hit: &Hit| hit.probe.request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
    if hits.get(&Rule::LockTrustedHeader).is_some_and(|trusted| trusted.iter().any(by_host)) {
        retain(&mut hits, Rule::LockPathConfusion, |hit| hit.probe.request.target.starts_with('/'));
    }
    if has(&hits, Rule::LockStaticSuffix) {
        retain(&mut hits, Rule::LockPathConfusion, |hit| !looks_static(&hit.probe.request.target));
    }
    hits
}

fn is_plain(rule: Rule) -> bool {
    matches!(rule, Rule::LockUnprotectedRoute | Rule::LockUnprotectedPrefix)
}

fn retain(hits: &mut BTreeMap<Rule, Vec<Hit>>, rule: Rule, keep: impl Fn(&Hit) -> bool) {
    if let Some(of_rule) = hits.get_mut(&rule) {
        of_rule.retain(keep);
        if of_rule.is_empty() {
            hits.remove(&rule);
        }
    }
}

/// The methods that are served on every plain route, while another method is rejected.
fn unguarded_methods(results: &[Result]) -> BTreeSet<&'static str> {
    let mut through: BTreeMap<&'static str, (usize, usize)> = BTreeMap::new();
    for result in results.iter().filter(|r| is_plain(r.probe.rule) && r.applies) {
        let entry = through.entry(name(&result.probe.request.method)).or_default();
        entry.1 += 1;
        entry.0 += usize::from(result.decision.let_through());
    }
    let guarded = through.values().any(|(hits, all)| *hits == 0 && *all >= ENOUGH);
    through.into_iter().filter(|(_, (hits, all))| guarded && hits == all).map(|(method, _)| method).collect()
}

/// Whether all read-only requests are served under the other prefix, as when a list of paths lacks
/// it; a WebSocket is read-only.
fn is_whole_prefix_unguarded(results: &[Result]) -> bool {
    let reads = |r: &&Result| !r.probe.changes && r.decision != Decision::Indeterminate;
    let below = || results.iter().filter(|r| r.probe.rule == Rule::LockUnprotectedPrefix && r.applies).filter(reads);
    below().count() >= ENOUGH && below().all(|r| r.decision.let_through())
}

fn name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// The place of a token in a request.
enum Slot {
    Header(String),
    Query(String),
}

impl Slot {
    fn is_in(&self, request: &Request) -> bool {
        match self {
            Self::Header(name) => request.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name)),
            Self::Query(name) => {
                let query = request.target.split_once('?').map_or("", |(_, query)| query);
                query.split('&').any(|pair| pair.split('=').next() == Some(name))
            }
        }
    }
}

/// The place of [`WRONG`] in a hit, if it is the only credential.
fn wrong_in(hit: &Hit) -> Option<Slot> {
    let request = &hit.probe.request;
    let header = request.headers.iter().find(|(_, value)| value.split(' ').next_back() == Some(WRONG));
    if let Some((name, _)) = header.filter(|_| request.headers.len() == 1) {
        return Some(Slot::Header(name.clone()));
    }
    let (_, query) = request.target.split_once('?')?;
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (name, _) = pairs.clone().find(|(_, value)| *value == WRONG)?;
    (pairs.by_ref().filter(|(n, _)| *n == name).count() == 1).then(|| Slot::Query(name.to_owned()))
}

/// Whether a request was rejected but took effect.
fn took_effect(hit: &Hit) -> bool {
    hit.outcome.as_ref().is_ok_and(is_refusal)
}

/// Whether a cookie is the request's only credential.
fn is_cookie(request: &Request) -> bool {
    matches!(request.headers.as_slice(), [(name, _)] if name.eq_ignore_ascii_case("cookie"))
}

/// Whether a target's query has a name without a value.
fn has_empty_value(target: &str) -> bool {
    let Some((_, query)) = target.split_once('?') else { return false };
    query.split('&').any(|pair| pair.split_once('=').is_none_or(|(_, value)| value.is_empty()))
}

/// Whether a target looks like a static file, in its last segment or its query.
fn looks_static(target: &str) -> bool {
    let last = target.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    [".js", ".css", ".ico", ".png", ".map", ".html", ".json"].iter().any(|suffix| last.contains(suffix))
}
