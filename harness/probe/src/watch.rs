//! The exposure watch: sends the sentinels anonymously, over and over, during an event.
//!
//! A sample only counts if the same container, with the same start time, was running before and
//! after it: ports change at every start, and addresses are reused.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    client::Client,
    decide::{Decision, decide},
    look::Look,
    message::{Answer, Request, in_words},
};
use lockproof_model::error::Result;

/// The pause between samples while the server answers.
const PAUSE: Duration = Duration::from_millis(5);
/// The pause while there is no answer.
const CLOSED: Duration = Duration::from_millis(10);
/// The pause while there is no process.
const DOWN: Duration = Duration::from_millis(30);
/// How long the inspected state of a container is reused while there is no answer. An inspection
/// takes processor time from the starting server.
const FRESH: Duration = Duration::from_millis(150);
/// Samples between two inspections of the container.
const BATCH: usize = 8;
/// The time limit of one sample.
const PATIENCE: Duration = Duration::from_secs(2);

/// A sentinel that was rejected at `installed`, with the token's answer.
#[derive(Clone, Debug)]
pub struct Guarded {
    /// The request.
    pub request: Request,
    /// The answer if it is served.
    pub reference: Option<Answer>,
}

/// The sentinels that a look found rejected.
pub fn guarded(installed: &Look) -> Vec<Guarded> {
    let mut found: Vec<Guarded> = installed
        .sentinels
        .iter()
        .filter(|s| s.decision == Decision::Rejected)
        .map(|s| Guarded { request: s.request.clone(), reference: s.token.clone().ok() })
        .collect();
    // The description of every node is slow on a real server, and the other sentinels are enough.
    if found.len() > 1 {
        found.retain(|g| g.request.path() != "/object_info");
    }
    found
}

/// The result of a watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exposure {
    /// The total time for which the API was public.
    pub total: Duration,
    /// The first public answer.
    pub first: Option<String>,
    /// The number of samples with an answer.
    pub samples: u64,
    /// Whether a public answer came from a container that was locked later.
    pub served: u64,
}

/// A run of the watched server: a process of a container, with its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Identifies this process of this container.
    pub identity: (String, String),
    /// The address of its server; `None` while unknown.
    pub address: Option<SocketAddr>,
}

impl Life {
    /// Whether `other` is the same process of the same container.
    fn is_same(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

/// The runner of the watched container, which knows the current process.
pub trait Host: Send + Sync + 'static {
    /// The current run of that container; `None` if there is none.
    ///
    /// # Errors
    /// If it is unknown: the engine did not answer.
    fn life(&self, container: &str) -> impl Future<Output = Result<Option<Life>>> + Send;
}

/// A running watch.
#[derive(Debug)]
pub struct Watch {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<Exposure>>,
}

impl Watch {
    /// Starts watching the container that `container` follows.
    pub fn begin(host: impl Host, container: watch::Receiver<String>, guarded: Vec<Guarded>) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(host, container, guarded, stop.clone()));
        Self { stop, task }
    }

    /// Ends the watch and returns its result; `None` if it failed, or could not watch all the time.
    pub async fn end(self) -> Option<Exposure> {
        self.stop.cancel();
        let failed = |why: &dyn std::fmt::Display| tracing::error!("the exposure watch failed: {why}");
        match self.task.await {
            Ok(Ok(exposure)) => return Some(exposure),
            Ok(Err(e)) => failed(&e),
            Err(e) => failed(&e),
        }
        None
    }
}

