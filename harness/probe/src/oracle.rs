//! Classifies a probe's answer by comparison with the token's and the plain request's answers.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use http::{Method, StatusCode};
use tokio::sync::OnceCell;

use super::{
    client::Client,
    decide::{Decision, carries_data, decide, is_indeterminate, is_same, may_carry_data},
    look::{is_refusal, when_asked},
    message::{Answer, Outcome, Request},
};
use crate::{
    keys::{Keys, authorised},
    surface::{
        corpus::Probe,
        routes::{Fill, Route},
    },
};
use lockproof_model::scheme::Scheme;

/// The number of parallel probes.
pub(super) const IN_FLIGHT: usize = 32;
/// A slow server also receives requests that change data in parallel.
pub(super) const CHANGING_SLOW: usize = 8;
/// The answer time from which a server counts as slow.
const SLOW: Duration = Duration::from_millis(150);

/// A bypass that was found.
#[derive(Clone, Debug)]
pub struct Hit {
    /// The probe.
    pub probe: Probe,
    /// Its answer.
    pub outcome: Outcome,
}

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// The server.
    pub client: &'a Client,
    /// The login scheme.
    pub scheme: &'a Scheme,
    /// The credentials; without them, a route is judged by its answer alone.
    pub keys: Option<&'a Keys>,
    /// The routes, including the discovered ones.
    pub routes: &'a [Route],
    /// Whether requests that change data are allowed.
    pub mutating: bool,
}

/// A probe with its result, for attribution.
#[derive(Debug)]
pub(super) struct Result {
    /// The probe.
    pub(super) probe: Probe,
    /// Its answer; only kept if it is needed.
    pub(super) outcome: Option<Outcome>,
    /// The decision.
    pub(super) decision: Decision,
    /// Whether the route exists and supports this method.
    pub(super) applies: bool,
}

impl Matrix<'_> {
    /// Classifies an answer, and tells whether the route exists.
    pub(super) async fn decide(&self, facts: &Facts, probe: &Probe, outcome: &Outcome) -> (Decision, bool) {
        let answer = match outcome {
            Err(_) => return (Decision::Indeterminate, true),
            Ok(answer) if is_indeterminate(answer) => return (Decision::Indeterminate, true),
            // Requesting the token's answer is rarely worth it.
            Ok(answer) if is_refusal(answer) && (self.keys.is_none() || !may_carry_data(answer)) => {
                return (Decision::Rejected, true);
            }
            Ok(answer) => answer,
        };
        // Servers answer OPTIONS by themselves, without a lock.
        if probe.request.method == Method::OPTIONS && !is_override(probe) {
            return (Decision::Rejected, true);
        }
        if self.keys.is_none() {
            return (facts.by_itself(probe, answer), true);
        }
        let Some(token) = facts.token(self, &probe.reference).await else { return (Decision::Indeterminate, true) };
        if facts.is_absent(&token) || token.status == StatusCode::METHOD_NOT_ALLOWED {
            return (Decision::Rejected, false);
        }
        if facts.is_hidden(answer) && token.status == StatusCode::NOT_FOUND {
            return (Decision::Rejected, false);
        }
        if is_indeterminate(&token) {
            // The handler fails for everyone behind the lock, so another rejection is the lock's
            // own.
            let refused = answer.status.is_client_error() && token.status == StatusCode::INTERNAL_SERVER_ERROR;
            return (if refused { Decision::Rejected } else { Decision::Indeterminate }, true);
        }
        let comparable = alike(answer, &token) || carries_data(answer, &token);
        let decision = if comparable { decide(outcome, Some(&token)) } else { Decision::Rejected };
        // Without a body, the answer may as well be the rejection of the GET.
        if probe.request.method == Method::HEAD
            && let Some(Ok(plain)) = probe.control.as_ref().and_then(|control| facts.control(control))
            && plain.status == answer.status
            && plain.media_type() == answer.media_type()
        {
            return (Decision::Rejected, false);
        }
        // What the plain request gets too is caused by the route itself.
        if decision.let_through()
            && let Some(control) = &probe.control
        {
            let known = match facts.control(control) {
                Some(Ok(plain)) if !is_indeterminate(plain) => plain.clone(),
                // It may have been part of a burst that the server did not handle.
                _ => match when_asked(self.client, control).await {
                    Ok(plain) if !is_indeterminate(&plain) => plain,
                    _ => return (Decision::Indeterminate, true),
                },
            };
            if !self.control_is_rejected(facts, probe, control, &known).await {
                return (Decision::Rejected, false);
            }
        }
        (decision, true)
    }

    /// Whether the plain request without a credential is rejected, so that a bypass is significant.
    async fn control_is_rejected(&self, facts: &Facts, probe: &Probe, control: &Request, plain: &Answer) -> bool {
        // A request that changes data may get another answer the second time: only a rejection by
        // status, or a page, counts.
        if probe.changes {
            return is_refusal(plain) || plain.media_type() == "text/html";
        }
        let token = facts.token(self, control).await;
        if decide(&Ok(plain.clone()), token.as_ref()) != Decision::Rejected {
            return false;
        }
        let (Some(keys), false) = (self.keys, is_refusal(plain)) else { return true };
        // Not a rejection by status: the data itself may have changed, so repeat both.
        let plain = self.client.send(control).await;
        let token = self.client.send(&authorised(control.clone(), self.scheme, keys.token())).await;
        token.is_ok_and(|token| decide(&plain, Some(&token)) == Decision::Rejected)
    }
}

