//! One replay: prepares the files, executes the notebook behind the proxy, and compares.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    Cell, CellEnding, Ending, Executed, Limits, Outcome, Request, Runner,
    compare::difference,
    execute::{Execution, Job, Stop},
    file::{File, Prepared, code_cells, is_compared, render, title},
    lacking,
    proxy::Proxy,
    queued,
    request::name_of,
    scan::scan,
    settings::Sanitizer,
    stage::Stage,
    verdict,
};
use crate::notebook::proxy;
use lockproof_compose::env_file as dotenv;
use lockproof_model::{
    error::{Error, Result},
    secret,
};
use lockproof_probe::{
    client::Client,
    server::{Server, Trust},
};

/// The port of the server in the notebook's container; ComfyUI's default.
const PORT: u16 = 8188;
/// The time limit for one answer about the queue.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn replay(request: &Request) -> Result<Outcome> {
    let begun = Instant::now();
    let file = File::read(&request.path)?;
    let rules = file.settings.sanitizer(&request.path)?;
    proxy::guard(request.token.as_deref());
    hide(request);
    let findings = scan(&file, &request.path, &request.subject, request.event, request.token.as_deref());
    let mut outcome = Outcome {
        name: name_of(&request.path),
        ending: Ending::Skipped,
        why: String::new(),
        cells: Vec::new(),
        traffic: super::Traffic::default(),
        findings,
        executed: None,
        kept: None,
        took: Duration::ZERO,
    };
    if let Some(why) = lacking::lacks(request, &file.settings.needs).await? {
        outcome.why = why;
        outcome.took = begun.elapsed();
        return Ok(outcome);
    }
    let preparing = Instant::now();
    request.runner.prepare().await?;
    // Building the image does not count as the notebook's time.
    let begun = begun + preparing.elapsed();
    let prepared = file.prepare(&request.parameters);
    for name in &prepared.unknown {
        tracing::warn!("{}: no cell tagged `parameters` sets `{name}`", outcome.name);
    }
    let stage = Stage::of(&request.path, &file.settings)?;
    let limits = Limits {
        cell: file.settings.cell_timeout.map_or(request.limits.cell, Duration::from_secs),
        notebook: file.settings.timeout.map_or(request.limits.notebook, Duration::from_secs),
    };
    let (execution, traffic) = execute(request, &prepared, &stage, limits).await?;
    outcome.traffic = traffic;
    outcome.cells = cells(&file, request.reference.as_ref(), &prepared, &execution, &rules, limits);
    let injected = injected(&prepared, &execution, limits);
    (outcome.ending, outcome.why) = verdict::of(injected.as_ref(), &outcome.cells, &execution);
    if let Some(cancelled) = &execution.cancelled {
        outcome.why.push_str(&format!("; {cancelled}"));
    }
    outcome.findings.extend(verdict::findings(request, &outcome));
    if let Some(notebook) = &execution.notebook {
        let clean = without_secrets(notebook);
        outcome.kept = keep(request, &clean)?;
        // Outputs of a failed run are not stored.
        if request.update && outcome.ending != Ending::Failed {
            let text = file.with_outputs(&clean)?;
            write(&request.path, &text)?;
            if outcome.ending == Ending::Changed {
                (outcome.ending, outcome.why) = (Ending::Same, String::new());
                outcome.findings.retain(|f| f.rule != lockproof_model::finding::Rule::ReplayChanged);
                for cell in &mut outcome.cells {
                    cell.ending = CellEnding::Same;
                }
            }
        }
        outcome.executed = Some(Executed(clean));
    }
    outcome.took = begun.elapsed();
    Ok(outcome)
}

/// Redacts environment variables with names of secrets.
fn hide(request: &Request) {
    for (name, value) in &request.env {
        let name = name.to_ascii_uppercase();
        if ["TOKEN", "PASSWORD", "SECRET", "KEY"].iter().any(|word| name.contains(word)) {
            secret::register(value);
        }
    }
}

