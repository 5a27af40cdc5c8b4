//! One look at a lock: the sentinels with nothing and with the token, the token itself, the session.

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
use lockproof_model::scheme::Scheme;

/// How often an answer that says nothing is asked for again.
const TRIES: u32 = 4;
/// The pause before that, doubled each time; `Retry-After` is honoured up to the longest one.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What a credential does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Works {
    /// It opens the lock.
    Yes,
    /// It is rejected.
    No,
    /// It cannot be told.
    Unknown,
    /// There is none.
    Absent,
}

/// What one sentinel got.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The request, without a credential.
    pub request: Request,
    /// What it got with nothing.
    pub anonymous: Outcome,
    /// What it got with the token.
    pub token: Outcome,
    /// What that means.
    pub decision: Decision,
    /// Whether it is refused until the token has been used for the same, and let through then.
    pub after_token: bool,
}

/// One look at a lock.
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
    /// Whether every sentinel got what the token would get.
    pub fn all_through(&self) -> bool {
        !self.sentinels.is_empty() && self.sentinels.iter().all(|s| s.decision.let_through())
    }

    /// The sentinels that were let through.
    pub fn through(&self) -> Vec<&Seen> {
        self.sentinels.iter().filter(|s| s.decision.let_through()).collect()
    }

    /// The first sentinel of which nothing can be said, in words.
    pub fn undecided(&self) -> Option<String> {
        let seen = self.sentinels.iter().find(|s| s.decision == Decision::Indeterminate)?;
        let got = format!("{} {} got {}", seen.request.method, seen.request.target, in_words(&seen.anonymous));
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

/// What the token got when the lock was installed, in the order of the sentinels.
#[derive(Clone, Debug, Default)]
pub struct Reference(Vec<Option<Answer>>);

/// Looks at a lock. Anonymous comes first everywhere, so that nothing that the token does can help
/// it; and once more at the end, because nothing that the token does may help it.
pub async fn look(client: &Client, scheme: &Scheme, keys: Option<&Keys>, known: &Reference) -> Look {
    let requests = sentinels(scheme);
    // All at once: a server that breaks makes each of them wait.
    let anonymous = join_all(requests.iter().map(|request| patiently(client, request))).await;
    let token = join_all(requests.iter().map(|request| async {
        match keys {
            Some(keys) => patiently(client, &authorised(request.clone(), scheme, keys.token())).await,
            None => Err(super::message::Fault::Refused("there is no token".into())),
        }
    }))
    .await;
    let mut seen = Vec::new();
    for (index, ((request, anonymous), token)) in requests.into_iter().zip(anonymous).zip(token).enumerate() {
        // A token that is rejected now tells what the route gives by what it gave before.
        let before = known.0.get(index).and_then(Option::as_ref);
        // So does a page, or a 404 that hides the route.
        let as_before = |now: &&Answer| before.is_none_or(|before| before.status == now.status);
        let usable = token.as_ref().ok().filter(|a| !is_refusal(a) && !is_indeterminate(a)).filter(as_before);
        let reference = usable.or(before);
        let mut decision = decide(&anonymous, reference);
        // Without anything to compare with, the handler's own words tell.
        if decision == Decision::Indeterminate
            && reference.is_none()
            && anonymous.as_ref().is_ok_and(|answer| is_from_the_handler(&request, answer))
        {
            decision = Decision::Passed;
        }
        seen.push(Seen { request, anonymous, token, decision, after_token: false });
    }
    // What the token has asked for may lie in a cache before the lock, or have opened a session for
    // everybody behind the same address.
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

/// Whether a cookie opens the first sentinel that can be asked with GET.
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

/// Whether a token opens: it is not refused anywhere, and somewhere it is served.
fn works(seen: &[Seen], known: &Reference) -> Works {
    let mut unknown = false;
    let mut served = false;
    for (index, seen) in seen.iter().enumerate() {
        match &seen.token {
            Ok(answer) if is_indeterminate(answer) => unknown = true,
            Ok(answer) if is_refusal(answer) => return Works::No,
            Ok(answer) => {
                // A refusal may come as a page with 200, which is not what it got before.
                let before = known.0.get(index).and_then(Option::as_ref);
                if before
                    .is_some_and(|before| !super::decide::is_same(answer, before) && answer.status != before.status)
                {
                    return Works::No;
                }
                // What everybody gets is a service only where it is ComfyUI's own.
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

/// Whether an answer is a refusal on its face.
pub fn is_refusal(answer: &Answer) -> bool {
    matches!(answer.status.as_u16(), 401 | 403 | 407) || answer.status.is_redirection()
}

/// Sends a request, and again while its answer says nothing.
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

/// Sends a request, and again after the pause for which its answer asks: 429, or 403 and 503 with
/// `Retry-After`. Any other answer would come again, a handler's own 500 among them.
pub async fn when_asked(client: &Client, request: &Request) -> Outcome {
    match client.send(request).await {
        Ok(answer) if is_throttled(&answer) && !client.is_out_of_patience() => patiently(client, request).await,
        Err(_) => client.send(request).await,
        outcome => outcome,
    }
}

/// Whether an answer asks to come again later.
fn is_throttled(answer: &Answer) -> bool {
    match answer.status.as_u16() {
        429 => true,
        403 | 503 => answer.retry_after().is_some(),
        _ => false,
    }
}
