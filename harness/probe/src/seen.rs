//! The answers to one sentinel.

use crate::{
    decide::Decision,
    message::{Outcome, Request},
};

/// The answers to one sentinel.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The request, without a credential.
    pub request: Request,
    /// The answer without a credential.
    pub anonymous: Outcome,
    /// The answer with the token.
    pub token: Outcome,
    /// The resulting decision.
    pub decision: Decision,
    /// Whether it is rejected until the token was used for the same request, and served afterwards.
    pub after_token: bool,
}
