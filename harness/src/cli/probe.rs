//! `lockproof probe URL`: the same examination on a server that is running already.

use std::{
    future::Future,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};

use super::{credential::TokenArguments, gate::write_reports, print, progress::Talk, style::Style, values};
use crate::{
    gate::{
        diagnose::{self, Scene},
        examine::{self, Claimed, Early, Examiner},
    },
    report::{ReportTarget, open_all, terminal},
};
use lockproof_model::{
    duration::Span,
    error::{Error, ErrorKind, Result},
    event::Event,
    exit,
    finding::{Finding, Severity},
    names::USERNAME,
    parse::parse_as,
    read,
    report::{EventReport, ProbeCounts, Report, SubjectReport},
    scheme::Scheme,
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
    /// The server, such as http://127.0.0.1:8188 or https://comfy.example/path.
    #[arg(value_name = "URL")]
    url: String,
    #[command(flatten)]
    token: TokenArguments,
    /// The name for the login form, with --password-env.
    #[arg(long, value_name = "NAME", requires = "password_env")]
    username: Option<String>,
    /// The environment variable that holds the password: logs in, and tries tampered sessions and the
    /// password as a token, too.
    #[arg(long, value_name = "NAME")]
    password_env: Option<String>,
    /// How the lock works: a built-in scheme, or a scheme file.
    #[arg(long, value_name = "SCHEME", default_value = Scheme::DEFAULT, env = "LOCKPROOF_SCHEME")]
    scheme: String,
    /// Further routes to probe, as a YAML list of { method, path } (see docs/design.md).
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// Send requests that change something as well, under names of lockproof's own, and try what the
    /// login form takes. Only on a server that is yours.
    #[arg(long)]
    mutating: bool,
    /// The most requests a second; 0: as fast as it goes.
    #[arg(long, value_name = "N", default_value_t = 100, env = "LOCKPROOF_RATE")]
    rate: u32,
    /// How long one answer may take.
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    timeout: Span,
    /// Take any certificate.
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
    /// Trust the certificates in this PEM file as well.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The severity from which on a finding makes the exit code 1.
    #[arg(long, value_parser = values::severity(), default_value_t = Severity::Warning, env = "LOCKPROOF_FAIL_ON")]
    fail_on: Severity,
    /// Write a report (repeatable): json, junit, sarif, html, markdown or ndjson.
    #[arg(long, value_name = "FORMAT=PATH")]
    report: Vec<ReportTarget>,
}

const AFTER_HELP: &str = "\
Without a token, only what a visitor sees is judged. Without --mutating, nothing on the server is
changed, and whether the login form lets a visitor in is left undecided.";

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
        let discovered = discover(&client, &scheme, keys).await;
        if !discovered.is_empty() {
            let listed = discovered.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            talk.line(&format!("beyond the inventory, and probed as protected: {listed}"));
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
        talk.line("the login form opens no session with this name and password: sessions were not probed");
    }

    let report = judge(scene, &early, &claimed, &client, &arguments, started, begun.elapsed());
    if !arguments.mutating && !early.look.all_through() && scheme.login.is_some() {
        talk.line(
            "left undecided: whether the login form lets a visitor in (--mutating tries it, on a server that is yours)",
        );
    }
    if keys.is_none() {
        talk.line("without a token: only what a visitor sees was judged (--token-env, --token-file)");
    }
    write_reports(reports, &report);
    print(&terminal::render(&report, style.width, style.stdout_colour))?;
    print(&format!("where it says {URL}: {base}\n"))?;
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
    let mut findings = examine::merge(scene, early, claimed);
    findings.extend(diagnose::sentinels(scene, &early.look, None, &[], &early.findings));
    let mut event = EventReport::new(Event::Installed, Verdict::Locked);
    match examine::verdict(early, claimed, &findings) {
        Ok(verdict) => {
            event.verdict = Some(verdict);
            if matches!(verdict, Verdict::LockedOut | Verdict::Leaky) {
                findings.extend(diagnose::token(scene, &early.look, false));
            }
        }
        Err(why) => event.undecided = Some(why),
    }
    event.duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    event.probes = ProbeCounts {
        planned: early.counts.planned,
        sent: client.sent(),
        rejected: early.counts.rejected,
        served: early.counts.served,
        passed: early.counts.passed,
        indeterminate: early.counts.indeterminate,
    };
    let code = exit_code(&event, &findings, arguments.fail_on);
    let mut left_behind = early.left.clone();
    left_behind.extend(claimed.disturbed.then(|| CLAIMED.to_owned()));
    let subject =
        SubjectReport { name: scene.subject.to_owned(), events: vec![event], left_behind, ..Default::default() };
    let mut report = Report::new(started, took, code, vec![subject], findings);
    report.fail_on = arguments.fail_on;
    report
}