async fn run(
    host: impl Host,
    container: watch::Receiver<String>,
    guarded: Vec<Guarded>,
    stop: CancellationToken,
) -> Result<Exposure> {
    let mut exposure = Exposure::default();
    if guarded.is_empty() {
        return Ok(exposure);
    }
    let mut client: Option<Client> = None;
    // The end of the last public sample, and the container that gave it.
    let mut public: Option<(Instant, Life)> = None;
    let mut turn = 0;
    let mut before: Option<(String, Instant, Life)> = None;
    while !stop.is_cancelled() {
        let id = container.borrow().clone();
        let (looked, life) = match before.take() {
            Some((of, looked, life)) if of == id && looked.elapsed() < FRESH => (looked, life),
            _ => match host.life(&id).await? {
                Some(life) => (Instant::now(), life),
                None => {
                    public = None;
                    tokio::time::sleep(DOWN).await;
                    continue;
                }
            },
        };
        let Some(address) = life.address else {
            tokio::time::sleep(CLOSED).await;
            continue;
        };
        if client.as_ref().is_none_or(|c| c.address() != Some(address)) {
            client = Some(Client::new(address, PATIENCE));
        }
        let Some(current) = &client else { continue };
        let samples = batch(current, &guarded, &mut turn, &stop).await;
        if public.is_none() && !samples.iter().any(|sample| sample.answered) {
            // Without an answer, it does not matter which container it is.
            before = Some((id, looked, life));
            tokio::time::sleep(CLOSED).await;
            continue;
        }
        let after = match host.life(&id).await? {
            Some(after) if after.is_same(&life) && *container.borrow() == id => after,
            // Another container may have answered, so the batch does not count.
            _ => {
                public = None;
                continue;
            }
        };
        let answered = samples.last().is_some_and(|s| s.answered);
        for sample in samples {
            exposure.samples += u64::from(sample.answered);
            let end = if sample.served.is_some() { sample.ended } else { sample.begun };
            if let Some((since, _)) = public.take_if(|(_, whose)| whose.is_same(&after)) {
                exposure.total += end.saturating_duration_since(since);
            } else if sample.served.is_some() {
                exposure.total += sample.ended - sample.begun;
            }
            if let Some(what) = sample.served {
                exposure.served += 1;
                exposure.first.get_or_insert(what);
                public = Some((sample.ended, after.clone()));
            }
        }
        before = Some((id, Instant::now(), after));
        if !answered {
            tokio::time::sleep(CLOSED).await;
        }
    }
    Ok(exposure)
}

/// One sample.
struct Sample {
    begun: Instant,
    ended: Instant,
    /// Whether there was an answer.
    answered: bool,
    /// What was served.
    served: Option<String>,
}

/// Takes samples until one gets no answer, or the container must be inspected again: an inspection
/// is more expensive than a sample, and would slow down the watched start.
async fn batch(client: &Client, guarded: &[Guarded], turn: &mut usize, stop: &CancellationToken) -> Vec<Sample> {
    let mut samples = Vec::with_capacity(BATCH);
    while samples.len() < BATCH && !stop.is_cancelled() {
        let asked = &guarded[*turn % guarded.len()];
        *turn += 1;
        let begun = Instant::now();
        let outcome = client.send(&asked.request).await;
        let served = decide(&outcome, asked.reference.as_ref())
            .let_through()
            .then(|| format!("{} {}: {}", asked.request.method, asked.request.target, in_words(&outcome)));
        let answered = outcome.is_ok();
        samples.push(Sample { begun, ended: Instant::now(), answered, served });
        if !answered {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockproof_model::error::Error;

    #[tokio::test]
    async fn a_watch_that_broke_is_not_one_that_saw_nothing() {
        let watch = |task| Watch { stop: CancellationToken::new(), task };
        assert_eq!(watch(tokio::spawn(async { panic!("sabotaged") })).end().await, None);
        let exposure = Exposure::default();
        assert_eq!(watch(tokio::spawn(async { Ok(Exposure::default()) })).end().await, Some(exposure));
    }

    /// An engine that does not say whether the container runs.
    struct Mute;

    impl Host for Mute {
        async fn life(&self, _: &str) -> Result<Option<Life>> {
            Err(Error::environment("the engine does not answer"))
        }
    }

    #[tokio::test]
    async fn a_watch_that_could_not_look_is_not_one_that_saw_nothing() {
        let (_container, follow) = watch::channel("a".to_owned());
        let guarded = Guarded { request: Request::get("/queue"), reference: None };
        let watch = Watch::begin(Mute, follow, vec![guarded]);
        while !watch.task.is_finished() {
            tokio::task::yield_now().await;
        }
        assert_eq!(watch.end().await, None);
    }
}
