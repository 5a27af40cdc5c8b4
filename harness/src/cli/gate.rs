//! `lockproof gate`.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use clap::Args;
use jiff::Timestamp;

use super::{
    output::print,
    progress::Talk,
    reports::{read_baseline, write_reports},
    routes::read_routes,
    signal,
    style::Style,
    values,
};
use crate::{
    config::{load, plan::Plan},
    gate::{self, Listener, Options},
    report::{OpenReport, ReportTarget, open_all, terminal},
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
    report::Report,
};
use lockproof_probe::surface::routes::Route;

/// The configuration file that is used when no other is given.
pub(super) const DEFAULT_CONFIG: &str = "lockproof.yaml";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Arguments {
    /// The configuration file. Default: ./lockproof.yaml if it exists, else the bundled demo.
    #[arg(long, short, value_name = "FILE", env = "LOCKPROOF_CONFIG")]
    config: Option<PathBuf>,
    /// Gate this compose file, or the one in this directory, instead of a configuration
    /// (repeatable; together they form one project). A copy of its stack runs with the Compose of
    /// this machine.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "subject"])]
    compose: Vec<PathBuf>,
    /// With --compose: the service that runs ComfyUI; with `--scheme http-basic`, the proxy that
    /// requires the login. Default: detected.
    #[arg(long, value_name = "NAME", requires = "compose")]
    service: Option<String>,
    /// With --compose: a file with variables, used instead of `.env` (repeatable).
    #[arg(long, value_name = "FILE", requires = "compose")]
    env_file: Vec<PathBuf>,
    /// With --compose: an active profile (repeatable).
    #[arg(long, value_name = "NAME", requires = "compose")]
    profile: Vec<String>,
    /// With --compose: the plugin to install, as a directory or `git+https://…@rev`. Default: none;
    /// the deployment installs its own lock.
    #[arg(long, value_name = "DIRECTORY", requires = "compose")]
    install: Option<String>,
    /// With --install: a directory of wheels to install the plugin's Python dependencies from,
    /// offline.
    #[arg(long, value_name = "DIRECTORY", requires = "install")]
    wheels: Option<PathBuf>,
    /// With --compose: the login scheme, as a built-in name or a path to a scheme file.
    #[arg(long, value_name = "SCHEME", requires = "compose")]
    scheme: Option<String>,
    /// With --compose: the user name for the login form or for HTTP Basic authentication.
    #[arg(long, value_name = "NAME", requires = "compose")]
    username: Option<String>,
    /// With --compose: the environment variable that contains the password.
    #[arg(long, value_name = "VARIABLE", requires = "compose")]
    password_env: Option<String>,
    /// Additional routes to probe: a YAML list of { method, path } (see docs/design.md).
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// Gate only this subject (repeatable).
    #[arg(long, value_name = "NAME")]
    subject: Vec<String>,
    #[command(flatten)]
    run: RunArguments,
}

/// The options of every command that runs the gate.
#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// The events to run, separated by commas. Default: those in the file, else
    /// restart,kill,recreate,down-up.
    #[arg(long, value_parser = values::event(), value_delimiter = ',', value_name = "EVENT,…", env = "LOCKPROOF_EVENTS")]
    events: Option<Vec<Event>>,
    /// The number of subjects to gate in parallel. Default: the value in the file, else the number
    /// of cores.
    #[arg(long, short, value_name = "N", env = "LOCKPROOF_JOBS", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// The lowest severity that fails the run (exit code 1).
    #[arg(long, value_parser = values::severity(), default_value_t = Severity::Warning, env = "LOCKPROOF_FAIL_ON")]
    fail_on: Severity,
    /// A JSON report from an earlier run. Its findings do not count.
    #[arg(long, value_name = "REPORT.json", env = "LOCKPROOF_BASELINE")]
    baseline: Option<PathBuf>,
    /// The time limit of the whole run, such as 10m. Events that are not finished by then are
    /// undecided.
    #[arg(long, value_name = "DURATION", env = "LOCKPROOF_TIMEOUT")]
    timeout: Option<Span>,
    /// Show the time spent in each phase and the number of container starts.
    #[arg(long)]
    timings: bool,
    /// Write a report (repeatable): json, junit, sarif, html, markdown or ndjson.
    #[arg(long, value_name = "FORMAT=PATH")]
    report: Vec<ReportTarget>,
}

