//! The regular expressions of this module.

use regex::Regex;

/// Compiles a built-in regular expression.
///
/// # Panics
/// If it is invalid: a search that finds nothing would pass for a page that holds nothing.
pub(super) fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a valid pattern")
}
