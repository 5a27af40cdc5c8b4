//! Writes the manual pages of `lockproof`, one for each command, into a directory: `make man`.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let directory = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("target/man"), PathBuf::from);
    std::fs::create_dir_all(&directory)?;
    clap_mangen::generate_to(lockproof::cli::command(), &directory)
}
