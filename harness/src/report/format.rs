//! The trait of report formats.

use lockproof_model::{
    error::{Error, Result},
    report::Report,
};

/// A report format.
pub trait Format: Sync {
    /// The name before the `=` of `--report`.
    fn name(&self) -> &'static str;

    /// Renders a redacted report.
    ///
    /// # Errors
    /// If the format's own library fails; no content of a report causes this.
    fn body(&self, redacted: &Report) -> Result<Vec<u8>>;

    /// Renders the report in this format, without secrets.
    ///
    /// # Errors
    /// As [`Format::body`].
    fn render(&self, report: &Report) -> Result<Vec<u8>> {
        self.body(&report.redacted())
    }
}

/// An error of a format's own library.
pub(super) fn cannot_render(format: &str, error: impl std::fmt::Display) -> Error {
    Error::environment(format!("cannot write the {format} report"))
        .detail(error)
        .fix("this is a bug, please report it; the other reports are still written")
}
