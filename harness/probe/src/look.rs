//! One look at a lock: the sentinels without a credential and with the token, the token itself, the
//! session.

use std::time::Duration;

use futures_util::future::join_all;

use super::{
    client::Client,
    decide::{Decision, decide, is_indeterminate},
    message::{Answer, Outcome, Request, in_words},
    sentinel::{is_from_the_handler, sentinels},
    service::{doubt, hint, is_service},
};
use crate::keys::{Keys, authorised};
pub use crate::seen::Seen;
use lockproof_model::scheme::Scheme;

/// How often a request with an inconclusive answer is repeated.
const TRIES: u32 = 4;
/// The pause before that, doubled each time; `Retry-After` is respected up to the longest pause.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Whether a credential works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Works {
    /// It is accepted.
    Yes,
    /// It is rejected.
    No,
    /// Unknown.
    Unknown,
    /// There is none.
    Absent,
}

/// The result of one look.
#[derive(Clone, Debug)]
pub struct Look {
    /// Every sentinel.
    pub sentinels: Vec<Seen>,
    /// The token of record.
    pub token: Works,
    /// The session of record.
    pub session: Works,
}

impl Look {
    /// Whether every sentinel gets what the token would get.
    pub fn all_through(&self) -> bool {
        !self.sentinels.is_empty() && self.sentinels.iter().all(|s| s.decision.let_through())
    }

    /// The sentinels that are served.
    pub fn through(&self) -> Vec<&Seen> {
        self.sentinels.iter().filter(|s| s.decision.let_through()).collect()
    }

    /// The first indeterminate sentinel with its answer, for messages.
    pub fn undecided(&self) -> Option<String> {
        let seen = self.sentinels.iter().find(|s| s.decision == Decision::Indeterminate)?;
        let got = format!("{} {}: {}", seen.request.method, seen.request.target, in_words(&seen.anonymous));
        match &seen.anonymous {
            Ok(answer) if !is_indeterminate(answer) => Some(format!("{got} ({})", hint(&seen.request, answer))),
            _ => Some(got),
        }
    }

    /// The token's answers, for later looks at a server that rejects the token.
    pub fn reference(&self) -> Reference {
        Reference(self.sentinels.iter().map(|s| s.token.clone().ok()).collect())
    }
}

/// The token's answers at `installed`, in the order of the sentinels.
#[derive(Clone, Debug, Default)]
pub struct Reference(Vec<Option<Answer>>);

/// Looks at a lock. Anonymous requests come before any request with the token, which could help
/// them, and are repeated at the end, to see whether it did.
pub async fn look(client: &Client, scheme: &Scheme, keys: Option<&Keys>, known: &Reference) -> Look {
    let requests = sentinels(scheme);
    // In parallel: a failing server delays each of them.
    let anonymous = join_all(requests.iter().map(|request| patiently(client, request))).await;
    let token = join_all(requests.iter().map(|request| async {
        match keys {
            Some(keys) => patiently(client, &authorised(request.clone(), scheme, keys.token())).await,
            None => Err(super::message::Fault::Refused("no token".into())),
        }
    }))
    .await;
    let mut seen = Vec::new();
    for (index, ((request, anonymous), token)) in requests.into_iter().zip(anonymous).zip(token).enumerate() {
        // If the token is rejected now, compare with its earlier answer.
        let before = known.0.get(index).and_then(Option::as_ref);
        // The same applies to a page, or a 404 that hides the route.
        let as_before = |now: &&Answer| before.is_none_or(|before| before.status == now.status);
        let usable = token.as_ref().ok().filter(|a| !is_refusal(a) && !is_indeterminate(a)).filter(as_before);
        let reference = usable.or(before);
        let mut decision = decide(&anonymous, reference);
        // Without an answer to compare with, recognise the handler's own message.
        if decision == Decision::Indeterminate
            && reference.is_none()
            && anonymous.as_ref().is_ok_and(|answer| is_from_the_handler(&request, answer))
        {
            decision = Decision::Passed;
        }
        seen.push(Seen { request, anonymous, token, decision, after_token: false });
    }
    // A cache in front of the lock may serve what the token requested, or the lock may have opened
    // a session for the client's address.
    join_all(seen.iter_mut().map(|seen| async {
        let served = seen.token.as_ref().ok().filter(|a| a.status.is_success());
        if seen.decision == Decision::Rejected
            && let Some(reference) = served
        {
            let again = client.send(&seen.request).await;
            if decide(&again, Some(reference)).let_through() {
                seen.decision = decide(&again, Some(reference));
                seen.anonymous = again;
                seen.after_token = true;
            }
        }
    }))
    .await;
    doubt(&mut seen);
    let token = match keys {
        None => Works::Absent,
        Some(_) => works(&seen, known),
    };
    let session = match keys.and_then(Keys::session) {
        None => Works::Absent,
        Some(cookie) => session_works(client, scheme, cookie, &seen).await,
    };
    Look { sentinels: seen, token, session }
}