/// Whether a request with another method asks to be treated as GET.
fn is_override(probe: &Probe) -> bool {
    probe.request.headers.iter().any(|(name, _)| name.to_ascii_lowercase().contains("method"))
        || probe.request.target.contains("_method=")
}

/// The same kind of answer, including the media type: only this distinguishes the empty body of a
/// handler from the router's 404.
fn alike(one: &Answer, other: &Answer) -> bool {
    is_same(one, other) && one.media_type() == other.media_type()
}

/// Facts learned once for all probes: the answers to control requests, and to the token.
pub(super) struct Facts {
    controls: HashMap<Key, Outcome>,
    references: HashMap<Key, (Request, OnceCell<Answer>)>,
    absent: Vec<Answer>,
    /// The 404s with which the lock hides existing routes from anonymous requests. If the token gets the same
    /// one for a random name, nothing can be concluded.
    pub(super) hidden: Vec<Answer>,
    /// Whether every answer takes long.
    pub(super) slow: bool,
}

/// The identity of a request.
pub(super) type Key = (String, String, String);

pub(super) fn key(request: &Request) -> Key {
    let headers: String = request.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    (format!("{} {}", request.method, request.target), headers, String::from_utf8_lossy(&request.body).into_owned())
}

impl Facts {
    pub(super) async fn learn(matrix: &Matrix<'_>, corpus: &[Probe], fill: &Fill) -> Self {
        let mut references = HashMap::new();
        let (mut known, mut reading, mut changing) = (HashSet::new(), Vec::new(), Vec::new());
        for probe in corpus {
            if let Some(control) = &probe.control
                && known.insert(key(control))
            {
                if probe.changes { &mut changing } else { &mut reading }.push(control.clone());
            }
            for plain in std::iter::once(&probe.reference).chain(&probe.control) {
                references.entry(key(plain)).or_insert_with(|| (plain.clone(), OnceCell::new()));
            }
        }
        let ask = |request: Request| async move { (key(&request), when_asked(matrix.client, &request).await) };
        let (rounds, begun) = (reading.len().div_ceil(IN_FLIGHT).max(1), Instant::now());
        let mut controls: HashMap<_, _> = stream::iter(reading).map(ask).buffer_unordered(IN_FLIGHT).collect().await;
        let slow = begun.elapsed() / u32::try_from(rounds).unwrap_or(u32::MAX) > SLOW;
        // They may take effect, and their order then affects other answers.
        let few = if slow { CHANGING_SLOW } else { 1 };
        controls.extend(stream::iter(changing).map(ask).buffered(few).collect::<Vec<_>>().await);
        let mut absent = Vec::new();
        for target in ["/{}/nowhere", "/{}", "/api/{}", "//{}", "/{}.js", "/internal/{}"] {
            let request = Request::get(target.replace("{}", &fill.nonce));
            let request =
                matrix.keys.map_or_else(|| request.clone(), |k| authorised(request.clone(), matrix.scheme, k.token()));
            absent.extend(matrix.client.send(&request).await.ok().filter(|a| a.status == StatusCode::NOT_FOUND));
        }
        let mut facts = Self { controls, references, absent, hidden: Vec::new(), slow };
        facts.hidden = facts.hiding(matrix, corpus).await;
        facts
    }

