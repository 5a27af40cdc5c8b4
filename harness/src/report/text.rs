//! Text helpers shared by several formats.

use unicode_width::UnicodeWidthStr;

/// `text` with invisible characters escaped: control characters (a server's answer may contain
/// terminal escapes), direction marks, and characters that XML forbids. Keeps line breaks and tabs.
pub(super) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let hidden = match c {
            '\n' | '\t' => false,
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
            '\u{feff}' | '\u{fffe}' | '\u{ffff}' => true,
            c => c.is_control(),
        };
        if hidden { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

/// The text on one line, for a table cell or an attribute.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A duration for display.
pub(super) fn millis(ms: u64) -> String {
    if ms < 1000 {
        return format!("{ms} ms");
    }
    let tenths = ms / 100;
    format!("{}.{} s", tenths / 10, tenths % 10)
}

/// `1 finding`, `2 findings`.
pub(super) fn count(n: usize, word: &str) -> String {
    if n == 1 { format!("1 {word}") } else { format!("{n} {word}s") }
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn list(words: &[impl AsRef<str>]) -> String {
    match words {
        [] => String::new(),
        [one] => one.as_ref().to_owned(),
        [first @ .., last] => {
            let first: Vec<&str> = first.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", first.join(", "), last.as_ref())
        }
    }
}

/// Wraps `text` at `width` columns, between words. Longer words, and lines that start with white
/// space (code), are not wrapped, so that they can be copied.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.starts_with([' ', '\t']) {
            lines.push(line.to_owned());
            continue;
        }
        let mut current = String::new();
        for word in line.split_whitespace() {
            if !current.is_empty() && current.width() + 1 + word.width() > width {
                lines.push(std::mem::take(&mut current));
            }
            if !current.is_empty() {
                current.push(' ');
            }
            current.push_str(word);
        }
        lines.push(current);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_hidden_reaches_a_reader() {
        assert_eq!(visible("a\u{1b}[31mb\r\u{202e}c\nd\te"), r"a\u{1b}[31mb\u{d}\u{202e}c".to_owned() + "\nd\te");
        assert_eq!(visible("naïve “text” – 字"), "naïve “text” – 字");
    }

    #[test]
    fn times_counts_and_lists_are_words() {
        assert_eq!([0, 999, 1000, 61_250].map(millis), ["0 ms", "999 ms", "1.0 s", "61.2 s"]);
        assert_eq!([0, 1, 2].map(|n| count(n, "event")), ["0 events", "1 event", "2 events"]);
        assert_eq!(list(&["a"]), "a");
        assert_eq!(list(&["a", "b", "c"]), "a, b and c");
    }

    #[test]
    fn lines_are_broken_between_words_and_code_is_not() {
        assert_eq!(
            wrap("one two three\n  - code that is long\nverylongword x", 9),
            ["one two", "three", "  - code that is long", "verylongword", "x"]
        );
    }
}
