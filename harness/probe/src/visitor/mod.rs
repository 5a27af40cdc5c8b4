//! Checks whether a visitor can obtain access from the server itself, by trying it: submits the lock's
//! public forms, and tries every value that it returns as a credential.
//!
//! The shortest ways come first: public pages, then a single form, then a registered account. Form
//! attempts change the server's state, so this check runs last on a subject.

mod absent;
mod brake;
mod candidate;
mod crawl;
mod form;
mod html;
mod oracle;
mod pattern;
mod scene;
mod script;
mod tries;

use std::{
    collections::HashSet,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use brake::Brake;
use candidate::{candidates, links};
use form::Purpose;
use html::on_this_server;
use http::Method;
use oracle::Oracle;

pub use self::scene::Visitor;
pub use crate::step::Step;

use crate::{
    claim::Claim,
    client::Client,
    decide::is_indeterminate,
    keys::{Keys, authorised},
    leak::holds,
    look::{Look, Works, is_refusal},
    message::{Answer, Outcome, Request, in_words},
    surface::routes::Route,
};
use lockproof_model::scheme::Scheme;

/// The total time to wait while a lock blocks after failed attempts. comfyui-sentinel blocks for 60 s per
/// failed attempt from the third on; three are needed.
const PATIENCE: Duration = Duration::from_secs(240);
/// The maximum number of different candidates to try.
const CANDIDATES: usize = 160;
/// The maximum number of links to follow per answer.
const LINKS: usize = 2;

/// The result of a visit.
#[derive(Clone, Debug, Default)]
pub struct Visited {
    /// How access was obtained.
    pub claim: Option<Claim>,
    /// The request whose answer contained the token of record.
    pub shown: Option<Step>,
    /// The reason if not everything could be tried.
    pub undecided: Option<String>,
    /// Whether the server's state may have changed, although no attempt succeeded.
    pub is_disturbed: bool,
}

/// The state of a visit.
struct Visit<'a> {
    visitor: Visitor<'a>,
    oracle: Oracle,
    brake: Brake,
    tried: HashSet<String>,
    visited: Visited,
}

impl<'a> Visitor<'a> {
    /// A visitor of a server after a first look at its lock. `routes` are additional routes.
    pub fn new(
        client: &'a Client,
        scheme: &'a Scheme,
        keys: Option<&'a Keys>,
        routes: &'a [Route],
        look: &'a Look,
    ) -> Self {
        Self { client, scheme, keys, routes, look, patience: PATIENCE, silent: AtomicU64::default() }
    }

    /// Limits the total time to wait while a lock blocks after failed attempts.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Tries everything.
    pub async fn visit(self) -> Visited {
        let oracle = Oracle::new(self.look, self.scheme);
        let brake = Brake::new(self.patience);
        let mut visit = Visit { visitor: self, oracle, brake, tried: HashSet::new(), visited: Visited::default() };
        if !visit.oracle.can_tell() {
            return visit.visited;
        }
        let site = crawl::Site::explore(&visit.visitor).await;
        visit.visited.claim = match visit.read(&site).await {
            Some(claim) => Some(claim),
            None => visit.try_forms(&site).await,
        };
        visit.leave().await
    }
}

