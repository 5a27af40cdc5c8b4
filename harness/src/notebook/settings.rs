//! The replay settings in a notebook's metadata, under `lockproof`.

use std::{path::Path, sync::OnceLock};

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use lockproof_model::{
    error::{Error, Result},
    parse::parse_as,
};

/// The default rules of every notebook.
const BUILT_IN: &str = include_str!("rules.yaml");

/// `metadata.lockproof` of a notebook.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Settings {
    /// The time limit of one cell, in seconds.
    pub(super) cell_timeout: Option<u64>,
    /// The time limit of the notebook, in seconds.
    pub(super) timeout: Option<u64>,
    /// The files that it needs: relative paths, or glob patterns in its own directory. Default: all
    /// files in its directory.
    pub(super) files: Option<Vec<String>>,
    /// What the server must have.
    pub(super) needs: Needs,
    /// Additional rules, applied before the built-in ones.
    pub(super) sanitize: Vec<RuleText>,
    /// Whether to apply the built-in rules. Default: yes.
    pub(super) builtin_rules: Option<bool>,
}

/// What a server must have to execute a notebook.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Needs {
    /// Node classes, including custom ones.
    pub(super) custom_nodes: Vec<String>,
    /// Model files, as `FOLDER/NAME`.
    pub(super) models: Vec<String>,
    /// Whether a GPU is needed.
    pub(super) gpu: bool,
}

impl Needs {
    /// Whether it needs anything.
    pub(super) fn any(&self) -> bool {
        self.gpu || !self.custom_nodes.is_empty() || !self.models.is_empty()
    }
}

/// A rule as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleText {
    /// Its name, for errors.
    name: String,
    /// The regular expression.
    pattern: String,
    /// The replacement of a match; `$1` is a group.
    replace: String,
}

/// Rules that remove what differs from run to run from an output.
#[derive(Clone, Debug)]
pub(super) struct Sanitizer(Vec<(Regex, String)>);

impl Settings {
    pub(super) fn of(raw: &Value, path: &Path) -> Result<Self> {
        match raw["metadata"].get("lockproof") {
            None => Ok(Self::default()),
            Some(value) => Self::deserialize(value).map_err(|e| {
                Error::usage("cannot read the notebook's replay settings")
                    .at(format!("{}, metadata.lockproof", path.display()))
                    .detail(e)
                    .fix(
                        "valid keys are cell_timeout, timeout, files, needs, sanitize and builtin_rules \
                        (docs/notebooks.md)",
                    )
            }),
        }
    }

    pub(super) fn sanitizer(&self, path: &Path) -> Result<Sanitizer> {
        let mut rules = Vec::new();
        for rule in &self.sanitize {
            rules.push(compile(rule).map_err(|e| e.at(format!("{}, metadata.lockproof.sanitize", path.display())))?);
        }
        if self.builtin_rules.unwrap_or(true) {
            rules.extend(built_in()?.iter().cloned());
        }
        Ok(Sanitizer(rules))
    }
}

fn built_in() -> Result<&'static [(Regex, String)]> {
    static RULES: OnceLock<Vec<(Regex, String)>> = OnceLock::new();
    if let Some(rules) = RULES.get() {
        return Ok(rules);
    }
    let texts: Vec<RuleText> = parse_as(BUILT_IN, "rules.yaml")?;
    let rules = texts.iter().map(compile).collect::<Result<Vec<_>>>()?;
    Ok(RULES.get_or_init(|| rules))
}

fn compile(rule: &RuleText) -> Result<(Regex, String)> {
    let regex = Regex::new(&rule.pattern).map_err(|e| {
        Error::usage(format!("the pattern of the rule `{}` is not a valid regular expression", rule.name)).detail(e)
    })?;
    Ok((regex, rule.replace.clone()))
}

impl Sanitizer {
    /// Applies the rules, and removes trailing white space.
    pub(super) fn clean(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (pattern, replace) in &self.0 {
            text = pattern.replace_all(&text, replace.as_str()).into_owned();
        }
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        lines.join("\n").trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn clean(text: &str) -> String {
        Settings::default().sanitizer(Path::new("a.ipynb")).expect("the rules are ours").clean(text)
    }

    #[rstest]
    #[case("done in 1.25 s, at 2026-11-22T10:11:12.5Z", "done in <duration>, at <time>")]
    #[case("prompt 0b8e1f5c-8f4e-4c62-9c53-0f6a8d9f6f10", "prompt <id>")]
    #[case(
        "<PIL.Image.Image image mode=RGB size=64x64 at 0x7F12AB34CD56>",
        "<PIL.Image.Image image mode=RGB size=64x64 at <address>>"
    )]
    #[case("GET http://127.0.0.1:8188/queue", "GET <server>/queue")]
    #[case("wss://comfy.example/ws and 172.17.0.2:8188", "<server>/ws and <server>")]
    #[case("12.3 KiB of 4 MB, 512 bytes", "<size> of <size>, <size>")]
    #[case("\u{1b}[31mred\u{1b}[0m  \n", "red")]
    #[case("10%\r50%\r100%\nok", "100%\nok")]
    #[case("/tmp/ipykernel_4711/123.py:1: Warning", "<cell>:1: Warning")]
    #[case("<Object at 0x7f12ab> at 0x7f12abcdef01", "<Object at <address>> at <address>")]
    #[case("crc 0x1badcafe, colour 0x00ff00", "crc 0x1badcafe, colour 0x00ff00")]
    #[case("Qwen2.5-VL-72B: 0 bytes", "Qwen2.5-VL-72B: 0 bytes")]
    #[case("Date: Sun, 22 Nov 2026 10:11:12 GMT; Sun Nov 22 10:11:12 2026", "Date: <time>; <time>")]
    #[case("{'timestamp': 1763806000123, 'number': 5}", "{'timestamp': <time>, 'number': 5}")]
    #[case("3 images of 512x512, seed 42", "3 images of 512x512, seed 42")]
    fn what_differs_from_run_to_run_goes_and_all_else_stays(#[case] text: &str, #[case] cleaned: &str) {
        assert_eq!(clean(text), cleaned);
    }

    #[test]
    fn a_sanitised_text_is_not_changed_again() {
        for text in ["done in <duration>", "<server>/ws", "100%", "a\nb"] {
            assert_eq!(clean(text), text);
        }
    }

    #[test]
    fn a_notebook_s_own_rules_come_first_and_their_errors_are_reported() {
        let raw = serde_json::json!({ "metadata": { "lockproof": { "sanitize": [
            { "name": "seed", "pattern": "seed \\d+", "replace": "seed N" }
        ], "builtin_rules": false } } });
        let settings = Settings::of(&raw, Path::new("a.ipynb")).expect("it can be read");
        let rules = settings.sanitizer(Path::new("a.ipynb")).expect("they can be compiled");
        assert_eq!(rules.clean("seed 42 in 3 s"), "seed N in 3 s");
        for (wrong, told) in [
            (serde_json::json!({ "tiemout": 3 }), "tiemout"),
            (serde_json::json!({ "sanitize": [{ "name": "x", "pattern": "(", "replace": "" }] }), "`x`"),
        ] {
            let raw = serde_json::json!({ "metadata": { "lockproof": wrong } });
            let read = Settings::of(&raw, Path::new("a.ipynb")).and_then(|s| s.sanitizer(Path::new("a.ipynb")));
            assert!(read.expect_err("it is wrong").to_string().contains(told));
        }
    }
}
