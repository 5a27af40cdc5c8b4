//! The input of a visit.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{
    client::Client,
    keys::Keys,
    look::{Look, is_throttled, when_asked},
    message::{Answer, Request},
    surface::routes::Route,
};
use lockproof_model::scheme::Scheme;

/// The server, and the known facts about its lock.
#[derive(Debug)]
pub struct Visitor<'a> {
    pub(super) client: &'a Client,
    pub(super) scheme: &'a Scheme,
    pub(super) keys: Option<&'a Keys>,
    pub(super) routes: &'a [Route],
    pub(super) look: &'a Look,
    pub(super) patience: Duration,
    /// The number of requests without an answer: what they would have given is unknown.
    pub(super) silent: AtomicU64,
}

impl Visitor<'_> {
    /// Sends a request that is not an attempt to log in; counts it if there is no answer.
    pub(super) async fn ask(&self, request: &Request) -> Option<Answer> {
        match when_asked(self.client, request).await {
            Ok(answer) if !is_throttled(&answer) => Some(answer),
            _ => {
                self.silent.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}