async fn execute(
    request: &Request,
    prepared: &Prepared,
    stage: &Stage,
    limits: Limits,
) -> Result<(Execution, super::Traffic)> {
    let trust = Trust { ca: request.ca.as_deref(), insecure: request.insecure };
    let server = Server::named(&request.url, &trust)?;
    let token = request.token.clone();
    let directory = tempfile::Builder::new()
        .prefix("lockproof-notebook-")
        .tempdir()
        .map_err(|e| Error::environment("cannot create a temporary directory").detail(e))?;
    let (proxy, address) = match &request.runner {
        Runner::Container { .. } => {
            let socket = lent(directory.path())?.join("server.sock");
            (Proxy::on_socket(&socket, server, token).await?, format!("127.0.0.1:{PORT}"))
        }
        Runner::Python(_) => {
            let proxy = Proxy::on_loopback(server, token).await?;
            let address = proxy.address().map(|a| a.to_string()).unwrap_or_default();
            (proxy, address)
        }
    };
    let mut env = request.env.clone();
    env.remove(dotenv::TOKEN);
    env.insert("COMFYUI_URL".to_owned(), format!("http://{address}"));
    if let Some(token) = &request.token {
        env.insert(dotenv::TOKEN.to_owned(), token.clone());
    }
    let job = Job {
        notebook: render(&prepared.notebook)?,
        all: prepared.notebook["cells"].as_array().map_or(0, |cells| cells.iter().filter(|c| is_compared(c)).count()),
        prepared,
        stage,
        env,
        limits,
        directory: directory.path(),
        port: PORT,
        progress: request.progress.as_deref(),
    };
    let executed = job.run(&request.runner).await;
    let cancelled = match &executed {
        Ok(execution) if execution.got_to_its_end() => None,
        _ => queued::cancel(&Client::of(Server::named(&request.url, &trust)?, PATIENCE), &proxy.queued()).await,
    };
    if let Some(cancelled) = &cancelled {
        tracing::info!("{}: {cancelled}", name_of(&request.path));
    }
    Ok((Execution { cancelled, ..executed? }, proxy.traffic()))
}

/// A subdirectory of a private directory that can be mounted into a container: other users of this
/// machine cannot reach it.
fn lent(directory: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let lent = directory.join("lent");
    std::fs::create_dir(&lent)
        .and_then(|()| std::fs::set_permissions(&lent, std::fs::Permissions::from_mode(0o755)))
        .map_err(|e| Error::environment("cannot create a temporary directory").detail(e))?;
    Ok(lent)
}

fn cells(
    file: &File,
    reference: Option<&Executed>,
    prepared: &Prepared,
    execution: &Execution,
    rules: &Sanitizer,
    limits: Limits,
) -> Vec<Cell> {
    let stored = reference.map_or(&file.raw, |r| &r.0);
    let stored = code_cells(stored);
    let empty = Value::Null;
    let executed = execution.notebook.as_ref().map(code_cells).unwrap_or_default();
    let all = prepared.notebook["cells"].as_array().into_iter().flatten();
    let compared = all.enumerate().filter(|(_, cell)| is_compared(cell));
    compared
        .enumerate()
        .map(|(at, (index, cell))| {
            let seen = execution.cells.iter().find(|seen| seen.index == index);
            let before = stored.get(at).copied().unwrap_or(&empty);
            let after = executed.get(at).copied().unwrap_or(&empty);
            let compared = || match difference(before, after, rules) {
                None => CellEnding::Same,
                Some(how) => CellEnding::Changed(how),
            };
            let ending = match seen {
                Some(seen) => stopped(&seen.stop, limits).unwrap_or_else(compared),
                // An empty cell is not sent to the kernel.
                None if title(cell).is_empty() => CellEnding::Same,
                None => CellEnding::NotReached,
            };
            Cell { number: at + 1, title: title(cell), ending, took: seen.and_then(|seen| seen.took) }
        })
        .collect()
}

/// Shortens a message, which may contain user data.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 2000;
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    format!("{}… ({} characters)", text.chars().take(LONGEST).collect::<String>(), text.chars().count())
}

/// The error of the cell with the injected parameters, if any.
fn injected(prepared: &Prepared, execution: &Execution, limits: Limits) -> Option<CellEnding> {
    let cells = prepared.notebook["cells"].as_array()?;
    let mut seen = execution.cells.iter().filter(|seen| !cells.get(seen.index).is_some_and(is_compared));
    seen.find_map(|seen| stopped(&seen.stop, limits))
}

/// The ending of a cell that did not finish.
fn stopped(stop: &Stop, limits: Limits) -> Option<CellEnding> {
    Some(match stop {
        Stop::Done => return None,
        Stop::Raised(what) => CellEnding::Raised(shortened(&secret::redact(what))),
        Stop::CellTimeout => CellEnding::TimedOut(format!("timed out after {} s", limits.cell.as_secs())),
        Stop::NotebookTimeout => {
            CellEnding::TimedOut(format!("the notebook timed out after {} s", limits.notebook.as_secs()))
        }
        Stop::Died => CellEnding::KernelDied,
    })
}

/// A notebook with all secrets redacted.
fn without_secrets(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(secret::redact(text)),
        Value::Array(items) => Value::Array(items.iter().map(without_secrets).collect()),
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, value)| (secret::redact(key), without_secrets(value))).collect())
        }
        other => other.clone(),
    }
}

fn keep(request: &Request, notebook: &Value) -> Result<Option<PathBuf>> {
    let Some(path) = &request.keep else { return Ok(None) };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|e| unwritable(path, &e))?;
    }
    write(path, &render(notebook)?)?;
    Ok(Some(path.clone()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).map_or(0o644, |meta| meta.permissions().mode() & 0o7777);
    dotenv::replace(&dotenv::behind_links(path), text.as_bytes(), mode).map_err(|e| unwritable(path, &e))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Error {
    Error::environment(format!("cannot write {}", path.display())).detail(error)
}
