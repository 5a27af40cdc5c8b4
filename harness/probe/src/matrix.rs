//! The matrix: the whole corpus, sent without the token and compared with what the token gets.
//!
//! Anonymous comes first: every control is asked before any token is shown. What changes something
//! comes last, one request after the other.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use http::{Method, StatusCode};
use tokio::sync::OnceCell;

use super::{
    attribute::attribute,
    client::Client,
    decide::{Decision, carries_data, decide, is_indeterminate, is_same, may_carry_data},
    doubt::Doubts,
    look::{is_refusal, when_asked},
    message::{Answer, Outcome, Request, in_words},
    pulse::Pulse,
    tidy::Tidy,
};
use crate::{
    keys::{Keys, authorised},
    surface::{
        corpus::{Probe, probes},
        routes::{Fill, Route},
    },
};
use lockproof_model::{finding::Rule, scheme::Scheme, secret};

/// Probes in flight at once: enough to hide the round trips.
const IN_FLIGHT: usize = 32;
/// At a server that takes its time, most of which is a pause: more at once, and what changes something
/// not one after the other.
const IN_FLIGHT_SLOW: usize = 64;
const CHANGING_SLOW: usize = 8;
/// From how long an answer takes on that is so.
const SLOW: Duration = Duration::from_millis(150);
/// How long what said nothing is asked again, how often each probe, and from how many on that say nothing
/// in a row none is asked any more.
const AGAIN: Duration = Duration::from_secs(90);
const AGAIN_TRIES: usize = 3;
const AGAIN_IN_VAIN: usize = 12;
/// The shortest and the longest pause after one that said nothing.
const AGAIN_PAUSE: Duration = Duration::from_millis(25);
const AGAIN_LONGEST: Duration = Duration::from_secs(1);
/// How many forgeries at which the server broke are tried again: one is enough for the note.
const BROKEN_TRIES: usize = 3;

/// One way around the lock that was found.
#[derive(Clone, Debug)]
pub struct Hit {
    /// The probe.
    pub probe: Probe,
    /// What it got.
    pub outcome: Outcome,
}

/// What the matrix found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Ways around the lock, by rule.
    pub hits: BTreeMap<Rule, Vec<Hit>>,
    /// Forgeries at which the server broke, while the lock held.
    pub malformed: Vec<Hit>,
    /// Answers to anybody that hold the token or the password.
    pub leaks: Vec<Hit>,
    /// A plain request that got through among the probes, where the lock is open now and then,
    /// whatever is asked: what got through then is no hit.
    pub opened: Option<(Request, Outcome)>,
    /// The probes by their decision.
    pub counts: Counts,
    /// What was written and could not be removed, a line for each.
    pub left: Vec<String>,
}

/// The probes by their decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All that there are.
    pub planned: u64,
    /// Of these, those that were not sent, or that nobody answered, also when they were asked again: a
    /// time-out, a reset, a limiter's or a proxy's own 429, 502, 503 or 504.
    pub unanswered: u64,
    /// Of these, those at which the server broke with another 5xx; a forgery at which it breaks while the lock
    /// holds is not among them.
    pub broken: u64,
    /// The lock refused.
    pub rejected: u64,
    /// The lock let it through, and it was answered.
    pub served: u64,
    /// The lock let it through, and the handler refused.
    pub passed: u64,
    /// It cannot be told.
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

/// What is sent, and to whom it must be refused.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// The server.
    pub client: &'a Client,
    /// How its lock works.
    pub scheme: &'a Scheme,
    /// The keys; without them, a route is judged by its answer alone.
    pub keys: Option<&'a Keys>,
    /// The routes, the discovered ones among them.
    pub routes: &'a [Route],
    /// Whether requests may be sent that change something.
    pub mutating: bool,
}

/// One probe and what came of it, for attribution.
#[derive(Debug)]
pub(super) struct Result {
    /// The probe.
    pub(super) probe: Probe,
    /// What it got; kept only where it says something.
    pub(super) outcome: Option<Outcome>,
    /// What that means.
    pub(super) decision: Decision,
    /// Whether the route is there at all, and answers this method.
    pub(super) applies: bool,
}

