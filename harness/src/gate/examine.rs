//! One examination of a lock, in the order of the design: sentinels, token and session; the matrix,
//! read-only requests first; token leaks; then the claim.
//!
//! It needs a client and credentials, but no container: both `lockproof probe` and the gate use it.

use super::diagnose::Scene;
use crate::{gate::diagnose, state_map::StateMap};
use lockproof_deploy::{install::Installed, layout::Layout};
use lockproof_model::{
    finding::{Finding, Rule},
    names::USERNAME,
    report::ProbeCounts,
    scheme::Scheme,
    state::State,
    verdict::Verdict,
};
use lockproof_probe::{
    claim::empty_token,
    client::Client,
    cross_site::cross_site,
    decide::Decision,
    impact::impact,
    judge,
    keys::{Keys, authorised},
    leak::{self, Leak, SeenBy},
    look::{Look, Reference, Works, look, patiently},
    matrix::{Counts, Found, Matrix},
    message::Request,
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
    /// What was written on the server and could not be removed, a line for each.
    pub left: Vec<String>,
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
    /// A request by which a visitor got in.
    pub key: Option<Request>,
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
        let mut early = Early {
            look,
            findings: Vec::new(),
            counts: Counts::default(),
            shown: false,
            worn: None,
            throttled: None,
            left: Vec::new(),
        };
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
        early.left = std::mem::take(&mut found.left);
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
            early.counts.unanswered += searched.unanswered;
            early.counts.planned += searched.unanswered;
            early.shown = !found.leaks.is_empty() || searched.leaks.iter().any(|l| l.seen_by == SeenBy::Anybody);
            early.findings.extend(diagnose::leaks(self.scene, &found, &searched.leaks));
        }
        early
    }

    /// Says in the findings by which somebody gets in what he could do.
    pub async fn assess(&self, verdict: Option<Verdict>, claimed: &Claimed, findings: &mut [Finding]) {
        let is_way_in = |finding: &Finding| match finding.rule {
            Rule::LockOpen | Rule::LockClaimable | Rule::LockEmptyToken => true,
            rule => rule.is_leak() && finding.routes.iter().any(|route| route.ends_with("/prompt")),
        };
        if !matches!(verdict, Some(Verdict::Open | Verdict::Claimable | Verdict::Leaky)) {
            return;
        }
        let mut ways: Vec<&mut Finding> = findings.iter_mut().filter(|finding| is_way_in(finding)).collect();
        if ways.is_empty() {
            return;
        }
        let admitted = |request: Request| match (verdict, &claimed.key, self.keys) {
            (Some(Verdict::Open), ..) | (_, None, None) => request,
            (_, Some(key), _) => key.lending_to(request),
            (_, None, Some(keys)) => authorised(request, self.scheme, keys.token()),
        };
        let told = impact(self.client, admitted).await;
        ways.iter_mut().for_each(|finding| finding.impact = Some(told.clone()));
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
            claimed.key = claim.steps.last().map(|step| step.request.clone());
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
            claimed.key = claim.steps.last().map(|step| step.request.clone());
        } else if let Some(leak) = shown {
            claimed.shown = true;
            // Already reported for pages and errors that contain it.
            if !early.shown {
                claimed.findings.extend(diagnose::leaks(self.scene, &Found::default(), &[leak]));
            }
        }
        // Last: where the form has no password yet, a login with ours would set it.
        if !claimed.yes
            && look.session == Works::Yes
            && let Some(keys) = self.keys
        {
            match cross_site(self.client, self.scheme, keys, USERNAME).await {
                Ok(steps) => claimed.findings.extend(steps.map(|steps| diagnose::cross_site(self.scene, &steps))),
                Err(e) => {
                    claimed.undecided.get_or_insert(format!("a login to test the session's cookie got no answer: {e}"));
                }
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
    // What was found is certain; that there is nothing else is not.
    let unseen = || {
        let unanswered = || {
            format!(
                "{silent} of {} probes got no answer, even when repeated one by one: exempt lockproof's address \
                from the rate limit, or check the server's log",
                early.counts.planned
            )
        };
        early
            .throttled
            .map(str::to_owned)
            .or_else(|| claimed.undecided.clone())
            .or_else(|| (silent > 0).then(unanswered))
    };
    match verdict {
        Ok(Verdict::Locked) => unseen().map_or(Ok(Verdict::Locked), Err),
        verdict => verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockproof_model::event::Event;
    use lockproof_probe::message::{Fault, Request};
    use rstest::rstest;

    const SCENE: Scene<'_> = Scene { subject: "a", event: Event::Installed, base: "" };

    fn early(decision: Decision) -> Early {
        let seen = lockproof_probe::look::Seen {
            request: Request::get("/queue"),
            anonymous: Err(Fault::Timeout),
            token: Err(Fault::Timeout),
            decision,
            after_token: false,
        };
        Early {
            look: Look { sentinels: vec![seen], token: Works::Yes, session: Works::Absent },
            findings: Vec::new(),
            counts: Counts::default(),
            shown: false,
            worn: None,
            throttled: None,
            left: Vec::new(),
        }
    }

    fn found(rule: Rule, accepted: bool) -> Finding {
        Finding { accepted, ..Finding::new(rule, "a", Some(Event::Installed), "m") }
    }

    #[rstest]
    #[case::nothing(&[], Ok(Verdict::Locked))]
    #[case::a_leak(&[(Rule::LockStaticSuffix, false)], Ok(Verdict::Leaky))]
    #[case::an_accepted_leak(&[(Rule::LockStaticSuffix, true)], Ok(Verdict::Locked))]
    #[case::no_leak(&[(Rule::PersistPlugin, false)], Ok(Verdict::Locked))]
    #[case::an_empty_token(&[(Rule::LockEmptyToken, false)], Ok(Verdict::Claimable))]
    fn findings_make_the_verdict(#[case] rules: &[(Rule, bool)], #[case] expected: Result<Verdict, String>) {
        let findings: Vec<Finding> = rules.iter().map(|&(rule, accepted)| found(rule, accepted)).collect();
        assert_eq!(verdict(&early(Decision::Rejected), &Claimed::default(), &findings), expected);
    }

    #[test]
    fn a_token_that_anybody_is_shown_makes_it_claimable_unless_that_is_accepted() {
        let judged = |early_shown, claim_shown, accepted| {
            let early = Early { shown: early_shown, ..early(Decision::Rejected) };
            let claimed = Claimed { shown: claim_shown, ..Claimed::default() };
            verdict(&early, &claimed, &[found(Rule::LockTokenLeak, accepted)])
        };
        assert_eq!(judged(true, false, false), Ok(Verdict::Claimable));
        assert_eq!(judged(false, true, false), Ok(Verdict::Claimable));
        assert_eq!(judged(true, true, true), Ok(Verdict::Locked));
        // Shown to token holders alone.
        assert_eq!(judged(false, false, false), Ok(Verdict::Locked));
        let shown = Early { shown: true, ..early(Decision::Rejected) };
        assert_eq!(verdict(&shown, &Claimed::default(), &[]), Ok(Verdict::Locked), "the finding tells");
    }

    #[test]
    fn a_claim_that_worked_makes_it_claimable() {
        let claimed = Claimed { yes: true, ..Claimed::default() };
        assert_eq!(verdict(&early(Decision::Rejected), &claimed, &[]), Ok(Verdict::Claimable));
        assert_eq!(verdict(&early(Decision::Served), &claimed, &[]), Ok(Verdict::Open));
    }

    #[test]
    fn locked_needs_an_answer_to_every_probe() {
        let with = |unanswered, throttled, findings: &[Finding]| {
            let mut early = early(Decision::Rejected);
            (early.counts.planned, early.counts.unanswered, early.throttled) = (100, unanswered, throttled);
            verdict(&early, &Claimed::default(), findings)
        };
        assert_eq!(with(0, None, &[]), Ok(Verdict::Locked));
        let silent = with(1, None, &[]).expect_err("one says nothing");
        assert!(silent.starts_with("1 of 100 probes got no answer"), "{silent}");
        assert_eq!(with(0, Some("throttled"), &[]), Err("throttled".to_owned()));
        assert_eq!(with(1, Some("throttled"), &[]), Err("throttled".to_owned()));
        // What was found is there, whatever was not answered.
        assert_eq!(with(1, Some("throttled"), &[found(Rule::LockStaticSuffix, false)]), Ok(Verdict::Leaky));
        // A lock that wears out is told as that, unless it is accepted.
        assert_eq!(with(1, None, &[found(Rule::LockWearsOut, false)]), Ok(Verdict::Locked));
        assert!(with(1, None, &[found(Rule::LockWearsOut, true)]).is_err());
    }

    #[test]
    fn each_cause_is_told_once() {
        let rules = |early: &Early, claimed: &Claimed| {
            merge(SCENE, early, claimed).into_iter().map(|f| f.rule).collect::<Vec<_>>()
        };
        let mut early = early(Decision::Rejected);
        early.findings = vec![found(Rule::LockEmptyToken, false), found(Rule::LockStaticSuffix, false)];
        let none = Claimed::default();
        assert_eq!(rules(&early, &none), [Rule::LockEmptyToken, Rule::LockStaticSuffix]);
        let empty = Claimed { findings: vec![found(Rule::LockEmptyToken, false)], ..Claimed::default() };
        assert_eq!(rules(&early, &empty), [Rule::LockStaticSuffix, Rule::LockEmptyToken]);
        early.worn = Some(Worn::now_and_then(Request::get("/queue"), &Err(Fault::Timeout)));
        assert_eq!(rules(&early, &none), [Rule::LockEmptyToken, Rule::LockStaticSuffix, Rule::LockWearsOut]);
    }
}
