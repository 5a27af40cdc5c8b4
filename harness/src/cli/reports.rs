//! The reports of a command: written at its end, and read as a baseline.

use std::path::Path;

use crate::report::{OpenReport, append_summary};
use lockproof_model::{
    error::{Error, Result},
    read,
    report::Report,
};

/// Writes the reports. A failure is printed and does not change the exit code.
pub(super) fn write_reports(reports: Vec<OpenReport>, report: &Report) {
    for open in reports {
        if let Err(e) = open.write(report) {
            tracing::error!("{e}");
        }
    }
    if let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY").filter(|p| !p.is_empty())
        && let Err(e) = append_summary(Path::new(&path), report)
    {
        tracing::error!("{e}");
    }
}

/// The report of an earlier run.
pub(super) fn read_baseline(path: &Path) -> Result<Report> {
    let text = read::text(path, read::LONG).map_err(|e| {
        Error::usage(format!("cannot read the baseline {}", path.display()))
            .detail(e)
            .fix("use a file written by `--report json=PATH`")
    })?;
    Report::from_json(&text, &path.display().to_string())
}