/// What a claim that worked leaves on a server.
const CLAIMED: &str = "the login form accepted credentials that lockproof made up: a user, a session or the server's \
                       first password may be lockproof's; reset the lock's credential, and rotate the token";

/// Runs `work`, which writes on the server; a signal drops it, and then what was written is still there.
async fn interruptible<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let no_signals = |e: std::io::Error| Error::environment("signals cannot be received").detail(e);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let error = tokio::select! {
        done = work => return done,
        _ = interrupt.recv() => Error::new(ErrorKind::Interrupted, "interrupted"),
        _ = terminate.recv() => Error::new(ErrorKind::Terminated, "terminated"),
    };
    Err(error
        .detail("requests that change something were under way: what they wrote was not removed")
        .fix("delete the files in the server's user directory whose names begin with `lockproof-`"))
}

fn exit_code(event: &EventReport, findings: &[Finding], fail_on: Severity) -> u8 {
    if event.as_it_must_be() == Some(false) || findings.iter().any(|f| f.counts(fail_on)) {
        exit::FAILED
    } else if event.undecided.is_some() {
        exit::UNDECIDED
    } else {
        exit::OK
    }
}

/// The password, which says nothing without a token to compare with.
fn password(arguments: &Arguments, has_token: bool) -> Result<Option<String>> {
    let Some(name) = &arguments.password_env else { return Ok(None) };
    if !has_token {
        return Err(Error::usage("a password alone is not enough: answers are compared with the token's")
            .at(format!("--password-env {name}"))
            .fix("give the token as well, with --token-env or --token-file"));
    }
    match std::env::var(name).unwrap_or_default() {
        empty if empty.is_empty() => Err(Error::usage("there is no password")
            .at(format!("--password-env {name}"))
            .fix(format!("export {name}=…"))),
        password => Ok(Some(password)),
    }
}

/// The routes of a file that lists those beyond ComfyUI's own.
pub(super) fn read_routes(path: &Path) -> Result<Vec<Route>> {
    let text = read::text(path, read::SHORT)
        .map_err(|e| Error::usage(format!("cannot read {}", path.display())).at("--routes").detail(e))?;
    parse_as(&text, &path.display().to_string())
}

/// A first word with the server: is it there, is it ComfyUI, does something stand before it?
async fn greet(client: &Client, scheme: &Scheme, keys: Option<&Keys>, talk: &Talk) -> Result<()> {
    let plain = Request::get("/system_stats");
    let anonymous = client.send(&plain).await.map_err(|fault| {
        Error::environment(format!("{} does not answer: {fault}", client.base()))
            .fix("check the address and the port, and that the server runs; for a certificate of your own, --ca FILE")
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
                "{} sends everybody to {location}: a proxy stands before it, and it is the proxy's lock that is judged",
                client.base()
            ));
        }
        return Ok(());
    }
    if is_refusal(&answer) || is_indeterminate(&answer) {
        return Ok(());
    }
    // A lock may answer with a page of its own, or hide the route; something else does both, too.
    if answer.status.is_success() || keys.is_none() && answer.status == http::StatusCode::NOT_FOUND {
        talk.line(&format!(
            "{} may not be ComfyUI: GET /system_stats got {} {}, and not its statistics",
            client.base(),
            answer.status.as_u16(),
            answer.media_type()
        ));
        return Ok(());
    }
    Err(Error::undecided(format!("{} is not ComfyUI", client.base()))
        .detail(format!("GET /system_stats got {}", answer.status))
        .fix("give the address of ComfyUI itself; where it lies below a path, the path belongs to the URL"))
}

fn is_comfyui(answer: &Answer) -> bool {
    serde_json::from_slice::<serde_json::Value>(&answer.body).is_ok_and(|json| json.get("system").is_some())
}

fn bar(style: &Style, talk: &Talk) -> ProgressBar {
    let target =
        if style.bars && talk.shows_bars() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(0), target);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} probes, {per_sec}, {eta} to go") {
        bar.set_style(style);
    }
    bar
}
