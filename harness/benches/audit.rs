//! How long `audit` takes for one file, and for 1,000 files in one call: `cargo bench --bench audit`.
//!
//! The whole command is timed, start and end of its process too. The limits are those that the
//! project set itself; the bench fails when one is not met, so run it on a machine that is at rest.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// One file within this.
const ONE: Duration = Duration::from_millis(20);

/// A thousand files within this.
const THOUSAND: Duration = Duration::from_secs(1);

/// How often each is measured; the median counts.
const ROUNDS: usize = 11;

fn main() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/compose");
    let one = fixtures.join("half-fixed/compose.yaml");
    let place = tempfile::tempdir().expect("a directory");
    let thousand = copies(&fixtures, place.path(), 1000);
    let mut met = true;
    for (what, files, limit) in [("1 file", vec![one], ONE), ("1,000 files", thousand, THOUSAND)] {
        let mut times: Vec<Duration> = (0..ROUNDS).map(|_| time(&files)).collect();
        times.sort_unstable();
        let median = times[ROUNDS / 2];
        println!(
            "{what:>12}: median {median:>8.1?}, from {:.1?} to {:.1?} (limit {limit:?})",
            times[0],
            times[ROUNDS - 1]
        );
        met &= median <= limit;
    }
    assert!(met, "a limit was not met");
}

/// Whole projects, each in a directory of its own.
fn copies(fixtures: &Path, place: &Path, count: usize) -> Vec<PathBuf> {
    let names = [
        "half-fixed/compose.yaml",
        "anchors/compose.yaml",
        "story/docker-compose.yml",
        "fixed/compose.yaml",
        "proxy/compose.yaml",
    ];
    let texts: Vec<Vec<u8>> = names.iter().map(|n| std::fs::read(fixtures.join(n)).expect("a fixture")).collect();
    (0..count)
        .map(|n| {
            let directory = place.join(n.to_string());
            std::fs::create_dir(&directory).expect("it can be made");
            let file = directory.join("docker-compose.yml");
            std::fs::write(&file, &texts[n % texts.len()]).expect("it can be written");
            file
        })
        .collect()
}

fn time(files: &[PathBuf]) -> Duration {
    let begun = Instant::now();
    let status = Command::new(env!("CARGO_BIN_EXE_lockproof"))
        .args(["audit", "--no-engine"])
        .args(files)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("it runs");
    assert!(matches!(status.code(), Some(0 | 1)), "it ended with {status}");
    begun.elapsed()
}