const AFTER_HELP: &str = "\
An install script runs in the container with these variables:
  COMFYUI_WORKSPACE_PATH    from the container, else from this machine; may be unset
  LOCKPROOF_PLUGIN          the plugin's directory (`from:`), copied for the script
  LOCKPROOF_WHEELS          the directory of wheels (`wheels:`), copied for the script
  LOCKPROOF_PYTHON          the Python that runs ComfyUI
  LOCKPROOF_CUSTOM_NODES    the directory from which ComfyUI loads custom nodes

`credential: { password_env: … }` names the environment variable with the password for the login
form. Without it, each run uses a random password.";

/// A validated run: what to gate, and the opened report files.
pub(super) struct Prepared {
    pub(super) engine: Engine,
    pub(super) run: Run,
    pub(super) plan: Plan,
    pub(super) options: Options,
    pub(super) reports: Vec<OpenReport>,
    pub(super) timings: bool,
}

pub(super) async fn run(arguments: Arguments, style: &Style, talk: &Talk) -> Result<u8> {
    // Validated before any work, like all input.
    let routes = arguments.routes.as_deref().map(read_routes).transpose()?.unwrap_or_default();
    if !arguments.compose.is_empty() {
        return of_compose(arguments, routes, style, talk).await;
    }
    let file = arguments.config.clone().or_else(|| Some(PathBuf::from(DEFAULT_CONFIG)).filter(|p| p.exists()));
    if file.is_none() {
        talk.line("no lockproof.yaml in this directory: gating the bundled demo (use --config FILE to gate your own)");
    }
    let mut prepared = prepare(file.as_deref(), arguments.run).await?;
    select(&mut prepared.plan, &arguments.subject)?;
    prepared.plan.routes = routes;
    show(prepared, style, talk).await
}

/// Runs the gate and prints the result.
async fn show(prepared: Prepared, style: &Style, talk: &Talk) -> Result<u8> {
    let timings = prepared.timings;
    let report = perform(prepared, talk).await?;
    print(&terminal::render(&report, style.width, style.stdout_colour))?;
    if timings {
        print(&terminal::timings(&report, style.width, style.stdout_colour))?;
    }
    Ok(report.exit_code)
}

/// Gates one service of a compose project, without a configuration file.
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
    let here = std::env::current_dir().map_err(|e| Error::usage("cannot read the current directory").detail(e))?;
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

/// Validates all input before any work is done. Without a configuration file, prepares the demo.
pub(super) async fn prepare(file: Option<&Path>, arguments: RunArguments) -> Result<Prepared> {
    let plan = file.map(|file| Ok((read_plan(file)?, file.display().to_string()))).transpose()?;
    prepare_plan(plan, arguments).await
}

/// Validates a plan and the options; the plan's second part is the name of its source.
async fn prepare_plan(mut plan: Option<(Plan, String)>, arguments: RunArguments) -> Result<Prepared> {
    // Read before the report files are opened and truncated: it may be the same file.
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

/// Runs the gate and writes the reports, however the run ends.
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

pub(super) fn read_plan(path: &Path) -> Result<Plan> {
    let file = load::load(path)?;
    let absolute = std::path::absolute(path)
        .map_err(|e| Error::usage(format!("cannot resolve the path {}", path.display())).detail(e))?;
    let base = absolute.parent().unwrap_or(Path::new("/"));
    Plan::new(&file, base).map_err(|e| e.or_at(path.display()))
}

/// Keeps only the named subjects.
pub(super) fn select(plan: &mut Plan, names: &[String]) -> Result<()> {
    for name in names {
        if !plan.subjects.iter().any(|s| s.name == *name) {
            let known: Vec<&str> = plan.subjects.iter().map(|s| s.name.as_str()).collect();
            return Err(Error::usage(format!("no such subject: `{name}`"))
                .at("--subject")
                .fix(format!("available subjects: {}", known.join(", "))));
        }
    }
    if !names.is_empty() {
        plan.subjects.retain(|s| names.contains(&s.name));
    }
    Ok(())
}
