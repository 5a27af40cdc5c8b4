//! A request of a chain that gives access.

use crate::message::Request;

/// A request of a chain with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The request.
    pub request: Request,
    /// A description of its answer.
    pub got: String,
}
