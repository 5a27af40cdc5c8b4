//! Handles brute-force protection: a lock may block an address or a form after a few failed attempts.
//! Waits up to a limit; after that, the remaining attempts stay undecided.

use std::time::Duration;

use serde_json::Value;

use crate::{
    client::Client,
    message::{Answer, Outcome, Request},
};

/// The first pause if the lock gives no duration; doubled each time.
const PAUSE: Duration = Duration::from_secs(5);
/// Added to the lock's own duration, which is rounded to seconds.
const GRACE: Duration = Duration::from_millis(1100);
/// The maximum length of a rejection, in bytes. A long page may contain such words by chance.
const LONGEST: usize = 4096;

/// Sends attempts, and waits when the lock requires it.
#[derive(Debug)]
pub(super) struct Brake {
    left: Duration,
    blocks: u32,
    silent: u64,
    given_up: Option<String>,
}

impl Brake {
    /// A brake with a total waiting limit.
    pub(super) fn new(patience: Duration) -> Self {
        Self { left: patience, blocks: 0, silent: 0, given_up: None }
    }

    /// Whether the lock has blocked any attempt.
    pub(super) fn has_blocked(&self) -> bool {
        self.blocks > 0
    }

    /// The number of attempts without an answer.
    pub(super) fn silent(&self) -> u64 {
        self.silent
    }

    /// The reason if not everything could be tried.
    pub(super) fn given_up(&self) -> Option<&str> {
        self.given_up.as_deref()
    }

    /// Sends a request, and repeats it after the lock's pauses; `None` if that takes too long.
    pub(super) async fn send(&mut self, client: &Client, request: &Request) -> Option<Outcome> {
        let mut unsaid = PAUSE;
        while self.given_up.is_none() {
            let outcome = client.send(request).await;
            let Ok(answer) = &outcome else {
                // Once more: only a server that stays silent leaves it open.
                let again = client.send(request).await;
                self.silent += u64::from(again.is_err());
                return Some(again);
            };
            let Some(asked) = pause(answer) else { return Some(outcome) };
            self.blocks += 1;
            let wait = asked.map_or(unsaid, |asked| asked + GRACE);
            unsaid *= 2;
            if wait > self.left {
                self.given_up = Some(format!(
                    "the lock blocks further attempts at {} for {} s, longer than lockproof waits",
                    request.path(),
                    wait.as_secs()
                ));
                return None;
            }
            self.left -= wait;
            tokio::time::sleep(wait).await;
        }
        None
    }
}

/// Whether an answer means that the client is blocked, with the duration if given.
pub(super) fn pause(answer: &Answer) -> Option<Option<Duration>> {
    let status = answer.status.as_u16();
    let text = || String::from_utf8_lossy(&answer.body).to_lowercase();
    let says_so = || {
        let words = [
            "too many",
            "try again in",
            "try again later",
            "please wait",
            "temporarily locked",
            "temporarily blocked",
            "remaining_seconds",
            "retry_after",
            "rate limit",
            "account locked",
            "locked out",
            "ip blocked",
        ];
        answer.body.len() <= LONGEST && { words.iter().any(|word| text().contains(word)) }
    };
    let blocks = match status {
        429 => true,
        403 | 503 if answer.retry_after().is_some() => true,
        400..=499 => says_so(),
        _ => false,
    };
    blocks.then(|| answer.retry_after().or_else(|| in_json(answer)).or_else(|| in_words(&text())))
}

/// The duration in a JSON body.
fn in_json(answer: &Answer) -> Option<Duration> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    let names = ["remaining_seconds", "retry_after", "retryAfter", "retry_in", "wait", "seconds", "timeout"];
    let seconds = names.iter().find_map(|name| body.get(name)?.as_f64())?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// The duration in a sentence.
fn in_words(text: &str) -> Option<Duration> {
    let words: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let mut seconds = 0_u64;
    for pair in words.windows(2) {
        let Ok(number) = pair[0].parse::<u64>() else { continue };
        let unit = match pair[1] {
            word if word.starts_with("sec") || word == "s" => 1,
            word if word.starts_with("min") => 60,
            word if word.starts_with("hour") => 3600,
            _ => continue,
        };
        seconds = seconds.saturating_add(number.saturating_mul(unit));
    }
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stand_in::{Reply, StandIn};

    #[test]
    fn a_block_is_told_from_a_refusal() {
        let of = |reply: Reply| pause(&reply.answer());
        let seconds = |n| Some(Some(Duration::from_secs(n)));
        // comfyui-sentinel, after three wrong logins.
        let text = r#"{"error":"Too many failed attempts. Please wait 58 seconds","failed_attempts":3,"remaining_seconds":58}"#;
        assert_eq!(of(Reply::json(403, text)), seconds(58));
        assert_eq!(of(Reply::html(429, "").header("retry-after", "2")), seconds(2));
        assert_eq!(of(Reply::html(403, "Locked out: try again in 1 minute and 30 seconds.")), seconds(90));
        assert_eq!(of(Reply::html(429, "")), Some(None));
        assert_eq!(of(Reply::json(401, r#"{"error":"Invalid username or password"}"#)), None);
        assert_eq!(of(Reply::html(200, "Please wait while the page loads")), None);
        assert_eq!(of(Reply::html(403, "Forbidden")), None);
    }

    #[tokio::test]
    async fn a_pause_is_waited_for_within_the_bound() {
        use std::sync::atomic::{AtomicU32, Ordering};
        let asked = AtomicU32::new(0);
        let server = StandIn::start(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
            0 => Reply::html(429, "").header("retry-after", "0"),
            1 => Reply::html(401, ""),
            _ => Reply::html(429, "").header("retry-after", "3600"),
        })
        .await;
        let mut brake = Brake::new(Duration::from_secs(3));
        let request = Request::get("/login");
        let answer = brake.send(&server.client, &request).await;
        assert!(answer.is_some_and(|a| a.is_ok_and(|a| a.status == 401)) && brake.has_blocked());
        assert!(brake.send(&server.client, &request).await.is_none());
        assert!(brake.given_up().is_some_and(|why| why.contains("3601 s")), "{:?}", brake.given_up());
    }
}
