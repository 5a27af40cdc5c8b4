//! Whether it is the probe that opens the lock: its control was asked long before. A lock that counts
//! refusals may have opened for everybody in between, and one behind a cache for whoever asks what
//! the token has asked for.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    decide::{Decision, decide},
    message::{Answer, Outcome, Request},
    oracle::{Facts, Key, Matrix, Result, key},
};
use crate::{
    keys::authorised,
    surface::{corpus::Probe, routes::Fill},
};
use lockproof_model::{finding::Rule, secret};

/// How many hits of one rule are doubted, as long as none of them stands.
const DOUBTS: usize = 200;

/// How many hits of one rule are tried again in the end, where the lock is open now and then.
const IN_QUIET: usize = 4;

/// What was asked again right after a hit.
pub(super) struct Doubts<'a> {
    matrix: &'a Matrix<'a>,
    facts: &'a Facts,
    /// What nobody has asked for yet, and what the token gets there; `None` where everybody gets it.
    canary: Option<(String, Answer)>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// The rules of which a hit was seen to be the probe's own doing.
    stand: BTreeSet<Rule>,
    /// How many hits of each rule were doubted.
    doubted: BTreeMap<Rule, usize>,
    /// A plain request that got through as well.
    opened: Option<(Request, Outcome)>,
    /// What plain requests get that were refused at first.
    public: HashMap<Key, Outcome>,
}

/// By what a hit got through.
enum Cause {
    /// The probe itself.
    Probe,
    /// The route, which has become public since.
    Route(Outcome),
    /// The lock, which is open.
    Lock(Request, Outcome),
    /// It does not happen again.
    Chance,
}

impl<'a> Doubts<'a> {
    pub(super) async fn new(matrix: &'a Matrix<'a>, facts: &'a Facts, fill: &Fill) -> Self {
        let mut canary = None;
        for start in ["/history/", "/system_stats?", "/queue?"] {
            let Some(keys) = matrix.keys else { break };
            let plain = Request::get(format!("{start}{}-canary", fill.nonce));
            let anonymous = matrix.client.send(&plain).await;
            let token = matrix.client.send(&authorised(plain, matrix.scheme, keys.token())).await;
            if let Some(token) = token.ok().filter(|answer| answer.status.is_success())
                && decide(&anonymous, Some(&token)) == Decision::Rejected
            {
                canary = Some((start.to_owned(), token));
                break;
            }
        }
        Self { matrix, facts, canary, seen: Mutex::default() }
    }

    /// Asks again, after the first hits of each rule, until one of them stands.
    pub(super) async fn about(&self, result: Result) -> Result {
        if !result.decision.let_through() {
            return result;
        }
        let control = result.probe.control.as_ref().map(key);
        if let Some(outcome) = control.as_ref().and_then(|control| self.seen().public.get(control).cloned()) {
            return of_the_route(result, outcome);
        }
        if !self.is_doubted(result.probe.rule) {
            return result;
        }
        match self.cause(&result.probe).await {
            Cause::Probe => {
                self.seen().stand.insert(result.probe.rule);
                result
            }
            Cause::Route(outcome) => {
                let mut seen = self.seen();
                seen.stand.insert(Rule::LockUnprotectedRoute);
                seen.public.extend(control.map(|control| (control, outcome.clone())));
                drop(seen);
                of_the_route(result, outcome)
            }
            Cause::Lock(request, outcome) => {
                self.seen().opened.get_or_insert((request, outcome));
                taken_back(result)
            }
            Cause::Chance => result,
        }
    }

    /// Takes back the hits of the rules of which none stands. Gives a request that shows why.
    pub(super) async fn settle(&self, results: &mut [Result]) -> Option<(Request, Outcome)> {
        if self.seen().opened.is_some() {
            // Open now and then: what seemed to stand may have met such a moment. Now it is quiet.
            let rules = self.seen().stand.clone();
            for rule in rules {
                if !self.stands_in_quiet(rule, results).await {
                    self.seen().stand.remove(&rule);
                }
            }
        }
        let mut seen = self.seen();
        for result in results.iter_mut().filter(|r| r.decision.let_through()) {
            let rule = result.probe.rule;
            if seen.doubted.contains_key(&rule) && !seen.stand.contains(&rule) {
                // What it got, it got through an open lock: a log in it is not shown to everybody.
                if let Some(outcome) = result.outcome.take() {
                    seen.opened.get_or_insert_with(|| (result.probe.request.clone(), outcome));
                }
                (result.decision, result.applies) = (Decision::Rejected, false);
            }
        }
        seen.opened.take()
    }