impl Visit<'_> {
    /// Tries the values in pages and errors as credentials.
    async fn read(&mut self, site: &crawl::Site) -> Option<Claim> {
        for (request, answer) in &site.read {
            let step = Step { request: request.clone(), got: in_words(&Ok(answer.clone())) };
            if let Some(steps) = self.check(&[step], answer).await {
                let how = format!("{} returns a credential to anonymous visitors", request.path());
                return Some(Claim { how, steps, empty_token: false });
            }
        }
        None
    }

    /// Sends one attempt. Returns its outcome and, if it gives access, the chain of requests.
    async fn attempt(&mut self, earlier: &[Step], request: Request) -> Option<(Outcome, Option<Vec<Step>>)> {
        let outcome = self.brake.send(self.visitor.client, &request).await?;
        let Ok(answer) = &outcome else { return Some((outcome, None)) };
        let posted = request.method == Method::POST;
        let path = request.path().to_owned();
        let steps: Vec<Step> = earlier.iter().cloned().chain([Step { request, got: in_words(&outcome) }]).collect();
        if let Some(chain) = self.check(&steps, answer).await {
            return Some((outcome, Some(chain)));
        }
        if !posted {
            return Some((outcome, None));
        }
        let onward: Vec<String> =
            links(answer).iter().filter_map(|link| key_bearing(link, &path)).take(LINKS).collect();
        for link in onward {
            let follow = Request::get(link).header("Accept", "text/html");
            let followed = self.brake.send(self.visitor.client, &follow).await?;
            if let Ok(answer) = &followed {
                let more: Vec<Step> =
                    steps.iter().cloned().chain([Step { request: follow, got: in_words(&followed) }]).collect();
                if let Some(chain) = self.check(&more, answer).await {
                    return Some((outcome, Some(chain)));
                }
            }
        }
        Some((outcome, None))
    }

    /// Tries the candidates of an answer on the sentinels. Returns the whole chain if one gives access.
    async fn check(&mut self, steps: &[Step], answer: &Answer) -> Option<Vec<Step>> {
        if self.visitor.keys.is_some_and(|keys| holds(answer, keys)) {
            // Its disclosure is a separate finding.
            self.visited.shown = self.visited.shown.take().or_else(|| steps.last().cloned());
        }
        for candidate in candidates(answer) {
            let known = |keys: &Keys| keys.forms().contains(&candidate.value);
            if self.visitor.keys.is_some_and(known) {
                // A known credential gives access, of course.
                continue;
            }
            let mark = format!("{}={}", candidate.name, candidate.value);
            if self.tried.len() >= CANDIDATES || !self.tried.insert(mark.clone()) {
                continue;
            }
            if let Some(last) = self.oracle.opens(self.visitor.client, &mut self.brake, &candidate).await {
                // A shorter request may return it again.
                self.tried.remove(&mark);
                return Some(steps.iter().cloned().chain([last]).collect());
            }
        }
        None
    }

    /// Ends a visit: waits while the lock blocks this address.
    async fn leave(mut self) -> Visited {
        if self.visited.claim.is_none() {
            self.visited.undecided = self.brake.given_up().map(str::to_owned).or_else(|| self.unanswered());
            if self.is_shut_out().await {
                self.visited.is_disturbed = true;
                let why = "after the attempts on its forms, the lock rejects the token of record from this address";
                self.visited.undecided.get_or_insert_with(|| why.to_owned());
            }
        }
        self.visited
    }

    /// The reason if requests got no answer: what they would have given is unknown.
    fn unanswered(&self) -> Option<String> {
        let silent = self.visitor.silent.load(Ordering::Relaxed) + self.brake.silent();
        (silent > 0).then(|| {
            format!("{silent} requests to the lock's pages and forms got no answer, even when repeated: check the server's log")
        })
    }

    /// Whether the token of record worked before the visit but is rejected now.
    async fn is_shut_out(&self) -> bool {
        let Visitor { client, scheme, keys, look, .. } = &self.visitor;
        let (Some(keys), Works::Yes) = (keys, look.token) else { return false };
        let Some(seen) = look.sentinels.iter().find(|s| s.request.method == Method::GET) else { return false };
        let request = authorised(seen.request.clone(), scheme, keys.token());
        let mut waited = Duration::ZERO;
        for pause in [0, 1, 3, 10, 30].map(Duration::from_secs) {
            waited += pause;
            if waited > self.visitor.patience {
                break;
            }
            tokio::time::sleep(pause).await;
            if client.send(&request).await.is_ok_and(|answer| !is_refusal(&answer) && !is_indeterminate(&answer)) {
                return false;
            }
        }
        true
    }
}

/// A link to this server that contains a credential or a reset code.
fn key_bearing(link: &str, path: &str) -> Option<String> {
    // The server may use another host name for itself.
    let local = match link.split_once("://") {
        Some((_, rest)) => rest.find('/').map(|start| rest[start..].to_owned())?,
        None => on_this_server(link, path)?,
    };
    let local = local.split('#').next().unwrap_or_default().to_owned();
    let (_, query) = local.split_once('?').unwrap_or_default();
    let carries = ["token", "key", "code", "ticket", "sig", "otp"].iter().any(|word| query.contains(word))
        || Purpose::from_words(&local) == Some(Purpose::Reset)
            && local.rsplit('/').next().is_some_and(|s| s.len() >= 8);
    carries.then_some(local)
}

#[cfg(test)]
mod tests;
