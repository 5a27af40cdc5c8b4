//! One examination of a lock, in the order of the design: sentinels, token and session; the matrix,
//! read-only requests first; token leaks; then the claim.
//!
//! It needs a client and credentials, but no container: both `lockproof probe` and the gate use it.

use super::diagnose::Scene;
use crate::{gate::diagnose, state_map::StateMap};
use lockproof_deploy::{install::Installed, layout::Layout};
use lockproof_model::{
    finding::{Finding, Rule},
    report::ProbeCounts,
    scheme::Scheme,
    state::State,
    verdict::Verdict,
};
use lockproof_probe::{
    claim::empty_token,
    client::Client,
    decide::Decision,
    judge,
    keys::Keys,
    leak::{self, Leak, SeenBy},
    look::{Look, Reference, Works, look, patiently},
    matrix::{Counts, Found, Matrix},
    surface::routes::Route,
    visitor::Visitor,
    wear::Worn,
};

/// What to examine, and which requests are allowed.
#[derive(Clone, Copy)]
pub struct Examiner<'a> {
    /// The server.
    pub client: &'a Client,
    /// The login scheme.
    pub scheme: &'a Scheme,
    /// The credentials; without them, only anonymous access is judged.
    pub keys: Option<&'a Keys>,
    /// The routes to probe.
    pub routes: &'a [Route],
    /// Whether requests that change data are allowed.
    pub mutating: bool,
    /// The context of findings.
    pub scene: Scene<'a>,
    /// Called after each probe with the number of sent and planned probes.
    pub progress: &'a (dyn Fn(usize, usize) + Sync),
}

/// The results of the first half, which does not change who has access.
#[derive(Clone, Debug)]
pub struct Early {
    /// Checks sentinels, token and session.
    pub look: Look,
    /// The findings.
    pub findings: Vec<Finding>,
    /// The number of probes by decision.
    pub counts: Counts,
    /// Whether the token is shown to anonymous requests.
    pub shown: bool,
    /// How the lock changed under the probes.
    pub worn: Option<Worn>,
    /// Why the probes are inconclusive: the server's rate limit exceeds the allowed pauses.
    pub throttled: Option<&'static str>,
}

/// The reason if the server rate-limits many requests.
const THROTTLED: &str = "too many requests were answered with 429, or with 403 or 503 and Retry-After, even \
    after the requested pauses; exempt lockproof's address from the rate limit while it probes";

/// The results of the claim.
#[derive(Clone, Debug, Default)]
pub struct Claimed {
    /// The findings.
    pub findings: Vec<Finding>,
    /// Whether a visitor can obtain access.
    pub yes: bool,
    /// Whether the login form shows the token after a wrong password.
    pub shown: bool,
    /// Whether the attempts changed the server's state.
    pub disturbed: bool,
    /// Whether the lock's forms were tried.
    pub tried: bool,
    /// The reason if not all of them could be tried.
    pub undecided: Option<String>,
}

