//! For `make test SUITE=FILE`: prints nextest's filter of the tests that the suite file runs, and on
//! standard error the tests that it leaves out, each with its reason.

use std::collections::BTreeMap;

use serde::Deserialize;

/// What of a suite file decides which tests run.
#[derive(Deserialize)]
struct Suite {
    image: Option<String>,
    #[serde(default)]
    left_out: BTreeMap<String, String>,
}

/// Modules whose tests need the lab's own image: its switches, its stand-in nodes, its name in compose files.
const LAB_ONLY: [&str; 4] = ["compose", "mutants", "proxy", "started_flaws"];

fn main() -> anyhow::Result<()> {
    let path = std::env::args_os().nth(1).ok_or_else(|| anyhow::anyhow!("no suite file given"))?;
    let suite: Suite = serde_yaml::from_str(&std::fs::read_to_string(&path)?)?;
    let mut left_out = suite.left_out;
    if suite.image.is_some() {
        for module in LAB_ONLY {
            left_out.entry(module.to_owned()).or_insert_with(|| "it needs the lab's image".to_owned());
        }
    }
    for (name, why) in &left_out {
        eprintln!("left out: {name}: {why}");
    }
    let tests: Vec<String> = left_out.keys().map(|name| format!("test(/^{name}(::|$)/)")).collect();
    println!("package(e2e) - ({})", if tests.is_empty() { "none()".to_owned() } else { tests.join(" + ") });
    Ok(())
}
