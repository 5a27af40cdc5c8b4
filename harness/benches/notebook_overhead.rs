//! What the notebook runner costs more than `jupyter execute`: both execute the same notebook in the
//! same container, turn about, in one run. At most 10 % and half a second are allowed.
//!
//! `cargo bench --package lockproof --bench notebook_overhead`

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use lockproof_deploy::{
    engine::{
        Engine, Run,
        archive::{Ownership, Tarball},
        container::ContainerSpec,
        exec::Command,
    },
    lab,
};
use lockproof_model::error::{Error, Result};
use serde_json::json;

const SCRIPT: &str = include_str!("../src/notebook/runner.py");
const ROUNDS: usize = 3;
const CELLS: usize = 40;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(measure()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

async fn measure() -> Result<bool> {
    let engine = Engine::connect().await?;
    let run = Run::new();
    let spec = ContainerSpec {
        name: run.name("bench"),
        image: lab::notebook_runner(&engine).await?,
        labels: run.labels("bench"),
        entrypoint: Some(vec!["sleep".to_owned()]),
        command: Some(vec!["3600".to_owned()]),
        env: vec!["HOME=/tmp".to_owned()],
        init: Some(true),
        ..Default::default()
    };
    let id = engine.create(&spec).await?;
    let measured = rounds(&engine, &id).await;
    engine.remove(&id).await?;
    let (mut theirs, mut ours) = measured?;
    let (theirs, ours) = (median(&mut theirs), median(&mut ours));
    let allowed = theirs.mul_f64(1.1) + Duration::from_millis(500);
    let told = |what: &str, took: Duration| println!("{what:<16} {:.2} s", took.as_secs_f64());
    told("jupyter execute", theirs);
    told("runner", ours);
    told("allowed", allowed);
    println!(
        "{:+.1} % ({ROUNDS} rounds, {CELLS} cells, medians)",
        (ours.as_secs_f64() / theirs.as_secs_f64() - 1.0) * 100.0
    );
    Ok(ours <= allowed)
}

async fn rounds(engine: &Engine, id: &str) -> Result<(Vec<Duration>, Vec<Duration>)> {
    engine.start(id).await?;
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        lay_out(engine, id).await?;
        let their = time(engine, id, &["jupyter", "execute", "/bench/a.ipynb"]).await?;
        let our = time(engine, id, &["python3", "/bench/runner.py", "/bench/request.json"]).await?;
        // The first reads everything from the disk.
        if round > 0 {
            theirs.push(their);
            ours.push(our);
        }
    }
    Ok((theirs, ours))
}

async fn lay_out(engine: &Engine, id: &str) -> Result<()> {
    let cells: Vec<_> = (0..CELLS)
        .map(|n| {
            let source = format!("total = sum(i * i for i in range({}))\nprint(total)\ntotal", 10_000 + n);
            json!({ "cell_type": "code", "id": format!("c{n}"), "metadata": {}, "execution_count": null, "source": source, "outputs": [] })
        })
        .collect();
    let notebook = json!({
        "nbformat": 4, "nbformat_minor": 5, "cells": cells,
        "metadata": { "kernelspec": { "name": "python3", "display_name": "Python 3", "language": "python" } },
    });
    let request = json!({
        "notebook": "/bench/a.ipynb", "executed": "/bench/b.ipynb", "directory": "/bench", "env": {},
        "cell_timeout": 60, "notebook_timeout": 600, "socket": null, "port": 8188,
    });
    let mut tarball = Tarball::new();
    let broken = |e: std::io::Error| Error::environment("an archive cannot be made").detail(e);
    tarball.directory("bench", 0o755, Ownership::ROOT).map_err(broken)?;
    for (name, text) in
        [("a.ipynb", notebook.to_string()), ("request.json", request.to_string()), ("runner.py", SCRIPT.to_owned())]
    {
        tarball.file(&format!("bench/{name}"), text.as_bytes(), 0o644, Ownership::ROOT).map_err(broken)?;
    }
    engine.upload(id, "/", tarball.finish().map_err(broken)?).await
}

async fn time(engine: &Engine, id: &str, words: &[&str]) -> Result<Duration> {
    let begun = Instant::now();
    let output = engine.exec(id, Command::new(words.iter().copied())).await?;
    let took = begun.elapsed();
    if output.ok() && !output.stdout.contains("\"broken\"") {
        return Ok(took);
    }
    Err(Error::environment(format!("`{}` failed", words.join(" "))).detail(output.tail(20)))
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
