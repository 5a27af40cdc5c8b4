//! `.env` files as Compose reads them. v1 and v2 treat `$` differently: v2 interpolates unquoted
//! and double-quoted values, v1 interpolates only `${…}`; neither interpolates single-quoted
//! values.

use super::interpolate::{How, Use, substitute};
use lockproof_model::error::Error;

/// The limit for all values of a file together, in bytes.
const MOST: usize = 8 * 1024 * 1024;

/// One line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value as read by v2; `None` for a name without `=`.
    pub value: Option<String>,
    /// The value as it was written, without quotes.
    pub written: String,
    /// Its quote character, if any.
    pub quote: Option<char>,
    /// Its line, from 1.
    pub line: u32,
    /// The variables that v2 interpolates.
    pub uses: Vec<Use>,
    /// Whether v2 rejects the value because of an invalid `$`.
    pub refused: bool,
}

impl Variable {
    /// Whether v2 changes the value.
    pub fn is_eaten(&self) -> bool {
        self.refused || self.uses.iter().any(|u| u.how == How::Unset)
    }
}

/// An error in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Its line, from 1.
    pub line: u32,
    /// The error message.
    pub what: String,
}

impl Wrong {
    /// The error for users. It does not show the line, which may contain a secret.
    pub fn explain(&self, name: &str) -> Error {
        Error::usage(&self.what)
            .at(format!("{name}:{}:1", self.line))
            .fix("write one NAME=VALUE per line; use single quotes around values with `$`, `#` or spaces")
    }
}

/// The variables of a file, in order. `lookup` returns the variables with precedence.
///
/// # Errors
/// A line that is not an assignment, or an unclosed quote.
pub fn parse(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Vec<Variable>, Wrong> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found: Vec<Variable> = Vec::new();
    let mut rest = text;
    let mut line = 1_u32;
    let mut total = 0_usize;
    while !rest.is_empty() {
        let (now, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let trimmed = now.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            rest = after;
            line += 1;
            continue;
        }
        let body = now.trim_start();
        let body = body.strip_prefix("export").filter(|b| b.starts_with([' ', '\t'])).map_or(body, str::trim_start);
        let split = body.find(['=', ':']);
        let name = body[..split.unwrap_or(body.len())].trim();
        let odd = |c: char| !(c.is_alphanumeric() || "_.-[]".contains(c));
        if name.is_empty() || name.contains(odd) {
            return Err(Wrong { line, what: "this line is not a variable assignment".to_owned() });
        }
        let mut variable = Variable {
            name: name.to_owned(),
            value: None,
            written: String::new(),
            quote: None,
            line,
            uses: Vec::new(),
            refused: false,
        };
        let Some(split) = split else {
            variable.value = lookup(name);
            found.push(variable);
            rest = after;
            line += 1;
            continue;
        };
        let offset = now.len() - body.len() + split + 1;
        let value = &rest[offset..];
        let lead = value.len() - value.trim_start_matches([' ', '\t', '\r']).len();
        let value = &value[lead..];
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
        let known = |name: &str| lookup(name).or_else(|| found.iter().rev().find(|v| v.name == name)?.value.clone());
        if let Some(quote) = quote {
            let Some((written, used)) = quoted(&value[1..], quote) else {
                return Err(Wrong { line, what: format!("unclosed quote in the value of {name}") });
            };
            variable.quote = Some(quote);
            let consumed = offset + lead + 1 + used;
            line += u32::try_from(rest[..consumed].matches('\n').count()).unwrap_or(0) + 1;
            rest = rest[consumed..].split_once('\n').map_or("", |(_, after)| after);
            let escaped = if quote == '"' { unescape(&written) } else { written.clone() };
            variable.written = written;
            if quote == '"' { expand(&mut variable, &escaped, &known) } else { variable.value = Some(escaped) }
        } else {
            let whole = now[offset + lead..].trim_end();
            let written = whole.split(" #").next().unwrap_or_default().trim_end();
            variable.written = written.to_owned();
            expand(&mut variable, written, &known);
            rest = after;
            line += 1;
        }
        // Each value may contain the previous one twice.
        total += variable.value.as_ref().map_or(0, String::len);
        if total > MOST {
            return Err(Wrong {
                line: variable.line,
                what: format!("the file is longer than {MOST} bytes after interpolation"),
            });
        }
        found.push(variable);
    }
    Ok(found)
}

fn expand(variable: &mut Variable, text: &str, lookup: &dyn Fn(&str) -> Option<String>) {
    match substitute(text, lookup, &mut variable.uses) {
        Ok(value) => variable.value = Some(value),
        Err(_) => {
            variable.refused = true;
            // v1 keeps it as written.
            variable.value = Some(text.to_owned());
        }
    }
}

/// The text up to the closing quote, and its length in bytes including the quote.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut out = String::new();
    let mut escape = false;
    for (n, c) in text.char_indices() {
        if escape {
            if c != quote {
                out.push('\\');
            }
            out.push(c);
            escape = false;
        } else if c == '\\' {
            escape = true;
        } else if c == quote {
            return Some((out, n + c.len_utf8()));
        } else {
            out.push(c);
        }
    }
    None
}

fn unescape(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\t", "\t").replace("\\r", "\r").replace("\\$", "$$").replace("\\\\", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, Option<String>, u32)> {
        parse(text, &|_| None).expect("it is right").into_iter().map(|v| (v.name, v.value, v.line)).collect()
    }

    #[test]
    fn values_are_those_of_compose_v2() {
        let text = "\u{feff}# c\r\nA=1 # no\nexport B = 'two $A # words'\r\nC=\"x ${A} \\\" y\"\nD=\n\nE=a#b\nF='l1\nl2'\nG=z\nH: yaml\nTOKEN='$2b$12$x'\n";
        let expected = [
            ("A", "1", 2),
            ("B", "two $A # words", 3),
            ("C", "x 1 \" y", 4),
            ("D", "", 5),
            ("E", "a#b", 7),
            ("F", "l1\nl2", 8),
            ("G", "z", 10),
            ("H", "yaml", 11),
            ("TOKEN", "$2b$12$x", 12),
        ];
        let expected: Vec<_> = expected.map(|(n, v, l)| (n.to_owned(), Some(v.to_owned()), l)).into();
        assert_eq!(read(text), expected);
    }

    #[test]
    fn a_token_is_eaten_unless_single_quotes_keep_it() {
        let eaten = |text: &str| parse(text, &|_| None).expect("it is right")[0].is_eaten();
        assert!(eaten("T=$2b$12$abc"));
        assert!(eaten("T=abc$def"));
        assert!(eaten("T=\"abc$def\""));
        assert!(!eaten("T='$2b$12$abc'"));
        assert!(!eaten("T=abc$$def"));
    }

    #[test]
    fn mistakes_have_a_line_and_show_no_value() {
        let wrong = parse("A=1\nhunter 2\n", &|_| None).expect_err("no variable");
        assert_eq!(wrong.line, 2);
        let text = parse("\nA='hunter2\n", &|_| None).expect_err("open").explain(".env").to_string();
        assert!(text.contains(".env:2:1") && !text.contains("hunter2"), "{text}");
    }
}
