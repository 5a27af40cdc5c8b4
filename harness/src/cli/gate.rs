//! `lockproof gate`.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use clap::Args;
use jiff::Timestamp;

use super::{print, probe::read_routes, progress::Talk, signal, style::Style, values};
use crate::{
    config::{load, plan::Plan},
    gate::{self, Listener, Options},
    report::{OpenReport, ReportTarget, append_summary, open_all, terminal},
};
use lockproof_deploy::{
    engine::{Engine, Run},
    given,
    lab::Kit,
};
use lockproof_model::{
    config::{ConfigFile, CredentialEntry, InstallEntry, SchemeEntry, SubjectEntry},
    duration::Span,
    error::{Error, Result},
    event::Event,
    finding::Severity,
    read,
    report::Report,
};
use lockproof_probe::surface::routes::Route;

/// The file that is meant when none is named.
pub(super) const DEFAULT_CONFIG: &str = "lockproof.yaml";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Arguments {
    /// The configuration. Default: ./lockproof.yaml; where there is none, the bundled demo.
    #[arg(long, short, value_name = "FILE", env = "LOCKPROOF_CONFIG")]
    config: Option<PathBuf>,
    /// Instead of a configuration: a compose file, or a directory with one (repeatable: together
    /// they are one project). Its stack is brought up as a copy, through the Compose of this machine.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "subject"])]
    compose: Vec<PathBuf>,
    /// With --compose: the service that runs ComfyUI; with `--scheme http-basic`, the proxy that locks
    /// it. Default: it is found out.
    #[arg(long, value_name = "NAME", requires = "compose")]
    service: Option<String>,
    /// With --compose: a file of variables instead of `.env` (repeatable).
    #[arg(long, value_name = "FILE", requires = "compose")]
    env_file: Vec<PathBuf>,
    /// With --compose: a profile that is active (repeatable).
    #[arg(long, value_name = "NAME", requires = "compose")]
    profile: Vec<String>,
    /// With --compose: the plugin to install, a directory or `git+https://…@rev`. Default: the
    /// deployment brings its lock along.
    #[arg(long, value_name = "DIRECTORY", requires = "compose")]
    install: Option<String>,
    /// With --install: the directory of wheels from which its Python dependencies come, offline.
    #[arg(long, value_name = "DIRECTORY", requires = "install")]
    wheels: Option<PathBuf>,
    /// With --compose: how the lock works, a built-in scheme or a scheme file.
    #[arg(long, value_name = "SCHEME", requires = "compose")]
    scheme: Option<String>,
    /// With --compose: the name for the login form, or for basic authentication.
    #[arg(long, value_name = "NAME", requires = "compose")]
    username: Option<String>,
    /// With --compose: the variable that holds its password.
    #[arg(long, value_name = "VARIABLE", requires = "compose")]
    password_env: Option<String>,
    /// Further routes to probe, as a YAML list of { method, path } (see docs/design.md).
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// Gate only this subject (repeatable).
    #[arg(long, value_name = "NAME")]
    subject: Vec<String>,
    #[command(flatten)]
    run: RunArguments,
}

/// What every command that gates takes.
#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// The events, separated by commas. Default: the file's; else restart,kill,recreate,down-up.
    #[arg(long, value_parser = values::event(), value_delimiter = ',', value_name = "EVENT,…", env = "LOCKPROOF_EVENTS")]
    events: Option<Vec<Event>>,
    /// Subjects gated at once. Default: the file's; else the number of cores.
    #[arg(long, short, value_name = "N", env = "LOCKPROOF_JOBS", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// The severity from which on a finding makes the exit code 1.
    #[arg(long, value_parser = values::severity(), default_value_t = Severity::Warning, env = "LOCKPROOF_FAIL_ON")]
    fail_on: Severity,
    /// A JSON report: findings that stand in it do not count.
    #[arg(long, value_name = "REPORT.json", env = "LOCKPROOF_BASELINE")]
    baseline: Option<PathBuf>,
    /// The time that the whole run may take, such as 10m; what is not done by then is undecided.
    #[arg(long, value_name = "DURATION", env = "LOCKPROOF_TIMEOUT")]
    timeout: Option<Span>,
    /// Show where the time went, phase by phase, and how many starts there were.
    #[arg(long)]
    timings: bool,
    /// Write a report (repeatable): json, junit, sarif, html, markdown or ndjson.
    #[arg(long, value_name = "FORMAT=PATH")]
    report: Vec<ReportTarget>,
}

