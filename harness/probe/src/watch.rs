//! The exposure watch: it asks the sentinels anonymously, over and over, while an event happens.
//!
//! A sample counts only when the same container, with the same start time, was there before and
//! after it: ports are mapped anew at every start, and addresses are used again by others.

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

/// The pause between samples while the server answers.
const PAUSE: Duration = Duration::from_millis(5);
/// The pause while nothing answers.
const CLOSED: Duration = Duration::from_millis(10);
/// The pause while there is no process.
const DOWN: Duration = Duration::from_millis(30);
/// For how long a look at the container is good while nothing answers. A look costs the engine
/// milliseconds of the processor on which the watched server starts.
const FRESH: Duration = Duration::from_millis(150);
/// Samples between two looks at the container.
const BATCH: usize = 8;
/// How long one sample may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// A sentinel that was rejected at `installed`, and what the token gets for it.
#[derive(Clone, Debug)]
pub struct Guarded {
    /// The request.
    pub request: Request,
    /// What being let through looks like.
    pub reference: Option<Answer>,
}

/// The sentinels that a look saw rejected.
pub fn guarded(installed: &Look) -> Vec<Guarded> {
    let mut found: Vec<Guarded> = installed
        .sentinels
        .iter()
        .filter(|s| s.decision == Decision::Rejected)
        .map(|s| Guarded { request: s.request.clone(), reference: s.token.clone().ok() })
        .collect();
    // Building the description of every node takes a real server long, and the others say as much.
    if found.len() > 1 {
        found.retain(|g| g.request.path() != "/object_info");
    }
    found
}

/// What a watch saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exposure {
    /// How long the API was public.
    pub total: Duration,
    /// The first public answer, in words.
    pub first: Option<String>,
    /// How many samples were taken of a server that answered.
    pub samples: u64,
    /// Whether a public answer came from a container that then was locked again.
    pub served: u64,
}

/// A life of the watched server: a process of a container, and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// What tells this process of this container from every other one.
    pub identity: (String, String),
    /// Where its server is reached; `None` while that is not known.
    pub address: Option<SocketAddr>,
}

impl Life {
    /// Whether `other` is the same process of the same container.
    fn is_same(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

/// Whoever runs the watched container, and so knows which of its lives is going on.
pub trait Host: Send + Sync + 'static {
    /// The life of that container that is going on; `None` when there is none, or nobody can say.
    fn life(&self, container: &str) -> impl Future<Output = Option<Life>> + Send;
}

/// A watch that is under way.
#[derive(Debug)]
pub struct Watch {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Exposure>,
}

impl Watch {
    /// Begins to watch the container that `container` follows.
    pub fn begin(host: impl Host, container: watch::Receiver<String>, guarded: Vec<Guarded>) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(host, container, guarded, stop.clone()));
        Self { stop, task }
    }

    /// Ends the watch, and tells what it saw; `None` when it broke, which is not the same as nothing.
    pub async fn end(self) -> Option<Exposure> {
        self.stop.cancel();
        self.task.await.inspect_err(|e| tracing::error!("the exposure watch broke: {e}")).ok()
    }
}

async fn run(
    host: impl Host,
    container: watch::Receiver<String>,
    guarded: Vec<Guarded>,
    stop: CancellationToken,
) -> Exposure {
    let mut exposure = Exposure::default();
    if guarded.is_empty() {
        return exposure;
    }
    let mut client: Option<Client> = None;
    // The end of the last public sample, and the life that gave it.
    let mut public: Option<(Instant, Life)> = None;
    let mut turn = 0;
    let mut before: Option<(String, Instant, Life)> = None;
    while !stop.is_cancelled() {
        let id = container.borrow().clone();
        let (looked, life) = match before.take() {
            Some((of, looked, life)) if of == id && looked.elapsed() < FRESH => (looked, life),
            _ => match host.life(&id).await {
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
            // Silence is nobody's: whose it is need not be asked.
            before = Some((id, looked, life));
            tokio::time::sleep(CLOSED).await;
            continue;
        }
        let after = match host.life(&id).await {
            Some(after) if after.is_same(&life) && *container.borrow() == id => after,
            // Somebody else may have answered: the batch says nothing.
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
    exposure
}

/// One sample.
struct Sample {
    begun: Instant,
    ended: Instant,
    /// Whether there was an answer at all.
    answered: bool,
    /// What was served, in words.
    served: Option<String>,
}

/// Takes samples until one gets no answer, or there are enough to look at the container again:
/// asking the engine costs it more than asking the server, and would slow the start that is watched.
async fn batch(client: &Client, guarded: &[Guarded], turn: &mut usize, stop: &CancellationToken) -> Vec<Sample> {
    let mut samples = Vec::with_capacity(BATCH);
    while samples.len() < BATCH && !stop.is_cancelled() {
        let asked = &guarded[*turn % guarded.len()];
        *turn += 1;
        let begun = Instant::now();
        let outcome = client.send(&asked.request).await;
        let served = decide(&outcome, asked.reference.as_ref())
            .let_through()
            .then(|| format!("{} {} got {}", asked.request.method, asked.request.target, in_words(&outcome)));
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

    #[tokio::test]
    async fn a_watch_that_broke_is_not_one_that_saw_nothing() {
        let watch = |task| Watch { stop: CancellationToken::new(), task };
        assert_eq!(watch(tokio::spawn(async { panic!("sabotaged") })).end().await, None);
        assert_eq!(watch(tokio::spawn(async { Exposure::default() })).end().await, Some(Exposure::default()));
    }
}