impl Matrix<'_> {
    /// Sends the corpus; `progress` is told after each probe, with how many there are.
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
        self.ask_again(facts, doubts, &mut results).await;
        let left = self.tidy(facts, &results, &fill).await;
        let opened = doubts.settle(&mut results).await;
        let (broken, silent): (Vec<_>, Vec<_>) =
            results.iter().filter(|r| r.decision == Decision::Indeterminate).partition(|r| has_broken(r));
        let (broken, silent) = (broken.len(), silent.len());
        for result in results.iter().filter(|r| r.decision == Decision::Indeterminate && !is_forgery(&r.probe)) {
            let said = result.outcome.as_ref().map(in_words).unwrap_or_default();
            tracing::debug!(
                "says nothing: {} {} ({}): {said}",
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

    /// What an outcome means, and whether the route is there.
    pub(super) async fn decide(&self, facts: &Facts, probe: &Probe, outcome: &Outcome) -> (Decision, bool) {
        let answer = match outcome {
            Err(_) => return (Decision::Indeterminate, true),
            Ok(answer) if is_indeterminate(answer) => return (Decision::Indeterminate, true),
            // Hardly any is worth the question what the token gets.
            Ok(answer) if is_refusal(answer) && (self.keys.is_none() || !may_carry_data(answer)) => {
                return (Decision::Rejected, true);
            }
            Ok(answer) => answer,
        };
        // Servers answer it by themselves, without asking anybody.
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
        if is_indeterminate(&token) {
            // Behind the lock the handler breaks, whoever asks: another refusal is the lock's own.
            let refused = answer.status.is_client_error() && token.status == StatusCode::INTERNAL_SERVER_ERROR;
            return (if refused { Decision::Rejected } else { Decision::Indeterminate }, true);
        }
        let comparable = alike(answer, &token) || carries_data(answer, &token);
        let decision = if comparable { decide(outcome, Some(&token)) } else { Decision::Rejected };
        // Without a body, an answer that is like the refusal of the GET is as likely that refusal.
        if probe.request.method == Method::HEAD
            && let Some(Ok(plain)) = probe.control.as_ref().and_then(|control| facts.control(control))
            && plain.status == answer.status
            && plain.media_type() == answer.media_type()
        {
            return (Decision::Rejected, false);
        }
        // What the plain request gets as well is the route's own fault.
        if decision.let_through()
            && let Some(control) = &probe.control
        {
            let known = match facts.control(control) {
                Some(Ok(plain)) if !is_indeterminate(plain) => plain.clone(),
                // It was asked in a burst, perhaps, that the server did not bear.
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

    /// Asks again what said nothing, one probe after the other and at a pace that the server bears: a
    /// limiter in front of it may have answered a burst by itself. What changes something is not repeated.
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
                // A handler that breaks will do so again, and says that the server lives.
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

    /// Whether the plain request without a credential is refused, so that a trick says something.
    async fn control_is_rejected(&self, facts: &Facts, probe: &Probe, control: &Request, plain: &Answer) -> bool {
        // What changes something answers otherwise the second time: only a refusal on its face, or a
        // page, is one.
        if probe.changes {
            return is_refusal(plain) || plain.media_type() == "text/html";
        }
        let token = facts.token(self, control).await;
        if decide(&Ok(plain.clone()), token.as_ref()) != Decision::Rejected {
            return false;
        }
        let (Some(keys), false) = (self.keys, is_refusal(plain)) else { return true };
        // Not a refusal on its face: the data itself may have changed in between. Both once more.
        let plain = self.client.send(control).await;
        let token = self.client.send(&authorised(control.clone(), self.scheme, keys.token())).await;
        token.is_ok_and(|token| decide(&plain, Some(&token)) == Decision::Rejected)
    }

    /// A refusal that comes too late: the answer is one, and the handler has run. A file is written
    /// without a credential, under a name of ours, and looked for with the token.
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

    /// Removes what probes that got through, and their references, have written under our name; gives what
    /// could not be removed.
    async fn tidy(&self, facts: &Facts, results: &[Result], fill: &Fill) -> Vec<String> {
        if !self.mutating {
            return Vec::new();
        }
        let late = late_effect(fill);
        let written = results
            .iter()
            .filter(|r| r.decision.let_through() && r.probe.request.method == Method::POST)
            .map(|r| &r.probe.request)
            .chain(facts.asked(&Method::POST));
        let targets = written.map(|r| r.target.as_str()).filter(|t| t.contains(&fill.nonce));
        Tidy { client: self.client, scheme: self.scheme, keys: self.keys }.remove(targets.chain([late.as_str()])).await
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

    /// Whether a forgery breaks the server twice, while nothing is rejected and the token works in
    /// between: then the lock holds, and the header is only badly read.
    async fn breaks_again(&self, probe: &Probe) -> bool {
        let Some(keys) = self.keys else { return false };
        let anonymous = self.client.send(&probe.reference).await;
        let token = self.client.send(&authorised(probe.reference.clone(), self.scheme, keys.token())).await;
        let again = self.client.send(&probe.request).await;
        let held = anonymous.is_ok_and(|a| is_refusal(&a)) && token.is_ok_and(|a| a.status.is_success());
        held && again.is_ok_and(|a| a.status.is_server_error())
    }
}

/// What the file of a refused write means, as the token gets it.
fn written_all_the_same(seen: &Outcome) -> Decision {
    match seen {
        Ok(answer) if is_indeterminate(answer) => Decision::Indeterminate,
        Ok(answer) if answer.status.is_success() && answer.body.as_ref() == b"lockproof" => Decision::Passed,
        Ok(_) => Decision::Rejected,
        Err(_) => Decision::Indeterminate,
    }
}

/// The file by which a refusal that comes too late shows.
fn late_effect(fill: &Fill) -> String {
    format!("/userdata/{}-effect", fill.nonce)
}

/// Whether a request with another method than GET asks to be taken for one.
fn is_override(probe: &Probe) -> bool {
    probe.request.headers.iter().any(|(name, _)| name.to_ascii_lowercase().contains("method"))
        || probe.request.target.contains("_method=")
}

/// Whether the server itself answered, and says nothing of its lock: it broke, or the token's own answer did.
fn has_broken(result: &Result) -> bool {
    let answered = result.outcome.as_ref().and_then(|outcome| outcome.as_ref().ok());
    answered.is_some_and(|answer| !matches!(answer.status.as_u16(), 429 | 502..=504) && answer.retry_after().is_none())
}

/// Whether a probe shows a credential that is none.
fn is_forgery(probe: &Probe) -> bool {
    matches!(probe.rule, Rule::LockForgedCredential | Rule::LockEmptyToken | Rule::LockTamperedSession)
}

/// The same kind of answer, by media type as well: the empty bodies of a handler and of the
/// router's own 404 differ in nothing else.
fn alike(one: &Answer, other: &Answer) -> bool {
    is_same(one, other) && one.media_type() == other.media_type()
}

/// Whether an answer holds the token or the password, in its headers or its body.
fn holds_secret(keys: Option<&Keys>) -> impl Fn(&Answer) -> bool + '_ {
    move |answer| keys.is_some_and(|keys| super::leak::holds(answer, keys))
}

/// What is learnt once for all probes: what the controls get, and what the token gets.
pub(super) struct Facts {
    controls: HashMap<Key, Outcome>,
    references: HashMap<Key, (Request, OnceCell<Answer>)>,
    absent: Vec<Answer>,
    /// Whether an answer takes long, whatever the work is.
    slow: bool,
}

/// What makes two requests the same.
pub(super) type Key = (String, String, String);

pub(super) fn key(request: &Request) -> Key {
    let headers: String = request.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    (format!("{} {}", request.method, request.target), headers, String::from_utf8_lossy(&request.body).into_owned())
}

impl Facts {
    async fn learn(matrix: &Matrix<'_>, corpus: &[Probe], fill: &Fill) -> Self {
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
        // They may take effect, and then their order shows in what others get.
        let few = if slow { CHANGING_SLOW } else { 1 };
        controls.extend(stream::iter(changing).map(ask).buffered(few).collect::<Vec<_>>().await);
        let mut absent = Vec::new();
        for target in ["/{}/nowhere", "/{}", "/api/{}", "//{}", "/{}.js", "/internal/{}"] {
            let request = Request::get(target.replace("{}", &fill.nonce));
            let request =
                matrix.keys.map_or_else(|| request.clone(), |k| authorised(request.clone(), matrix.scheme, k.token()));
            absent.extend(matrix.client.send(&request).await.ok().filter(|a| a.status == StatusCode::NOT_FOUND));
        }
        Self { controls, references, absent, slow }
    }

    fn control(&self, request: &Request) -> Option<&Outcome> {
        self.controls.get(&key(request))
    }

    /// What the token gets for a plain request; asked once.
    pub(super) async fn token(&self, matrix: &Matrix<'_>, plain: &Request) -> Option<Answer> {
        let keys = matrix.keys?;
        let (request, cell) = self.references.get(&key(plain))?;
        let learn = || async {
            match when_asked(matrix.client, &authorised(request.clone(), matrix.scheme, keys.token())).await {
                Ok(answer) if !is_indeterminate(&answer) => Ok(answer),
                // It says nothing, and may the next time.
                outcome => Err(outcome.ok()),
            }
        };
        match cell.get_or_try_init(learn).await {
            Ok(answer) => Some(answer.clone()),
            Err(nothing) => nothing,
        }
    }

    /// What an answer means where there is no token to compare with: data is served; a page, or
    /// what the plain request gets as well, is not.
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

    /// The references that were asked for, with that method.
    fn asked<'a>(&'a self, method: &'a Method) -> impl Iterator<Item = &'a Request> {
        self.references
            .values()
            .filter(|(request, cell)| cell.initialized() && request.method == *method)
            .map(|(r, _)| r)
    }

    /// Whether an answer is what a path that does not exist gets.
    fn is_absent(&self, answer: &Answer) -> bool {
        answer.status == StatusCode::NOT_FOUND && self.absent.iter().any(|absent| alike(absent, answer))
    }
}

/// A hit in words, for evidence.
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
                status: StatusCode::from_u16(status).expect("a status"),
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
