//! Sends hundreds of requests that are rejected, then looks again. A lock that counts them may
//! open, lock out its owner, or fail.

use super::{
    client::Client,
    look::{Look, Reference, Works, look},
    message::{Outcome, Request, in_words},
};
use crate::keys::{Keys, authorised};
use lockproof_model::scheme::Scheme;

/// The number of rejected requests: above the usual limits (5, 10, 100, 200).
const REFUSALS: usize = 320;
/// The number of parallel requests.
const IN_FLIGHT: usize = 16;

/// How a lock changed.
#[derive(Clone, Debug)]
pub struct Worn {
    /// Described in one sentence.
    pub how: &'static str,
    /// The request that shows it.
    pub request: Request,
    /// Its answer.
    pub got: String,
}

/// Sends requests that are rejected, and looks again. Only for a server that is removed afterwards.
pub async fn wear_out(client: &Client, scheme: &Scheme, keys: &Keys, before: &Look, known: &Reference) -> Option<Worn> {
    use futures_util::{StreamExt, stream};
    let guarded = before.sentinels.iter().find(|s| !s.decision.let_through())?;
    let refused = [guarded.request.clone(), authorised(guarded.request.clone(), scheme, "lockproof-wear-out")];
    stream::iter((0..REFUSALS).map(|n| refused[n % refused.len()].clone()))
        .map(|request| async move { client.send(&request).await.is_ok() })
        .buffer_unordered(IN_FLIGHT)
        .collect::<Vec<bool>>()
        .await;
    let after = look(client, scheme, Some(keys), known).await;
    Worn::between(before, &after, scheme, Some(keys))
}

impl Worn {
    /// A lock that is open at times during rejections.
    pub fn now_and_then(request: Request, outcome: &Outcome) -> Self {
        Self { how: "after many refused requests, the lock is open for a while", request, got: in_words(outcome) }
    }

    /// How a lock changed after hundreds of rejections; `None` if it did not.
    pub fn between(before: &Look, after: &Look, scheme: &Scheme, keys: Option<&Keys>) -> Option<Self> {
        for (was, is) in before.sentinels.iter().zip(&after.sentinels) {
            if !was.decision.let_through() && is.decision.let_through() {
                return Some(Self {
                    how: "after hundreds of refused requests, the lock is open",
                    request: is.request.clone(),
                    got: in_words(&is.anonymous),
                });
            }
        }
        let guarded = before.sentinels.iter().find(|s| !s.decision.let_through())?;
        if let Some(got) = after.undecided().filter(|_| before.undecided().is_none()) {
            return Some(Self {
                how: "after hundreds of refused requests, the server fails instead of refusing",
                request: guarded.request.clone(),
                got,
            });
        }
        if before.token == Works::Yes && after.token != Works::Yes {
            let got = after.sentinels.first().map(|s| in_words(&s.token)).unwrap_or_default();
            let request = keys.map_or_else(
                || guarded.request.clone(),
                |keys| authorised(guarded.request.clone(), scheme, keys.token()),
            );
            return Some(Self {
                how: "after hundreds of refused requests, the lock also rejects the valid token",
                request,
                got,
            });
        }
        None
    }
}
