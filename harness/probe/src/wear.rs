//! Wear-out: hundreds of refusals, then one more look. A lock that counts them may open, shut out
//! its owner, or break.

use super::{
    client::Client,
    look::{Look, Reference, Works, look},
    message::{Outcome, Request, in_words},
};
use crate::keys::{Keys, authorised};
use lockproof_model::scheme::Scheme;

/// How many refusals are asked for: beyond the limits that people set by hand (5, 10, 100, 200).
const REFUSALS: usize = 320;
/// How many at once.
const IN_FLIGHT: usize = 16;

/// How a lock wore out.
#[derive(Clone, Debug)]
pub struct Worn {
    /// In one sentence.
    pub how: &'static str,
    /// The request that shows it.
    pub request: Request,
    /// What it got.
    pub got: String,
}

/// Asks for refusals, and looks again. It is for a server that is thrown away afterwards.
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
    /// A lock that is open for a while among refusals.
    pub fn now_and_then(request: Request, outcome: &Outcome) -> Self {
        Self {
            how: "after many refusals, the lock lets everybody through for a while",
            request,
            got: in_words(outcome),
        }
    }

    /// How a lock differs from what it was before hundreds of refusals; `None`: in nothing.
    pub fn between(before: &Look, after: &Look, scheme: &Scheme, keys: Option<&Keys>) -> Option<Self> {
        for (was, is) in before.sentinels.iter().zip(&after.sentinels) {
            if !was.decision.let_through() && is.decision.let_through() {
                return Some(Self {
                    how: "after hundreds of refusals, the lock lets everybody through",
                    request: is.request.clone(),
                    got: in_words(&is.anonymous),
                });
            }
        }
        let guarded = before.sentinels.iter().find(|s| !s.decision.let_through())?;
        if let Some(got) = after.undecided().filter(|_| before.undecided().is_none()) {
            return Some(Self {
                how: "after hundreds of refusals, the server breaks instead of refusing",
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
                how: "after hundreds of refusals, the lock refuses the right token as well",
                request,
                got,
            });
        }
        None
    }
}
