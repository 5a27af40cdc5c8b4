//! Parses a script to its syntax tree, within limits: scripts are untrusted files.

use brush_parser::{Parser, ast::Program};

/// The maximum nesting of brackets and compound commands, which limits the parser's recursion.
const DEEPEST: usize = 60;
/// The maximum length of a parsed text, in bytes.
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

/// An upper bound of the nesting depth, counted without parsing.
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
    fn too_deep_nesting_is_not_parsed() {
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
    fn the_valid_lines_of_an_invalid_script_are_read() {
        let (found, whole) = programs("cd /srv\n))) no shell (((\npython main.py\n");
        assert_eq!((found.len(), whole), (2, false));
    }
}
