//! Reads `lockproof.yaml`. Errors show the position, the source line and the nearest valid name.

use std::{io::ErrorKind, path::Path};

use lockproof_model::{
    config::ConfigFile,
    error::{Error, Result},
    parse::parse_as,
    read,
};

/// The size limit of a configuration, in bytes.
const LARGEST: u64 = 1024 * 1024;

/// Reads the file at `path` and checks its structure.
///
/// # Errors
/// A usage error if the file cannot be read, is invalid YAML, or has invalid keys or values.
pub fn load(path: &Path) -> Result<ConfigFile> {
    let shown = path.display();
    let text = read::text(path, LARGEST).map_err(|e| match e.kind() {
        ErrorKind::FileTooLarge => {
            Error::usage(format!("{shown} is larger than {LARGEST} bytes, the limit for a configuration"))
                .at(&shown)
                .fix("check the path given with --config")
        }
        _ => unreadable(path, &e),
    })?;
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
