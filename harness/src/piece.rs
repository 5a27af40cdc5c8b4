//! A workflow or a notebook to replay.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Map, Value};

use crate::notebook::{self, CellEnding, Executed, Runner};
use lockproof_model::{
    error::{Error, Result},
    event::Event,
    finding::{Finding, Rule, Severity},
    summary::Summary,
};
use lockproof_replay::{Ending, Options, Outcome, outputs::Item, run::Progress, server::Server, source::Source};

/// A workflow or a notebook.
#[derive(Clone, Debug)]
pub enum Piece {
    /// A workflow.
    Workflow(Box<Source>),
    /// A notebook.
    Notebook(PathBuf),
}

/// Where to replay it.
pub struct Place<'a> {
    /// The subject's name or the server's URL, for findings.
    pub subject: &'a str,
    /// The event after which it is replayed.
    pub event: Event,
    /// The server, for workflows.
    pub server: &'a Server,
    /// How to execute notebooks; `None`: not supported.
    pub notebooks: Option<&'a Notebooks>,
}

/// The settings for executing notebooks.
#[derive(Clone)]
pub struct Notebooks {
    /// What runs the kernel.
    pub runner: Runner,
    /// The token.
    pub token: Option<String>,
    /// CA certificates to trust, in addition to this machine's own.
    pub ca: Option<PathBuf>,
    /// Whether to skip certificate verification.
    pub insecure: bool,
    /// Further environment variables.
    pub env: BTreeMap<String, String>,
    /// Values for the cell tagged `parameters`.
    pub parameters: Map<String, Value>,
    /// Receives the progress.
    pub progress: Option<Arc<dyn notebook::Progress>>,
}

/// The result of an earlier replay to compare with.
#[derive(Clone, Debug)]
pub enum Reference {
    /// A workflow's outputs.
    Items(Vec<Item>),
    /// An executed notebook.
    Executed(Executed),
}

/// The outcome of a replay with its findings.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// What came of it.
    pub outcome: Outcome,
    /// The findings.
    pub findings: Vec<Finding>,
    /// Its result, for the next comparison; `None` if it has none.
    pub reference: Option<Reference>,
}

impl Piece {
    /// Reads a file.
    ///
    /// # Errors
    /// A usage error if it is neither.
    pub fn read(path: &Path) -> Result<Self> {
        if path.extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("ipynb")) {
            if !path.is_file() {
                return Err(Error::usage(format!("{} does not exist", path.display()))
                    .fix("use the path of a workflow or a notebook"));
            }
            notebook::check(path)?;
            return Ok(Self::Notebook(path.to_owned()));
        }
        Ok(Self::Workflow(Box::new(Source::read(path)?)))
    }

    /// Its name in reports.
    pub fn name(&self) -> String {
        self.path().file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    /// Its directory below `keep`, separate from that of another replay with the same name.
    pub fn kept_below(&self, keep: &Path, all: &[Self]) -> PathBuf {
        let namesakes: Vec<&Path> = all.iter().filter(|o| o.name() == self.name()).map(Self::path).collect();
        match namesakes.iter().position(|path| *path == self.path()) {
            Some(n) if namesakes.len() > 1 => keep.join((n + 1).to_string()),
            _ => keep.to_owned(),
        }
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Workflow(source) => &source.path,
            Self::Notebook(path) => path,
        }
    }

    /// Replays it.
    ///
    /// # Errors
    /// Why it could not run.
    pub async fn replay(
        &self,
        place: &Place<'_>,
        options: &Options,
        reference: Option<Reference>,
        progress: &dyn Progress,
    ) -> Result<Replayed> {
        match self {
            Self::Workflow(source) => {
                let mut options = options.clone();
                if let Some(Reference::Items(items)) = reference {
                    options.reference = Some(items);
                }
                let outcome = lockproof_replay::replay(source, place.server, &options, progress).await?;
                let findings = finding(place, &outcome).into_iter().collect();
                let ran = !matches!(outcome.ending, Ending::Failed | Ending::Skipped);
                let reference = ran.then(|| Reference::Items(outcome.items.clone()));
                Ok(Replayed { outcome, findings, reference })
            }
            Self::Notebook(path) => {
                let Some(notebooks) = place.notebooks else {
                    let outcome = Outcome::skipped(self.name(), "notebooks are not supported here");
                    return Ok(Replayed { outcome, findings: Vec::new(), reference: None });
                };
                let reference = reference.and_then(|reference| match reference {
                    Reference::Executed(executed) => Some(executed),
                    Reference::Items(_) => None,
                });
                let request = notebooks.request(path, place, options, reference);
                Ok(notebook_outcome(notebook::replay(&request).await?, options.update))
            }
        }
    }
}

