//! The corpus: the requests that show each kind of bypass.
//!
//! A probe is a request that must not get what the token gets. It is compared with the plain
//! request with the token. It is significant only if the plain request without a credential is
//! rejected; otherwise the route itself is open, which is another finding.

pub(crate) mod credentials;
mod headers;
mod methods;
mod paths;
mod routes;
mod sockets;
mod suffixes;

use crate::{
    keys::Keys,
    message::Request,
    surface::routes::{Fill, Route},
};
use lockproof_model::{finding::Rule, scheme::Scheme};

/// A probe.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The rule that is broken if it is served.
    pub rule: Rule,
    /// The route, as in `accept: … route:`.
    pub route: String,
    /// The request to send, with the forged credential or the trick.
    pub request: Request,
    /// The request with the token, for comparison.
    pub reference: Request,
    /// The request without a credential that must be rejected for the probe to be significant;
    /// `None`: the probe itself.
    pub control: Option<Request>,
    /// Whether the handler may change data.
    pub changes: bool,
}

impl Probe {
    /// A plain request without a credential.
    fn plain(rule: Rule, route: &str, request: Request, changes: bool) -> Self {
        Self { rule, route: route.to_owned(), reference: request.clone(), request, control: None, changes }
    }

    /// A request that is compared with a plain one.
    fn trick(rule: Rule, route: &str, plain: &Request, request: Request, changes: bool) -> Self {
        Self { rule, route: route.to_owned(), request, reference: plain.clone(), control: Some(plain.clone()), changes }
    }
}

/// A route below one prefix, with its plain request.
#[derive(Clone, Debug)]
struct Target {
    /// The path with placeholders in braces, including the prefix.
    route: String,
    /// The plain request.
    plain: Request,
    /// Whether the handler may change data.
    changes: bool,
    /// Whether the last segment of the path is a free name.
    free_ending: bool,
}

/// The input of a corpus.
struct Maker<'a> {
    scheme: &'a Scheme,
    keys: Option<&'a Keys>,
    fill: &'a Fill,
    targets: Vec<Target>,
}

/// All probes of a scheme, in the order of sending: read-only requests first.
///
/// Without credentials, forgeries derived from the token are left out.
pub fn probes(scheme: &Scheme, keys: Option<&Keys>, inventory: &[Route], fill: &Fill) -> Vec<Probe> {
    let maker = Maker { scheme, keys, fill, targets: targets(scheme, inventory, fill) };
    let mut probes = maker.routes();
    probes.extend(maker.methods());
    probes.extend(maker.suffixes());
    probes.extend(maker.paths());
    probes.extend(maker.headers());
    probes.extend(maker.credentials());
    probes.extend(maker.sockets());
    probes.sort_by_key(|probe| probe.changes);
    probes
}

fn targets(scheme: &Scheme, inventory: &[Route], fill: &Fill) -> Vec<Target> {
    let mut targets = Vec::new();
    for route in inventory {
        for prefix in ["", "/api"] {
            if !prefix.is_empty() && !route.api {
                continue;
            }
            let plain = route.request(prefix, fill);
            if !scheme.is_public(plain.method.as_str(), plain.path()) {
                targets.push(Target {
                    route: format!("{prefix}{}", route.path),
                    plain,
                    changes: route.changes,
                    free_ending: route.free_ending(),
                });
            }
        }
    }
    targets
}

impl Maker<'_> {
    /// Fast, read-only targets, for most tricks.
    fn reading(&self) -> impl Iterator<Item = &Target> {
        self.targets
            .iter()
            .filter(|t| !t.changes && t.plain.method == http::Method::GET && !t.route.ends_with("/object_info"))
    }

    /// A few targets, for tricks that do not depend on the route.
    fn samples(&self) -> Vec<&Target> {
        const SAMPLES: [&str; 3] = ["/system_stats", "/api/system_stats", "/internal/logs"];
        let known: Vec<&Target> = self.reading().filter(|t| SAMPLES.contains(&t.route.as_str())).collect();
        if known.is_empty() { self.reading().take(3).collect() } else { known }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use super::*;

    fn corpus() -> Vec<Probe> {
        let scheme = Scheme::find(Scheme::DEFAULT, Path::new(".")).expect("built in");
        let keys = Keys::new(
            "$2b$12$corpus.test.token/abcdefghijklmnopqrstuvwxyz".to_owned(),
            Some("corpus-test-password".to_owned()),
            Some("AIOHTTP_SESSION=gAAAAABcorpus-test-session==".to_owned()),
        );
        probes(&scheme, Some(&keys), Route::all(), &Fill { nonce: "lockproof-x".to_owned() })
    }

    /// How many probes there are of each rule: a family that vanished would show here.
    #[test]
    fn the_corpus_covers_every_family() {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for probe in corpus() {
            *counts.entry(probe.rule.id()).or_default() += 1;
        }
        assert!(corpus().len() > 3000, "only {}", corpus().len());
        insta::assert_debug_snapshot!(counts);
    }

    #[test]
    fn every_request_can_be_sent() {
        for probe in corpus() {
            let target = &probe.request.target;
            assert!(target.parse::<http::Uri>().is_ok(), "{target}");
            assert!(target.starts_with('/') || target.starts_with("http://"), "{target}");
            for (name, value) in &probe.request.headers {
                assert!(http::HeaderName::from_bytes(name.as_bytes()).is_ok(), "{name}");
                assert!(http::HeaderValue::from_bytes(value.as_bytes()).is_ok(), "{name}: {value}");
            }
        }
    }

    #[test]
    fn no_probe_shows_the_token_itself() {
        let token = "$2b$12$corpus.test.token/abcdefghijklmnopqrstuvwxyz";
        let encoded = lockproof_model::secret::percent_encode(token);
        for probe in corpus() {
            let shown: Vec<&str> = probe.request.headers.iter().map(|(_, v)| v.as_str()).collect();
            assert!(
                !shown.contains(&format!("Bearer {token}").as_str())
                    && !probe.request.target.ends_with(&format!("token={encoded}")),
                "{probe:?}"
            );
        }
    }
}
