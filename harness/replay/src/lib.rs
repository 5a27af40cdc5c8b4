//! Replays workflows through the lock: reads them in any format, converts and checks them against
//! the server's nodes, sends them with the token, follows the run, and compares the outputs.

// An unused dependency fails `make check`.
#![cfg_attr(not(test), warn(unused_crate_dependencies))]

mod bypass;
pub mod calling_off;
mod circle;
pub mod convert;
pub mod editor;
pub mod failure;
pub mod info;
pub mod json;
pub mod metadata;
pub mod needs;
pub mod outputs;
pub mod pixels;
pub mod problem;
mod promoted;
pub mod prompt;
pub mod run;
pub mod server;
mod socket;
pub mod source;
pub mod store;
pub mod validate;
pub mod virtual_nodes;
pub mod widgets;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::Value;

use convert::Converted;
use failure::Failure;
use lockproof_model::error::{Error, Result};
use outputs::Item;
use problem::Problem;
use prompt::Prompt;
use run::Progress;
use server::{Server, Trouble};
use source::{Kind, Source};

/// The default time limit of one replay.
pub const TIMEOUT: Duration = Duration::from_secs(300);
/// The default directory for difference pictures.
pub const DIFFERENCES: &str = "lockproof-replays";

/// The settings of a replay.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Overrides the workflow's own tolerance.
    pub tolerance: Option<f64>,
    /// Overrides the workflow's own time limit.
    pub timeout: Option<Duration>,
    /// Outputs of an earlier run to compare with, instead of the stored ones.
    pub reference: Option<Vec<Item>>,
    /// Whether to store the outputs instead of comparing them.
    pub update: bool,
    /// The directory for difference pictures.
    pub keep: Option<PathBuf>,
}

/// The result of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The outputs equal the stored ones.
    Same,
    /// It finished, but there is nothing to compare with.
    Ran,
    /// It finished, and its outputs were stored.
    Stored,
    /// It finished, but an output differs.
    Changed,
    /// It did not finish.
    Failed,
    /// The server lacks what it needs.
    Skipped,
}

impl Ending {
    /// The name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Ran => "ran",
            Self::Stored => "stored",
            Self::Changed => "changed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// The outcome of a replay.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The file's name.
    pub name: String,
    /// How it ended.
    pub ending: Ending,
    /// The reason if it is not the same.
    pub why: Option<String>,
    /// The evidence.
    pub details: Vec<String>,
    /// Further remarks.
    pub notes: Vec<String>,
    /// The outputs.
    pub items: Vec<Item>,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    fn new(source: &Source, ending: Ending, why: impl Into<String>) -> Self {
        Self::of(source.name.clone(), ending, why)
    }

    fn of(name: String, ending: Ending, why: impl Into<String>) -> Self {
        Self {
            name,
            ending,
            why: Some(why.into()),
            details: Vec::new(),
            notes: Vec::new(),
            items: Vec::new(),
            took: Duration::ZERO,
        }
    }

    /// The outcome of a replay of `name` that did not run.
    pub fn skipped(name: String, why: &str) -> Self {
        Self::of(name, Ending::Skipped, why)
    }

    fn failed(source: &Source, failure: Failure) -> Self {
        Self { details: failure.details, ..Self::new(source, Ending::Failed, failure.why) }
    }
}

/// Replays one workflow on a server. Failures of either are part of the outcome.
///
/// # Errors
/// An environment error if stored outputs cannot be read, or new ones cannot be written.
pub async fn replay(source: &Source, server: &Server, options: &Options, progress: &dyn Progress) -> Result<Outcome> {
    let begun = Instant::now();
    let mut notes = Vec::new();
    let ran = match attempt(source, server, options, progress, &mut notes).await {
        Ok(ran) => ran,
        Err(outcome) => return Ok(Outcome { notes, took: begun.elapsed(), ..*outcome }),
    };
    let outcome = judge(source, options, ran)?;
    Ok(Outcome { notes, took: begun.elapsed(), ..outcome })
}

/// The outputs of a run, and whether the stored outputs are comparable.
struct Ran {
    items: Vec<Item>,
    comparable: bool,
}

