//! The command `lockproof`.

use std::process::ExitCode;

fn main() -> ExitCode {
    lockproof::cli::main(std::env::args_os())
}
