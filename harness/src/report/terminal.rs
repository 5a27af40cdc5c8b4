//! The result of a run on a terminal: a table of events, the findings with their remedies, the
//! states that do not persist, and a summary on the last line.
//!
//! ```text
//! subject     event      verdict  expected  predicted  exposure  ready
//! half-fixed  installed  locked             locked         0 ms  2.1 s
//!             recreate   open     locked    open          4.0 s  2.0 s
//!
//! error lock/open: half-fixed (recreate)
//!   anonymous requests get everything that the token gets: …
//!     curl -sS http://127.0.0.1:8188/system_stats  # 200
//!   remedy: …
//!
//! lockproof: 1 of 3 subjects failed: half-fixed is open after recreate; … (exit 1)
//! ```

use std::collections::BTreeSet;

use anstyle::{AnsiColor, Style};
use comfy_table::{Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, presets};
use jiff::{ToSpan, tz::TimeZone};

use super::{
    text::{millis, one_line, visible, wrap},
    view::{Group, Standing, expected_word, groups, headline, lost, remark, verdict_word},
};
use lockproof_model::{
    finding::{Rule, Severity},
    report::{EventReport, Phase, Report, SubjectReport, Timings},
    verdict::Verdict,
};

/// The maximum number of evidence lines per finding; reports contain all of them.
const EVIDENCE: usize = 5;

/// How many days a proposed `accept:` entry is valid.
const ACCEPTED_DAYS: i64 = 90;

/// The width in columns below which tables use the smallest gaps.
const NARROW: u16 = 80;

/// The maximum width of the list of events that lose a state, in columns.
const LOST_AT: usize = 30;

/// Renders `report`, `width` columns wide, with or without colour, and a final line break.
///
/// Evidence and YAML are not wrapped, so that they can be copied.
pub fn render(report: &Report, width: u16, colour: bool) -> String {
    let report = report.redacted().map_text(visible);
    let view = View { width, paint: Paint(colour) };
    let groups = groups(&report);
    let (settled, live): (Vec<_>, Vec<_>) = groups.iter().partition(|g| g.standing.settled());
    let mut blocks = Vec::new();
    blocks.extend(view.events(&report));
    blocks.extend(view.remarks(&report));
    let replays = report.subjects.iter().flat_map(|subject| view.replays(subject)).collect::<Vec<_>>();
    blocks.extend((!replays.is_empty()).then(|| replays.join("\n")));
    blocks.extend(live.iter().map(|group| view.finding(group)));
    blocks.extend(view.settled(&settled));
    blocks.extend(view.accept(&report, &live));
    blocks.extend(report.subjects.iter().filter_map(|subject| view.lost(subject)));
    blocks.extend(report.subjects.iter().filter_map(|subject| view.left_behind(subject)));
    blocks.push(view.headline(&report));
    blocks.join("\n\n") + "\n"
}

/// The timings: a row per phase, a column per subject, in seconds, and the number of starts. Ends
/// with a line break; empty if nothing was run.
pub fn timings(report: &Report, width: u16, colour: bool) -> String {
    let report = report.redacted().map_text(visible);
    let timed: Vec<(&SubjectReport, &Timings)> =
        report.subjects.iter().filter_map(|s| Some((s, s.timings.as_ref()?))).collect();
    if timed.is_empty() {
        return String::new();
    }
    let seconds = |ms: u64| {
        let text = format!("{}.{} s", ms / 1000, ms % 1000 / 100);
        Cell::new(text).set_alignment(CellAlignment::Right)
    };
    let of = |timings: &Timings, phase: Phase| timings.phases.get(&phase).copied().unwrap_or_default();
    let mut header = vec!["phase"];
    header.extend(timed.iter().map(|(subject, _)| subject.name.as_str()));
    header.push("all");
    let row = |name: &str, value: &dyn Fn(&Timings) -> u64| {
        let each: Vec<u64> = timed.iter().map(|(_, timings)| value(timings)).collect();
        let all = each.iter().sum();
        std::iter::once(Cell::new(name)).chain(each.into_iter().chain([all]).map(seconds)).collect::<Vec<_>>()
    };
    let mut rows: Vec<Vec<Cell>> = Phase::ALL
        .into_iter()
        .filter(|phase| timed.iter().any(|(_, timings)| of(timings, *phase) > 0))
        .map(|phase| row(phase.name(), &|timings| of(timings, phase)))
        .collect();
    rows.push(row("total", &|timings| timings.phases.values().sum()));
    let starts = timed.iter().map(|(_, timings)| timings.starts);
    let all: u32 = starts.clone().sum();
    let cells = starts.chain([all]).map(|n| Cell::new(n).set_alignment(CellAlignment::Right));
    rows.push(std::iter::once(Cell::new("starts")).chain(cells).collect());
    let table = View { width, paint: Paint(colour) }.table(0, &header, rows);
    format!("\nTimings (total run time {} s):\n{table}\n", report.duration_ms / 1000)
}

