//! `lockproof doctor`.

use clap::Args;

use super::{output::print, signal, style::Style};
use lockproof_deploy::{
    deployment::pace,
    engine::{
        Engine, Run,
        sweep::{Leftovers, Whose},
    },
    lab,
};
use lockproof_model::{error::Result, exit};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Build the missing parts of the lab: its images and its plugin's wheels.
    #[arg(long)]
    lab: bool,
}

pub(super) async fn run(arguments: Arguments, style: &Style) -> Result<u8> {
    let check = if style.stdout_colour { "\u{1b}[32mok\u{1b}[0m" } else { "ok" };
    let engine = Engine::connect().await?;
    print(&format!("{check}  engine: {} at {}\n", engine.version().await?, engine.address()))?;
    let left: usize = engine.leftovers(Whose::Gone).await?.values().map(Leftovers::count).sum();
    print(&match left {
        0 => format!("{check}  clean: no leftovers from killed runs\n"),
        n => format!("--  {n} leftovers from killed runs: remove them with `lockproof clean`\n"),
    })?;
    let run = Run::new();
    if arguments.lab {
        let kit = signal::guard(&engine, &run, lab::build_all(&engine, &run)).await?;
        for variant in lab::VARIANTS {
            print(&format!("{check}  lab: {}:{}\n", lab::REPOSITORY, variant.tag))?;
        }
        print(&format!("{check}  lab: plugin, scripts and wheels in {}\n", kit.root.display()))?;
        let image = lab::require(&engine, lab::REPOSITORY).await?;
        signal::guard(&engine, &run, engine.check_shares_this_machine(&run, &image.name)).await?;
        print(&format!("{check}  the engine shares this machine's files and loopback interface\n"))?;
        let start = signal::guard(&engine, &run, pace::start_of_the_lab(&engine, &run)).await?;
        print(&format!("{check}  a start of the lab takes {:.1} s\n", start.as_secs_f64()))?;
    } else {
        print("--  the lab is not built: `lockproof doctor --lab` builds what is missing\n")?;
    }
    Ok(exit::OK)
}
