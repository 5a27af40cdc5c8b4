//! The matrix: the whole corpus, sent without a credential and compared with what the token gets.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};

use super::{
    client::Client,
    decide::{Decision, decide, is_indeterminate, is_same},
    look::{is_refusal, patiently},
    message::{Answer, Outcome, Request, in_words},
};
use crate::{
    finding::Rule,
    keys::{Keys, authorised},
    scheme::Scheme,
    secret,
    surface::{
        corpus::{Probe, probes},
        routes::Fill,
    },
};

/// Probes in flight at once: enough to hide the round trips, few enough not to be an attack.
const IN_FLIGHT: usize = 8;

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
    /// The probes by their decision.
    pub counts: Counts,
}

/// The probes by their decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
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

/// Sends the corpus. What changes something is sent last, one after the other.
pub async fn run(client: &Client, scheme: &Scheme, keys: &Keys) -> Found {
    let fill = Fill { nonce: format!("lockproof-{}", secret::random(8)) };
    let (changing, reading): (Vec<_>, Vec<_>) = probes(scheme, keys, &fill).into_iter().partition(|p| p.changes);
    let absent = Absent::learn(client, scheme, keys, &fill).await;
    let mut results: Vec<(Probe, Outcome, Decision)> = stream::iter(reading)
        .map(|probe| one(client, scheme, keys, &absent, probe))
        .buffered(IN_FLIGHT)
        .collect()
        .await;
    for probe in changing {
        results.push(one(client, scheme, keys, &absent, probe).await);
    }
    let mut found = Found::default();
    for (probe, outcome, decision) in results {
        found.counts.add(decision);
        match decision {
            Decision::Served | Decision::Passed => {
                tidy(client, scheme, keys, &probe).await;
                found.hits.entry(probe.rule).or_default().push(Hit { probe, outcome });
            }
            Decision::Indeterminate if probe.rule == Rule::LockForgedCredential => {
                if breaks_again(client, scheme, keys, &probe).await {
                    found.malformed.push(Hit { probe, outcome });
                }
            }
            _ => {}
        }
    }
    found
}

/// What a path that does not exist gets, with the token: a route that gets the same is not there.
struct Absent(Option<Answer>);

impl Absent {
    async fn learn(client: &Client, scheme: &Scheme, keys: &Keys, fill: &Fill) -> Self {
        let request = authorised(Request::get(format!("/{}/nowhere", fill.nonce)), scheme, keys.token());
        Self(client.send(&request).await.ok())
    }

    fn is(&self, answer: &Answer) -> bool {
        answer.status == http::StatusCode::NOT_FOUND && self.0.as_ref().is_some_and(|absent| is_same(absent, answer))
    }
}

async fn one(
    client: &Client,
    scheme: &Scheme,
    keys: &Keys,
    absent: &Absent,
    probe: Probe,
) -> (Probe, Outcome, Decision) {
    let outcome = client.send(&probe.request).await;
    // A refusal on its face needs no comparison.
    let decided = match &outcome {
        Err(_) => Some(Decision::Indeterminate),
        Ok(answer) if is_indeterminate(answer) => Some(Decision::Indeterminate),
        Ok(answer) if is_refusal(answer) => Some(Decision::Rejected),
        // Many servers answer these without asking anybody.
        Ok(_) if probe.request.method == http::Method::OPTIONS => Some(Decision::Rejected),
        Ok(_) => None,
    };
    if let Some(decision) = decided {
        return (probe, outcome, decision);
    }
    let plain = probe.plain.as_ref().unwrap_or(&probe.request).clone();
    let token = patiently(client, &authorised(plain, scheme, keys.token())).await;
    let decision = match &token {
        Ok(answer) if absent.is(answer) => Decision::Rejected,
        Ok(answer) => decide(&outcome, Some(answer)),
        Err(_) => Decision::Indeterminate,
    };
    (probe, outcome, decision)
}

/// Removes what a probe that got through has written, under a name of ours.
async fn tidy(client: &Client, scheme: &Scheme, keys: &Keys, probe: &Probe) {
    if probe.request.method == http::Method::POST && probe.request.path().contains("/userdata/") {
        let delete = Request::new(http::Method::DELETE, probe.request.target.clone());
        let _removed = client.send(&authorised(delete, scheme, keys.token())).await;
    }
}

/// Whether a forgery breaks the server twice, while nothing is rejected and the token works: then
/// the lock holds, and the header is only badly read.
async fn breaks_again(client: &Client, scheme: &Scheme, keys: &Keys, probe: &Probe) -> bool {
    let plain = probe.plain.as_ref().unwrap_or(&probe.request);
    let anonymous = client.send(plain).await;
    let token = client.send(&authorised(plain.clone(), scheme, keys.token())).await;
    let again = client.send(&probe.request).await;
    let held = anonymous.is_ok_and(|a| is_refusal(&a)) && token.is_ok_and(|a| a.status.is_success());
    held && again.is_ok_and(|a| a.status.is_server_error())
}

/// A hit in words, for evidence.
pub fn evidence(hit: &Hit, base: &str) -> String {
    format!("{}  →  {}", hit.probe.request.curl(base), in_words(&hit.outcome))
}
