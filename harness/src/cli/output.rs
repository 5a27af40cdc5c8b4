//! Writes results to standard output and errors to standard error.

use std::io::Write;

use super::style::Style;
use lockproof_model::error::{Error, Result};

/// Prints an error.
pub(super) fn complain(style: &Style, error: &Error) {
    let red = if style.stderr_colour { "\u{1b}[1;31merror\u{1b}[0m" } else { "error" };
    let _unwritable = writeln!(std::io::stderr(), "{red}: {error}");
}

/// Writes a result to standard output. A closed pipe is not an error.
pub(super) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::environment("cannot write to standard output").detail(e))
        }
        _ => Ok(()),
    }
}
