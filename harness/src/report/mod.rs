//! The result of a run as data ([`model`]), and the report formats: one file each.
//!
//! A report never changes the exit code. The files are created before the work begins
//! ([`ReportTarget::open`]), so that an invalid path is a usage error, and written at the end,
//! however the run ends.
//!
//! ```text
//! --report json=report.json --report junit=target/junit.xml
//! ```
//!
//! Every text is redacted ([`Report::redacted`]) before a format sees it.

mod html;
mod json;
mod junit;
mod markdown;
pub mod model;
mod ndjson;
mod replays;
#[cfg(test)]
mod sample;
mod sarif;
pub mod target;
pub mod terminal;
mod text;
mod view;
#[cfg(test)]
mod well_formed;

pub use self::{
    markdown::append_summary,
    model::{
        EventReport, LayoutReport, Outcome, Phase, ProbeCounts, ReplayOutcome, ReplayReport, Report, StateReport,
        SubjectReport, Survival, Timings, Tool,
    },
    target::{OpenReport, ReportTarget, open_all},
};
use crate::error::Result;

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

/// All formats, in the order of messages.
pub const FORMATS: [&dyn Format; 6] =
    [&json::Json, &junit::Junit, &sarif::Sarif, &html::Html, &markdown::Markdown, &ndjson::Ndjson];

/// An error of a format's own library.
fn cannot_render(format: &str, error: impl std::fmt::Display) -> crate::error::Error {
    crate::error::Error::environment(format!("cannot write the {format} report"))
        .detail(error)
        .fix("this is a bug, please report it; the other reports are still written")
}
