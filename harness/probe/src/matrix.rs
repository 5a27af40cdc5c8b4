//! The matrix: sends the whole corpus without the token, and compares with the token's answers.
//!
//! Anonymous requests come first: every control request is sent before any token is used. Requests
//! that change data come last, one after the other.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use http::Method;

use super::{
    attribute::attribute,
    decide::{Decision, decide, is_indeterminate},
    doubt::Doubts,
    look::{is_refusal, when_asked},
    message::{Answer, Outcome, Request, in_words},
    oracle::{CHANGING_SLOW, Facts, IN_FLIGHT, Result},
    pulse::Pulse,
    tidy::Tidy,
};
use crate::{
    keys::{Keys, authorised},
    surface::{
        corpus::{Probe, probes},
        routes::Fill,
    },
};
use lockproof_model::{finding::Rule, secret};

pub use super::oracle::{Hit, Matrix};

/// The number of parallel probes for a slow server, where requests that change data are also sent
/// in parallel.
const IN_FLIGHT_SLOW: usize = 64;
/// Limits for repeating inconclusive probes: the total time, the number per probe, and the number
/// of consecutive inconclusive answers.
const AGAIN: Duration = Duration::from_secs(90);
const AGAIN_TRIES: usize = 3;
const AGAIN_IN_VAIN: usize = 12;
/// The shortest and the longest pause after an inconclusive answer.
const AGAIN_PAUSE: Duration = Duration::from_millis(25);
const AGAIN_LONGEST: Duration = Duration::from_secs(1);
/// How many malformed credentials that cause a server error are repeated: one is enough for the
/// note.
const BROKEN_TRIES: usize = 3;

/// The results of the matrix.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The bypasses, by rule.
    pub hits: BTreeMap<Rule, Vec<Hit>>,
    /// Forged credentials that cause a server error; none of them gives access.
    pub malformed: Vec<Hit>,
    /// Anonymous answers that contain the token or the password.
    pub leaks: Vec<Hit>,
    /// A plain request that was served during the probes, if the lock is open at times: what was
    /// served then is not a hit.
    pub opened: Option<(Request, Outcome)>,
    /// The number of probes by decision.
    pub counts: Counts,
    /// The written files that could not be removed, one line each.
    pub left: Vec<String>,
}

/// The number of probes by decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All planned probes.
    pub planned: u64,
    /// Probes that were not sent, or got no answer even when repeated: a time-out, a reset, or a
    /// 429, 502, 503 or 504 of a rate limiter or proxy.
    pub unanswered: u64,
    /// Probes that got another 5xx, without forged credentials that cause a server error while the
    /// lock works.
    pub broken: u64,
    /// Rejected by the lock.
    pub rejected: u64,
    /// Let through and answered.
    pub served: u64,
    /// Let through, but refused by the handler.
    pub passed: u64,
    /// Indeterminate.
    pub indeterminate: u64,
}

impl Counts {
    /// Counts one decision.
    pub fn add(&mut self, decision: Decision) {
        match decision {
            Decision::Rejected => self.rejected += 1,
            Decision::Served => self.served += 1,
            Decision::Passed => self.passed += 1,
            Decision::Indeterminate => self.indeterminate += 1,
        }
    }
}