/// Adds colour if enabled.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn apply(self, style: Style, text: &str) -> String {
        if self.0 { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    fn colour(self, colour: AnsiColor, text: &str) -> String {
        self.apply(colour.on_default().bold(), text)
    }

    fn bold(self, text: &str) -> String {
        self.apply(Style::new().bold(), text)
    }

    fn dim(self, text: &str) -> String {
        self.apply(Style::new().dimmed(), text)
    }
}

struct View {
    width: u16,
    paint: Paint,
}

impl View {
    /// A table in which only the column `elastic` is wrapped to fit the width.
    fn table(&self, elastic: usize, header: &[&str], rows: impl IntoIterator<Item = Vec<Cell>>) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(self.width);
        if self.paint.0 {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_header(header.iter().map(|name| Cell::new(name).add_attribute(Attribute::Dim)));
        table.add_rows(rows);
        let gap = if self.width < NARROW { 1 } else { 2 };
        for column in table.column_iter_mut() {
            column.set_padding((0, gap));
            if column.index != elastic {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
    }

    /// The events of all subjects; empty columns are omitted.
    fn events(&self, report: &Report) -> Option<String> {
        let rows: Vec<(String, &EventReport)> = report
            .subjects
            .iter()
            .flat_map(|subject| {
                subject
                    .events
                    .iter()
                    .enumerate()
                    .map(|(n, event)| (if n == 0 { one_line(&subject.name) } else { String::new() }, event))
            })
            .collect();
        if rows.is_empty() {
            return None;
        }
        let any = |is: fn(&EventReport) -> bool| rows.iter().any(|(_, event)| is(event));
        let columns: Vec<&Column> = COLUMNS.iter().filter(|column| any(column.is_needed)).collect();
        let header: Vec<&str> = ["subject", "event"].into_iter().chain(columns.iter().map(|c| c.name)).collect();
        let cells = rows.iter().map(|(subject, event)| {
            let subject = Cell::new(subject).add_attribute(Attribute::Bold);
            let said = columns.iter().map(|column| (column.cell)(event));
            [subject, Cell::new(event.event)].into_iter().chain(said).collect()
        });
        Some(self.table(0, &header, cells))
    }

    /// Why an event has no verdict, or a subject no events.
    fn remarks(&self, report: &Report) -> Option<String> {
        let mut lines = Vec::new();
        for subject in &report.subjects {
            let name = one_line(&subject.name);
            if let Some(error) = &subject.error {
                lines.extend(self.wrapped(0, &format!("{name}: "), error));
            }
            for event in &subject.events {
                if let Some(remark) = remark(event) {
                    lines.extend(self.wrapped(0, &format!("{name}, {}: ", event.event), &remark));
                }
            }
        }
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    fn finding(&self, group: &Group<'_>) -> String {
        let colour = match group.severity {
            Severity::Error => AnsiColor::Red,
            Severity::Warning => AnsiColor::Yellow,
            Severity::Note => AnsiColor::Cyan,
        };
        let mut lines = vec![format!(
            "{} {}: {} ({})",
            self.paint.colour(colour, &group.severity.to_string()),
            self.paint.bold(group.rule.id()),
            one_line(group.subject),
            group.when()
        )];
        if let Some(place) = group.place() {
            lines.push(format!("  in {place}"));
        }
        lines.extend(self.wrapped(2, "", group.message));
        let evidence: Vec<&str> = group.evidence.iter().flat_map(|line| line.lines()).collect();
        // The log lines of a server that is down explain why: show all of them.
        let shown = if group.rule == Rule::LockDown { evidence.len() } else { EVIDENCE };
        lines.extend(evidence.iter().take(shown).map(|line| format!("    {line}")));
        if evidence.len() > shown {
            let more = format!("… and {} more", evidence.len() - shown);
            lines.push(format!("    {}", self.paint.dim(&more)));
        }
        lines.extend(group.impact.into_iter().flat_map(|impact| self.wrapped(2, "impact: ", impact)));
        lines.extend(self.wrapped(2, "remedy: ", group.remedy));
        lines.join("\n")
    }

    /// Findings that need no action, one per line.
    fn settled(&self, groups: &[&Group<'_>]) -> Option<String> {
        let line = |group: &&Group<'_>| {
            let line = format!("{}: {} ({}, {})", group.standing, group.rule, one_line(group.subject), group.when());
            self.paint.dim(&line)
        };
        (!groups.is_empty()).then(|| groups.iter().map(line).collect::<Vec<_>>().join("\n"))
    }

    /// The lines of `lockproof.yaml` that would accept the findings, as far as possible.
    fn accept(&self, report: &Report, live: &[&Group<'_>]) -> Option<String> {
        let entries: BTreeSet<_> = live
            .iter()
            .filter(|group| group.standing == Standing::Counts && group.rule.acceptable())
            .map(|group| (group.rule, group.subject))
            .collect();
        if entries.is_empty() {
            return None;
        }
        let today = report.started.to_zoned(TimeZone::UTC).date();
        let until = today.saturating_add(ACCEPTED_DAYS.days());
        let mut lines = vec![
            self.paint.dim("To accept these findings for now, add them to lockproof.yaml with a reason:"),
            "accept:".to_owned(),
        ];
        lines.extend(entries.into_iter().map(|(rule, subject)| {
            format!("  - {{ rule: {rule}, subject: {}, reason: \"…\", until: {until} }}", scalar(subject))
        }));
        Some(lines.join("\n"))
    }

    /// The states that the subject loses, with their owners.
    fn lost(&self, subject: &SubjectReport) -> Option<String> {
        let rows = lost(subject);
        if rows.is_empty() {
            return None;
        }
        let cells = rows.iter().map(|lost| {
            let at = wrap(&lost.at.join(", "), LOST_AT).join("\n");
            let paths = lost.paths.join("\n");
            vec![Cell::new(lost.state), Cell::new(lost.owner), Cell::new(at), Cell::new(paths)]
        });
        let title = format!("States that {} loses:", one_line(&subject.name));
        let table = self.table(3, &["state", "owner", "lost after", "path"], cells);
        Some(format!("{}\n{table}", self.paint.bold(&title)))
    }

    fn headline(&self, report: &Report) -> String {
        use lockproof_model::report::Outcome::{Error, Fail, Pass, Undecided};
        let colour = match report.outcome {
            Pass => AnsiColor::Green,
            Fail | Error => AnsiColor::Red,
            Undecided => AnsiColor::Yellow,
        };
        let line = format!("lockproof: {}", one_line(&headline(report)));
        self.paint.colour(colour, &line)
    }

    /// `head` and `text`, wrapped from column `indent` on; lines after the head are indented
    /// further.
    fn replays(&self, subject: &SubjectReport) -> Vec<String> {
        let lines = super::replays::lines(subject).into_iter().enumerate();
        lines.flat_map(|(n, (head, text))| self.wrapped(if n == 0 { 0 } else { 2 }, &head, &text)).collect()
    }

    /// The changes on a server that could not be undone.
    fn left_behind(&self, subject: &SubjectReport) -> Option<String> {
        let head = format!("Left on {}; lockproof could not undo:", one_line(&subject.name));
        let lines = subject.left_behind.iter().flat_map(|line| self.wrapped(2, "- ", &one_line(line)));
        (!subject.left_behind.is_empty())
            .then(|| std::iter::once(self.paint.bold(&head)).chain(lines).collect::<Vec<_>>().join("\n"))
    }

    fn wrapped(&self, indent: usize, head: &str, text: &str) -> Vec<String> {
        let deeper = if head.is_empty() { indent } else { indent + 2 };
        let width = usize::from(self.width).saturating_sub(deeper).max(20);
        wrap(&format!("{head}{text}"), width)
            .into_iter()
            .enumerate()
            .map(|(n, line)| format!("{}{line}", " ".repeat(if n == 0 { indent } else { deeper })))
            .collect()
    }
}

/// A column of the table of events, after subject and event.
struct Column {
    name: &'static str,
    /// Whether an event has a value in it.
    is_needed: fn(&EventReport) -> bool,
    cell: fn(&EventReport) -> Cell,
}

const COLUMNS: [Column; 5] = [
    Column { name: "verdict", is_needed: |_| true, cell: verdict_cell },
    Column {
        name: "expected",
        is_needed: |event| !expected_word(event).is_empty(),
        cell: |event| Cell::new(expected_word(event)),
    },
    Column { name: "predicted", is_needed: |event| event.predicted.is_some(), cell: predicted_cell },
    Column {
        name: "exposure",
        is_needed: |event| event.exposure_ms.is_some(),
        cell: |event| {
            let cell = time_cell(event.exposure_ms);
            if event.exposure_ms > Some(0) { cell.fg(Color::Red) } else { cell }
        },
    },
    Column { name: "ready", is_needed: |event| event.ready_ms.is_some(), cell: |event| time_cell(event.ready_ms) },
];

/// Green: locked as expected. Yellow: another verdict as expected. Red: not as expected.
fn verdict_cell(event: &EventReport) -> Cell {
    let cell = Cell::new(verdict_word(event));
    match (event.as_it_must_be(), event.verdict) {
        (Some(true), Some(Verdict::Locked)) => cell.fg(Color::Green),
        (Some(true), _) => cell.fg(Color::Yellow),
        (Some(false), _) => cell.fg(Color::Red).add_attribute(Attribute::Bold),
        (None, _) => cell.add_attribute(Attribute::Dim),
    }
}

fn predicted_cell(event: &EventReport) -> Cell {
    let cell = Cell::new(event.predicted.map_or("", |verdict| verdict.name()));
    let differs = event.verdict.is_some() && event.predicted.is_some() && event.verdict != event.predicted;
    if differs { cell.fg(Color::Yellow) } else { cell.add_attribute(Attribute::Dim) }
}

fn time_cell(ms: Option<u64>) -> Cell {
    Cell::new(ms.map(millis).unwrap_or_default()).set_alignment(CellAlignment::Right)
}

/// A name as a YAML scalar in a flow mapping: plain if safe, else quoted.
fn scalar(text: &str) -> String {
    const WORDS: [&str; 8] = ["true", "false", "null", "yes", "no", "on", "off", "nan"];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && text.len() > 1
        && !WORDS.contains(&text.to_lowercase().as_str());
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_taken_back_is_listed() {
        let mut report = crate::report::sample::report();
        assert!(!render(&report, 100, false).contains("could not undo"));
        report.subjects[0].left_behind = vec!["lockproof-x.js in the user directory (DELETE: 403)".to_owned()];
        let text = render(&report, 100, false);
        assert!(text.contains("Left on original-bug; lockproof could not undo:\n  - lockproof-x.js in the user"));
        let json = serde_json::to_value(&report).expect("it is data");
        assert_eq!(json["subjects"][0]["left_behind"][0], "lockproof-x.js in the user directory (DELETE: 403)");
    }
    use crate::report::sample;
    use lockproof_model::{
        config::AcceptEntry,
        parse::parse_as,
        report::{Outcome, Report},
    };

    #[test]
    fn the_rich_report_at_100_columns() {
        insta::assert_snapshot!(render(&sample::report(), 100, false));
    }

    #[test]
    fn the_rich_report_at_70_columns() {
        insta::assert_snapshot!(render(&sample::report(), 70, false));
    }

    #[test]
    fn a_passed_run() {
        insta::assert_snapshot!(render(&sample::passed(), 100, false));
    }

    #[test]
    fn colour_adds_nothing_but_colour() {
        let report = sample::report();
        let painted = render(&report, 100, true);
        assert!(painted.contains("\u{1b}["), "{painted}");
        let mut plain = String::new();
        let mut rest = painted.as_str();
        while let Some((before, escape)) = rest.split_once("\u{1b}[") {
            plain.push_str(before);
            rest = escape.split_once('m').expect("a colour ends").1;
        }
        plain.push_str(rest);
        let trimmed = |text: &str| text.lines().map(|l| l.trim_end().to_owned()).collect::<Vec<_>>();
        assert_eq!(trimmed(&plain), trimmed(&render(&report, 100, false)));
    }

    #[test]
    fn the_accept_block_can_be_pasted() {
        #[derive(serde::Deserialize)]
        struct Block {
            accept: Vec<AcceptEntry>,
        }
        let mut report = sample::report();
        report.findings.iter_mut().for_each(|f| f.subject = format!("{}: \"x\" #", f.subject));
        let text = render(&report, 70, false);
        let start = text.find("accept:\n").expect("there is a block");
        let block = text[start..].split("\n\n").next().expect("it ends");
        let block: Block = parse_as(block, "block").expect("it is YAML");
        assert!(!block.accept.is_empty());
        for entry in &block.accept {
            assert!(entry.subject.as_deref().is_some_and(|s| s.ends_with(": \"x\" #")), "{entry:?}");
            assert_eq!(entry.until.as_deref(), Some("2026-12-30"));
        }
        let rules: Vec<&str> = block.accept.iter().map(|entry| entry.rule.as_str()).collect();
        assert!(!rules.contains(&"lock/open"), "{rules:?}");
        for (word, written) in [("a-b.c", "a-b.c"), ("no", "\"no\""), ("1e3", "\"1e3\""), ("", "\"\"")] {
            assert_eq!(scalar(word), written);
        }
    }

    #[test]
    fn the_last_line_says_every_outcome_in_words() {
        let lines: Vec<String> = [0, 1, 3, 4, 130]
            .into_iter()
            .map(|code| {
                let outcome = Outcome::of(code);
                let report = Report { exit_code: code, outcome, ..sample::report() };
                let text = render(&report, 100, false);
                text.lines().last().expect("there is one").to_owned()
            })
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn a_server_cannot_steer_the_terminal() {
        let mut report = sample::report();
        report.findings[0].evidence = vec!["\u{1b}]0;title\u{7}\u{1b}[2J".to_owned()];
        let text = render(&report, 100, false);
        assert!(!text.contains(['\u{1b}', '\u{7}']), "{text}");
    }
}
