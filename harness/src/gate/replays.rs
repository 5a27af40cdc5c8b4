//! Workflows and notebooks in the gate: run in the installed state and after every event, with the
//! same token, and compared with their first outputs.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use super::diagnose::Scene;
use crate::{
    notebook::Runner,
    piece::{Notebooks, Piece, Place, Reference, Replayed},
};
use lockproof_model::{
    error::{ErrorKind, Result},
    event::Event,
    finding::{Finding, Rule},
    report::{ReplayOutcome, ReplayReport},
    scheme::Scheme,
};
use lockproof_probe::{client::Client, keys::Keys};
use lockproof_replay::{Ending, Options, Outcome, run::Progress, server::Server};

/// The replays of one subject, with their outputs in the installed state.
#[derive(Debug, Default)]
pub struct Replays {
    pieces: Vec<Piece>,
    first: Mutex<BTreeMap<PathBuf, Option<Reference>>>,
    /// The directory for difference pictures.
    keep: Option<PathBuf>,
}

/// The results of all replays after one event.
#[derive(Debug, Default)]
pub struct All {
    /// One entry for each replay.
    pub reports: Vec<ReplayReport>,
    /// The findings.
    pub findings: Vec<Finding>,
}

/// A server, its login scheme and the token of record.
#[derive(Clone, Copy)]
pub struct Behind<'a> {
    /// The server.
    pub client: &'a Client,
    /// The login scheme.
    pub scheme: &'a Scheme,
    /// The token of record.
    pub keys: &'a Keys,
    /// Runs the notebooks.
    pub runner: &'a Runner,
    /// Whether the token works or nothing is locked; otherwise a failure is covered by the verdict.
    pub lets_in: bool,
}

impl Replays {
    /// Reads the files.
    ///
    /// # Errors
    /// A usage error for a file that is not a workflow or notebook.
    pub fn read(paths: &[PathBuf], keep: Option<PathBuf>) -> Result<Self> {
        let pieces =
            paths.iter().map(|path| Piece::read(path).map_err(|e| e.or_at("replays"))).collect::<Result<_>>()?;
        Ok(Self { pieces, first: Mutex::default(), keep })
    }

    /// Runs all replays.
    ///
    /// # Errors
    /// An environment error if a replay failed for a reason outside the server.
    pub async fn run(&self, scene: Scene<'_>, behind: Behind<'_>, step: &(dyn Fn(&str) + Sync)) -> Result<All> {
        let mut all = All::default();
        let server = Server::new(behind.client, behind.scheme, Some(behind.keys.token()));
        let notebooks = Notebooks {
            runner: behind.runner.clone(),
            token: Some(behind.keys.token().to_owned()),
            ca: None,
            insecure: false,
            env: BTreeMap::new(),
            parameters: serde_json::Map::new(),
            progress: None,
        };
        let place = Place { subject: scene.subject, event: scene.event, server: &server, notebooks: Some(&notebooks) };
        for piece in &self.pieces {
            step(&format!("replaying {}", piece.name()));
            let replayed = self.one(piece, &place, step).await?;
            all.findings.extend(replayed.findings.into_iter().filter(|finding| behind.lets_in && tells(finding)));
            all.reports.push(report(scene.event, &replayed.outcome));
        }
        Ok(all)
    }

    async fn one(&self, piece: &Piece, place: &Place<'_>, step: &(dyn Fn(&str) + Sync)) -> Result<Replayed> {
        let installed = place.event == Event::Installed;
        let known = self.first.lock().unwrap_or_else(PoisonError::into_inner).get(piece.path()).cloned();
        let reference = match known.filter(|_| !installed) {
            Some(None) => return Ok(skipped(piece, "it already failed in the installed state")),
            Some(reference) => reference,
            None => None,
        };
        let keep = self.keep.as_ref().map(|keep| keep.join(place.subject).join(place.event.name()));
        let keep = keep.map(|keep| piece.kept_below(&keep, &self.pieces));
        let options = Options { keep, ..Options::default() };
        let told = Steps { name: &piece.name(), step };
        let replayed = match piece.replay(place, &options, reference, &told).await {
            Ok(replayed) => replayed,
            // This says nothing about the lock or the server behind it.
            Err(e) if e.kind() != ErrorKind::Usage => return Ok(skipped(piece, &e.one_line())),
            Err(e) => return Err(e),
        };
        if installed && replayed.outcome.ending != Ending::Skipped {
            let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
            first.insert(piece.path().to_owned(), replayed.reference.clone());
        }
        Ok(replayed)
    }
}

/// Whether a finding is about the notebook itself: it is the same after each event, and reported
/// once.
fn tells(finding: &Finding) -> bool {
    finding.event == Some(Event::Installed)
        || matches!(finding.rule, Rule::ReplayChanged | Rule::ReplayFailed | Rule::ReplayTokenUnused)
}

fn skipped(piece: &Piece, why: &str) -> Replayed {
    Replayed { outcome: Outcome::skipped(piece.name(), why), findings: Vec::new(), reference: None }
}

/// Reports the nodes as steps of the subject.
struct Steps<'a> {
    name: &'a str,
    step: &'a (dyn Fn(&str) + Sync),
}

impl Progress for Steps<'_> {
    fn waiting(&self, behind: usize) {
        (self.step)(&format!("replaying {}: waiting in the queue ({behind} ahead)", self.name));
    }

    fn node(&self, node: &str, done: usize, all: usize, _: f64) {
        (self.step)(&format!("replaying {}: {node} ({done} of {all})", self.name));
    }
}

/// The entry of the report.
pub fn report(event: Event, outcome: &Outcome) -> ReplayReport {
    let how = match outcome.ending {
        Ending::Same | Ending::Ran | Ending::Stored => ReplayOutcome::Same,
        Ending::Changed => ReplayOutcome::Changed,
        Ending::Failed => ReplayOutcome::Failed,
        Ending::Skipped => ReplayOutcome::Skipped,
    };
    ReplayReport { name: outcome.name.clone(), event, outcome: how, why: outcome.why.clone() }
}
