//! Variable interpolation (`${VAR}` and its variants), as done by Compose in every value.
//!
//! | written | set and not empty | set, empty | not set |
//! |---|---|---|---|
//! | `$V`, `${V}` | value | empty | empty, with a warning |
//! | `${V:-x}` | value | x | x |
//! | `${V-x}` | value | empty | x |
//! | `${V:?e}` | value | error | error |
//! | `${V?e}` | value | empty | error |
//! | `${V:+x}` | x | empty | empty |
//! | `${V+x}` | x | x | empty |
//! | `$$` | `$` | `$` | `$` |
//!
//! `x` and `e` are interpolated too.

pub use super::raw::{How, Raw, Use};

/// The maximum nesting of `${A:-${B:-…}}`.
pub(super) const DEEPEST: usize = 50;

/// The maximum length of a value, in bytes.
pub(super) const LONGEST: usize = 256 * 1024;

/// An error in a text with variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// An invalid `$`.
    Invalid(String),
    /// A required variable is not set.
    Required {
        /// Its name.
        name: String,
        /// The message in the file.
        message: String,
    },
    /// The nesting is too deep.
    TooDeep,
    /// The value is too long.
    TooLong,
}

/// Interpolates `text`.
///
/// # Errors
/// An invalid `$`, or a required variable that is not set.
pub fn substitute(text: &str, lookup: &dyn Fn(&str) -> Option<String>, uses: &mut Vec<Use>) -> Result<String, Problem> {
    replace(text, lookup, uses, 0)
}

fn replace(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    uses: &mut Vec<Use>,
    depth: usize,
) -> Result<String, Problem> {
    if depth > DEEPEST {
        return Err(Problem::TooDeep);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        if out.len() > LONGEST {
            return Err(Problem::TooLong);
        }
        let after = &rest[dollar + 1..];
        if let Some(behind) = after.strip_prefix('$') {
            out.push('$');
            rest = behind;
        } else if let Some(inner) = after.strip_prefix('{') {
            let close = closing(inner).ok_or_else(|| Problem::Invalid(excerpt(&rest[dollar..])))?;
            out.push_str(&braced(&inner[..close], lookup, uses, depth)?);
            rest = &inner[close + 1..];
        } else {
            let length = name_length(after);
            if length == 0 {
                return Err(Problem::Invalid(excerpt(&rest[dollar..])));
            }
            out.push_str(&value(&after[..length], true, lookup, uses));
            rest = &after[length..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn value(name: &str, bare: bool, lookup: &dyn Fn(&str) -> Option<String>, uses: &mut Vec<Use>) -> String {
    let found = lookup(name);
    let how = if found.is_some() { How::Set } else { How::Unset };
    uses.push(Use { name: name.to_owned(), how, bare });
    found.unwrap_or_default()
}

fn braced(
    inner: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    uses: &mut Vec<Use>,
    depth: usize,
) -> Result<String, Problem> {
    let invalid = || Problem::Invalid(excerpt(&format!("${{{inner}}}")));
    let length = name_length(inner);
    let (name, operation) = inner.split_at(length);
    if name.is_empty() {
        return Err(invalid());
    }
    if operation.is_empty() {
        return Ok(value(name, false, lookup, uses));
    }
    let (colon, operation) = operation.strip_prefix(':').map_or((false, operation), |rest| (true, rest));
    let mut characters = operation.chars();
    let operator = characters.next().ok_or_else(invalid)?;
    let word = characters.as_str();
    let found = lookup(name).filter(|v| !(colon && v.is_empty()));
    let mut note = |how| uses.push(Use { name: name.to_owned(), how, bare: false });
    match (operator, found) {
        ('-' | '?', Some(found)) => {
            note(How::Set);
            Ok(found)
        }
        ('-', None) => {
            note(How::Default);
            replace(word, lookup, uses, depth + 1)
        }
        ('?', None) => {
            let message = replace(word, lookup, uses, depth + 1)?;
            Err(Problem::Required { name: name.to_owned(), message })
        }
        ('+', Some(_)) => {
            note(How::Set);
            replace(word, lookup, uses, depth + 1)
        }
        // An empty result is intended.
        ('+', None) => {
            note(How::Default);
            Ok(String::new())
        }
        _ => Err(invalid()),
    }
}

/// The length of the variable name at the start of `text`.
fn name_length(text: &str) -> usize {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// The position of the brace that closes the one before `text`.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let bytes = text.as_bytes();
    for (n, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' if n > 0 && bytes[n - 1] == b'$' => depth += 1,
            b'}' if depth == 0 => return Some(n),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The first characters only, because the text may contain a token.
fn excerpt(text: &str) -> String {
    let mut short: String = text.chars().take(4).collect();
    if text.chars().nth(4).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "SET" | "set" => Some("value".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn done(text: &str) -> Result<String, Problem> {
        substitute(text, &lookup, &mut Vec::new())
    }

    /// The table above, to the letter.
    #[rstest]
    #[case("$V", "value", "", "")]
    #[case("${V}", "value", "", "")]
    #[case("${V:-x}", "value", "x", "x")]
    #[case("${V-x}", "value", "", "x")]
    #[case("${V:?e}", "value", "!e", "!e")]
    #[case("${V?e}", "value", "", "!e")]
    #[case("${V:+x}", "x", "", "")]
    #[case("${V+x}", "x", "x", "")]
    #[case("$$V", "$V", "$V", "$V")]
    #[case("${V:-${V:-${SET}}}", "value", "value", "value")]
    #[case("a${V:-b}c$V.d", "avaluecvalue.d", "abc.d", "abc.d")]
    #[case("${V:-a:b-c?d}", "value", "a:b-c?d", "a:b-c?d")]
    fn each_form_is_as_the_table_says(#[case] text: &str, #[case] set: &str, #[case] empty: &str, #[case] unset: &str) {
        for (name, expected) in [("SET", set), ("EMPTY", empty), ("UNSET", unset)] {
            let text = text
                .replace("$$V", "$$%")
                .replace("{V", &format!("{{{name}"))
                .replace("$V", &format!("${name}"))
                .replace("$$%", "$$V");
            let got = match done(&text) {
                Ok(value) => value,
                Err(Problem::Required { message, .. }) => format!("!{message}"),
                Err(other) => format!("{other:?}"),
            };
            assert_eq!(got, expected, "{text}");
        }
    }

    #[rstest]
    #[case("$2b$12$abcdefghij", "$2b$…")]
    #[case("${", "${")]
    #[case("${}", "${}")]
    #[case("${a b}", "${a …")]
    #[case("ends with $", "$")]
    fn a_dollar_that_begins_nothing_is_invalid(#[case] text: &str, #[case] shown: &str) {
        assert_eq!(done(text), Err(Problem::Invalid(shown.to_owned())));
    }

    #[test]
    fn nesting_ends() {
        let deep = format!("{}x{}", "${U:-".repeat(2000), "}".repeat(2000));
        assert_eq!(done(&deep), Err(Problem::TooDeep));
    }

    proptest! {
        #[test]
        fn an_escaped_text_is_interpolated_to_itself(text in "[ -~é]{0,40}") {
            prop_assert_eq!(done(&text.replace('$', "$$")), Ok(text));
        }

        #[test]
        fn nothing_panics(text in "[$A-C{}:?+-]{0,30}") {
            let _either = done(&text);
        }
    }
}
