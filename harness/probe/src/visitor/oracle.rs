//! Tests whether a value is a credential: it gives access to a sentinel in some way of presenting it,
//! while another value in the same place does not.

use http::Method;

use super::brake::Brake;
use super::candidate::{Candidate, Origin};
use crate::{
    client::Client,
    decide::{Decision, decide, is_indeterminate, is_same},
    keys::present,
    look::{Look, is_refusal},
    message::{Answer, Outcome, Request, in_words},
    service::is_service,
    step::Step,
};
use lockproof_model::{
    scheme::{Presentation, Scheme},
    secret,
};

/// The replacement of a credential in evidence.
const KEY: &str = "$KEY";

/// A sentinel that rejects anonymous requests.
#[derive(Debug)]
struct Guarded {
    request: Request,
    anonymous: Answer,
    reference: Option<Answer>,
}

/// The sentinels that reject anonymous requests, and the ways of presenting a credential.
#[derive(Debug)]
pub(super) struct Oracle {
    guarded: Vec<Guarded>,
    ways: Vec<Presentation>,
}

/// A way of presenting a candidate.
enum Way {
    Present(Presentation),
    Cookie(String),
    Header(String),
}

impl Way {
    fn show(&self, request: &Request, value: &str) -> Request {
        match self {
            Self::Present(how) => present(request.clone(), how, value),
            Self::Cookie(name) => request.clone().header("Cookie", format!("{name}={value}")),
            Self::Header(name) => request.clone().header(name, value),
        }
    }
}

impl Oracle {
    pub(super) fn new(look: &Look, scheme: &Scheme) -> Self {
        let mut guarded: Vec<Guarded> = look
            .sentinels
            .iter()
            .filter(|seen| seen.decision == Decision::Rejected)
            .filter_map(|seen| {
                let usable = |a: &&Answer| !is_refusal(a) && !is_indeterminate(a);
                Some(Guarded {
                    request: seen.request.clone(),
                    anonymous: seen.anonymous.clone().ok()?,
                    reference: seen.token.as_ref().ok().filter(usable).cloned(),
                })
            })
            .collect();
        // The list of nodes is long; the other sentinels suffice.
        if guarded.len() > 1 {
            guarded.retain(|g| g.request.path() != "/object_info");
        }
        guarded.sort_by_key(|g| g.request.method != Method::GET);
        let bearer = Presentation::Header { header: "Authorization".into(), value: "Bearer {token}".into() };
        let mut ways = scheme.present.clone();
        for usual in [bearer, Presentation::Query { query: "token".into() }] {
            if !ways.contains(&usual) {
                ways.push(usual);
            }
        }
        Self { guarded, ways }
    }

    /// Whether any sentinel rejects anonymous requests, so that a credential would make a difference.
    pub(super) fn can_tell(&self) -> bool {
        !self.guarded.is_empty()
    }

    /// The request with which a candidate gives access to a sentinel, if any.
    pub(super) async fn opens(&self, client: &Client, brake: &mut Brake, candidate: &Candidate) -> Option<Step> {
        let sentinels = if candidate.is_weak { 1 } else { self.guarded.len() };
        for way in self.ways_of(candidate) {
            for guarded in self.guarded.iter().take(sentinels) {
                let request = way.show(&guarded.request, &candidate.value);
                let outcome = brake.send(client, &request).await?;
                if !guarded.is_opened_by(&outcome) {
                    continue;
                }
                // If any value is accepted, this is no credential but a forgery, which is a separate finding.
                let other = way.show(&guarded.request, &another(&candidate.value));
                let by_anything = brake.send(client, &other).await?;
                if !guarded.is_opened_by(&by_anything) {
                    secret::register_as(&candidate.value, KEY);
                    return Some(Step { request, got: in_words(&outcome) });
                }
            }
        }
        None
    }

    fn ways_of(&self, candidate: &Candidate) -> Vec<Way> {
        let cookie = || Way::Cookie(candidate.name.clone());
        let mut ways: Vec<Way> = Vec::new();
        if candidate.origin == Origin::Cookie {
            ways.push(cookie());
        }
        if candidate.origin == Origin::Header {
            ways.push(Way::Header(candidate.name.clone()));
        }
        ways.extend(self.ways.iter().cloned().map(Way::Present));
        if candidate.origin == Origin::Body && !candidate.is_weak && is_token(&candidate.name) {
            ways.push(cookie());
        }
        ways
    }
}

impl Guarded {
    fn is_opened_by(&self, outcome: &Outcome) -> bool {
        let Ok(answer) = outcome else { return false };
        let as_owner = self.reference.as_ref().is_some_and(|owner| decide(outcome, Some(owner)).let_through());
        as_owner || is_service(&self.request, answer) && !is_same(answer, &self.anonymous)
    }
}

/// Whether a name is a valid cookie name.
fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

/// A random value of the same length and characters.
fn another(value: &str) -> String {
    let made = secret::random(value.len().max(1));
    let mut fresh = made.chars();
    value.chars().map(|c| if c.is_ascii_alphanumeric() { fresh.next().unwrap_or('x') } else { c }).collect()
}
