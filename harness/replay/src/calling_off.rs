//! Calling off what a server runs for us: after a time-out, and when a person interrupts.

use std::{sync::PoisonError, time::Duration};

use serde_json::json;

use super::server::{Server, Trouble, UnderWay, holds};
use lockproof_probe::message::Request;

/// How long the server may take to be told.
const LONGEST: Duration = Duration::from_secs(5);
/// The pause until it is looked for again.
const AGAIN: Duration = Duration::from_millis(200);

/// What came of calling off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CalledOff {
    /// Nothing was under way.
    Nothing,
    /// It is out of the queue, interrupted, or was over before.
    Done,
    /// The server did not answer in time, or does not know it yet.
    Untold,
}

impl CalledOff {
    /// The outcome that nobody can be sure of, in words.
    pub const UNTOLD: &str = "the server could not be told: its run may go on";
}

impl Server {
    /// A prompt is sent, under an id of our own.
    pub(super) fn begin(&self, prompt: &str) {
        self.set(Some(UnderWay { prompt: prompt.to_owned(), accepted: false }));
    }

    /// The server has it, under this id.
    pub(super) fn accepted(&self, prompt: &str) {
        self.set(Some(UnderWay { prompt: prompt.to_owned(), accepted: true }));
    }

    /// It is over, or was refused.
    pub(super) fn end(&self) {
        self.set(None);
    }

    fn set(&self, under_way: Option<UnderWay>) {
        *self.under_way.lock().unwrap_or_else(PoisonError::into_inner) = under_way;
    }

    /// Calls off the prompt that is under way: out of the queue when it waits there, interrupted when
    /// it runs. A server that hangs is waited for a few seconds.
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
                tracing::debug!("not called off: {why}");
                CalledOff::Untold
            }
            Err(_) => CalledOff::Untold,
        }
    }

    /// Stops the prompt where it is found; gives whether there is nothing more to do.
    async fn stop(&self, under_way: &mut UnderWay) -> Result<bool, Trouble> {
        let prompt = under_way.prompt.as_str();
        let queue = self.json(Request::get("/queue")).await?;
        if holds(&queue["queue_pending"], prompt) {
            let delete = json!({ "delete": [prompt] }).to_string();
            self.ask(Request::post_json("/queue", &delete)).await?;
            // It may have begun in between, so the queue is looked at again.
            under_way.accepted = true;
            return Ok(false);
        }
        // An older server interrupts whatever runs, so it must be ours.
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
