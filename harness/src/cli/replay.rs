//! `lockproof replay`: replays workflows on a running server or on a subject.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    credential::TokenArguments,
    gate::{DEFAULT_CONFIG, read_plan, select},
    output::print,
    progress::Talk,
    reports::write_reports,
    signal,
    style::Style,
};
use crate::{
    gate::{Listener, replays::report, subject},
    notebook::{self, Runner},
    piece::{self, Notebooks, Piece, Place, Replayed},
    report::{OpenReport, ReportTarget, open_all},
};
use lockproof_compose::env_file as dotenv;
use lockproof_deploy::engine::{Engine, Run};
use lockproof_model::{
    duration::Span,
    error::{Error, ErrorKind, Result},
    event::Event,
    report::{Report, SubjectReport},
    scheme::Scheme,
    secret,
};
use lockproof_probe::{
    client::Client,
    message::{Fault, Request},
    server::Trust,
};
use lockproof_replay::{DIFFERENCES, Ending, Options, calling_off::CalledOff, run::Progress, server::Server};

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
#[command(group = clap::ArgGroup::new("where").required(true))]
pub(super) struct Arguments {
    /// Workflows, as saved by ComfyUI's editor, as exported for its API, or embedded in a picture;
    /// and notebooks.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The base URL of the server, such as http://127.0.0.1:8188 or https://comfy.example/path.
    #[arg(long, value_name = "URL", group = "where")]
    url: Option<String>,
    /// A subject of the configuration: it is started and locked for the replay, and removed
    /// afterwards.
    #[arg(long, value_name = "NAME", group = "where", conflicts_with_all = ["token_env", "token_file", "token", "insecure", "ca"])]
    subject: Option<String>,
    /// The configuration file that contains the subject. Default: ./lockproof.yaml.
    #[arg(long, short, value_name = "FILE", env = "LOCKPROOF_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    token: TokenArguments,
    /// The login scheme: a built-in name, or a path to a scheme file.
    #[arg(long, value_name = "SCHEME", default_value = Scheme::DEFAULT, env = "LOCKPROOF_SCHEME")]
    scheme: String,
    /// The largest accepted mean difference per colour channel, from 0 to 1. Default: the
    /// workflow's own value, else 0 (every pixel must match).
    #[arg(long, value_name = "FRACTION", value_parser = fraction)]
    tolerance: Option<f64>,
    /// The time limit of one workflow or notebook. Default: its own value, else 5m (10m for a
    /// notebook).
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Span>,
    /// Store the outputs beside the workflows instead of comparing them.
    #[arg(long)]
    update: bool,
    /// The directory for difference pictures and executed notebooks.
    #[arg(long, value_name = "DIRECTORY", default_value = DIFFERENCES)]
    keep: PathBuf,
    /// A Python on this machine with nbclient and ipykernel, to execute notebooks. Default: a
    /// container.
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// A value for the notebook cell tagged `parameters`, parsed as JSON or else used as text
    /// (repeatable).
    #[arg(long = "parameter", short = 'p', value_name = "NAME=VALUE", value_parser = parameter)]
    parameters: Vec<(String, Value)>,
    /// A file with variables for notebooks. Its COMFYUI_API_TOKEN is used if no other token is
    /// given.
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// Do not verify the server's certificate.
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
    /// Also trust the certificates in this PEM file.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Write a report (repeatable): json, junit, sarif, html, markdown or ndjson.
    #[arg(long, value_name = "FORMAT=PATH")]
    report: Vec<ReportTarget>,
}

const AFTER_HELP: &str = "\
The token comes from --token-env or --token-file, else from COMFYUI_API_TOKEN in --env-file, else
from the environment variable COMFYUI_API_TOKEN. Outputs are stored beside a workflow in
NAME.outputs; its requirements, tolerance and time limit are in NAME.lockproof.yaml. A workflow is
skipped if the server lacks something that it needs; if everything was skipped, the exit code is 4.
Ctrl-C also interrupts the run on the server.";

fn parameter(text: &str) -> std::result::Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
}

fn fraction(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}

pub(super) async fn run(arguments: Arguments, style: &Style, talk: &Talk) -> Result<u8> {
    let pieces = arguments.files.iter().map(|path| Piece::read(path)).collect::<Result<Vec<_>>>()?;
    let (started, begun) = (Timestamp::now(), Instant::now());
    let work =
        Work { arguments: &arguments, pieces: &pieces, env: env_file(arguments.env_file.as_deref())?, style, talk };
    let (name, reports, replayed) = match &arguments.subject {
        Some(subject) => work.on_subject(subject).await?,
        None => work.on_url().await?,
    };
    let code = piece::summary(&replayed).exit_code();
    let replays = replayed.iter().map(|replayed| report(Event::Installed, &replayed.outcome)).collect();
    let findings = replayed.iter().flat_map(|replayed| replayed.findings.clone()).collect();
    let subject = SubjectReport { name, replays, ..Default::default() };
    write_reports(reports, &Report::new(started, begun.elapsed(), code, vec![subject], findings));
    print(&told(&replayed, code, style))?;
    Ok(code)
}

