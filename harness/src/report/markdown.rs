//! `markdown`: a page for a pull request or `$GITHUB_STEP_SUMMARY`.
//!
//! ```markdown
//! ## lockproof: fail
//!
//! 1 of 3 subjects failed: half-fixed is open after recreate; …
//!
//! | subject | event | verdict | expected | predicted | exposure | ready |
//! |---|---|---|---|---|---|---|
//! | half-fixed | recreate | **open** | locked | open | 4.0 s | 2.1 s |
//!
//! ### Findings
//!
//! #### error `lock/open`: half-fixed (recreate)
//! …
//! ```

use std::{fs::OpenOptions, io::Write, path::Path};

use super::{
    Format,
    text::{count, millis, one_line, visible},
    view::{Group, expected_word, groups, headline, lost, remark, verdict_word},
};
use lockproof_model::{
    error::{Error, Result},
    report::{EventReport, Report, SubjectReport},
};

/// The format `markdown`.
#[derive(Debug)]
pub(super) struct Markdown;

impl Format for Markdown {
    fn name(&self) -> &'static str {
        "markdown"
    }

    fn body(&self, redacted: &Report) -> Result<Vec<u8>> {
        Ok(page(&redacted.map_text(visible)).into_bytes())
    }
}

/// Appends the page to the file at `path`, for `$GITHUB_STEP_SUMMARY`.
///
/// # Errors
/// An environment error if the file cannot be written.
pub fn append_summary(path: &Path, report: &Report) -> Result<()> {
    let mut text = Markdown.render(report)?;
    text.push(b'\n');
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened.and_then(|mut file| file.write_all(&text)).map_err(|e| {
        Error::environment(format!("cannot append to {}: {e}", path.display()))
            .fix("unset GITHUB_STEP_SUMMARY, or set it to a writable file")
    })
}

fn page(report: &Report) -> String {
    let mut blocks = vec![format!("## lockproof: {}", report.outcome.name()), spans(&headline(report))];
    let rows: Vec<String> = report.subjects.iter().flat_map(event_rows).collect();
    if !rows.is_empty() {
        blocks.push(format!(
            "| subject | event | verdict | expected | predicted | exposure | ready |\n\
             |---|---|---|---|---|---:|---:|\n{}",
            rows.join("\n")
        ));
    }
    let remarks: Vec<String> = report.subjects.iter().flat_map(remarks).collect();
    if !remarks.is_empty() {
        blocks.push(remarks.join("\n"));
    }
    let groups = groups(report);
    let (settled, live): (Vec<_>, Vec<_>) = groups.iter().partition(|g| g.standing.settled());
    if !live.is_empty() {
        blocks.push("### Findings".to_owned());
        blocks.extend(live.into_iter().map(finding));
    }
    if !settled.is_empty() {
        let lines: Vec<String> = settled.iter().map(|group| settled_line(group)).collect();
        blocks.push(format!(
            "<details><summary>{} expected, accepted or in the baseline</summary>\n\n{}\n\n</details>",
            count(settled.len(), "finding"),
            lines.join("\n")
        ));
    }
    let losses: Vec<String> = report.subjects.iter().flat_map(loss_rows).collect();
    if !losses.is_empty() {
        blocks.push(format!(
            "### States that do not persist\n\n| subject | state | owner | path | lost after \
            |\n|---|---|---|---|---|\n{}",
            losses.join("\n")
        ));
    }
    blocks.join("\n\n") + "\n"
}

fn event_rows(subject: &SubjectReport) -> Vec<String> {
    let time = |ms: Option<u64>| ms.map(millis).unwrap_or_default();
    let row = |event: &EventReport| {
        let word = verdict_word(event);
        let word = if event.as_it_must_be() == Some(false) { format!("**{word}**") } else { word.to_owned() };
        format!(
            "| {} | {} | {word} | {} | {} | {} | {} |",
            escape(&subject.name),
            event.event,
            expected_word(event),
            event.predicted.map(|v| v.to_string()).unwrap_or_default(),
            time(event.exposure_ms),
            time(event.ready_ms),
        )
    };
    subject.events.iter().map(row).collect()
}