impl Matrix<'_> {
    /// Sends the corpus; calls `progress` after each probe with the number sent and the total.
    pub async fn run(&self, progress: &(dyn Fn(usize, usize) + Sync)) -> Found {
        let fill = Fill { nonce: format!("lockproof-{}", secret::random(8)) };
        let mut corpus = probes(self.scheme, self.keys, self.routes, &fill);
        if !self.mutating {
            corpus.retain(|probe| !probe.changes);
        }
        let total = corpus.len();
        let facts = Facts::learn(self, &corpus, &fill).await;
        let (changing, reading): (Vec<_>, Vec<_>) = corpus.into_iter().partition(|p| p.changes);
        let done = std::sync::atomic::AtomicUsize::new(0);
        let tick = || progress(done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1, total);
        let pulse = Pulse::default();
        let doubts = Doubts::new(self, &facts, &fill).await;
        let (facts, tick, pulse, doubts) = (&facts, &tick, &pulse, &doubts);
        let ask = |probe| async move {
            tick();
            if pulse.has_stopped() {
                return None;
            }
            let result = doubts.about(self.one(facts, probe).await).await;
            pulse.feel(self.client, result.decision).await;
            Some(result)
        };
        let (many, few) = if facts.slow { (IN_FLIGHT_SLOW, CHANGING_SLOW) } else { (IN_FLIGHT, 1) };
        let mut results: Vec<Result> =
            stream::iter(reading).map(ask).buffered(many).filter_map(async |result| result).collect().await;
        let changed = stream::iter(changing).map(ask).buffered(few).filter_map(async |result| result);
        results.extend(changed.collect::<Vec<_>>().await);
        let unsent = total.saturating_sub(results.len());
        results.extend(self.effects(&fill).await);
        if !facts.hidden.is_empty() {
            results.extend(self.planted(&fill).await);
        }
        self.ask_again(facts, doubts, &mut results).await;
        let left = self.tidy(facts, &results, &fill).await;
        let opened = doubts.settle(&mut results).await;
        let (broken, silent): (Vec<_>, Vec<_>) =
            results.iter().filter(|r| r.decision == Decision::Indeterminate).partition(|r| has_broken(r));
        let (broken, silent) = (broken.len(), silent.len());
        for result in results.iter().filter(|r| r.decision == Decision::Indeterminate && !is_forgery(&r.probe)) {
            let said = result.outcome.as_ref().map(in_words).unwrap_or_default();
            tracing::debug!(
                "inconclusive: {} {} ({}): {said}",
                result.probe.request.method,
                result.probe.request.target,
                result.probe.rule.id()
            );
        }
        let mut found = Found { opened, left, ..self.add_up(results).await };
        found.counts.planned = total as u64;
        found.counts.unanswered = (unsent + silent) as u64;
        found.counts.broken = broken.saturating_sub(found.malformed.len()) as u64;
        found
    }

    async fn one(&self, facts: &Facts, probe: Probe) -> Result {
        let outcome = when_asked(self.client, &probe.request).await;
        let (decision, applies) = self.decide(facts, &probe, &outcome).await;
        let telling = decision != Decision::Rejected || outcome.as_ref().is_ok_and(holds_secret(self.keys));
        Result { probe, outcome: telling.then_some(outcome), decision, applies }
    }

    /// Repeats inconclusive probes one by one at a slow pace: a rate limiter may have answered a
    /// burst. Requests that change data are not repeated.
    async fn ask_again(&self, facts: &Facts, doubts: &Doubts<'_>, results: &mut [Result]) {
        let deadline = Instant::now() + AGAIN;
        let (mut pause, mut in_a_row) = (Duration::ZERO, 0);
        for result in results.iter_mut().filter(|r| r.decision == Decision::Indeterminate && !r.probe.changes) {
            for _ in 0..AGAIN_TRIES {
                if in_a_row >= AGAIN_IN_VAIN || Instant::now() >= deadline {
                    return;
                }
                tokio::time::sleep(pause).await;
                let again = doubts.about(self.one(facts, result.probe.clone()).await).await;
                // A handler that fails would fail again, and shows that the server is running.
                let silent = again.decision == Decision::Indeterminate && !has_broken(&again);
                *result = again;
                if !silent {
                    (pause, in_a_row) = (pause.mul_f32(0.75), 0);
                    break;
                }
                (pause, in_a_row) = ((pause * 2).clamp(AGAIN_PAUSE, AGAIN_LONGEST), in_a_row + 1);
            }
        }
    }

    /// Detects late rejections: the answer is a rejection, but the handler ran. Writes a file
    /// without a credential, and reads it with the token.
    async fn effects(&self, fill: &Fill) -> Vec<Result> {
        let Some(keys) = self.keys.filter(|_| self.mutating) else { return Vec::new() };
        let target = late_effect(fill);
        let write = Request::new(Method::POST, &*target).body("lockproof");
        let refused = when_asked(self.client, &write).await;
        let look = authorised(Request::get(&*target), self.scheme, keys.token());
        let decision = match &refused {
            Ok(answer) if !is_refusal(answer) && !is_indeterminate(answer) => return Vec::new(),
            Ok(answer) if is_refusal(answer) => written_all_the_same(&when_asked(self.client, &look).await),
            _ => Decision::Indeterminate,
        };
        if decision == Decision::Rejected {
            return Vec::new();
        }
        let probe = Probe {
            rule: Rule::LockUnprotectedRoute,
            route: "/userdata/{file}".to_owned(),
            reference: write.clone(),
            request: write,
            control: None,
            changes: true,
        };
        vec![Result { probe, outcome: Some(refused), decision, applies: true }]
    }

    /// A lock that hides behind 404: a file that is there tells "missing for all" from "missing for
    /// strangers". It is written with the token, under a name of ours, and asked for without.
    async fn planted(&self, fill: &Fill) -> Vec<Result> {
        let Some(keys) = self.keys.filter(|_| self.mutating) else { return Vec::new() };
        let file = planted_file(fill);
        // If this fails, the requests below are inconclusive, and count as that.
        let write = authorised(Request::post_json(&*file, "{}"), self.scheme, keys.token());
        let _written = when_asked(self.client, &write).await;
        let mut results = Vec::new();
        for (prefix, rule) in [("", Rule::LockUnprotectedRoute), ("/api", Rule::LockUnprotectedPrefix)] {
            let request = Request::get(format!("{prefix}{file}"));
            let outcome = when_asked(self.client, &request).await;
            let token = when_asked(self.client, &authorised(request.clone(), self.scheme, keys.token())).await;
            let decision = decide(&outcome, token.as_ref().ok());
            let applies = token.as_ref().is_ok_and(|token| token.status.is_success());
            let route = format!("{prefix}/userdata/{{file}}");
            let probe = Probe { rule, route, reference: request.clone(), request, control: None, changes: false };
            results.push(match token {
                Ok(_) => Result { probe, outcome: Some(outcome), decision, applies },
                Err(_) => Result { probe, outcome: Some(token), decision: Decision::Indeterminate, applies },
            });
        }
        results
    }

    /// Removes what probes that got through, and their references, have written under our name; gives what
    /// could not be removed.
    async fn tidy(&self, facts: &Facts, results: &[Result], fill: &Fill) -> Vec<String> {
        if !self.mutating {
            return Vec::new();
        }
        let own = [late_effect(fill), planted_file(fill)];
        let written = results
            .iter()
            .filter(|r| r.decision.let_through() && r.probe.request.method == Method::POST)
            .map(|r| &r.probe.request)
            .chain(facts.asked(&Method::POST));
        let targets = written.map(|r| r.target.as_str()).filter(|t| t.contains(&fill.nonce));
        Tidy { client: self.client, scheme: self.scheme, keys: self.keys }
            .remove(targets.chain(own.iter().map(String::as_str)))
            .await
    }

    async fn add_up(&self, results: Vec<Result>) -> Found {
        let mut found = Found::default();
        for result in &results {
            found.counts.add(result.decision);
        }
        let mut tries = 0;
        for result in &results {
            let Some(outcome) = &result.outcome else { continue };
            if outcome.as_ref().is_ok_and(holds_secret(self.keys)) && !result.decision.let_through() {
                found.leaks.push(Hit { probe: result.probe.clone(), outcome: outcome.clone() });
            }
            let broke = outcome.as_ref().is_ok_and(|a| a.status.is_server_error());
            if broke && is_forgery(&result.probe) && tries < BROKEN_TRIES {
                tries += 1;
                if self.breaks_again(&result.probe).await {
                    found.malformed.push(Hit { probe: result.probe.clone(), outcome: outcome.clone() });
                }
            }
        }
        if !found.malformed.is_empty() {
            let broke =
                |r: &&Result| r.outcome.as_ref().is_some_and(|o| o.as_ref().is_ok_and(|a| a.status.is_server_error()));
            found.malformed = results
                .iter()
                .filter(broke)
                .filter(|r| is_forgery(&r.probe))
                .filter_map(|r| Some(Hit { probe: r.probe.clone(), outcome: r.outcome.clone()? }))
                .collect();
        }
        found.hits = attribute(results);
        found
    }

    /// Whether a forged credential causes a server error twice, while anonymous requests are
    /// rejected and the token works in between: then only the header is parsed badly.
    async fn breaks_again(&self, probe: &Probe) -> bool {
        let Some(keys) = self.keys else { return false };
        let anonymous = self.client.send(&probe.reference).await;
        let token = self.client.send(&authorised(probe.reference.clone(), self.scheme, keys.token())).await;
        let again = self.client.send(&probe.request).await;
        let held = anonymous.is_ok_and(|a| is_refusal(&a)) && token.is_ok_and(|a| a.status.is_success());
        held && again.is_ok_and(|a| a.status.is_server_error())
    }
}