/// Whether a cookie opens the first GET sentinel.
pub async fn session_works(client: &Client, scheme: &Scheme, cookie: &str, seen: &[Seen]) -> Works {
    let Some(request) = sentinels(scheme).into_iter().find(|r| r.method == http::Method::GET) else {
        return Works::Unknown;
    };
    let answer = patiently(client, &request.clone().header("Cookie", cookie)).await;
    let reference = seen
        .iter()
        .find(|s| s.request == request)
        .and_then(|s| s.token.as_ref().ok())
        .filter(|a| !is_refusal(a) && !is_indeterminate(a));
    match decide(&answer, reference) {
        Decision::Served | Decision::Passed => Works::Yes,
        Decision::Rejected => Works::No,
        Decision::Indeterminate => Works::Unknown,
    }
}

/// Whether a token works: it is never rejected, and is served at least once.
fn works(seen: &[Seen], known: &Reference) -> Works {
    let mut unknown = false;
    let mut served = false;
    for (index, seen) in seen.iter().enumerate() {
        match &seen.token {
            Ok(answer) if is_indeterminate(answer) => unknown = true,
            Ok(answer) if is_refusal(answer) => return Works::No,
            Ok(answer) => {
                // A rejection may be a page with 200, which differs from the earlier answer.
                let before = known.0.get(index).and_then(Option::as_ref);
                if before
                    .is_some_and(|before| !super::decide::is_same(answer, before) && answer.status != before.status)
                {
                    return Works::No;
                }
                // An answer that everyone gets counts only if it comes from ComfyUI.
                let is_own = |anonymous: &Answer| !super::decide::is_same(anonymous, answer);
                served |= is_service(&seen.request, answer)
                    || answer.status.is_success() && seen.anonymous.as_ref().map_or(true, is_own);
            }
            Err(_) => unknown = true,
        }
    }
    match (unknown, served) {
        (true, _) => Works::Unknown,
        (false, true) => Works::Yes,
        (false, false) => Works::No,
    }
}

/// Whether an answer is a rejection by its status.
pub fn is_refusal(answer: &Answer) -> bool {
    matches!(answer.status.as_u16(), 401 | 403 | 407) || answer.status.is_redirection()
}

/// Sends a request, and repeats it while the answer is inconclusive.
pub async fn patiently(client: &Client, request: &Request) -> Outcome {
    let mut pause = PAUSE;
    for _ in 1..TRIES {
        let outcome = client.send(request).await;
        match &outcome {
            Ok(answer) if is_throttled(answer) => {
                let asked = answer.retry_after().unwrap_or(pause);
                if !client.wait(asked.max(pause).min(LONGEST_PAUSE)).await {
                    return outcome;
                }
            }
            Ok(answer) if is_indeterminate(answer) => tokio::time::sleep(pause).await,
            Err(_) => tokio::time::sleep(pause).await,
            Ok(_) => return outcome,
        }
        pause *= 2;
    }
    client.send(request).await
}

/// Sends a request, and repeats it after the pause that a 429, or a 403 or 503 with `Retry-After`,
/// asks for. Other answers, such as a handler's own 500, would not change.
pub async fn when_asked(client: &Client, request: &Request) -> Outcome {
    match client.send(request).await {
        Ok(answer) if is_throttled(&answer) && !client.is_out_of_patience() => patiently(client, request).await,
        Err(_) => client.send(request).await,
        outcome => outcome,
    }
}

/// Whether an answer asks the client to retry later.
pub(crate) fn is_throttled(answer: &Answer) -> bool {
    match answer.status.as_u16() {
        429 => true,
        403 | 503 => answer.retry_after().is_some(),
        _ => false,
    }
}
