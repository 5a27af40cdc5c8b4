//! Reads text files up to a size limit.

use std::path::Path;

use lockproof_model::error::{Error, Result};

/// The size limit of a compose file, in bytes.
pub(super) const LARGEST: u64 = 4 * 1024 * 1024;

/// The text of a file, up to the size limit.
///
/// # Errors
/// A usage error if it cannot be read, is too large, or is not UTF-8.
pub(super) fn read_text(path: &Path, name: &str, what: &str) -> Result<String> {
    let fix = || format!("use {what} that can be read");
    let unreadable = |e: &dyn std::fmt::Display| Error::usage(format!("cannot read {name}: {e}")).at(name).fix(fix());
    let about = std::fs::metadata(path).map_err(|e| unreadable(&e))?;
    if about.is_dir() {
        return Err(unreadable(&"it is a directory"));
    }
    // A shell's pipe, `<(…)`, is accepted; a device could be endless.
    if !about.is_file() && !path.starts_with("/dev/fd") {
        return Err(unreadable(&"it is not a regular file"));
    }
    if about.len() > LARGEST {
        return Err(Error::usage(format!("{name} is {} bytes long; the limit for {what} is {LARGEST}", about.len()))
            .at(format!("{name}:1:1"))
            .fix("check the path"));
    }
    let mut bytes = Vec::new();
    // Enforces the limit for pipes too, which have no length.
    let file = std::fs::File::open(path).map_err(|e| unreadable(&e))?;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, LARGEST + 1), &mut bytes).map_err(|e| unreadable(&e))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::usage(format!("{name} is longer than {LARGEST} bytes"))
            .at(format!("{name}:1:1"))
            .fix("check the path"));
    }
    String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count() + 1;
        Error::usage(format!("{name} is not valid UTF-8")).at(format!("{name}:{line}:1")).fix("save it as UTF-8")
    })
}