    /// Whether a hit of the rule gets through while nobody else asks, and the lock is shut before and
    /// after it.
    async fn stands_in_quiet(&self, rule: Rule, results: &[Result]) -> bool {
        let hits = || results.iter().filter(|r| r.probe.rule == rule && r.decision.let_through());
        let mut reading: Vec<&Probe> = hits().map(|hit| &hit.probe).filter(|probe| !probe.changes).collect();
        reading.sort_by_key(|probe| probe.request.target.len());
        for probe in reading.iter().take(IN_QUIET) {
            if let (Some((start, _)), Some(keys)) = (&self.canary, self.matrix.keys) {
                // Locks that count refusals begin anew when the token is shown.
                let owner = authorised(Request::get(start.clone()), self.matrix.scheme, keys.token());
                let _forgotten = self.matrix.client.send(&owner).await;
            }
            if self.is_open().await.is_some() {
                continue;
            }
            let again = self.matrix.client.send(&probe.request).await;
            if self.matrix.decide(self.facts, probe, &again).await.0.let_through() && self.is_open().await.is_none() {
                return true;
            }
        }
        // What changes something is not tried again.
        reading.is_empty() && hits().next().is_some()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_doubted(&self, rule: Rule) -> bool {
        let mut seen = self.seen();
        let count = seen.doubted.get(&rule).copied().unwrap_or_default();
        if self.canary.is_none() || seen.stand.contains(&rule) || count == DOUBTS {
            return false;
        }
        seen.doubted.insert(rule, count + 1);
        true
    }

    async fn cause(&self, probe: &Probe) -> Cause {
        if let Some((request, outcome)) = self.is_open().await {
            return Cause::Lock(request, outcome);
        }
        // What changes something is sent once: it may get another answer the second time.
        if probe.changes {
            return Cause::Probe;
        }
        if let Some(control) = &probe.control {
            let plain = self.matrix.client.send(control).await;
            let token = self.facts.token(self.matrix, control).await;
            if token.is_some() && decide(&plain, token.as_ref()).let_through() {
                return Cause::Route(plain);
            }
        }
        let again = self.matrix.client.send(&probe.request).await;
        if !self.matrix.decide(self.facts, probe, &again).await.0.let_through() {
            return Cause::Chance;
        }
        match self.is_open().await {
            Some((request, outcome)) => Cause::Lock(request, outcome),
            None => Cause::Probe,
        }
    }

    /// Whether everybody gets what nobody has asked for yet.
    async fn is_open(&self) -> Option<(Request, Outcome)> {
        let (start, token) = self.canary.as_ref()?;
        let request = Request::get(format!("{start}lockproof-{}", secret::random(8)));
        let outcome = self.matrix.client.send(&request).await;
        decide(&outcome, Some(token)).let_through().then_some((request, outcome))
    }
}

/// No hit: the lock was open.
fn taken_back(result: Result) -> Result {
    Result { decision: Decision::Rejected, applies: false, outcome: None, ..result }
}

/// The hit of a trick on a route that is public without it.
fn of_the_route(result: Result, outcome: Outcome) -> Result {
    let probe = result.probe;
    let request = probe.control.clone().unwrap_or_else(|| probe.request.clone());
    let below = request.path().starts_with("/api/");
    let route = probe.route.strip_prefix("/api").filter(|_| !below).unwrap_or(&probe.route).to_owned();
    let probe =
        Probe { rule: Rule::LockUnprotectedRoute, route, reference: request.clone(), request, control: None, ..probe };
    Result { probe, outcome: Some(outcome), ..result }
}
