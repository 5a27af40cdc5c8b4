//! `html`: one self-contained page, in light or dark colours.
//!
//! The page comes from an auto-escaping template. It is also well-formed XML, which the tests use.
//! Its content security policy forbids scripts and requests.
//!
//! ```html
//! <h1>lockproof: <span class="fail">fail</span></h1>
//! <h2>half-fixed</h2>
//! <table>… <tr><th scope="row">recreate</th><td class="bad">open</td>…</tr> …</table>
//! <h2>Findings</h2>
//! <article class="error"><h3><code>lock/open</code> …</h3> …</article>
//! ```

use askama::Template;

use super::{
    format::{Format, cannot_render},
    text::{millis, visible},
    view::{Group, expected_word, groups, headline, remark, verdict_word},
};
use lockproof_model::{
    error::Result,
    event::Event,
    report::{EventReport, Report, SubjectReport, Survival},
    verdict::Verdict,
};

/// The format `html`.
#[derive(Debug)]
pub(super) struct Html;

impl Format for Html {
    fn name(&self) -> &'static str {
        "html"
    }

    fn body(&self, redacted: &Report) -> Result<Vec<u8>> {
        let report = redacted.map_text(visible);
        let (settled, live) = groups(&report).into_iter().partition(|g| g.standing.settled());
        let page = Page {
            outcome: report.outcome.name(),
            headline: headline(&report),
            started: report.started.to_string(),
            took: millis(report.duration_ms),
            version: &report.tool.version,
            subjects: report.subjects.iter().map(Subject::of).collect(),
            live,
            settled,
        };
        let mut text = page.render().map_err(|e| cannot_render(self.name(), e))?;
        text.push('\n');
        Ok(text.into_bytes())
    }
}

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    outcome: &'static str,
    headline: String,
    started: String,
    took: String,
    version: &'a str,
    subjects: Vec<Subject<'a>>,
    live: Vec<Group<'a>>,
    settled: Vec<Group<'a>>,
}

struct Subject<'a> {
    report: &'a SubjectReport,
    /// The known paths of the layout.
    layout: Vec<(&'static str, &'a str)>,
    rows: Vec<Row>,
    remarks: Vec<String>,
    /// The event columns of the table of states.
    columns: Vec<Event>,
    states: Vec<StateRow<'a>>,
}

struct Row {
    event: &'static str,
    verdict: &'static str,
    class: &'static str,
    expected: &'static str,
    predicted: &'static str,
    exposure: String,
    ready: String,
    probes: String,
}

struct StateRow<'a> {
    state: &'static str,
    owner: &'static str,
    paths: &'a [String],
    cells: Vec<(&'static str, &'static str)>,
}

impl<'a> Subject<'a> {
    fn of(report: &'a SubjectReport) -> Self {
        let layout = &report.layout;
        let mut columns: Vec<Event> = report.states.iter().flat_map(|state| state.survives.keys().copied()).collect();
        columns.sort_unstable();
        columns.dedup();
        let states = report
            .states
            .iter()
            .map(|state| StateRow {
                state: state.state.name(),
                owner: state.owner.map_or("unknown", lockproof_model::state::Owner::name),
                paths: &state.paths,
                cells: columns
                    .iter()
                    .map(|event| cell(state.survives.get(event).copied().unwrap_or_default()))
                    .collect(),
            })
            .collect();
        Self {
            report,
            layout: [("code", &layout.code_dir), ("custom_nodes", &layout.custom_nodes), ("Python", &layout.python)]
                .into_iter()
                .filter_map(|(name, path)| Some((name, path.as_deref()?)))
                .collect(),
            rows: report.events.iter().map(Row::of).collect(),
            remarks: report
                .events
                .iter()
                .filter_map(|event| Some(format!("{}: {}", event.event, remark(event)?)))
                .collect(),
            columns,
            states,
        }
    }
}

impl Row {
    fn of(event: &EventReport) -> Self {
        let time = |ms: Option<u64>| ms.map(millis).unwrap_or_default();
        Self {
            event: event.event.name(),
            verdict: verdict_word(event),
            class: match (event.as_it_must_be(), event.verdict) {
                (Some(true), Some(Verdict::Locked)) => "good",
                (Some(true), _) => "meant",
                (Some(false), _) => "bad",
                (None, _) => "none",
            },
            expected: expected_word(event),
            predicted: event.predicted.map_or("", |verdict| verdict.name()),
            exposure: time(event.exposure_ms),
            ready: time(event.ready_ms),
            probes: event.probes.sent.to_string(),
        }
    }
}

/// The text and class of a cell in the table of states. A mere prediction is marked.
fn cell(survival: Survival) -> (&'static str, &'static str) {
    match (survival.observed, survival.predicted) {
        (Some(true), _) => ("lasts", "good"),
        (Some(false), _) => ("lost", "bad"),
        (None, Some(true)) => ("lasts?", "none"),
        (None, Some(false)) => ("lost?", "bad"),
        (None, None) => ("?", "none"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn the_rich_report() {
        insta::assert_snapshot!(sample::rendered(&Html));
    }
}
