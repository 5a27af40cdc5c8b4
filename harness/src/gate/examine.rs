//! One examination of a lock, in the order of the design: sentinels, token and session; the
//! matrix, reading before changing; the token in places where it should not be; then the claim.
//!
//! It needs a client and the keys, and nothing of a container: `lockproof probe` and the gate use
//! the same one.

use super::diagnose::Scene;
use crate::gate::diagnose;
use lockproof_model::{
    finding::{Finding, Rule},
    scheme::Scheme,
    verdict::Verdict,
};
use lockproof_probe::{
    claim::{empty_token, form_claim},
    client::Client,
    decide::Decision,
    judge,
    keys::Keys,
    leak::{self, SeenBy},
    look::{Look, Reference, Works, look, patiently},
    matrix::{Counts, Found, Matrix},
    surface::routes::Route,
    wear::Worn,
};

/// What is examined, and how far one may go.
#[derive(Clone, Copy)]
pub struct Examiner<'a> {
    /// The server.
    pub client: &'a Client,
    /// How its lock works.
    pub scheme: &'a Scheme,
    /// The keys; without them, only what a visitor sees is judged.
    pub keys: Option<&'a Keys>,
    /// The routes.
    pub routes: &'a [Route],
    /// Whether requests may be sent that change something.
    pub mutating: bool,
    /// What findings are made for.
    pub scene: Scene<'a>,
    /// Is told after each probe how many were sent, and how many there are.
    pub progress: &'a (dyn Fn(usize, usize) + Sync),
}

/// What the first half has shown: nothing in it changes who gets in.
#[derive(Clone, Debug)]
pub struct Early {
    /// Sentinels, token, session.
    pub look: Look,
    /// What was found.
    pub findings: Vec<Finding>,
    /// The probes by their decision.
    pub counts: Counts,
    /// Whether anybody is shown the token.
    pub shown: bool,
    /// How the lock wore out under the probes themselves.
    pub worn: Option<Worn>,
    /// Why the probes say little: the server asked for more patience than there is.
    pub throttled: Option<&'static str>,
    /// What was written on the server and could not be removed, a line for each.
    pub left: Vec<String>,
}

/// Said of a server that answers many requests with 429.
const THROTTLED: &str = "too many requests were answered with 429, or 403 and 503 with Retry-After, even after the \
                         pauses for which they ask; let lockproof's address pass the rate limit while it is probed";

/// What the claim has shown.
#[derive(Clone, Debug, Default)]
pub struct Claimed {
    /// What was found.
    pub findings: Vec<Finding>,
    /// Whether a visitor can obtain access.
    pub yes: bool,
    /// Whether the login form shows the token to whoever posts a wrong password.
    pub shown: bool,
    /// Whether trying has changed the server's state.
    pub disturbed: bool,
}

impl Examiner<'_> {
    /// Sentinels, token, session; then, unless it is open anyway, the matrix and the leaks.
    pub async fn early(&self, known: &Reference) -> Early {
        self.after(self.look(known).await).await
    }

    /// Sentinels, token, session.
    pub async fn look(&self, known: &Reference) -> Look {
        look(self.client, self.scheme, self.keys, known).await
    }

    /// The matrix and the leaks, after a look that showed whether it is open anyway.
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
        // An open door needs no picklock; and without a token that works there is nothing to compare.
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
            // From some probe on, everything got through, or nothing did: no probe says anything.
            found.hits.clear();
            found.malformed.clear();
        } else if let Some((request, outcome)) = found.opened.take() {
            // Open now and then: what still got through by itself is told as well.
            early.worn = Some(Worn::now_and_then(request, &outcome));
        }
        if early.worn.is_some() {
            // What was read through an open lock, such as its log, is not shown to everybody; what is
            // shown by a refusal or a page, the search for leaks finds as well.
            found.leaks.clear();
        }
        early.findings = diagnose::matrix(self.scene, &found);
        if let Some(keys) = self.keys {
            let searched = leak::search(self.client, self.scheme, keys, self.mutating).await;
            early.counts.unanswered += searched.unanswered;
            early.counts.planned += searched.unanswered;
            early.shown = !found.leaks.is_empty() || searched.leaks.iter().any(|l| l.seen_by == SeenBy::Anybody);
            early.findings.extend(diagnose::leaks(self.scene, &found, &searched.leaks));
        }
        early
    }

    /// Whether the lock is another one after the matrix, which has been refused many hundred times.
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

    /// Tries to obtain access from the server itself: the empty token, and with `forms` what the
    /// login form takes. The last one changes the server's state when it works.
    pub async fn claim(&self, early: &Early, forms: bool) -> Claimed {
        let mut claimed = Claimed::default();
        let look = &early.look;
        // A lock that is open, or worn open, lets everybody in: nobody has to claim anything.
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
        if let Some(claim) = form_claim(self.client, self.scheme, look).await {
            claimed.findings.push(diagnose::claim(self.scene, &claim));
            claimed.yes = true;
            claimed.disturbed = true;
        } else if let Some(keys) = self.keys
            && let Some(leak) = leak::in_answer_to_login(self.client, self.scheme, keys).await
        {
            claimed.shown = true;
            // Said already where pages and errors hold it as well.
            if !early.shown {
                claimed.findings.extend(diagnose::leaks(self.scene, &Found::default(), &[leak]));
            }
        }
        claimed
    }
}

/// Puts the findings of both halves together: each cause once.
pub fn merge(scene: Scene<'_>, early: &Early, claimed: &Claimed) -> Vec<Finding> {
    let mut findings = early.findings.clone();
    // The empty token is told once, as what makes it claimable.
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
/// The reason, when it cannot be found out.
pub fn verdict(early: &Early, claimed: &Claimed, findings: &[Finding]) -> Result<Verdict, String> {
    let leaks = findings.iter().any(|f| f.rule.is_leak() && !f.accepted);
    // Whoever is shown the token has got access from the server itself.
    let shown = (early.shown || claimed.shown) && findings.iter().any(|f| f.rule == Rule::LockTokenLeak && !f.accepted);
    let empty = findings.iter().any(|f| f.rule == Rule::LockEmptyToken);
    // A handler of the server that breaks by itself (`broken`) has answered; nobody did where these are.
    // A lock that wears out is told as that, and fails, whatever its last answers were.
    let worn = findings.iter().any(|f| f.rule == Rule::LockWearsOut && !f.accepted);
    let silent = if worn { 0 } else { early.counts.unanswered };
    let verdict = judge::judge(judge::Case { look: &early.look, claimed: claimed.yes || shown || empty, leaks });
    match (verdict, early.throttled) {
        // What was found is there; that there is nothing more cannot be said.
        (Ok(Verdict::Locked), Some(why)) => Err(why.to_owned()),
        (Ok(Verdict::Locked), None) if silent > 0 => Err(format!(
            "{silent} of {} probes were answered by nobody, also when they were asked again one by one: let \
             lockproof's address pass the rate limit, or see the server's log",
            early.counts.planned
        )),
        (verdict, _) => verdict,
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
        assert!(silent.starts_with("1 of 100 probes were answered by nobody"), "{silent}");
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
