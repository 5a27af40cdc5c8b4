//! `lockproof probe URL`: the same examination on a running server.

use std::{
    future::Future,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    credential::TokenArguments, output::print, progress::Talk, reports::write_reports, routes::read_routes,
    style::Style, values,
};
use crate::{
    gate::{
        diagnose::Scene,
        examine::{self, Claimed, Early, Examiner, Judged, Known},
    },
    report::{ReportTarget, open_all, terminal},
};
use lockproof_model::{
    duration::Span,
    error::{Error, ErrorKind, Result},
    event::Event,
    finding::Severity,
    names::USERNAME,
    report::{EventReport, Report, SubjectReport},
    scheme::Scheme,
    summary::Summary,
    verdict::Verdict,
};
use lockproof_probe::{
    client::Client,
    decide::is_indeterminate,
    keys::{Keys, authorised, open_session},
    look::{Reference, Works, is_refusal},
    message::{Answer, Request, URL},
    server::{Server, Trust},
    surface::{discover::discover, routes::Route},
};

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Arguments {
    /// The base URL of the server, such as http://127.0.0.1:8188 or https://comfy.example/path.
    #[arg(value_name = "URL")]
    url: String,
    #[command(flatten)]
    token: TokenArguments,
    /// The user name for the login form, with --password-env.
    #[arg(long, value_name = "NAME", requires = "password_env")]
    username: Option<String>,
    /// The environment variable that contains the password. With it, `probe` logs in, and also
    /// tries tampered sessions and the password as a token.
    #[arg(long, value_name = "NAME")]
    password_env: Option<String>,
    /// The login scheme: a built-in name, or a path to a scheme file.
    #[arg(long, value_name = "SCHEME", default_value = Scheme::DEFAULT, env = "LOCKPROOF_SCHEME")]
    scheme: String,
    /// Additional routes to probe: a YAML list of { method, path } (see docs/design.md).
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// Also send requests that change data, under names that begin with `lockproof-`, and submit
    /// the login form. Use it only on a server that you own.
    #[arg(long)]
    mutating: bool,
    /// The maximum number of requests per second; 0 means no limit.
    #[arg(long, value_name = "N", default_value_t = 100, env = "LOCKPROOF_RATE")]
    rate: u32,
    /// The timeout of one request.
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    timeout: Span,
    /// Do not verify the server's certificate.
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
    /// Also trust the certificates in this PEM file.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The lowest severity that fails the run (exit code 1).
    #[arg(long, value_parser = values::severity(), default_value_t = Severity::Warning, env = "LOCKPROOF_FAIL_ON")]
    fail_on: Severity,
    /// Write a report (repeatable): json, junit, sarif, html, markdown or ndjson.
    #[arg(long, value_name = "FORMAT=PATH")]
    report: Vec<ReportTarget>,
}

const AFTER_HELP: &str = "\
Without a token, only anonymous access is judged. Without --mutating, no data on the server is
changed, and it is left undecided whether a visitor can log in through the login form.";

pub(super) async fn run(arguments: Arguments, style: &Style, talk: &Talk) -> Result<u8> {
    let scheme = Scheme::find(&arguments.scheme, Path::new(""))?;
    let token = arguments.token.token(talk)?;
    let password = password(&arguments, token.is_some())?;
    let mut routes = Route::all().to_vec();
    if let Some(path) = &arguments.routes {
        routes.extend(read_routes(path)?);
    }
    let trust = Trust { ca: arguments.ca.as_deref(), insecure: arguments.insecure };
    let server = Server::named(&arguments.url, &trust)?.with_rate(Some(arguments.rate));
    let reports = open_all(&arguments.report)?;
    let client = Client::of(server, arguments.timeout.0);
    let (started, begun) = (Timestamp::now(), Instant::now());

    let mut keys = token.map(|token| Keys::new(token, password.clone(), None));
    greet(&client, &scheme, keys.as_ref(), talk).await?;
    if let (Some(known), Some(password)) = (&keys, password) {
        let username = arguments.username.as_deref().unwrap_or(USERNAME);
        let session = open_session(&client, scheme.login.as_ref(), username, Some(&password)).await;
        keys = Some(Keys::new(known.token().to_owned(), Some(password), session));
    }
    if let Some(keys) = &keys {
        let discovered = discover(&client, &scheme, keys).await?;
        if !discovered.is_empty() {
            let listed = discovered.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            talk.line(&format!("also probed, as protected routes outside the known inventory: {listed}"));
        }
        routes.extend(discovered.iter().map(Route::from));
    }
    let bar = bar(style, talk);
    let progress = |sent: usize, all: usize| {
        bar.set_length(all as u64);
        bar.set_position(sent as u64);
    };
    let base = client.base();
    let scene = Scene { subject: &base, event: Event::Installed, base: URL };
    let examiner = Examiner {
        client: &client,
        scheme: &scheme,
        keys: keys.as_ref(),
        routes: &routes,
        mutating: arguments.mutating,
        scene,
        progress: &progress,
    };
    let examined = async {
        let early = examiner.early(&Reference::default()).await;
        let claimed = examiner.claim(&early, arguments.mutating).await;
        Ok((early, claimed))
    };
    let ended = if arguments.mutating { interruptible(examined).await } else { examined.await };
    bar.finish_and_clear();
    let (early, claimed) = ended?;
    if arguments.password_env.is_some() && early.look.session != Works::Yes {
        talk.line("the login form rejected this name and password: sessions are not probed");
    }

    let mut report = judge(scene, &early, &claimed, &client, &arguments, started, begun.elapsed());
    let verdict = report.subjects.first().and_then(|subject| subject.events.first()?.verdict);
    examiner.assess(verdict, &claimed, &mut report.findings).await;
    if !arguments.mutating && !early.look.all_through() && scheme.login.is_some() {
        talk.line(
            "undecided: whether a visitor can log in through the login form (use --mutating, on a server \
            that you own)",
        );
    }
    if keys.is_none() {
        talk.line("no token given: only anonymous access was judged (use --token-env or --token-file)");
    }
    write_reports(reports, &report);
    print(&terminal::render(&report, style.width, style.stdout_colour))?;
    print(&format!("{URL} stands for {base}\n"))?;
    Ok(report.exit_code)
}