impl Notebooks {
    fn request(
        &self,
        path: &Path,
        place: &Place<'_>,
        options: &Options,
        reference: Option<Executed>,
    ) -> notebook::Request {
        let mut limits = notebook::Limits::default();
        if let Some(timeout) = options.timeout {
            limits = notebook::Limits { cell: timeout.min(limits.cell), notebook: timeout };
        }
        notebook::Request {
            path: path.to_owned(),
            subject: place.subject.to_owned(),
            event: Some(place.event),
            url: place.server.base(),
            ca: self.ca.clone(),
            insecure: self.insecure,
            token: self.token.clone(),
            env: self.env.clone(),
            parameters: self.parameters.clone(),
            runner: self.runner.clone(),
            limits,
            reference,
            update: options.update,
            // A directory for each, because several are replayed in parallel.
            keep: options.keep.as_ref().zip(path.file_name()).map(|(directory, name)| directory.join(name)),
            progress: self.progress.clone(),
        }
    }
}

/// The result of the replays:
///
/// | outcomes | exit code |
/// |---|---|
/// | one changed or failed, or another finding that counts | 1 |
/// | all skipped | 4 |
/// | anything else | 0 |
pub fn summary(replayed: &[Replayed]) -> Summary {
    let mut findings = replayed.iter().flat_map(|replayed| &replayed.findings);
    Summary {
        failed: findings.any(|finding| finding.counts(Severity::Warning)),
        undecided: replayed.iter().all(|replayed| replayed.outcome.ending == Ending::Skipped),
        ..Summary::default()
    }
}

fn notebook_outcome(ran: notebook::Outcome, update: bool) -> Replayed {
    let ending = match ran.ending {
        notebook::Ending::Same if update => Ending::Stored,
        notebook::Ending::Same => Ending::Same,
        notebook::Ending::Changed => Ending::Changed,
        notebook::Ending::Failed => Ending::Failed,
        notebook::Ending::Skipped => Ending::Skipped,
    };
    let mut details: Vec<String> = ran
        .cells
        .iter()
        .filter_map(|cell| {
            let how = match &cell.ending {
                CellEnding::Changed(how) => how,
                CellEnding::Raised(how) | CellEnding::TimedOut(how) => how,
                _ => return None,
            };
            Some(format!("cell {} (`{}`): {how}", cell.number, cell.title))
        })
        // Already reported as the reason of the replay.
        .filter(|told| *told != ran.why)
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    if !matches!(ending, Ending::Same | Ending::Stored)
        && let Some(kept) = &ran.kept
    {
        details.push(format!("executed notebook: {}", kept.display()));
    }
    // Other findings are reported with it.
    let apart = |finding: &&Finding| !matches!(finding.rule, Rule::ReplayChanged | Rule::ReplayFailed);
    let notes = ran.findings.iter().filter(apart).map(|finding| format!("{}: {}", finding.rule, finding.message));
    let outcome = Outcome {
        name: ran.name,
        ending,
        why: Some(ran.why).filter(|why| !why.is_empty()),
        details,
        notes: notes.collect(),
        items: Vec::new(),
        took: ran.took,
    };
    let usable = !matches!(ending, Ending::Failed | Ending::Skipped);
    let reference = ran.executed.filter(|_| usable).map(Reference::Executed);
    Replayed { outcome, findings: ran.findings, reference }
}

/// The finding for a workflow that is not the same.
fn finding(place: &Place<'_>, outcome: &Outcome) -> Option<Finding> {
    let (rule, what) = match outcome.ending {
        Ending::Changed => (Rule::ReplayChanged, "has a different output than before"),
        Ending::Failed => (Rule::ReplayFailed, "did not finish"),
        Ending::Same | Ending::Ran | Ending::Stored | Ending::Skipped => return None,
    };
    let mut finding = Finding::new(rule, place.subject, Some(place.event), format!("{} {what}", outcome.name));
    finding.evidence.extend(outcome.why.clone());
    finding.evidence.extend(outcome.details.iter().take(8).cloned());
    Some(finding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_the_same_name_are_kept_apart() {
        let pieces = ["a/x.ipynb", "b/x.ipynb", "y.ipynb"].map(|path| Piece::Notebook(path.into()));
        let kept: Vec<PathBuf> = pieces.iter().map(|piece| piece.kept_below(Path::new("k"), &pieces)).collect();
        assert_eq!(kept, ["k/1", "k/2", "k"].map(PathBuf::from));
    }
}