async fn attempt(
    source: &Source,
    server: &Server,
    options: &Options,
    progress: &dyn Progress,
    notes: &mut Vec<String>,
) -> Result<Ran, Box<Outcome>> {
    let failed = |failure: Failure| Box::new(Outcome::failed(source, failure));
    let trouble = |trouble: Trouble| failed(trouble.into());
    let lacking = needs::lacks(server, &source.metadata.needs).await.map_err(trouble)?;
    if !lacking.is_empty() {
        let why = format!("the server lacks {}", lacking.join("; "));
        return Err(Box::new(Outcome::new(source, Ending::Skipped, why)));
    }
    let info = server.info().await.map_err(trouble)?;
    let (mut converted, extra) = match &source.workflow {
        Kind::Api(prompt) => (Converted::from(prompt.clone()), None),
        Kind::Editor(workflow, text) => (convert::convert(workflow, info), Some(Value::Object(text.clone()))),
    };
    notes.append(&mut converted.notes);
    let mut prompt = std::mem::take(&mut converted.prompt);
    let uploaded = upload(source, server, &mut prompt).await.map_err(failed)?;
    let wrong = validate::validate(&prompt, info);
    let wrong = wrong.into_iter().filter(|p| !converted.explains(p) && !is_uploaded(p, &prompt, &uploaded));
    let problems: Vec<Problem> = converted.problems.iter().cloned().chain(wrong).collect();
    if !problems.is_empty() {
        return Err(failed(told(&problems)));
    }
    let comparable = !source.metadata.stand_ins || is_lab(server).await.map_err(trouble)?;
    let limit = options.timeout.or(source.metadata.timeout.map(|t| t.0)).unwrap_or(TIMEOUT);
    let items = run::run(server, &prompt, extra, limit, progress).await.map_err(failed)?;
    Ok(Ran { items, comparable })
}

/// Uploads the workflow's inputs, and sets their names on the server in the prompt.
async fn upload(source: &Source, server: &Server, prompt: &mut Prompt) -> Result<Vec<String>, Failure> {
    let mut uploaded = Vec::new();
    for path in source.metadata.input_files(&source.path) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let bytes = lockproof_model::read::bytes(&path, lockproof_model::read::LONG)
            .map_err(|e| Failure::new(format!("cannot read {}: {e}", path.display())))?;
        let kept = server.upload(&name, &bytes, "input").await?;
        for value in prompt.nodes.iter_mut().flat_map(|node| node.inputs.values_mut()) {
            if value.as_str() == Some(&name) {
                *value = kept.clone().into();
            }
        }
        uploaded.push(kept);
    }
    Ok(uploaded)
}

/// A new upload is not in any list yet.
fn is_uploaded(problem: &Problem, prompt: &Prompt, uploaded: &[String]) -> bool {
    let Some(input) = problem.input.as_deref().filter(|_| problem.missing_file) else { return false };
    let node = prompt.nodes.iter().find(|node| node.words() == problem.node);
    let value = node.and_then(|node| node.inputs.get(input)).and_then(Value::as_str);
    value.is_some_and(|value| uploaded.iter().any(|name| name == value))
}

async fn is_lab(server: &Server) -> Result<bool, Trouble> {
    Ok(server.stats().await?.pointer("/system/lab").and_then(Value::as_bool).unwrap_or_default())
}

fn told(problems: &[Problem]) -> Failure {
    let mut lines = problems.iter().map(ToString::to_string);
    let why = lines.next().unwrap_or_default();
    Failure { why, details: lines.collect() }
}

fn judge(source: &Source, options: &Options, ran: Ran) -> Result<Outcome> {
    let place = store::directory(&source.path);
    let mut outcome = Outcome::new(source, Ending::Ran, "");
    outcome.why = None;
    outcome.items = ran.items;
    if options.update {
        store::save(&place, &outcome.items)?;
        outcome.ending = Ending::Stored;
        outcome.why = Some(format!("{} outputs in {}", outcome.items.len(), place.display()));
        return Ok(outcome);
    }
    let stored = match &options.reference {
        Some(reference) => Some(reference.clone()),
        None if ran.comparable => store::load(&place)?,
        None => None,
    };
    let Some(stored) = stored else {
        outcome.why = Some(if ran.comparable {
            format!("nothing to compare with: {} contains no stored outputs", place.display())
        } else {
            "nothing to compare with: the stored outputs were made with the lab's stand-in nodes".to_owned()
        });
        return Ok(outcome);
    };
    let tolerance = options.tolerance.or(source.metadata.tolerance).unwrap_or_default();
    let changes = store::compare(&stored, &outcome.items, tolerance);
    let Some(first) = changes.first() else {
        outcome.ending = Ending::Same;
        return Ok(outcome);
    };
    outcome.ending = Ending::Changed;
    outcome.why = Some(format!("{}: {}", first.name, first.what));
    outcome.details.extend(changes.iter().skip(1).map(|change| format!("{}: {}", change.name, change.what)));
    if let Some(keep) = &options.keep {
        outcome.details.extend(pictures(&keep.join(stem(&source.path)), &changes)?);
    }
    Ok(outcome)
}

fn stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Writes the difference pictures, and returns lines with their paths.
fn pictures(directory: &Path, changes: &[store::Change]) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for change in changes {
        let Some(picture) = &change.picture else { continue };
        let path = directory.join(format!("{}.png", change.name));
        let unwritable = |e: &dyn std::fmt::Display| {
            Error::environment(format!("cannot write the difference picture: {}", path.display())).detail(e)
        };
        std::fs::create_dir_all(directory).map_err(|e| unwritable(&e))?;
        picture.save(&path).map_err(|e| unwritable(&e))?;
        lines.push(format!("stored, new, difference: {}", path.display()));
    }
    Ok(lines)
}
