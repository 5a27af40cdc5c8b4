//! Cancels a run on the server, after a time-out or an interrupt.

use std::{sync::PoisonError, time::Duration};

use serde_json::json;

use super::server::{Server, Trouble, UnderWay, holds};
use lockproof_probe::message::Request;

/// The time limit for cancelling.
const LONGEST: Duration = Duration::from_secs(5);
/// The pause before the next check.
const AGAIN: Duration = Duration::from_millis(200);

/// The result of cancelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CalledOff {
    /// There was no run.
    Nothing,
    /// It was removed from the queue, interrupted, or already finished.
    Done,
    /// The server did not answer in time, or does not know the prompt yet.
    Untold,
}

impl CalledOff {
    /// The message for an unknown result.
    pub const UNTOLD: &str = "the server did not answer: the run may continue";
}

impl Server {
    /// Records that a prompt is sent, with an id chosen here.
    pub(super) fn begin(&self, prompt: &str) {
        self.set(Some(UnderWay { prompt: prompt.to_owned(), accepted: false }));
    }

    /// Records that the server confirmed it, with this id.
    pub(super) fn accepted(&self, prompt: &str) {
        self.set(Some(UnderWay { prompt: prompt.to_owned(), accepted: true }));
    }

    /// Records that it has finished or was rejected.
    pub(super) fn end(&self) {
        self.set(None);
    }

    fn set(&self, under_way: Option<UnderWay>) {
        *self.under_way.lock().unwrap_or_else(PoisonError::into_inner) = under_way;
    }

    /// Cancels the current prompt: removes it from the queue, or interrupts it. Waits a few seconds
    /// for a hanging server.
    pub async fn call_off(&self) -> CalledOff {
        let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut under_way) = under_way else { return CalledOff::Nothing };
        let told = async {
            while !self.stop(&mut under_way).await? {
                tokio::time::sleep(AGAIN).await;
            }
            Ok::<_, Trouble>(())
        };
        match tokio::time::timeout(LONGEST, told).await {
            Ok(Ok(())) => CalledOff::Done,
            Ok(Err(why)) => {
                tracing::debug!("could not cancel: {why}");
                CalledOff::Untold
            }
            Err(_) => CalledOff::Untold,
        }
    }

    /// Stops the prompt; returns whether nothing more needs to be done.
    async fn stop(&self, under_way: &mut UnderWay) -> Result<bool, Trouble> {
        let prompt = under_way.prompt.as_str();
        let queue = self.json(Request::get("/queue")).await?;
        if holds(&queue["queue_pending"], prompt) {
            let delete = json!({ "delete": [prompt] }).to_string();
            self.ask(Request::post_json("/queue", &delete)).await?;
            // It may have started in between, so check the queue again.
            under_way.accepted = true;
            return Ok(false);
        }
        // An older server interrupts any running prompt, so check that it is this one.
        if holds(&queue["queue_running"], prompt) {
            let which = json!({ "prompt_id": prompt }).to_string();
            self.ask(Request::post_json("/interrupt", &which)).await?;
            return Ok(true);
        }
        if under_way.accepted {
            return Ok(true);
        }
        let history = self.json(Request::get(format!("/history/{prompt}"))).await?;
        Ok(history.get(prompt).is_some())
    }
}
