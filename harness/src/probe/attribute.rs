//! From hundreds of hits to causes: each way in is one finding, under the rule of what is wrong.
//!
//! | seen | rule |
//! |---|---|
//! | a method gets through on every route, others are rejected | `lock/unprotected-method` |
//! | a route gets through bare | `lock/unprotected-route` |
//! | a route gets through below `/api`, and is rejected bare | `lock/unprotected-prefix` |
//! | a forged credential opens plain routes | its own rule; that it opens the web socket, too, is the same cause |
//! | a spelling gets through that ends like a static file, and so do static files | `lock/static-suffix` |
//! | anything else | the probe's own rule |

use std::collections::{BTreeMap, BTreeSet};

use http::Method;

use super::matrix::{Hit, Result};
use crate::finding::Rule;

/// The least number of routes of another method that are rejected, for a method to be forgotten.
const ENOUGH: usize = 2;

/// Sorts what got through by its cause.
pub(super) fn attribute(results: Vec<Result>) -> BTreeMap<Rule, Vec<Hit>> {
    let methods = unguarded_methods(&results);
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

/// The methods that get through on every plain route, while another method is rejected.
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

fn name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// Whether a target has the look of a static file, in its last segment or its query.
fn looks_static(target: &str) -> bool {
    let last = target.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    [".js", ".css", ".ico", ".png", ".map", ".html", ".json"].iter().any(|suffix| last.contains(suffix))
}
