//! What a format is.

use lockproof_model::{
    error::{Error, Result},
    report::Report,
};

/// One way to write a report down.
pub trait Format: Sync {
    /// The name before the `=` of `--report`.
    fn name(&self) -> &'static str;

    /// Writes down a report out of which every secret is left already.
    ///
    /// # Errors
    /// When the format's own library refuses; no content of a report makes it.
    fn body(&self, redacted: &Report) -> Result<Vec<u8>>;

    /// The report in this format, without secrets.
    ///
    /// # Errors
    /// As [`Format::body`].
    fn render(&self, report: &Report) -> Result<Vec<u8>> {
        self.body(&report.redacted())
    }
}

/// An error of a format's own library.
pub(super) fn cannot_render(format: &str, error: impl std::fmt::Display) -> Error {
    Error::environment(format!("the {format} report cannot be written"))
        .detail(error)
        .fix("please report it; every other report is written all the same")
}
