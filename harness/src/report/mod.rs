//! The result of a run as data, and the report formats: one file each.
//!
//! A report never changes the exit code. The files are created before the work begins
//! ([`ReportTarget::open`]), so that an invalid path is a usage error, and written at the end,
//! however the run ends.
//!
//! ```text
//! --report json=report.json --report junit=target/junit.xml
//! ```
//!
//! Every text is redacted ([`Report::redacted`](lockproof_model::report::Report::redacted)) before a format
//! sees it.

mod format;
mod formats;
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
    format::Format,
    formats::FORMATS,
    markdown::append_summary,
    target::{OpenReport, ReportTarget, open_all},
};
