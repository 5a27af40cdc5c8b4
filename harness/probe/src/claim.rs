//! How a visitor obtains access from the server itself; and the empty token, which changes nothing.

use super::{
    client::Client,
    decide::{Kind, decide, kind},
    look::{Look, is_refusal},
    message::{Outcome, Request, in_words},
};
use crate::{
    step::Step,
    surface::corpus::credentials::{WRONG, empty_values},
};
use lockproof_model::scheme::{Presentation, Scheme};

/// How a visitor gets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// In one sentence.
    pub how: String,
    /// The requests that do it, in their order, and what each got.
    pub steps: Vec<Step>,
    /// Whether it was the empty token.
    pub empty_token: bool,
}

/// Tries the empty token, in every way in which a token is shown; it changes nothing.
pub async fn empty_token(client: &Client, scheme: &Scheme, look: &Look) -> Option<Claim> {
    for seen in look.sentinels.iter().filter(|seen| !seen.decision.let_through()) {
        let through = |outcome: &Outcome| match seen.token.as_ref().ok().filter(|a| !is_refusal(a)) {
            Some(reference) => decide(outcome, Some(reference)).let_through(),
            // A page with 200 may be the login page; data is data.
            None => outcome
                .as_ref()
                .is_ok_and(|a| a.status.is_success() && matches!(kind(a), Kind::Object(_) | Kind::Array)),
        };
        for (request, wrong, how) in empty_forms(&seen.request, scheme) {
            let outcome = client.send(&request).await;
            // Where any token will do, it is not the empty one that is taken for the token.
            if through(&outcome) && !through(&client.send(&wrong).await) {
                let got = in_words(&outcome);
                return Some(Claim { how, steps: vec![Step { request, got }], empty_token: true });
            }
        }
    }
    None
}

/// The sentinel with an empty token, the same with a wrong one, and the first in words.
fn empty_forms(plain: &Request, scheme: &Scheme) -> Vec<(Request, Request, String)> {
    let mut forms = Vec::new();
    for how in &scheme.present {
        match how {
            Presentation::Query { query } => {
                let empty = plain.clone().query(query, "");
                let words = format!("an empty `?{query}=` is taken for the token");
                forms.push((empty, plain.clone().query(query, WRONG), words));
            }
            Presentation::Header { header, value } => {
                let words = format!("an `{header}` header without a token is taken for one with it");
                let wrong = plain.clone().header(header, crate::keys::filled(value, WRONG));
                forms.extend(
                    empty_values(value)
                        .into_iter()
                        .map(|empty| (plain.clone().header(header, empty), wrong.clone(), words.clone())),
                );
            }
        }
    }
    forms
}