/// The variables of a file, parsed as a shell would.
fn env_file(path: Option<&Path>) -> Result<BTreeMap<String, String>> {
    let Some(path) = path else { return Ok(BTreeMap::new()) };
    let text = lockproof_model::read::text(path, lockproof_model::read::SHORT)
        .map_err(|e| Error::usage(format!("cannot read {}", path.display())).at("--env-file").detail(e))?;
    Ok(dotenv::assignments(&text).into_iter().map(|assignment| (assignment.name, assignment.text)).collect())
}

struct Work<'a> {
    arguments: &'a Arguments,
    pieces: &'a [Piece],
    env: BTreeMap<String, String>,
    style: &'a Style,
    talk: &'a Talk,
}

type Done = (String, Vec<OpenReport>, Vec<Replayed>);

impl Work<'_> {
    async fn on_url(&self) -> Result<Done> {
        let url = self.arguments.url.as_deref().unwrap_or_default();
        let scheme = Scheme::find(&self.arguments.scheme, Path::new(""))?;
        let trust = Trust { ca: self.arguments.ca.as_deref(), insecure: self.arguments.insecure };
        let place = lockproof_probe::server::Server::named(url, &trust)?;
        let given = match self.arguments.token.is_given() {
            true => self.arguments.token.token(self.talk)?,
            false => self.env.get(dotenv::TOKEN).cloned().or_else(|| std::env::var(dotenv::TOKEN).ok()),
        };
        let token = given.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        let reports = open_all(&self.arguments.report)?;
        let client = Client::of(place, Duration::from_secs(10));
        is_there(&client).await?;
        let server = Server::new(&client, &scheme, token.as_deref());
        let name = server.base();
        let engine = match self.needs_engine() {
            true => Some((Engine::connect().await?, Run::new())),
            false => None,
        };
        let container = engine.clone().map(|(engine, run)| Runner::Container { engine, run, network: None });
        let notebooks = self.notebooks(container, token);
        let replayed = interruptible(&server, self.all(&name, &server, notebooks.as_ref())).await;
        if let Some((engine, run)) = engine {
            engine.sweep_run(run.id()).await?;
        }
        Ok((name, reports, replayed?))
    }

    async fn on_subject(&self, name: &str) -> Result<Done> {
        let file = self.arguments.config.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG));
        let mut plan = read_plan(&file)?;
        select(&mut plan, std::slice::from_ref(&name.to_owned()))?;
        let subject = &plan.subjects[0];
        lockproof_deploy::given::check(subject)?;
        let reports = open_all(&self.arguments.report)?;
        let engine = Engine::connect().await?;
        let run = Run::new();
        let work = async {
            let lent = subject::lend(&engine, &run, &plan, subject, self.talk).await;
            self.talk.done(&subject.name);
            let (deployment, client, keys) = lent?;
            let server = Server::new(&client, &subject.lock.scheme, Some(keys.token()));
            let network = Some(deployment.network().to_owned());
            let container = Runner::Container { engine: engine.clone(), run: run.clone(), network };
            let notebooks = self.notebooks(Some(container), Some(keys.token().to_owned()));
            self.all(name, &server, notebooks.as_ref()).await
        };
        let replayed = signal::guard(&engine, &run, work).await?;
        engine.sweep_run(run.id()).await?;
        Ok((name.to_owned(), reports, replayed))
    }

    fn needs_engine(&self) -> bool {
        self.arguments.python.is_none() && self.pieces.iter().any(|piece| matches!(piece, Piece::Notebook(_)))
    }

    fn notebooks(&self, container: Option<Runner>, token: Option<String>) -> Option<Notebooks> {
        let python = self.arguments.python.clone().map(Runner::Python);
        let mut env = self.env.clone();
        env.remove(dotenv::TOKEN);
        Some(Notebooks {
            runner: python.or(container)?,
            token,
            ca: self.arguments.ca.clone(),
            insecure: self.arguments.insecure,
            env,
            parameters: self.arguments.parameters.iter().cloned().collect(),
            progress: None,
        })
    }

    async fn all(&self, name: &str, server: &Server, notebooks: Option<&Notebooks>) -> Result<Vec<Replayed>> {
        let options = Options {
            tolerance: self.arguments.tolerance,
            timeout: self.arguments.timeout.map(|t| t.0),
            reference: None,
            update: self.arguments.update,
            keep: None,
        };
        let mut all = Vec::new();
        for piece in self.pieces {
            let keep = piece.kept_below(&self.arguments.keep, self.pieces);
            let options = Options { keep: Some(keep), ..options.clone() };
            let bar = Bar::begin(&piece.name(), self.style, self.talk);
            let cells: Arc<dyn notebook::Progress> = Arc::new(bar.clone());
            let notebooks = notebooks.map(|notebooks| Notebooks { progress: Some(cells), ..notebooks.clone() });
            let place = Place { subject: name, event: Event::Installed, server, notebooks: notebooks.as_ref() };
            let replayed = piece.replay(&place, &options, None, &bar).await;
            bar.0.finish_and_clear();
            all.push(replayed?);
        }
        Ok(all)
    }
}

