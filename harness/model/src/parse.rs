//! Parses YAML into lockproof's file types. Errors show the position, the source line and the nearest
//! valid name.

use crate::error::{Error, Result};

/// Parses YAML into any of lockproof's file types.
///
/// # Errors
/// A usage error with line and column, the source line, and the nearest valid name.
pub fn parse_as<T: serde::de::DeserializeOwned>(text: &str, name: &str) -> Result<T> {
    let options = serde_yaml::options! { with_snippet: false };
    serde_yaml::from_str_with_options(text, options).map_err(|e| explain(&e, text, name))
}

fn explain(error: &serde_yaml::Error, text: &str, name: &str) -> Error {
    let (what, fix) = match error {
        serde_yaml::Error::SerdeUnknownField { field, expected, .. } => {
            (format!("unknown key `{field}`"), suggest(field, expected, "keys"))
        }
        serde_yaml::Error::SerdeUnknownVariant { variant, expected, .. } => {
            (format!("unknown value `{variant}`"), suggest(variant, expected, "values"))
        }
        other => (first_line(&other.to_string()), "correct the file at this position".to_owned()),
    };
    let mut shown = Error::usage(what).fix(fix);
    match error.location() {
        Some(place) if place.line() > 0 => {
            let line = usize::try_from(place.line()).unwrap_or(1);
            let column = usize::try_from(place.column()).unwrap_or(1);
            shown = shown.at(format!("{name}:{line}:{column}"));
            if let Some(source) = text.lines().nth(line - 1) {
                shown = shown.detail(source).detail(format!("{}^", " ".repeat(column.saturating_sub(1))));
            }
        }
        _ => shown = shown.at(name),
    }
    shown
}

/// "did you mean" for the nearest name, else a list of all names.
pub fn suggest(word: &str, expected: &[&str], kind: &str) -> String {
    let nearest = expected.iter().map(|known| (strsim::damerau_levenshtein(&word.to_lowercase(), known), *known)).min();
    match nearest {
        Some((distance, known)) if distance <= word.len().max(known.len()) / 2 => {
            format!("did you mean `{known}`?")
        }
        _ => format!("the valid {kind} are: {}", expected.join(", ")),
    }
}

/// The message without its position, which is shown separately.
fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or("invalid YAML");
    let line = line.strip_prefix("error: ").unwrap_or(line);
    match line.rfind(" at line ") {
        Some(end) => line[..end].to_owned(),
        None => line.to_owned(),
    }
}
