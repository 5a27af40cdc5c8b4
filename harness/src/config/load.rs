//! Reads `lockproof.yaml`. Errors show the position, the source line and the nearest valid name.

use std::path::Path;

use super::file::ConfigFile;
use crate::error::{Error, Result};

/// The size limit of a configuration, in bytes.
const LARGEST: u64 = 1024 * 1024;

/// Reads the file at `path` and checks its structure.
///
/// # Errors
/// A usage error if the file cannot be read, is invalid YAML, or has invalid keys or values.
pub fn load(path: &Path) -> Result<ConfigFile> {
    let shown = path.display();
    let size = std::fs::metadata(path).map_err(|e| unreadable(path, &e))?.len();
    if size > LARGEST {
        return Err(Error::usage(format!("{shown} is {size} bytes long; the limit for a configuration is {LARGEST}"))
            .at(&shown)
            .fix("check the path given with --config"));
    }
    let text = std::fs::read_to_string(path).map_err(|e| unreadable(path, &e))?;
    parse(&text, &shown.to_string())
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::usage(format!("cannot read {}: {error}", path.display())).fix(
        "give an existing file with --config, or create one from docs/lockproof.yaml; without a \
        lockproof.yaml, `lockproof gate` runs the bundled demo",
    )
}

/// Parses `text` from the file `name`.
///
/// # Errors
/// A usage error with line and column, the source line, and the nearest valid name.
pub fn parse(text: &str, name: &str) -> Result<ConfigFile> {
    parse_as(text, name)
}

/// Parses YAML into any of lockproof's file types, with the same errors.
pub(crate) fn parse_as<T: serde::de::DeserializeOwned>(text: &str, name: &str) -> Result<T> {
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
pub(crate) fn suggest(word: &str, expected: &[&str], kind: &str) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        parse(text, "lockproof.yaml").expect_err("it is wrong").to_string()
    }

    #[test]
    fn an_unknown_key_names_its_place_and_the_nearest_one() {
        insta::assert_snapshot!(shown("subjects:\n  - name: a\n    imgae: x\n"), @r"
        unknown key `imgae`
          --> lockproof.yaml:3:5
           |     imgae: x
           |     ^
          = help: did you mean `image`?
        ");
    }

    #[test]
    fn an_unknown_event_names_the_nearest_one() {
        insta::assert_snapshot!(shown("subjects: []\nevents: [restart, re-create]\n"), @r"
        unknown value `re-create`
          --> lockproof.yaml:2:19
           | events: [restart, re-create]
           |                   ^
          = help: did you mean `recreate`?
        ");
    }

    #[test]
    fn a_bad_duration_says_how_to_write_one() {
        let text = shown("subjects:\n  - { name: a, image: b, ready_timeout: soon }\n");
        assert!(text.contains("`soon` is not a valid duration"), "{text}");
        assert!(text.contains("lockproof.yaml:2:"), "{text}");
    }

    #[test]
    fn numbers_and_booleans_may_stand_in_the_environment() {
        let file =
            parse("subjects:\n  - { name: a, image: b, env: { A: 1, B: true, C: x } }\n", "f").expect("it is right");
        let env: Vec<_> = file.subjects[0].env.values().map(|v| v.0.as_str()).collect();
        assert_eq!(env, ["1", "true", "x"]);
    }
}
