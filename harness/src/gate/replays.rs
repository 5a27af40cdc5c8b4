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
    error::{Error, ErrorKind, Result},
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
    /// Why the first of those that could not be tried was not: nothing is known of it.
    pub error: Option<Error>,
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

impl All {
    /// Notes the error of a piece that could not be tried. It says nothing about the lock, and the other
    /// pieces are replayed all the same.
    fn tried(&mut self, piece: &Piece, replayed: Result<Replayed>) -> Result<Replayed> {
        replayed.or_else(|error| match error.kind() {
            ErrorKind::Environment | ErrorKind::Undecided => {
                let why = format!("it could not run: {}", error.one_line());
                self.error.get_or_insert(error.or_at(piece.name()));
                Ok(skipped(piece, &why))
            }
            ErrorKind::Usage | ErrorKind::Interrupted | ErrorKind::Terminated => Err(error),
        })
    }
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
    /// A usage error. Any other error of one piece is in [`All::error`].
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
            let replayed = all.tried(piece, self.one(piece, &place, step).await)?;
            all.findings.extend(replayed.findings.into_iter().filter(|finding| behind.lets_in && tells(finding)));
            all.reports.push(report(scene.event, &replayed.outcome));
        }
        Ok(all)
    }

    async fn one(&self, piece: &Piece, place: &Place<'_>, step: &(dyn Fn(&str) + Sync)) -> Result<Replayed> {
        let installed = place.event == Event::Installed;
        let known = self.first.lock().unwrap_or_else(PoisonError::into_inner).get(piece.path()).cloned();
        let known = known.filter(|_| !installed);
        let ran_before = matches!(known, Some(Some(_)));
        let reference = match known {
            Some(None) => return Ok(skipped(piece, "it already failed in the installed state")),
            Some(reference) => reference,
            None => None,
        };
        let keep = self.keep.as_ref().map(|keep| keep.join(place.subject).join(place.event.name()));
        let keep = keep.map(|keep| piece.kept_below(&keep, &self.pieces));
        let options = Options { keep, ..Options::default() };
        let told = Steps { name: &piece.name(), step };
        let mut replayed = piece.replay(place, &options, reference, &told).await?;
        if ran_before {
            settle(place, &mut replayed);
        }
        if installed && replayed.outcome.ending != Ending::Skipped {
            let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
            first.insert(piece.path().to_owned(), replayed.reference.clone());
        }
        Ok(replayed)
    }
}

/// A piece that ran in the installed state and is skipped now has lost what it needs: that is a failure.
fn settle(place: &Place<'_>, replayed: &mut Replayed) {
    let outcome = &mut replayed.outcome;
    if outcome.ending != Ending::Skipped {
        return;
    }
    outcome.ending = Ending::Failed;
    let message = format!("{} ran in the installed state, but can no longer run", outcome.name);
    let finding = Finding::new(Rule::ReplayFailed, place.subject, Some(place.event), message);
    replayed.findings.push(outcome.why.iter().cloned().fold(finding, Finding::evidence));
}

/// What a notebook says is the same after each event, and told once.
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

/// The line of the report.
///
/// | ending | outcome |
/// |---|---|
/// | the same as before, or as what is stored; or just stored | `same` |
/// | another | `changed` |
/// | not run to its end, or no longer possible | `failed` |
/// | run, with nothing to compare with | `skipped`: nothing was shown |
/// | not run | `skipped` |
pub fn report(event: Event, outcome: &Outcome) -> ReplayReport {
    let (how, why) = match outcome.ending {
        Ending::Same | Ending::Stored => (ReplayOutcome::Same, outcome.why.clone()),
        Ending::Changed => (ReplayOutcome::Changed, outcome.why.clone()),
        Ending::Failed => (ReplayOutcome::Failed, outcome.why.clone()),
        Ending::Skipped => (ReplayOutcome::Skipped, outcome.why.clone()),
        Ending::Ran => {
            let nothing = outcome.why.as_deref().unwrap_or("there is nothing to compare with");
            (ReplayOutcome::Skipped, Some(format!("it ran, and {nothing}")))
        }
    };
    ReplayReport { name: outcome.name.clone(), event, outcome: how, why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::TcpListener, path::Path, time::Duration};

    use rstest::rstest;

    fn ended(ending: Ending, why: Option<&str>) -> Outcome {
        Outcome { ending, why: why.map(str::to_owned), ..Outcome::skipped("a.json".to_owned(), "") }
    }

    #[rstest]
    #[case(Ending::Same, ReplayOutcome::Same)]
    #[case(Ending::Changed, ReplayOutcome::Changed)]
    #[case(Ending::Failed, ReplayOutcome::Failed)]
    #[case(Ending::Skipped, ReplayOutcome::Skipped)]
    #[case(Ending::Ran, ReplayOutcome::Skipped)]
    #[case(Ending::Stored, ReplayOutcome::Same)]
    fn only_what_was_compared_is_the_same(#[case] ending: Ending, #[case] expected: ReplayOutcome) {
        assert_eq!(report(Event::Restart, &ended(ending, Some("why"))).outcome, expected);
    }

    #[test]
    fn a_run_with_nothing_to_compare_with_says_so() {
        let ran = report(Event::Installed, &ended(Ending::Ran, Some("there is nothing to compare with: x")));
        assert_eq!(ran.why.as_deref(), Some("it ran, and there is nothing to compare with: x"));
    }

    /// A server that refuses connections: what is asked of it is never answered.
    fn nowhere() -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        Client::new(address, Duration::from_secs(1))
    }

    #[test]
    fn a_piece_that_has_lost_what_it_needs_has_failed() {
        let scheme = Scheme::find(Scheme::DEFAULT, Path::new("")).expect("built in");
        let server = Server::new(&nowhere(), &scheme, None);
        let place = Place { subject: "a", event: Event::DownUp, server: &server, notebooks: None };
        let piece = |ending| Replayed {
            outcome: ended(ending, Some("the server lacks the model x")),
            findings: Vec::new(),
            reference: None,
        };
        let mut lost = piece(Ending::Skipped);
        settle(&place, &mut lost);
        assert_eq!((lost.outcome.ending, lost.findings.len()), (Ending::Failed, 1));
        assert_eq!(lost.findings[0].rule, Rule::ReplayFailed);
        assert_eq!(lost.findings[0].evidence, ["the server lacks the model x"]);
        let mut same = piece(Ending::Same);
        settle(&place, &mut same);
        assert_eq!((same.outcome.ending, same.findings.len()), (Ending::Same, 0));
    }

    #[test]
    fn a_piece_that_cannot_be_tried_is_an_error_and_not_only_skipped() {
        let piece = Piece::Notebook("b.ipynb".into());
        let mut all = All::default();
        let broken = || Err(Error::environment("the runner's image cannot be had"));
        let replayed = all.tried(&piece, broken()).expect("the others go on");
        assert_eq!(replayed.outcome.ending, Ending::Skipped);
        assert!(replayed.outcome.why.is_some_and(|why| why.starts_with("it could not run: ")));
        all.tried(&piece, Err(Error::undecided("later"))).expect("the others go on");
        let error = all.error.take().expect("it is kept");
        assert_eq!(error.kind(), ErrorKind::Environment, "the first one");
        assert!(error.to_string().contains("b.ipynb"), "{error}");
        all.tried(&piece, Err(Error::usage("wrong"))).expect_err("a mistake of the configuration ends it");
    }
}