fn remarks(subject: &SubjectReport) -> Vec<String> {
    let name = escape(&subject.name);
    let error = subject.error.iter().map(|error| format!("- {name}: {}", escape(error)));
    let events = subject
        .events
        .iter()
        .filter_map(|event| remark(event).map(|remark| format!("- {name}, {}: {}", event.event, escape(&remark))));
    error.chain(events).collect()
}

fn finding(group: &Group<'_>) -> String {
    let place = group.place().map(|p| format!(", {}", escape(&p))).unwrap_or_default();
    let title =
        format!("#### {} `{}`: {} ({}){place}", group.severity, group.rule, escape(group.subject), group.when());
    let mut blocks = vec![title, prose(group.message)];
    if !group.evidence.is_empty() {
        blocks.push(fenced(&group.evidence.join("\n")));
    }
    blocks.extend(group.impact.map(|impact| format!("**Impact:** {}", prose(impact))));
    blocks.push(format!("**Remedy:** {}", prose(group.remedy)));
    blocks.join("\n\n")
}

fn settled_line(group: &Group<'_>) -> String {
    format!(
        "- {} `{}`: {} ({}): {}",
        group.standing,
        group.rule,
        escape(group.subject),
        group.when(),
        spans(&one_line(group.message))
    )
}

fn loss_rows(subject: &SubjectReport) -> Vec<String> {
    lost(subject)
        .into_iter()
        .map(|lost| {
            let (paths, at) = (escape(&lost.paths.join(", ")), lost.at.join(", "));
            format!("| {} | {} | {} | {paths} | {at} |", escape(&subject.name), lost.state, lost.owner)
        })
        .collect()
}

/// `text` on one line, fully escaped.
fn escape(text: &str) -> String {
    escape_inline(&one_line(text))
}

fn escape_inline(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' | '!' | '$' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

/// `text` as paragraphs; lines that start with white space are code.
fn prose(text: &str) -> String {
    let mut blocks: Vec<(bool, Vec<&str>)> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let code = line.starts_with([' ', '\t']);
        match blocks.last_mut() {
            Some((kind, lines)) if *kind == code => lines.push(line),
            _ => blocks.push((code, vec![line])),
        }
    }
    let block = |(code, lines): (bool, Vec<&str>)| {
        if code { fenced(&lines.join("\n")) } else { spans(&one_line(&lines.join(" "))) }
    };
    blocks.into_iter().map(block).collect::<Vec<_>>().join("\n\n")
}

/// `text` on one line, with text between paired single backticks as code; if the backticks are not
/// paired, everything is escaped.
fn spans(text: &str) -> String {
    let parts: Vec<&str> = text.split('`').collect();
    let inner = parts.get(1..parts.len() - 1).unwrap_or_default();
    if parts.len().is_multiple_of(2) || inner.iter().any(|part| part.is_empty()) {
        return escape(text);
    }
    let part = |(n, part): (usize, &&str)| {
        if n % 2 == 1 { format!("`{part}`") } else { escape_inline(part) }
    };
    parts.iter().enumerate().map(part).collect()
}

/// `text` in a code block, whose fence is longer than any run of backticks in it.
fn fenced(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}text\n{text}\n{fence}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn the_rich_report() {
        insta::assert_snapshot!(sample::rendered(&Markdown));
    }

    #[test]
    fn nothing_in_a_text_is_markup() {
        assert_eq!(escape("a|b `c`\n<d> *e* $f"), r"a\|b \`c\` &lt;d> \*e\* \$f");
        assert_eq!(spans("a_b `c_<d>` e"), r"a\_b `c_<d>` e");
        assert_eq!(spans("a `` <b> ` c"), r"a \`\` &lt;b> \` c");
        assert_eq!(prose("keep it:\n  a: b\nthen"), "keep it:\n\n```text\n  a: b\n```\n\nthen");
        assert_eq!(fenced("a ```` b"), "`````text\na ```` b\n`````");
    }

    #[test]
    fn the_summary_is_appended_to() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "before\n").expect("written");
        append_summary(file.path(), &sample::report()).expect("appended");
        let text = std::fs::read_to_string(file.path()).expect("it is there");
        assert!(text.starts_with("before\n## lockproof: fail\n"), "{text}");
    }
}