const AFTER_HELP: &str = "\
An install script runs in the container, with:
  COMFYUI_WORKSPACE_PATH    the container's own, else this machine's; may be unset
  LOCKPROOF_PLUGIN          the plugin's directory (`from:`), lent for the script
  LOCKPROOF_WHEELS          the directory of wheels (`wheels:`), lent for the script
  LOCKPROOF_PYTHON          the Python that runs ComfyUI
  LOCKPROOF_CUSTOM_NODES    where ComfyUI loads custom nodes from

The password for the login form comes from the variable that `credential: { password_env: … }`
names; without it, each run makes a random one.";

/// What is run, and where its results go.
pub(super) struct Prepared {
    pub(super) engine: Engine,
    pub(super) run: Run,
    pub(super) plan: Plan,
    pub(super) options: Options,
    pub(super) reports: Vec<OpenReport>,
    pub(super) timings: bool,
}

pub(super) async fn run(arguments: Arguments, style: &Style, talk: &Talk) -> Result<u8> {
    // Read before any work, as everything that may be wrong.
    let routes = arguments.routes.as_deref().map(read_routes).transpose()?.unwrap_or_default();
    if !arguments.compose.is_empty() {
        return of_compose(arguments, routes, style, talk).await;
    }
    let file = arguments.config.clone().or_else(|| Some(PathBuf::from(DEFAULT_CONFIG)).filter(|p| p.exists()));
    if file.is_none() {
        talk.line("no lockproof.yaml here: gating the bundled demo (write your own with `--config FILE`)");
    }
    let mut prepared = prepare(file.as_deref(), arguments.run).await?;
    select(&mut prepared.plan, &arguments.subject)?;
    prepared.plan.routes = routes;
    show(prepared, style, talk).await
}

/// Runs, and prints what came of it.
async fn show(prepared: Prepared, style: &Style, talk: &Talk) -> Result<u8> {
    let timings = prepared.timings;
    let report = perform(prepared, talk).await?;
    print(&terminal::render(&report, style.width, style.stdout_colour))?;
    if timings {
        print(&terminal::timings(&report, style.width, style.stdout_colour))?;
    }
    Ok(report.exit_code)
}

/// Gates one service of a compose project, without a configuration.
async fn of_compose(arguments: Arguments, routes: Vec<Route>, style: &Style, talk: &Talk) -> Result<u8> {
    let install = arguments.install.map(|from| InstallEntry {
        from: Some(from),
        wheels: arguments.wheels,
        ..InstallEntry::default()
    });
    let credential = (arguments.username.is_some() || arguments.password_env.is_some()).then(|| CredentialEntry {
        username: arguments.username,
        password_env: arguments.password_env,
        ..CredentialEntry::default()
    });
    let subject = SubjectEntry {
        name: arguments.service.clone().unwrap_or_else(|| "comfyui".to_owned()),
        compose: Some(arguments.compose.clone()),
        service: arguments.service,
        env_files: arguments.env_file,
        profiles: arguments.profile,
        ..SubjectEntry::default()
    };
    let file = ConfigFile {
        subjects: vec![subject],
        scheme: SchemeEntry { use_: arguments.scheme, install, credential },
        ..ConfigFile::default()
    };
    let here = std::env::current_dir().map_err(|e| Error::usage("the current directory is gone").detail(e))?;
    let mut plan = Plan::new(&file, &here)?;
    plan.routes = routes;
    if let [subject] = plan.subjects.as_mut_slice()
        && let Some(compose) = &subject.compose
    {
        subject.name.clone_from(&compose.service);
    }
    let config = arguments.compose.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
    let prepared = prepare_plan(Some((plan, config)), arguments.run).await?;
    show(prepared, style, talk).await
}

