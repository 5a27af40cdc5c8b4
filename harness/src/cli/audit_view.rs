//! The output of `lockproof audit`: a table of the states, the findings with their source lines,
//! and a summary.

use comfy_table::{Attribute, Cell, Color, Table, presets};
use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource};

use lockproof_audit::{Audit, Placed, Subject, states::EVENTS};
use lockproof_compose::{Project, Span};
use lockproof_model::{
    event::Event,
    exit,
    finding::{Finding, Rule, Severity},
    secret,
    verdict::Verdict,
};

pub(super) struct View {
    pub(super) width: u16,
    pub(super) colour: bool,
    pub(super) fail_on: Severity,
}

/// Renders the states and findings of one project.
pub(super) fn project(view: &View, project: &Project, audit: &Audit) -> String {
    let mut blocks = Vec::new();
    for subject in &audit.subjects {
        blocks.push(states(view, project, subject));
        blocks.extend(findings(view, project, audit, subject));
    }
    if audit.subjects.is_empty() {
        let file = project.sources.all().first().map(|s| s.name.as_str()).unwrap_or_default();
        let names: Vec<&str> = project.services.iter().map(|s| s.name.as_str()).collect();
        blocks.push(format!("{file}: no ComfyUI service found; choose one with --service ({})\n", names.join(", ")));
    }
    secret::redact(&(blocks.join("\n") + "\n"))
}

fn states(view: &View, project: &Project, subject: &Subject) -> String {
    let file = project.sources.all().first().map(|s| s.name.as_str()).unwrap_or_default();
    let from = if subject.facts.from.is_empty() {
        "this file only; no image metadata".to_owned()
    } else {
        subject.facts.from.join(", ")
    };
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if view.colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    let header = ["state", "owner"].into_iter().chain(EVENTS.map(Event::name)).chain(["path"]);
    table.set_header(header.map(|h| Cell::new(h).add_attribute(Attribute::Dim)));
    for reading in &subject.readings {
        let owner = reading.owner.map_or("unknown", |o| o.name());
        let path = if reading.paths.is_empty() { "?".to_owned() } else { reading.paths.join(", ") };
        let survives = EVENTS.iter().map(|event| match reading.survives.get(event).copied().flatten() {
            Some(true) => Cell::new("lasts").fg(Color::Green),
            Some(false) => Cell::new("lost").fg(Color::Red),
            None => Cell::new("?").fg(Color::Yellow),
        });
        let start = [Cell::new(reading.state), Cell::new(owner)];
        table.add_row(start.into_iter().chain(survives).chain([Cell::new(path)]));
    }
    let verdicts = EVENTS.iter().map(|event| match subject.predicted.get(event).copied().flatten() {
        Some(Verdict::Locked) => Cell::new("locked").fg(Color::Green).add_attribute(Attribute::Bold),
        Some(verdict) => Cell::new(verdict).fg(Color::Red).add_attribute(Attribute::Bold),
        None => Cell::new("?").fg(Color::Yellow),
    });
    let start = [Cell::new("predicted").add_attribute(Attribute::Bold), Cell::new("")];
    table.add_row(start.into_iter().chain(verdicts).chain([Cell::new("")]));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let table: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    let unknown: Vec<String> =
        subject.readings.iter().filter(|r| r.owner.is_none()).map(|r| format!("{}: {}\n", r.state, r.why)).collect();
    format!(
        "{file}, {}: {}\nsource: {from}\n{}\n{}",
        subject.service,
        subject.image,
        table.join("\n"),
        unknown.concat()
    )
}

