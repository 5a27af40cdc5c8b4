//! `lockproof audit`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::{
    audit_view::View,
    output::print,
    parallel,
    progress::Talk,
    reports::{read_baseline, write_reports},
    style::Style,
    values,
};
use crate::{
    cli::audit_view,
    report::{ReportTarget, open_all},
};
use lockproof_audit::{self as audit, Audit, fix, images::dockerfile::Dockerfile};
use lockproof_compose::{self as compose, Environment, Project, Service};
use lockproof_deploy::engine::{Engine, config::ImageSettings};
use lockproof_model::{
    error::{Error, ErrorKind, Result},
    exit,
    finding::Severity,
    report::Report,
    scheme::Scheme,
    summary::Summary,
};

/// How long to wait for image metadata from the engine. The audit works without it.
const ENGINE_PATIENCE: Duration = Duration::from_millis(300);

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Arguments {
    /// Compose files, or directories that contain one. Each is audited as a separate project.
    /// Default: the file that Compose would use in the current directory.
    #[arg(value_name = "FILE", conflicts_with = "file")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    compose: ComposeArguments,
    /// The service that runs ComfyUI (repeatable). Default: detected.
    #[arg(long, value_name = "NAME")]
    service: Vec<String>,
    /// The login scheme: a built-in name, or a path to a scheme file.
    #[arg(long, value_name = "SCHEME", default_value = Scheme::DEFAULT, env = "LOCKPROOF_SCHEME")]
    scheme: String,
    /// Do not query the engine for image metadata.
    #[arg(long)]
    no_engine: bool,
    /// Print a diff that applies the remedies.
    #[arg(long)]
    fix: bool,
    /// Apply the remedies to the files.
    #[arg(long, requires = "fix")]
    write: bool,
    /// The output format of findings.
    #[arg(long, value_enum, default_value_t = Format::Auto, env = "LOCKPROOF_AUDIT_FORMAT")]
    format: Format,
    /// The lowest severity that fails the run (exit code 1).
    #[arg(long, value_parser = values::severity(), default_value_t = Severity::Warning, env = "LOCKPROOF_FAIL_ON")]
    fail_on: Severity,
    /// A JSON report from an earlier run. Its findings do not count.
    #[arg(long, value_name = "REPORT.json", env = "LOCKPROOF_BASELINE")]
    baseline: Option<PathBuf>,
    /// Write a report (repeatable): json, junit, sarif, html, markdown or ndjson.
    #[arg(long, value_name = "FORMAT=PATH")]
    report: Vec<ReportTarget>,
}

/// The options that select a Compose project, with Compose's own names.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct ComposeArguments {
    /// A compose file (repeatable). All of them form one project, as with `docker compose -f`.
    #[arg(long, short, value_name = "FILE")]
    pub(super) file: Vec<PathBuf>,
    /// A file with variables, used instead of `.env` (repeatable).
    #[arg(long, value_name = "FILE")]
    pub(super) env_file: Vec<PathBuf>,
    /// An active profile (repeatable).
    #[arg(long, value_name = "NAME")]
    pub(super) profile: Vec<String>,
    /// The base directory of relative paths. Default: the directory of the first compose file.
    #[arg(long, value_name = "DIRECTORY")]
    pub(super) project_directory: Option<PathBuf>,
}

