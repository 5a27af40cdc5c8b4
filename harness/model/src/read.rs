//! Reads files up to a size limit, because a path may be a device, an endless pipe or the wrong file.

use std::{
    fs::File,
    io::{Error, ErrorKind, Read, Result},
    path::Path,
};

/// The size limit of a handwritten file, such as a token, a scheme or a list of routes, in bytes.
pub const SHORT: u64 = 1024 * 1024;
/// The size limit of a generated file, such as a report, a workflow or a notebook with pictures, in bytes.
pub const LONG: u64 = 256 * 1024 * 1024;

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// If it cannot be read or is longer.
pub fn bytes(path: &Path, limit: u64) -> Result<Vec<u8>> {
    from(File::open(path)?, limit)
}

/// Reads a UTF-8 file of at most `limit` bytes.
///
/// # Errors
/// As [`bytes`], and if it is not UTF-8.
pub fn text(path: &Path, limit: u64) -> Result<String> {
    let bytes = bytes(path, limit)?;
    String::from_utf8(bytes).map_err(|_| Error::new(ErrorKind::InvalidData, "it is not valid UTF-8"))
}

/// Reads everything from `reader`, at most `limit` bytes.
///
/// # Errors
/// If reading fails, or there is more.
pub fn from(reader: impl Read, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(Error::new(ErrorKind::FileTooLarge, format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit_and_refused_beyond() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a");
        std::fs::write(&path, "12345").expect("written");
        assert_eq!(text(&path, 5).expect("it fits"), "12345");
        let error = text(&path, 4).expect_err("it is longer");
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::FileTooLarge, "it is larger than 4 bytes"));
    }

    #[test]
    fn a_device_without_an_end_is_refused() {
        let error = bytes(Path::new("/dev/zero"), SHORT).expect_err("it never ends");
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
    }

    #[test]
    fn what_is_not_text_is_said_to_be_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a");
        std::fs::write(&path, [0xff, 0xfe]).expect("written");
        assert_eq!(text(&path, 9).expect_err("no text").to_string(), "it is not valid UTF-8");
    }
}
