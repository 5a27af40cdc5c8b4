//! Checks whether the probe itself caused a hit: its control request was sent long before. In
//! between, a lock that counts rejections may have opened, or a cache may serve what the token
//! requested.

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

/// The maximum number of doubted hits per rule, until one is confirmed.
const DOUBTS: usize = 200;

/// The maximum number of hits per rule that are repeated at the end, if the lock is open at times.
const IN_QUIET: usize = 4;

/// The results of requests repeated right after a hit.
pub(super) struct Doubts<'a> {
    matrix: &'a Matrix<'a>,
    facts: &'a Facts,
    /// A route that was not requested yet, and the token's answer; `None` if it is public.
    canary: Option<(String, Answer)>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// The rules with a confirmed hit.
    stand: BTreeSet<Rule>,
    /// The number of doubted hits per rule.
    doubted: BTreeMap<Rule, usize>,
    /// A plain request that was also served.
    opened: Option<(Request, Outcome)>,
    /// Answers to plain requests that were rejected at first.
    public: HashMap<Key, Outcome>,
}

/// The cause of a hit.
enum Cause {
    /// The probe itself.
    Probe,
    /// The route, which has become public.
    Route(Outcome),
    /// The lock, which is open.
    Lock(Request, Outcome),
    /// Not reproducible.
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

    /// Repeats the first hits of each rule, until one is confirmed.
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

    /// Withdraws the hits of rules without a confirmed one. Returns a request that shows why.
    pub(super) async fn settle(&self, results: &mut [Result]) -> Option<(Request, Outcome)> {
        if self.seen().opened.is_some() {
            // The lock is open at times, so a confirmed hit may be a coincidence. Check it again
            // without other requests.
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
                // The answer came through an open lock, so a token in it is not a leak.
                if let Some(outcome) = result.outcome.take() {
                    seen.opened.get_or_insert_with(|| (result.probe.request.clone(), outcome));
                }
                (result.decision, result.applies) = (Decision::Rejected, false);
            }
        }
        seen.opened.take()
    }

    /// Whether a hit is reproducible without other requests, with the lock closed before and after
    /// it.
    async fn stands_in_quiet(&self, rule: Rule, results: &[Result]) -> bool {
        let hits = || results.iter().filter(|r| r.probe.rule == rule && r.decision.let_through());
        let mut reading: Vec<&Probe> = hits().map(|hit| &hit.probe).filter(|probe| !probe.changes).collect();
        reading.sort_by_key(|probe| probe.request.target.len());
        for probe in reading.iter().take(IN_QUIET) {
            if let (Some((start, _)), Some(keys)) = (&self.canary, self.matrix.keys) {
                // Locks that count rejections reset the count when they see the token.
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
        // Requests that change data are not repeated.
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
        // A request that changes data is sent once: its second answer may differ.
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

    /// Whether the not yet requested route is served to everyone.
    async fn is_open(&self) -> Option<(Request, Outcome)> {
        let (start, token) = self.canary.as_ref()?;
        let request = Request::get(format!("{start}lockproof-{}", secret::random(8)));
        let outcome = self.matrix.client.send(&request).await;
        decide(&outcome, Some(token)).let_through().then_some((request, outcome))
    }
}

/// Not a hit: the lock was open.
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