/// Merges findings that differ only in their event.
fn merged<'a>(audit: &'a Audit, subject: &Subject) -> Vec<(&'a Finding, &'a Placed, Vec<Event>)> {
    let mut groups: Vec<(&Finding, &Placed, Vec<Event>)> = Vec::new();
    for (finding, placed) in audit.findings.iter().filter(|(f, _)| f.subject == subject.name) {
        let same = groups.iter_mut().find(|(f, p, _)| {
            f.rule == finding.rule
                && f.message == finding.message
                && *p == placed
                && f.accepted == finding.accepted
                && f.baseline == finding.baseline
        });
        match same {
            Some((_, _, events)) => events.extend(finding.event),
            None => groups.push((finding, placed, finding.event.into_iter().collect())),
        }
    }
    groups
}

fn findings(view: &View, project: &Project, audit: &Audit, subject: &Subject) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut settled = Vec::new();
    for (finding, placed, events) in merged(audit, subject) {
        if finding.accepted || finding.baseline {
            let why = if finding.accepted { "accepted" } else { "in the baseline" };
            settled.push(format!("{why}: {} ({})\n", finding.rule, place(finding)));
            continue;
        }
        blocks.push(excerpt(view, project, audit, finding, placed, &events));
    }
    if !settled.is_empty() {
        blocks.push(settled.concat());
    }
    blocks
}

fn place(finding: &Finding) -> String {
    match (&finding.file, finding.line) {
        (Some(file), Some(line)) => format!("{file}:{line}"),
        (Some(file), None) => file.clone(),
        _ => finding.subject.clone(),
    }
}

fn excerpt(
    view: &View,
    project: &Project,
    audit: &Audit,
    finding: &Finding,
    placed: &Placed,
    events: &[Event],
) -> String {
    let mut message = finding.message.clone();
    if !events.is_empty() {
        let names: Vec<&str> = events.iter().map(|e| e.name()).collect();
        message = format!("{message} ({})", names.join(", "));
    }
    let mut diagnostic =
        MietteDiagnostic::new(message).with_code(finding.rule.id()).with_severity(match finding.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
            Severity::Note => miette::Severity::Advice,
        });
    let mut help: Vec<&str> = finding.evidence.iter().map(String::as_str).collect();
    let remedy = format!("remedy: {}", finding.remedy.trim());
    help.push(&remedy);
    diagnostic = diagnostic.with_help(help.join("\n"));
    let theme = if view.colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(view.width.into())
        .with_context_lines(1)
        .with_links(false)
        .without_syntax_highlighting();
    let mut out = String::new();
    let written = match placed {
        Placed::At(span) => {
            let text = masked(project, audit, span.file);
            let name = project.sources.get(span.file).map_or_else(String::new, |s| s.name.clone());
            let label = LabeledSpan::underline((span.start as usize)..(first_line(&text, *span)));
            let report =
                miette::Report::new(diagnostic.with_label(label)).with_source_code(NamedSource::new(name, text));
            handler.render_report(&mut out, report.as_ref())
        }
        Placed::Elsewhere(file, line) => {
            diagnostic.message = format!("{} [{file}:{line}]", diagnostic.message);
            handler.render_report(&mut out, &diagnostic)
        }
    };
    match written {
        Ok(()) => out,
        Err(_) => format!("{} {}: {} ({})\n", finding.severity, finding.rule, finding.message, place(finding)),
    }
}

/// The end offset of the underlined part: the first line of the span.
fn first_line(text: &str, span: Span) -> usize {
    let (start, end) = (span.start as usize, (span.end as usize).min(text.len()));
    let covered = text.get(start..end).unwrap_or_default();
    start + covered.find(['\r', '\n']).unwrap_or(covered.len()).max(1)
}

/// The file's text with every token masked byte by byte, so that offsets stay valid.
fn masked(project: &Project, audit: &Audit, file: u32) -> String {
    let mut text = project.sources.get(file).map_or_else(String::new, |s| s.text.to_string());
    let tokens = audit
        .findings
        .iter()
        .filter(|(f, _)| matches!(f.rule, Rule::DeployTokenInFile | Rule::DeployTokenInterpolated));
    for (_, placed) in tokens {
        let Placed::At(span) = placed else { continue };
        let (start, end) = (span.start as usize, (span.end as usize).min(text.len()));
        let Some(covered) = text.get(start..end).filter(|_| span.file == file) else { continue };
        if let Some(value) = covered.find(['=', ':']).map(|n| start + n + 1)
            && text.is_char_boundary(value)
        {
            let painted: String =
                text[value..end].bytes().map(|b| if b.is_ascii_whitespace() { b as char } else { '*' }).collect();
            text.replace_range(value..end, &painted);
        }
    }
    text
}

