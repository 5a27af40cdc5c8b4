//! One request of a chain that gives access.

use crate::message::Request;

/// One request of a chain and what it got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The request.
    pub request: Request,
    /// What it got, in words.
    pub got: String,
}