impl Examiner<'_> {
    /// Checks sentinels, token and session; then, unless the lock is open, the matrix and token
    /// leaks.
    pub async fn early(&self, known: &Reference) -> Early {
        self.after(self.look(known).await).await
    }

    /// Checks sentinels, token and session.
    pub async fn look(&self, known: &Reference) -> Look {
        look(self.client, self.scheme, self.keys, known).await
    }

    /// The matrix and token leaks, given the result of [`look`](Self::look).
    pub async fn after(&self, look: Look) -> Early {
        let mut early =
            Early { look, findings: Vec::new(), counts: Counts::default(), shown: false, worn: None, throttled: None };
        // If the lock is open, there is nothing to bypass; without a working token, there is no
        // answer to compare with.
        if early.look.all_through() || matches!(early.look.token, Works::No | Works::Unknown) {
            return early;
        }
        let matrix = Matrix {
            client: self.client,
            scheme: self.scheme,
            keys: self.keys,
            routes: self.routes,
            mutating: self.mutating,
        };
        let mut found = matrix.run(self.progress).await;
        early.counts = found.counts;
        early.throttled = self.client.is_out_of_patience().then_some(THROTTLED);
        if early.throttled.is_none() {
            early.worn = self.worn(&early.look).await;
        }
        if early.worn.is_some() {
            // At some point everything or nothing was served: the probes are inconclusive.
            found.hits.clear();
            found.malformed.clear();
        } else if let Some((request, outcome)) = found.opened.take() {
            // Open for a while: still report what was served independently of that.
            early.worn = Some(Worn::now_and_then(request, &outcome));
        }
        if early.worn.is_some() {
            // What was read through an open lock, such as its log, is not public. What a rejection
            // or a page shows is also found by the search for leaks.
            found.leaks.clear();
        }
        early.findings = diagnose::matrix(self.scene, &found);
        for finding in &mut early.findings {
            diagnose::name_handlers(finding, self.routes);
        }
        if let Some(keys) = self.keys {
            let searched = leak::search(self.client, self.scheme, keys, self.mutating).await;
            early.shown = !found.leaks.is_empty() || searched.iter().any(|l| l.seen_by == SeenBy::Anybody);
            early.findings.extend(diagnose::leaks(self.scene, &found, &searched));
        }
        early
    }

    /// Whether the lock changed after the hundreds of rejected requests of the matrix.
    async fn worn(&self, before: &Look) -> Option<Worn> {
        let was = before.sentinels.iter().find(|s| s.decision == Decision::Rejected)?;
        let anonymous = patiently(self.client, &was.request).await;
        if lockproof_probe::decide::decide(&anonymous, was.token.as_ref().ok()) == Decision::Rejected
            && self.keys.is_none_or(|_| before.token != Works::Yes)
        {
            return None;
        }
        let again = look(self.client, self.scheme, self.keys, &before.reference()).await;
        Worn::between(before, &again, self.scheme, self.keys)
    }

    /// Tries to obtain access from the server itself: with an empty token and, if `forms`, as a visitor of
    /// its pages and forms. The latter may change the server's state.
    pub async fn claim(&self, early: &Early, forms: bool) -> Claimed {
        let mut claimed = Claimed::default();
        let look = &early.look;
        // A lock that is open, or open for a while, gives access without a claim.
        if look.all_through() || early.worn.is_some() {
            return claimed;
        }
        if let Some(claim) = empty_token(self.client, self.scheme, look).await {
            claimed.findings.push(diagnose::claim(self.scene, &claim));
            claimed.yes = true;
        }
        if !forms {
            return claimed;
        }
        let visited = Visitor::new(self.client, self.scheme, self.keys, self.routes, look).visit().await;
        claimed.tried = true;
        claimed.undecided = visited.undecided;
        claimed.disturbed = visited.is_disturbed || visited.claim.is_some();
        let shown = visited.shown.map(|step| Leak { seen_by: SeenBy::Anybody, request: step.request, got: step.got });
        if let Some(claim) = visited.claim {
            claimed.findings.push(diagnose::claim(self.scene, &claim));
            claimed.yes = true;
        } else if let Some(leak) = match (shown, self.keys) {
            (None, Some(keys)) => leak::in_answer_to_login(self.client, self.scheme, keys).await,
            (shown, _) => shown,
        } {
            claimed.shown = true;
            // Already reported for pages and errors that contain it.
            if !early.shown {
                claimed.findings.extend(diagnose::leaks(self.scene, &Found::default(), &[leak]));
            }
        }
        claimed
    }
}

/// The further input for judging an examination.
#[derive(Default)]
pub struct Known<'a> {
    /// The result of using the credential from before a rotation.
    pub old: Option<Finding>,
    /// The state map, if available.
    pub map: Option<(&'a StateMap, &'a Layout, &'a Installed)>,
    /// The states that the event removed.
    pub lost: &'a [State],
    /// Further findings.
    pub further: Vec<Finding>,
    /// Whether the credential file contains a new token that works.
    pub changed_token: bool,
}