/// Renders findings as GitHub Actions workflow commands.
pub(super) fn annotations(audited: &[(&Project, Audit)], fail_on: Severity) -> String {
    let property = |text: &str| escape(text).replace(':', "%3A").replace(',', "%2C");
    let mut out = String::new();
    for (project, audit) in audited {
        for (finding, placed, events) in audit.subjects.iter().flat_map(|subject| merged(audit, subject)) {
            if !finding.counts(Severity::Note) {
                continue;
            }
            let level = match finding.severity {
                Severity::Error => "error",
                Severity::Warning if finding.counts(fail_on) => "error",
                Severity::Warning => "warning",
                Severity::Note => "notice",
            };
            let (file, line, column) = match placed {
                Placed::At(span) => {
                    let place = project.sources.place(*span);
                    (place.file, place.line, place.column)
                }
                Placed::Elsewhere(file, line) => (file.clone(), *line, 1),
            };
            let names: Vec<&str> = events.iter().map(|e| e.name()).collect();
            let when = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
            let message = escape(&format!("{}: {}{when}\n{}", finding.subject, finding.message, finding.remedy.trim()));
            out.push_str(&format!(
                "::{level} file={},line={line},col={column},title={}::{message}\n",
                property(&file),
                property(finding.rule.id())
            ));
        }
    }
    secret::redact(&out)
}

fn escape(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// The one-line summary.
pub(super) fn headline(view: &View, audited: &[(&Project, Audit)], errors: usize, code: u8) -> String {
    let subjects: Vec<&Subject> = audited.iter().flat_map(|(_, a)| &a.subjects).collect();
    let mut verdicts: Vec<(String, usize)> = Vec::new();
    for subject in &subjects {
        let word = subject.predicted.get(&Event::DownUp).copied().flatten().map_or("unknown", Verdict::name);
        match verdicts.iter_mut().find(|(w, _)| w == word) {
            Some((_, n)) => *n += 1,
            None => verdicts.push((word.to_owned(), 1)),
        }
    }
    let plural = |n: usize, one: &str| if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") };
    let counts = audited
        .iter()
        .flat_map(|(_, a)| a.subjects.iter().map(move |s| merged(a, s)))
        .flatten()
        .filter(|(f, _, _)| f.counts(view.fail_on))
        .count();
    let after: Vec<String> = match verdicts.as_slice() {
        [(word, _)] => vec![word.clone()],
        many => many.iter().map(|(word, n)| format!("{n} {word}")).collect(),
    };
    let mut parts = vec![plural(subjects.len(), "service")];
    if !after.is_empty() {
        parts[0] = format!("{}, predicted after down-up: {}", parts[0], after.join(", "));
    }
    parts.push(if counts == 0 {
        "no findings that count".to_owned()
    } else {
        format!("{} that count", plural(counts, "finding")).replace("1 finding that count", "1 finding that counts")
    });
    if errors > 0 {
        parts.push(format!("{} that cannot be read", plural(errors, "project")));
    }
    let next = if code == exit::UNDECIDED { "; run `lockproof gate` to decide what is unknown" } else { "" };
    let line = format!("lockproof: {}{next} (exit {code})\n", parts.join("; "));
    if !view.colour {
        return line;
    }
    let colour = match code {
        exit::OK => "32",
        exit::UNDECIDED => "33",
        _ => "31",
    };
    format!("\u{1b}[1;{colour}m{}\u{1b}[0m\n", line.trim_end())
}
