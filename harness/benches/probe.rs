//! How fast the probe engine is, against what the server can do at all: `cargo bench --bench probe`.
//!
//! Requests per second of the engine on the lab as a share of what `wrk -c32` (Debian package `wrk`)
//! reaches on the same route in the same run; how long the full matrix takes; and what memory ten
//! times as many probes need. The lab runs in a container on this machine and shares its cores with
//! either client. Ratios are what to compare: seconds are of this machine.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use lockproof::config::{load, plan::Plan};
use lockproof_deploy::{
    deployment::{Deployment, ready::Readiness},
    engine::{Engine, Run},
    install,
    lab::Kit,
    layout, mint,
};
use lockproof_probe::{client::Client, matrix::Matrix, message::Request, surface::routes::Route};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Connections of either client.
const CONNECTIONS: usize = 32;
/// How long each client asks in each round; the rounds alternate, so that both see the same machine.
const ROUND: Duration = Duration::from_secs(3);
const ROUNDS: usize = 5;
/// The route: refused by the lock, as most probes are.
const ROUTE: &str = "/queue";

#[tokio::main]
async fn main() -> Result<()> {
    // `cargo test --benches` only asks whether it builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let engine = Engine::connect().await?;
    let run = Run::new();
    let measured = measure(&engine, &run).await;
    engine.sweep_run(run.id()).await?;
    measured
}

async fn measure(engine: &Engine, run: &Run) -> Result<()> {
    let kit = Kit::prepare(engine, run).await?;
    let text = format!(
        "subjects: [{{ name: bench, image: lockproof/comfyui-lab, stop_timeout: 1s }}]\n\
         scheme: {{ install: {{ from: {}, wheels: {} }} }}",
        kit.plugin().display(),
        kit.wheels().display()
    );
    let plan = Plan::new(&load::parse(&text, "bench")?, Path::new("/"))?;
    let deployment = Deployment::bring_up(engine, run, "bench", &plan.subjects[0]).await?;
    let layout = layout::detect(&deployment, &ready(&deployment).await?).await?;
    let installed = install::install(&deployment, &layout).await?;
    deployment.restart().await?;
    let client = ready(&deployment).await?;
    let keys = mint::mint(&deployment, &client, &layout, &installed).await?;

    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(wrk(&client.base())?);
        ours.push(requests(&client, ROUND).await);
    }
    let (theirs, ours) = (median(theirs), median(ours));
    println!("wrk -c{CONNECTIONS} GET {ROUTE}    {theirs:>7.0} requests/s (median of {ROUNDS})");
    println!("lockproof GET {ROUTE}   {ours:>7.0} requests/s");
    println!("share                {:>7.2}", ours / theirs);

    let matrix = Matrix {
        client: &client,
        scheme: &deployment.subject.lock.scheme,
        keys: Some(&keys),
        routes: Route::all(),
        mutating: true,
    };
    let (before, mut took, mut probes) = (peak_memory(), Vec::new(), 0);
    for round in 0..10 {
        let begun = Instant::now();
        let counts = matrix.run(&|_, _| {}).await.counts;
        took.push(begun.elapsed().as_secs_f64());
        probes = counts.rejected + counts.served + counts.passed + counts.indeterminate;
        if round == 0 {
            println!("peak memory          {before:>7} KiB before the matrix, {} KiB after the first", peak_memory());
        }
    }
    println!("                     {:>7} KiB after the tenth", peak_memory());
    println!("full matrix          {:>7.2} s (median of 10), {probes} probes", median(took));
    deployment.take_down().await?;
    Ok(())
}

async fn ready(deployment: &Deployment) -> Result<Client> {
    match deployment.wait_ready().await? {
        Readiness::Ready { client, .. } => Ok(client),
        Readiness::Down(down) => Err(down.why.into()),
    }
}

/// Requests a second of `wrk`.
fn wrk(base: &str) -> Result<f64> {
    let seconds = format!("-d{}s", ROUND.as_secs());
    let said = Command::new("wrk")
        .args(["-t1", &format!("-c{CONNECTIONS}"), &seconds, &format!("{base}{ROUTE}")])
        .output()
        .map_err(|e| format!("wrk cannot be run: {e}: install Debian's package wrk"))?;
    let text = String::from_utf8_lossy(&said.stdout);
    let figure = text.lines().find_map(|line| line.strip_prefix("Requests/sec:")).ok_or("wrk told no figure")?;
    Ok(figure.trim().parse()?)
}

/// Requests a second of the engine, as the matrix sends them.
async fn requests(client: &Client, time: Duration) -> f64 {
    let (begun, request) = (Instant::now(), Request::get(ROUTE));
    let sent = stream::repeat(request)
        .take_while(|_| std::future::ready(begun.elapsed() < time))
        .map(|request| async move { client.send(&request).await })
        .buffered(CONNECTIONS)
        .filter(|outcome| std::future::ready(outcome.is_ok()))
        .count()
        .await;
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let sent = sent as f64;
    sent / begun.elapsed().as_secs_f64()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The largest resident set of this process until now, in KiB (proc(5), `VmHWM`).
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0)
}