/// The result of an examination.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The findings.
    pub findings: Vec<Finding>,
    /// The verdict, or the reason if there is none.
    pub verdict: Result<Verdict, String>,
}

/// Judges an examination: reports each cause once, and the resulting verdict. `accept` marks accepted
/// findings, which do not count.
pub fn judged(
    scene: Scene<'_>,
    early: &Early,
    claimed: &Claimed,
    known: Known<'_>,
    accept: impl Fn(&mut [Finding]),
) -> Judged {
    let mut findings = merge(scene, early, claimed);
    findings.extend(known.old);
    findings.extend(diagnose::sentinels(scene, &early.look, known.map, known.lost, &early.findings));
    findings.extend(known.further);
    accept(&mut findings);
    let verdict = verdict(early, claimed, &findings);
    if matches!(verdict, Ok(Verdict::LockedOut | Verdict::Leaky)) {
        findings.extend(diagnose::token(
            scene,
            &early.look,
            known.changed_token,
            claimed.tried && claimed.undecided.is_none(),
        ));
    }
    Judged { findings, verdict }
}

/// The counts of probes for reports.
pub fn probe_counts(counts: &Counts, sent: u64) -> ProbeCounts {
    ProbeCounts {
        planned: counts.planned,
        sent,
        rejected: counts.rejected,
        served: counts.served,
        passed: counts.passed,
        indeterminate: counts.indeterminate,
    }
}

/// Merges the findings of both halves: each cause once.
pub fn merge(scene: Scene<'_>, early: &Early, claimed: &Claimed) -> Vec<Finding> {
    let mut findings = early.findings.clone();
    // The empty token is reported once, as the cause of `claimable`.
    if claimed.findings.iter().any(|f| f.rule == Rule::LockEmptyToken) {
        findings.retain(|f| f.rule != Rule::LockEmptyToken);
    }
    findings.extend(claimed.findings.iter().cloned());
    if let Some(worn) = &early.worn {
        findings.push(diagnose::worn(scene, worn));
    }
    findings
}

/// The verdict of an examination, given its findings with the accepted ones marked.
///
/// # Errors
/// The reason why no verdict could be reached.
pub fn verdict(early: &Early, claimed: &Claimed, findings: &[Finding]) -> Result<Verdict, String> {
    let leaks = findings.iter().any(|f| f.rule.is_leak() && !f.accepted);
    // If the token is shown to a visitor, the visitor gets access from the server itself.
    let shown = (early.shown || claimed.shown) && findings.iter().any(|f| f.rule == Rule::LockTokenLeak && !f.accepted);
    let empty = findings.iter().any(|f| f.rule == Rule::LockEmptyToken);
    // A handler that fails (`broken`) has answered; these probes got no answer at all.
    // A lock that opens after many rejections fails, regardless of its last answers.
    let worn = findings.iter().any(|f| f.rule == Rule::LockWearsOut && !f.accepted);
    let silent = if worn { 0 } else { early.counts.unanswered };
    let verdict = judge::judge(judge::Case { look: &early.look, claimed: claimed.yes || shown || empty, leaks });
    match (verdict, early.throttled) {
        // What was found is certain; that there is nothing else is not.
        (Ok(Verdict::Locked), Some(why)) => Err(why.to_owned()),
        (Ok(Verdict::Locked), None) if claimed.undecided.is_some() => {
            Err(claimed.undecided.clone().unwrap_or_default())
        }
        (Ok(Verdict::Locked), None) if silent > 0 => Err(format!(
            "{silent} of {} probes got no answer, even when repeated one by one: exempt lockproof's address \
            from the rate limit, or check the server's log",
            early.counts.planned
        )),
        (verdict, _) => verdict,
    }
}