    /// The anonymous 404s for resources that the token can access.
    async fn hiding(&self, matrix: &Matrix<'_>, corpus: &[Probe]) -> Vec<Answer> {
        let mut hidden: Vec<Answer> = Vec::new();
        for control in corpus.iter().filter(|probe| !probe.changes).filter_map(|probe| probe.control.as_ref()) {
            let Some(Ok(answer)) = self.control(control) else { continue };
            let is_new = answer.status == StatusCode::NOT_FOUND && !hidden.iter().any(|known| alike(known, answer));
            if is_new && self.token(matrix, control).await.is_some_and(|token| token.status.is_success()) {
                hidden.push(answer.clone());
            }
        }
        hidden
    }

    /// Whether an answer is a 404 with which the lock hides existing routes.
    fn is_hidden(&self, answer: &Answer) -> bool {
        answer.status == StatusCode::NOT_FOUND && self.hidden.iter().any(|hidden| alike(hidden, answer))
    }

    fn control(&self, request: &Request) -> Option<&Outcome> {
        self.controls.get(&key(request))
    }

    /// The token's answer to a plain request; requested once.
    pub(super) async fn token(&self, matrix: &Matrix<'_>, plain: &Request) -> Option<Answer> {
        let keys = matrix.keys?;
        let (request, cell) = self.references.get(&key(plain))?;
        let learn = || async {
            match when_asked(matrix.client, &authorised(request.clone(), matrix.scheme, keys.token())).await {
                Ok(answer) if !is_indeterminate(&answer) => Ok(answer),
                // Inconclusive; the next attempt may not be.
                outcome => Err(outcome.ok()),
            }
        };
        match cell.get_or_try_init(learn).await {
            Ok(answer) => Some(answer.clone()),
            Err(nothing) => nothing,
        }
    }

    /// Classifies an answer without a token to compare with: data is served; a page, or what the
    /// plain request gets too, is not.
    fn by_itself(&self, probe: &Probe, answer: &Answer) -> Decision {
        let silent =
            probe.request.method == Method::OPTIONS || answer.body.is_empty() && answer.media_type().is_empty();
        if silent || self.is_absent(answer) || !answer.status.is_success() || answer.media_type() == "text/html" {
            return Decision::Rejected;
        }
        let plain = probe.control.as_ref().and_then(|control| self.control(control)?.as_ref().ok());
        match plain {
            Some(plain) if !is_refusal(plain) => Decision::Rejected,
            _ => Decision::Served,
        }
    }

    /// The requested references with that method.
    pub(super) fn asked<'a>(&'a self, method: &'a Method) -> impl Iterator<Item = &'a Request> {
        self.references
            .values()
            .filter(|(request, cell)| cell.initialized() && request.method == *method)
            .map(|(r, _)| r)
    }

    /// Whether an answer equals that of a path that does not exist.
    fn is_absent(&self, answer: &Answer) -> bool {
        answer.status == StatusCode::NOT_FOUND && self.absent.iter().any(|absent| alike(absent, answer))
    }
}
