//! What a run found, as data, and the formats in which it is written: one file each.
//!
//! A report never changes the exit code. The files are made before the work begins
//! ([`ReportTarget::open`]), so that a path that cannot be written is a usage error, and filled at
//! its end, whatever the end was.
//!
//! ```text
//! --report json=report.json --report junit=target/junit.xml
//! ```
//!
//! Every text passes [`Report::redacted`] before a format sees it.

mod html;
mod json;
mod junit;
mod markdown;
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
    target::{OpenReport, ReportTarget, open_all},
};
use lockproof_model::{error::Result, report::Report};

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

/// Every format, in the order in which messages name them.
pub const FORMATS: [&dyn Format; 6] =
    [&json::Json, &junit::Junit, &sarif::Sarif, &html::Html, &markdown::Markdown, &ndjson::Ndjson];

/// An error of a format's own library.
fn cannot_render(format: &str, error: impl std::fmt::Display) -> lockproof_model::error::Error {
    lockproof_model::error::Error::environment(format!("the {format} report cannot be written"))
        .detail(error)
        .fix("please report it; every other report is written all the same")
}
