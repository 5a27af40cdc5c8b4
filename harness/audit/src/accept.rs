//! Comments that accept a finding, with a reason:
//!
//! ```yaml
//! services:
//!   # lockproof: accept persist/deps — the entry point installs them and stops when that fails
//!   comfyui:
//! ```
//!
//! A comment at the end of a line applies to that line. A comment on its own line applies to the
//! next line, or to the whole block if that line starts one.

use super::{subject::Audit, subject::Placed};
use lockproof_compose::{Place, Project};
use lockproof_model::{
    error::{Error, Result},
    finding::Rule,
};

/// An accept comment.
struct Comment {
    rule: Rule,
    place: Place,
    file: u32,
    /// The lines that it applies to: first and last, from 1.
    lines: (u32, u32),
    used: bool,
}

/// Marks the findings that comments accept, and adds a note for each comment that accepts nothing.
///
/// # Errors
/// A usage error for an unknown rule, a rule that cannot be accepted, or a missing reason.
pub(super) fn apply(project: &Project, audit: &mut Audit) -> Result<()> {
    let mut comments = Vec::new();
    for remark in &project.comments {
        let Some(rest) = remark.text.trim().strip_prefix("lockproof:") else { continue };
        let place = project.sources.place(remark.at);
        let (rule, reason) = parse(rest).ok_or_else(|| {
            Error::usage("invalid accept comment")
                .at(&place)
                .fix("write it as: # lockproof: accept persist/deps — why it is tolerated")
        })?;
        let rule: Rule = rule.parse().map_err(|e: Error| e.at(&place))?;
        if !rule.acceptable() {
            return Err(Error::usage(format!("`{rule}` cannot be accepted: it means that there is no working lock"))
                .at(&place)
                .fix("remove the comment"));
        }
        if reason.is_empty() {
            return Err(Error::usage(format!("the comment that accepts `{rule}` has no reason"))
                .at(&place)
                .fix(format!("add the reason: # lockproof: accept {rule} — …")));
        }
        let text = project.sources.get(remark.at.file).map(|s| s.text.clone()).unwrap_or_default();
        comments.push(Comment { rule, lines: lines(&text, place.line), file: remark.at.file, place, used: false });
    }
    for (finding, placed) in &mut audit.findings {
        let Placed::At(span) = placed else { continue };
        let line = project.sources.place(*span).line;
        for comment in comments.iter_mut().filter(|c| c.rule == finding.rule && c.file == span.file) {
            if (comment.lines.0..=comment.lines.1).contains(&line) {
                comment.used = true;
                finding.accepted = true;
            }
        }
    }
    for comment in comments.iter().filter(|c| !c.used) {
        audit.notes.push(format!(
            "{}: this comment accepts {}, but there is no such finding here",
            comment.place, comment.rule
        ));
    }
    Ok(())
}

/// The rule and the reason.
fn parse(rest: &str) -> Option<(&str, &str)> {
    let rest = rest.trim().strip_prefix("accept")?.trim_start();
    let (rule, reason) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let reason = reason.trim_start().trim_start_matches(['—', '–', '-', ':']).trim();
    (!rule.is_empty()).then_some((rule.trim_end_matches([':', ',']), reason))
}

/// The lines that a comment on line `number` applies to.
fn lines(text: &str, number: u32) -> (u32, u32) {
    let all: Vec<&str> = text.lines().collect();
    let own = all.get(number.saturating_sub(1) as usize).copied().unwrap_or_default();
    let alone = own.trim_start().starts_with('#');
    let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    let mut first = number.saturating_sub(1) as usize;
    if alone {
        while first < all.len() && blank(all[first]) {
            first += 1;
        }
    }
    let indent = |line: &str| line.len() - line.trim_start_matches([' ', '-']).len();
    let begins = |line: &str| line.len() - line.trim_start().len();
    let Some(line) = all.get(first) else { return (number, number) };
    let mut last = first;
    for (n, next) in all.iter().enumerate().skip(first + 1) {
        if blank(next) {
            continue;
        }
        // YAML allows a list at the same column as its key.
        let list =
            next.trim_start().starts_with('-') && !line.trim_start().starts_with('-') && begins(next) == begins(line);
        if begins(next) > begins(line) && (indent(line) < begins(next) || begins(next) >= indent(line)) || list {
            last = n;
        } else {
            break;
        }
    }
    let number = |n: usize| u32::try_from(n + 1).unwrap_or(u32::MAX);
    (number(first), number(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_about_its_line_or_the_block_that_follows() {
        let text = "# one\nservices:\n  a:  # two\n    ports:  # three\n    - 1\n    - 2  # four\n    image: x\n  b:\n    image: y\n";
        assert_eq!([1, 3, 4, 6].map(|n| lines(text, n)), [(2, 9), (3, 7), (4, 6), (6, 6)]);
    }

    #[test]
    fn a_reason_follows_any_dash() {
        for text in ["accept persist/deps — because", "accept persist/deps -- because", " accept persist/deps: because"]
        {
            assert_eq!(parse(text), Some(("persist/deps", "because")), "{text}");
        }
        assert_eq!(parse("accept persist/deps"), Some(("persist/deps", "")));
        assert_eq!(parse("ignore persist/deps"), None);
    }
}