/// Classifies the token's request for the file of a rejected write.
fn written_all_the_same(seen: &Outcome) -> Decision {
    match seen {
        Ok(answer) if is_indeterminate(answer) => Decision::Indeterminate,
        Ok(answer) if answer.status.is_success() && answer.body.as_ref() == b"lockproof" => Decision::Passed,
        Ok(_) => Decision::Rejected,
        Err(_) => Decision::Indeterminate,
    }
}

/// The file that shows whether a 404 is a rejection.
fn planted_file(fill: &Fill) -> String {
    format!("/userdata/{}-planted.json", fill.nonce)
}

/// The file that reveals a late rejection.
fn late_effect(fill: &Fill) -> String {
    format!("/userdata/{}-effect", fill.nonce)
}

/// Whether the server itself answered without a statement about the lock: it failed, or so did the
/// token's request.
fn has_broken(result: &Result) -> bool {
    let answered = result.outcome.as_ref().and_then(|outcome| outcome.as_ref().ok());
    answered.is_some_and(|answer| !matches!(answer.status.as_u16(), 429 | 502..=504) && answer.retry_after().is_none())
}

/// Whether a probe has a forged credential.
fn is_forgery(probe: &Probe) -> bool {
    matches!(probe.rule, Rule::LockForgedCredential | Rule::LockEmptyToken | Rule::LockTamperedSession)
}

/// Whether an answer contains the token or the password, in its headers or its body.
fn holds_secret(keys: Option<&Keys>) -> impl Fn(&Answer) -> bool + '_ {
    move |answer| keys.is_some_and(|keys| super::leak::holds(answer, keys))
}

/// A hit for evidence.
pub fn evidence(hit: &Hit, base: &str) -> String {
    format!("{}  →  {}", hit.probe.request.curl(base), in_words(&hit.outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_write_of_which_nobody_says_what_became_is_undecided() {
        let answer = |status: u16, body: &'static str| {
            Ok(Answer {
                status: http::StatusCode::from_u16(status).expect("a status"),
                headers: http::HeaderMap::new(),
                body: body.into(),
                frame: None,
            })
        };
        assert_eq!(written_all_the_same(&answer(200, "lockproof")), Decision::Passed);
        assert_eq!(written_all_the_same(&answer(200, "another")), Decision::Rejected);
        assert_eq!(written_all_the_same(&answer(404, "")), Decision::Rejected);
        assert_eq!(written_all_the_same(&answer(503, "")), Decision::Indeterminate);
        assert_eq!(written_all_the_same(&Err(super::super::message::Fault::Timeout)), Decision::Indeterminate);
    }
}