/// Checks that the server answers, so that an unreachable server is reported once.
async fn is_there(client: &Client) -> Result<()> {
    let asked = client.send(&Request::get("/system_stats")).await;
    match asked {
        Ok(_) => Ok(()),
        Err(fault) => {
            let error = Error::environment(format!("{} does not answer: {fault}", client.base()));
            Err(match fault {
                Fault::Timeout => error.fix("it must answer GET /system_stats within 10 s; check whether it is busy"),
                _ => error.fix(
                    "check the address and the port, and that the server is running; for a private CA, use --ca FILE",
                ),
            })
        }
    }
}

/// Runs `work`; on a signal, drops it and cancels the run on the server.
async fn interruptible<T>(server: &Server, work: impl Future<Output = Result<T>>) -> Result<T> {
    let no_signals = |e: std::io::Error| Error::environment("cannot install signal handlers").detail(e);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let error = tokio::select! {
        done = work => return done,
        _ = interrupt.recv() => Error::new(ErrorKind::Interrupted, "interrupted"),
        _ = terminate.recv() => Error::new(ErrorKind::Terminated, "terminated"),
    };
    Err(match server.call_off().await {
        CalledOff::Nothing => error,
        CalledOff::Done => error.detail("the run on the server was cancelled"),
        CalledOff::Untold => error.detail(CalledOff::UNTOLD),
    })
}

fn told(replayed: &[Replayed], code: u8, style: &Style) -> String {
    let mut text = String::new();
    let outcomes = || replayed.iter().map(|replayed| &replayed.outcome);
    for outcome in outcomes() {
        let colour = match outcome.ending {
            Ending::Same | Ending::Stored | Ending::Ran => "32",
            Ending::Changed | Ending::Failed => "31",
            Ending::Skipped => "33",
        };
        let ending = format!("{:<7}", outcome.ending.name());
        let ending = if style.stdout_colour { format!("\u{1b}[{colour}m{ending}\u{1b}[0m") } else { ending };
        let seconds = outcome.took.as_secs_f32();
        text.push_str(&format!("{ending}  {}  ({seconds:.1} s)\n", outcome.name));
        for line in outcome.why.iter().flat_map(|why| why.lines()).chain(outcome.details.iter().map(String::as_str)) {
            text.push_str(&format!("         {line}\n"));
        }
        for note in &outcome.notes {
            text.push_str(&format!("         note: {note}\n"));
        }
    }
    let counted = [Ending::Same, Ending::Stored, Ending::Ran, Ending::Changed, Ending::Failed, Ending::Skipped]
        .into_iter()
        .map(|ending| (ending, outcomes().filter(|o| o.ending == ending).count()))
        .filter(|(_, count)| *count > 0)
        .map(|(ending, count)| format!("{count} {}", ending.name()));
    let counted: Vec<String> = counted.collect();
    text.push_str(&format!("\nlockproof: {} (exit {code})\n", counted.join(", ")));
    secret::redact(&text)
}

/// A progress bar with the name of the current node or cell.
#[derive(Clone)]
struct Bar(ProgressBar);

impl Bar {
    fn begin(name: &str, style: &Style, talk: &Talk) -> Self {
        let moving = style.bars && talk.shows_bars();
        let target = if moving { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(1000), target);
        if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:30} {wide_msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_prefix(name.to_owned());
        if moving {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        Self(bar)
    }
}

impl Progress for Bar {
    fn waiting(&self, behind: usize) {
        self.0.set_message(format!("waiting in the queue ({behind} ahead)"));
        tracing::debug!("waiting in the queue ({behind} ahead)");
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a thousandth of a bar")]
    fn node(&self, node: &str, done: usize, all: usize, part: f64) {
        self.0.set_position(((done as f64 + part) / all.max(1) as f64 * 1000.0) as u64);
        self.0.set_message(format!("{node} ({done} of {all})"));
        tracing::debug!("{node} ({done} of {all}, {:.0} %)", part * 100.0);
    }
}

impl notebook::Progress for Bar {
    fn cell(&self, number: usize, all: usize, title: &str) {
        self.0.set_position((number.saturating_sub(1) * 1000 / all.max(1)) as u64);
        self.0.set_message(format!("cell {number} of {all}: {title}"));
        tracing::debug!("cell {number} of {all}: {title}");
    }
}
