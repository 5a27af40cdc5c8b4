//! The input of a visit.

use std::time::Duration;

use crate::{client::Client, keys::Keys, look::Look, surface::routes::Route};
use lockproof_model::scheme::Scheme;

/// The server, and the known facts about its lock.
#[derive(Clone, Copy, Debug)]
pub struct Visitor<'a> {
    pub(super) client: &'a Client,
    pub(super) scheme: &'a Scheme,
    pub(super) keys: Option<&'a Keys>,
    pub(super) routes: &'a [Route],
    pub(super) look: &'a Look,
    pub(super) patience: Duration,
}
