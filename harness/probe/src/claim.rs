//! Ways for a visitor to obtain access from the server itself. Tries the empty token, which changes nothing.

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

/// A way for visitors to obtain access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// A description in one sentence.
    pub how: String,
    /// The requests, in order, with their answers.
    pub steps: Vec<Step>,
    /// Whether it is the empty token.
    pub empty_token: bool,
}

/// Tries the empty token in every way of presenting a token; this changes nothing.
pub async fn empty_token(client: &Client, scheme: &Scheme, look: &Look) -> Option<Claim> {
    for seen in look.sentinels.iter().filter(|seen| !seen.decision.let_through()) {
        let through = |outcome: &Outcome| match seen.token.as_ref().ok().filter(|a| !is_refusal(a)) {
            Some(reference) => decide(outcome, Some(reference)).let_through(),
            // A page with 200 may be the login page; JSON data is not.
            None => outcome
                .as_ref()
                .is_ok_and(|a| a.status.is_success() && matches!(kind(a), Kind::Object(_) | Kind::Array)),
        };
        for (request, wrong, how) in empty_forms(&seen.request, scheme) {
            let outcome = client.send(&request).await;
            // If any token is accepted, the empty one is not special.
            if through(&outcome) && !through(&client.send(&wrong).await) {
                let got = in_words(&outcome);
                return Some(Claim { how, steps: vec![Step { request, got }], empty_token: true });
            }
        }
    }
    None
}

/// The sentinel with an empty token, with a wrong one, and a description of the first.
fn empty_forms(plain: &Request, scheme: &Scheme) -> Vec<(Request, Request, String)> {
    let mut forms = Vec::new();
    for how in &scheme.present {
        match how {
            Presentation::Query { query } => {
                let empty = plain.clone().query(query, "");
                let words = format!("an empty `?{query}=` is accepted as the token");
                forms.push((empty, plain.clone().query(query, WRONG), words));
            }
            Presentation::Header { header, value } => {
                let words = format!("an `{header}` header without a token is accepted");
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
