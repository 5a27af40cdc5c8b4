//! The text of a file, as large as such a file can be.

use std::path::Path;

use lockproof_model::error::{Error, Result};

/// A compose file is a few pages; anything larger is a mistake or an attack.
pub(super) const LARGEST: u64 = 4 * 1024 * 1024;

/// The text of a file that is as large as such a file can be.
///
/// # Errors
/// A usage error when it cannot be read, is too large, or is no text.
pub(super) fn read_text(path: &Path, name: &str, what: &str) -> Result<String> {
    let fix = || format!("give {what} that can be read");
    let unreadable = |e: &dyn std::fmt::Display| Error::usage(format!("cannot read {name}: {e}")).at(name).fix(fix());
    let about = std::fs::metadata(path).map_err(|e| unreadable(&e))?;
    if about.is_dir() {
        return Err(unreadable(&"it is a directory"));
    }
    // A pipe of a shell, `<(…)`, is fine; a device that a file names would never end.
    if !about.is_file() && !path.starts_with("/dev/fd") {
        return Err(unreadable(&"it is no file"));
    }
    if about.len() > LARGEST {
        return Err(Error::usage(format!("{name} is {} bytes long; {what} has at most {LARGEST}", about.len()))
            .at(format!("{name}:1:1"))
            .fix("give the right file"));
    }
    let mut bytes = Vec::new();
    // What has no length, such as a pipe, ends here as well.
    let file = std::fs::File::open(path).map_err(|e| unreadable(&e))?;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, LARGEST + 1), &mut bytes).map_err(|e| unreadable(&e))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::usage(format!("{name} is longer than {LARGEST} bytes"))
            .at(format!("{name}:1:1"))
            .fix("give the right file"));
    }
    String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count() + 1;
        Error::usage(format!("{name} is no text in UTF-8")).at(format!("{name}:{line}:1")).fix("save it as UTF-8")
    })
}
