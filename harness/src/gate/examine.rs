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