impl ComposeArguments {
    /// The options to read the project made of `files`.
    pub(super) fn options(&self, files: Vec<PathBuf>) -> compose::Options {
        compose::Options {
            files,
            directory: None,
            project_directory: self.project_directory.clone(),
            env_files: self.env_file.clone(),
            profiles: self.profile.clone(),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct ServiceArguments {
    /// The compose file, or a directory that contains one. Default: the file that Compose would use
    /// in the current directory.
    #[arg(value_name = "FILE", conflicts_with = "file")]
    path: Option<PathBuf>,
    #[command(flatten)]
    compose: ComposeArguments,
    /// The service that runs ComfyUI. Default: detected.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
}

impl ServiceArguments {
    /// Reads the project and calls `work` with the selected service.
    pub(super) fn with<T>(&self, work: impl FnOnce(&Project, &Service) -> Result<T>) -> Result<T> {
        let files = self.path.iter().chain(&self.compose.file).cloned().collect();
        let project = Project::read(&self.compose.options(files), Environment::of_this_process())?;
        work(&project, audit::one_service(&project, self.service.as_deref())?)
    }
}

/// The output format of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Human-readable; in GitHub Actions, annotations too.
    Auto,
    /// Human-readable.
    Terminal,
    /// GitHub Actions annotations only.
    Github,
}

const AFTER_HELP: &str = "\
`audit` does not start, pull or change anything. Its predictions assume that the lock works when it
is installed; use `lockproof gate` to prove it.

To accept a finding, put a comment on its line:
  # lockproof: accept persist/deps — the entry point installs them and stops when that fails

Exit code 1: a finding counts. 2: a file cannot be read (the other files are still audited).
4: no ComfyUI service was found, or the outcome of an event cannot be predicted.";

pub(super) async fn run(arguments: Arguments, style: &Style, talk: &Talk) -> Result<u8> {
    let (started, begun) = (Timestamp::now(), Instant::now());
    let scheme = Scheme::find(&arguments.scheme, Path::new(""))?;
    let baseline = arguments.baseline.as_deref().map(read_baseline).transpose()?;
    let reports = open_all(&arguments.report)?;
    let (projects, mut errors) = read(&arguments);
    let images = if arguments.no_engine { BTreeMap::new() } else { images(&projects).await };
    let options = audit::Options { services: arguments.service.clone(), scheme, images };
    let several = projects.len() + errors.len() > 1;
    let mut audited = Vec::new();
    let audits =
        parallel::map(&projects, file_of, |project| audit::audit(project, &options, &prefix(project, several)));
    for (result, project) in audits.into_iter().zip(&projects) {
        match result {
            Ok(audit) => audited.push((project, audit)),
            Err(e) => errors.push(e),
        }
    }
    let mut findings = Vec::new();
    for (_, audit) in &mut audited {
        for (finding, _) in &mut audit.findings {
            finding.baseline =
                baseline.as_ref().is_some_and(|b| b.findings.iter().any(|f| f.identity() == finding.identity()));
            findings.push(finding.clone());
        }
    }
    let code = exit_code(&audited, &errors, arguments.fail_on);
    let subjects = audited.iter().flat_map(|(_, audit)| audit.subjects.iter().map(audit::Subject::report)).collect();
    let mut report = Report::new(started, begun.elapsed(), code, subjects, findings);
    report.fail_on = arguments.fail_on;
    report.config = audited.first().and_then(|(p, _)| p.sources.all().first()).map(|s| s.name.clone());
    write_reports(reports, &report);

    let view = View { width: style.width, colour: style.stdout_colour, fail_on: arguments.fail_on };
    let github = arguments.format == Format::Github
        || arguments.format == Format::Auto && std::env::var_os("GITHUB_ACTIONS").is_some_and(|v| v == "true");
    if arguments.fix {
        print(&patches(&audited, arguments.write, talk)?)?;
    } else if arguments.format != Format::Github {
        for (project, audit) in &audited {
            print(&audit_view::project(&view, project, audit))?;
        }
    }
    if github {
        print(&audit_view::annotations(&audited, arguments.fail_on))?;
    }
    for (_, audit) in &audited {
        audit.notes.iter().chain(&audit.unread).for_each(|note| talk.line(&format!("note: {note}")));
    }
    for error in &errors {
        super::output::complain(style, error);
    }
    if !arguments.fix && arguments.format != Format::Github {
        print(&audit_view::headline(&view, &audited, errors.len(), code))?;
    }
    Ok(code)
}

/// Reads every project. An unreadable project is reported; the others are still read.
fn read(arguments: &Arguments) -> (Vec<Project>, Vec<Error>) {
    let env = Environment::of_this_process();
    let given: Vec<Vec<PathBuf>> = if arguments.files.is_empty() {
        vec![arguments.compose.file.clone()]
    } else {
        arguments.files.iter().map(|file| vec![file.clone()]).collect()
    };
    let mut projects = Vec::new();
    let mut errors = Vec::new();
    let named = |files: &Vec<PathBuf>| files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ");
    let reading = |files: &Vec<PathBuf>| Project::read(&arguments.compose.options(files.clone()), env.afresh());
    for result in parallel::map(&given, named, reading) {
        match result {
            Ok(project) => projects.push(project),
            Err(e) => errors.push(e),
        }
    }
    (projects, errors)
}

/// The prefix of a subject's name: its file when several are audited, else empty.
fn prefix(project: &Project, several: bool) -> String {
    if several { format!("{}: ", file_of(project)) } else { String::new() }
}

/// The first file of a project.
fn file_of(project: &Project) -> String {
    project.sources.all().first().map(|source| source.name.clone()).unwrap_or_default()
}

/// Image metadata from the engine, as far as it answers within [`ENGINE_PATIENCE`].
async fn images(projects: &[Project]) -> BTreeMap<String, Dockerfile> {
    let names: BTreeSet<&str> =
        projects.iter().flat_map(|p| &p.services).filter_map(|s| s.image.as_ref()).map(|i| i.text.as_str()).collect();
    let mut found = BTreeMap::new();
    let asked = async {
        let Ok(engine) = Engine::connect().await else { return };
        for name in names {
            if let Ok(Some(settings)) = engine.image_settings(name).await {
                found.insert(name.to_owned(), dockerfile(settings));
            }
        }
    };
    // Use what arrived in time.
    let _late = tokio::time::timeout(ENGINE_PATIENCE, asked).await;
    found
}

/// The engine's metadata of an image, as Dockerfile instructions.
fn dockerfile(settings: ImageSettings) -> Dockerfile {
    let pair = |text: &String| text.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
    let env: BTreeMap<String, String> = settings.env.iter().filter_map(pair).collect();
    Dockerfile {
        environments: environment(&env).into_iter().collect(),
        env,
        entrypoint: settings.entrypoint,
        command: settings.command,
        workdir: Some(settings.working_dir).filter(|w| !w.is_empty()),
        user: Some(settings.user).filter(|u| !u.is_empty()),
        volumes: settings.volumes,
        healthcheck: settings.healthcheck,
        ..Dockerfile::default()
    }
}

/// The virtual environment that the image's `VIRTUAL_ENV` or the first entry of `PATH` names,
/// unless it is the system's.
fn environment(env: &BTreeMap<String, String>) -> Option<String> {
    let first = || env.get("PATH")?.split(':').next()?.strip_suffix("/bin");
    let path = env.get("VIRTUAL_ENV").map(String::as_str).or_else(first)?;
    let system = matches!(path, "" | "/usr" | "/usr/local") || path.starts_with("/usr/local/");
    (!system).then(|| path.to_owned())
}

/// 2 for an unreadable file; then 1 if a finding counts, else 3 or 4 for a failed audit, else 4 for an unread
/// source or an unknown prediction, else 0.
fn exit_code(audited: &[(&Project, Audit)], errors: &[Error], fail_on: Severity) -> u8 {
    if errors.iter().any(|e| e.kind() == ErrorKind::Usage) {
        return exit::USAGE;
    }
    if audited.iter().any(|(_, audit)| audit.counts(fail_on)) {
        return exit::FAILED;
    }
    if let Some(error) = errors.iter().find(|e| e.kind() == ErrorKind::Environment).or(errors.first()) {
        return error.exit_code();
    }
    Summary {
        undecided: audited.is_empty() || audited.iter().any(|(_, audit)| audit.is_undecided()),
        ..Summary::default()
    }
    .exit_code()
}

/// Returns the diffs of all files; with `write`, also writes the files.
fn patches(audited: &[(&Project, Audit)], write: bool, talk: &Talk) -> Result<String> {
    let mut text = String::new();
    for (project, audit) in audited {
        let fixes = fix::fixes(project, audit);
        for file in &fixes.files {
            let name = project.sources.get(file.file).map_or_else(String::new, |s| s.name.clone());
            text.push_str(&file.diff(&name));
            if write {
                file.write(project)?;
                talk.line(&format!("wrote {name}"));
            }
        }
        fixes.left.iter().for_each(|line| talk.line(&format!("note: {line}")));
    }
    Ok(lockproof_model::secret::redact(&text))
}