fn judge(
    scene: Scene<'_>,
    early: &Early,
    claimed: &Claimed,
    client: &Client,
    arguments: &Arguments,
    started: Timestamp,
    took: Duration,
) -> Report {
    let Judged { findings, verdict } = examine::judged(scene, early, claimed, Known::default(), |_| {});
    let mut event = EventReport::new(Event::Installed, Verdict::Locked);
    match verdict {
        Ok(verdict) => event.verdict = Some(verdict),
        Err(why) => event.undecided = Some(why),
    }
    event.duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    event.probes = examine::probe_counts(&early.counts, client.sent());
    let failed = event.as_it_must_be() == Some(false) || findings.iter().any(|f| f.counts(arguments.fail_on));
    let summary = Summary { failed, undecided: event.undecided.is_some(), ..Summary::default() };
    let mut left_behind = early.left.clone();
    left_behind.extend(claimed.disturbed.then(|| CLAIMED.to_owned()));
    let subject =
        SubjectReport { name: scene.subject.to_owned(), events: vec![event], left_behind, ..Default::default() };
    let mut report = Report::new(started, took, summary.exit_code(), vec![subject], findings);
    report.fail_on = arguments.fail_on;
    report
}

/// The remains of a successful claim on a server.
const CLAIMED: &str = "the login form accepted random credentials from lockproof: a user, a session or the server's \
                       first password may be lockproof's; reset the lock's credential, and rotate the token";

/// Runs `work`, which writes to the server. After a signal, the written files remain.
async fn interruptible<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let no_signals = |e: std::io::Error| Error::environment("cannot receive signals").detail(e);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let error = tokio::select! {
        done = work => return done,
        _ = interrupt.recv() => Error::new(ErrorKind::Interrupted, "interrupted"),
        _ = terminate.recv() => Error::new(ErrorKind::Terminated, "terminated"),
    };
    Err(error
        .detail("requests that change data were running: the files that they wrote were not removed")
        .fix("delete the files in the server's user directory whose names begin with `lockproof-`"))
}

/// The password. Without a token it is an error, because there is no answer to compare with.
fn password(arguments: &Arguments, has_token: bool) -> Result<Option<String>> {
    let Some(name) = &arguments.password_env else { return Ok(None) };
    if !has_token {
        return Err(Error::usage("a password requires a token: answers are compared with the token's answers")
            .at(format!("--password-env {name}"))
            .fix("add the token with --token-env or --token-file"));
    }
    match std::env::var(name).unwrap_or_default() {
        empty if empty.is_empty() => Err(Error::usage("the password is empty")
            .at(format!("--password-env {name}"))
            .fix(format!("export {name}=…"))),
        password => Ok(Some(password)),
    }
}

/// Checks that the server answers, that it is ComfyUI, and whether a proxy is in front of it.
async fn greet(client: &Client, scheme: &Scheme, keys: Option<&Keys>, talk: &Talk) -> Result<()> {
    let plain = Request::get("/system_stats");
    let anonymous = client.send(&plain).await.map_err(|fault| {
        Error::environment(format!("{} does not answer: {fault}", client.base()))
            .fix("check the address and the port, and that the server is running; for a private CA, use --ca FILE")
    })?;
    let asked = match keys {
        Some(keys) => client.send(&authorised(plain.clone(), scheme, keys.token())).await.ok(),
        None => None,
    };
    if is_comfyui(&anonymous) || asked.as_ref().is_some_and(is_comfyui) {
        return Ok(());
    }
    let answer = asked.unwrap_or(anonymous);
    if answer.status.is_redirection() {
        let location = answer.location();
        let elsewhere = location.starts_with("http") && !location.starts_with(&client.base());
        if elsewhere {
            talk.line(&format!(
                "{} redirects every request to {location}: the proxy in front of it is judged, not ComfyUI",
                client.base()
            ));
        }
        return Ok(());
    }
    if is_refusal(&answer) || is_indeterminate(&answer) {
        return Ok(());
    }
    // A lock may answer with its own page or hide the route, but so may another program.
    if answer.status.is_success() || keys.is_none() && answer.status == http::StatusCode::NOT_FOUND {
        talk.line(&format!(
            "{} may not be ComfyUI: GET /system_stats returned {} {} without its statistics",
            client.base(),
            answer.status.as_u16(),
            answer.media_type()
        ));
        return Ok(());
    }
    Err(Error::undecided(format!("{} is not ComfyUI", client.base()))
        .detail(format!("GET /system_stats returned {}", answer.status))
        .fix("use the URL of ComfyUI itself, including its path prefix"))
}

fn is_comfyui(answer: &Answer) -> bool {
    serde_json::from_slice::<serde_json::Value>(&answer.body).is_ok_and(|json| json.get("system").is_some())
}

fn bar(style: &Style, talk: &Talk) -> ProgressBar {
    let target =
        if style.bars && talk.shows_bars() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(0), target);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} probes, {per_sec}, {eta} left") {
        bar.set_style(style);
    }
    bar
}
