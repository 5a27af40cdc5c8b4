//! From the text of a script to its syntax tree, within bounds: a script is somebody else's file.

use brush_parser::{Parser, ast::Program};

/// How deep brackets and compound commands may be nested; the parser descends with them.
const DEEPEST: usize = 60;
/// How much text is parsed at all.
const LONGEST: usize = 256 * 1024;

/// The programs of a text: one, or, where it is no shell script as a whole, one for each line that is; and
/// whether all of it was parsed.
pub(super) fn programs(text: &str) -> (Vec<(usize, Program)>, bool) {
    if text.len() > LONGEST || depth(text) > DEEPEST {
        return (Vec::new(), false);
    }
    match program(text) {
        Some(whole) => (vec![(0, whole)], true),
        None => (text.lines().enumerate().filter_map(|(n, line)| Some((n, program(line)?))).collect(), false),
    }
}

fn program(text: &str) -> Option<Program> {
    Parser::builder().build(text.as_bytes()).parse_program().ok()
}

/// How deep it is nested at most, counted without understanding it: never less than it is.
fn depth(text: &str) -> usize {
    let (mut now, mut most) = (0_usize, 0_usize);
    for word in text.split_inclusive(|c: char| c.is_whitespace() || ";&|".contains(c)) {
        let opened = word.matches(['(', '{', '[']).count() + word.matches('`').count().div_ceil(2);
        let closed = word.matches([')', '}', ']']).count();
        let plain = word.trim_matches(|c: char| c.is_whitespace() || ";&|".contains(c));
        match plain {
            "if" | "for" | "while" | "until" | "case" | "select" => now += 1,
            "fi" | "done" | "esac" => now = now.saturating_sub(1),
            _ => {}
        }
        now += opened;
        most = most.max(now);
        now = now.saturating_sub(closed);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nested_without_end_is_not_parsed() {
        for text in
            ["(".repeat(5000), "$(".repeat(5000), "if x; then ".repeat(5000), "{ ".repeat(5000), "`".repeat(5000)]
        {
            let (found, whole) = programs(&text);
            assert!(found.is_empty() && !whole, "{}", &text[..10]);
        }
        let (found, whole) = programs("for x in a; do (cd /; ls); done");
        assert_eq!((found.len(), whole), (1, true));
    }

    #[test]
    fn the_lines_that_are_shell_are_read_of_what_is_not() {
        let (found, whole) = programs("cd /srv\n))) no shell (((\npython main.py\n");
        assert_eq!((found.len(), whole), (2, false));
    }
}
