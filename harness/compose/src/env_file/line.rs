//! The assignments in the text of a `.env`, with their positions.

use std::ops::Range;

/// `[export] NAME=value` in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The variable.
    pub name: String,
    /// The value without its quotes, not interpolated.
    pub text: String,
    /// The quote around the value, if any.
    pub quote: Option<char>,
    /// Its first line, from 1.
    pub number: usize,
    /// The byte range of its lines, including the newline.
    pub(super) line: Range<usize>,
    /// The byte range after the name: `=`, white space around it, and the value with its quotes.
    pub(super) value: Range<usize>,
}

impl Assignment {
    /// The end of its content, before the line ending.
    pub(super) fn line_content_end(&self, text: &str) -> usize {
        let line = &text[self.line.clone()];
        self.line.start + line.trim_end_matches('\n').trim_end_matches('\r').len()
    }
}

/// All assignments, in order. A quoted value may span several lines, whose content is not parsed.
/// An unclosed quote is part of a one-line value.
pub fn assignments(text: &str) -> Vec<Assignment> {
    let mut found = Vec::new();
    let (mut at, mut number) = (0, 1);
    while at < text.len() {
        let end = text[at..].find('\n').map_or(text.len(), |n| at + n + 1);
        let mut next = end;
        if let Some(assignment) = assignment(text, at, end, number) {
            next = assignment.line.end;
            found.push(assignment);
        }
        number += text[at..next].matches('\n').count();
        at = next;
    }
    found
}

fn assignment(text: &str, start: usize, end: usize, number: usize) -> Option<Assignment> {
    let line = &text[start..end];
    let body = line.trim_start_matches([' ', '\t', '\u{feff}']);
    let body = match body.strip_prefix("export") {
        Some(rest) if rest.starts_with([' ', '\t']) => rest.trim_start_matches([' ', '\t']),
        _ => body,
    };
    let length = body.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(body.len());
    let (name, rest) = body.split_at(length);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let after_equals = rest.trim_start_matches([' ', '\t']).strip_prefix('=')?;
    let raw = after_equals.trim_start_matches([' ', '\t']);
    let name_end = end - rest.len();
    let equals_end = end - after_equals.len();
    let from = end - raw.len();
    let made = |text: String, quote, until: usize, line_end: usize| Assignment {
        name: name.to_owned(),
        text,
        quote,
        number,
        line: start..line_end,
        value: name_end..until,
    };
    if let Some(quote) = raw.chars().next().filter(|c| matches!(c, '\'' | '"'))
        && let Some(length) = closing(&text[from + 1..], quote)
    {
        let close = from + 1 + length;
        let line_end = text[close..].find('\n').map_or(text.len(), |n| close + n + 1);
        let behind = text[close + 1..line_end].trim();
        // Only a comment may follow the closing quote; otherwise the quotes are part of the value.
        if behind.is_empty() || behind.starts_with('#') {
            let inner = &text[from + 1..close];
            let inner = if quote == '"' { unescape(inner) } else { inner.to_owned() };
            return Some(made(inner, Some(quote), close + 1, line_end));
        }
    }
    let content = raw.trim_end_matches('\n').trim_end_matches('\r');
    let value = match comment(content) {
        Some(at) => content[..at].trim_end(),
        None => content.trim_end(),
    };
    // Without a value, keep the white space before a comment.
    let until = if value.is_empty() { equals_end } else { from + value.len() };
    Some(made(value.to_owned(), None, until, end))
}

/// The position of the closing quote. A backslash escapes it only between double quotes.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' && quote == '"' {
            escaped = true;
        } else if c == quote {
            return Some(at);
        }
    }
    None
}

/// The start of a comment: a `#` after white space.
fn comment(content: &str) -> Option<usize> {
    if content.starts_with('#') {
        return Some(0);
    }
    content.match_indices('#').map(|(at, _)| at).find(|at| content[..*at].ends_with([' ', '\t']))
}

/// Unescapes a double-quoted text as a shell does: removes a backslash before one of four
/// characters.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some('$' | '"' | '\\' | '`')) => out.extend(chars.next()),
            _ => out.push(c),
        }
    }
    out
}