/// Reads everything that may be wrong before any work is done; `None`: the demo.
pub(super) async fn prepare(file: Option<&Path>, arguments: RunArguments) -> Result<Prepared> {
    let plan = file.map(|file| Ok((read_plan(file)?, file.display().to_string()))).transpose()?;
    prepare_plan(plan, arguments).await
}

/// The same, with a plan and the name of what it was read from.
async fn prepare_plan(mut plan: Option<(Plan, String)>, arguments: RunArguments) -> Result<Prepared> {
    // Read before reports are opened, which empties them: it may be the same file.
    let baseline = arguments.baseline.as_deref().map(read_baseline).transpose()?;
    if let (Some((plan, _)), Some(events)) = (&mut plan, &arguments.events) {
        plan.set_events(events)?;
    }
    for subject in plan.iter().flat_map(|(plan, _)| &plan.subjects) {
        given::check(subject)?;
    }
    let reports = open_all(&arguments.report)?;
    let engine = Engine::connect().await?;
    let run = Run::new();
    let (mut plan, config) = match plan {
        Some((plan, file)) => (plan, Some(file)),
        None => {
            let kit = signal::guard(&engine, &run, Kit::prepare(&engine, &run)).await?;
            (read_plan(&kit.demo())?, None)
        }
    };
    if let Some(events) = &arguments.events {
        plan.set_events(events)?;
    }
    if let Some(jobs) = arguments.jobs {
        (plan.jobs, plan.ahead) = (jobs.into(), 0);
    }
    let options = Options { fail_on: arguments.fail_on, timeout: arguments.timeout.map(|t| t.0), baseline, config };
    Ok(Prepared { engine, run, plan, options, reports, timings: arguments.timings })
}

/// Runs, and writes the reports, whatever the end is.
pub(super) async fn perform(prepared: Prepared, listener: &dyn Listener) -> Result<Report> {
    let Prepared { engine, run, plan, options, reports, .. } = prepared;
    let (started, begun) = (Timestamp::now(), Instant::now());
    let result = signal::guard(&engine, &run, gate::run(&engine, &run, &plan, &options, listener)).await;
    let cut_short;
    let report = match &result {
        Ok(report) => report,
        Err(e) => {
            cut_short = Report::new(started, begun.elapsed(), e.exit_code(), Vec::new(), Vec::new());
            &cut_short
        }
    };
    write_reports(reports, report);
    result
}

/// A report that cannot be written is complained of, and never changes the exit code.
pub(super) fn write_reports(reports: Vec<OpenReport>, report: &Report) {
    for open in reports {
        if let Err(e) = open.write(report) {
            tracing::error!("{e}");
        }
    }
    if let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY").filter(|p| !p.is_empty())
        && let Err(e) = append_summary(Path::new(&path), report)
    {
        tracing::error!("{e}");
    }
}

pub(super) fn read_plan(path: &Path) -> Result<Plan> {
    let file = load::load(path)?;
    let absolute =
        std::path::absolute(path).map_err(|e| Error::usage(format!("cannot find {}", path.display())).detail(e))?;
    let base = absolute.parent().unwrap_or(Path::new("/"));
    Plan::new(&file, base).map_err(|e| e.or_at(path.display()))
}

pub(super) fn read_baseline(path: &Path) -> Result<Report> {
    let text = read::text(path, read::LONG).map_err(|e| {
        Error::usage(format!("cannot read the baseline {}", path.display()))
            .detail(e)
            .fix("give a file that `--report json=PATH` has written")
    })?;
    Report::from_json(&text, &path.display().to_string())
}

/// Keeps only the subjects that were asked for.
pub(super) fn select(plan: &mut Plan, names: &[String]) -> Result<()> {
    for name in names {
        if !plan.subjects.iter().any(|s| s.name == *name) {
            let known: Vec<&str> = plan.subjects.iter().map(|s| s.name.as_str()).collect();
            return Err(Error::usage(format!("there is no subject `{name}`"))
                .at("--subject")
                .fix(format!("the subjects are: {}", known.join(", "))));
        }
    }
    if !names.is_empty() {
        plan.subjects.retain(|s| names.contains(&s.name));
    }
    Ok(())
}
