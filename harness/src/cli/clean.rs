//! `lockproof clean`.

use clap::Args;

use super::output::print;
use lockproof_deploy::engine::{Engine, sweep::Whose};
use lockproof_model::{error::Result, exit};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Remove the objects of every run, including runs in progress.
    #[arg(long)]
    all: bool,
    /// List what would be removed, and remove nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<u8> {
    let engine = Engine::connect().await?;
    let whose = if arguments.all { Whose::Everybody } else { Whose::Gone };
    let found = engine.leftovers(whose).await?;
    if found.is_empty() {
        let more = engine.leftovers(Whose::Everybody).await?.len();
        let hint = if more > 0 {
            format!(" ({more} runs are in progress or belong to another machine; --all removes them too)")
        } else {
            String::new()
        };
        print(&format!("nothing to clean up{hint}\n"))?;
        return Ok(exit::OK);
    }
    for (run, leftovers) in found {
        let mut what = format!(
            "{} containers, {} volumes, {} networks",
            leftovers.containers.len(),
            leftovers.volumes.len(),
            leftovers.networks.len()
        );
        if !leftovers.images.is_empty() {
            what.push_str(&format!(", {} images", leftovers.images.len()));
        }
        if arguments.dry_run {
            print(&format!("run {run}: would remove {what}\n"))?;
        } else {
            engine.sweep(&leftovers).await?;
            print(&format!("run {run}: removed {what}\n"))?;
        }
    }
    Ok(exit::OK)
}
