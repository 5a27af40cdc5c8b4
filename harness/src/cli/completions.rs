//! `lockproof completions`.

use clap::Args;

use super::output::print;
use lockproof_model::{error::Result, exit};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The shell to generate the script for.
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

pub(super) fn run(arguments: &Arguments, mut command: clap::Command) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "lockproof", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(exit::OK)
}
