//! Finds what a notebook must not contain: tokens, the wrong variable name, a server URL.

use std::{path::Path, sync::OnceLock};

use regex::Regex;
use serde_json::Value;

use super::file::{File, code_cells, joined, source};
use lockproof_compose::env_file::{TOKEN, WRONG_NAME};
use lockproof_model::{
    event::Event,
    finding::{Finding, Rule, Severity},
    secret,
};
use lockproof_probe::keys;

/// A text in a notebook: the source of a cell, or its stored output.
struct Text {
    /// Its position, for messages.
    place: String,
    /// Whether it is code, where a URL is a mistake; in an output it is only text.
    code: bool,
    text: String,
}

/// Searches the sources and the stored outputs.
pub(super) fn scan(file: &File, path: &Path, subject: &str, event: Option<Event>, token: Option<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let forms = token.map(|token| keys::forms(token, None)).unwrap_or_default();
    for text in texts(&file.raw) {
        for (number, line) in text.text.lines().enumerate() {
            for (rule, severity, message, remedy) in faults(line, text.code, &forms) {
                let place = format!("{}, line {}", text.place, number + 1);
                let mut finding = Finding::new(rule, subject, event, message).evidence(place);
                finding.severity = severity;
                finding.file = Some(path.display().to_string());
                finding.line = line_of(&file.text, line);
                if let Some(remedy) = remedy {
                    finding = finding.remedy(remedy);
                }
                // Outputs often repeat each other.
                let known = findings.iter().any(|f: &Finding| f.rule == rule && f.evidence == finding.evidence);
                if !known {
                    findings.push(finding);
                }
            }
        }
    }
    findings
}

type Fault = (Rule, Severity, String, Option<String>);

fn faults(line: &str, code: bool, forms: &[String]) -> Vec<Fault> {
    let mut faults = Vec::new();
    // Another token than that of record is not shown either.
    let hashes: Vec<&str> =
        pattern(&HASH, HASH_PATTERN).map(|p| p.find_iter(line).map(|m| m.as_str()).collect()).unwrap_or_default();
    hashes.iter().for_each(|hash| secret::register(hash));
    if forms.iter().any(|form| line.contains(form.as_str())) || !hashes.is_empty() {
        faults.push((Rule::DeployTokenInFile, Severity::Warning, "the notebook contains a token".to_owned(), None));
    } else if let Some(found) = pattern(&BEARER, BEARER_PATTERN).and_then(|p| p.captures(line)) {
        found.get(2).into_iter().for_each(|value| secret::register(value.as_str()));
        let message = "the notebook contains a bearer token".to_owned();
        faults.push((Rule::DeployTokenInFile, Severity::Warning, message, None));
    }
    if line.contains(WRONG_NAME) {
        let message = format!("the notebook reads {WRONG_NAME}; the correct name is {TOKEN}");
        faults.push((Rule::DeployVariableName, Severity::Warning, message, None));
    }
    // A default value for the variable is correct.
    if code
        && !line.contains("COMFYUI_URL")
        && !line.trim_start().starts_with('#')
        && let Some(found) = pattern(&ADDRESS, ADDRESS_PATTERN).and_then(|p| p.find(line))
    {
        let message = format!("the notebook contains the URL of a server ({})", found.as_str());
        let remedy = "Read COMFYUI_URL from the environment, as comfyui_client.py does: \
                      os.environ.get(\"COMFYUI_URL\", \"http://127.0.0.1:8188\").";
        faults.push((Rule::DeployVariableName, Severity::Note, message, Some(remedy.to_owned())));
    }
    faults
}

/// A bcrypt hash.
const HASH_PATTERN: &str = r"\$2[abxy]\$\d\d\$[./A-Za-z0-9]{53}";
/// A bearer token in a header or a query that is not a variable.
const BEARER_PATTERN: &str = r#"(?i)(bearer\s+|[?&]token=)((?:[A-Za-z0-9._~+/$=-]|%[0-9A-Fa-f]{2}){16,})"#;
/// The URL of a local server, of an IP address, or with ComfyUI's default port.
const ADDRESS_PATTERN: &str =
    r"(?i)\b(?:https?|wss?)://(?:localhost|(?:\d{1,3}\.){3}\d{1,3}|\[[0-9a-f:]+\]|[a-z0-9.-]+:8188\b)(?::\d+)?";

static HASH: OnceLock<Option<Regex>> = OnceLock::new();
static BEARER: OnceLock<Option<Regex>> = OnceLock::new();
static ADDRESS: OnceLock<Option<Regex>> = OnceLock::new();

fn pattern(cell: &'static OnceLock<Option<Regex>>, text: &str) -> Option<&'static Regex> {
    cell.get_or_init(|| Regex::new(text).ok()).as_ref()
}

fn texts(notebook: &Value) -> Vec<Text> {
    let mut texts = Vec::new();
    let cells: Vec<&Value> = notebook["cells"].as_array().into_iter().flatten().collect();
    for (at, cell) in cells.iter().enumerate() {
        let code = cell["cell_type"] == "code";
        texts.push(Text { place: format!("cell {} of {}", at + 1, cells.len()), code, text: source(cell) });
    }
    // Papermill stores the parameters of a run there.
    add_metadata(&mut texts, "the notebook's metadata", &notebook["metadata"]);
    for (at, cell) in cells.iter().enumerate() {
        add_metadata(&mut texts, &format!("the metadata of cell {}", at + 1), &cell["metadata"]);
    }
    for (at, cell) in code_cells(notebook).iter().enumerate() {
        for output in cell["outputs"].as_array().into_iter().flatten() {
            let mut add = |text: String| {
                texts.push(Text { place: format!("output of code cell {}", at + 1), code: false, text });
            };
            add(joined(&output["text"]));
            add(joined(&output["evalue"]));
            output["traceback"].as_array().into_iter().flatten().for_each(|line| add(joined(line)));
            for (kind, data) in output["data"].as_object().into_iter().flatten() {
                if !kind.starts_with("image/") {
                    add(if data.is_object() { data.to_string() } else { joined(data) });
                }
            }
        }
    }
    texts
}

/// All texts in metadata, one per line.
fn add_metadata(texts: &mut Vec<Text>, place: &str, metadata: &Value) {
    fn leaves(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::String(text) => found.push(text.clone()),
            Value::Array(items) => items.iter().for_each(|item| leaves(item, found)),
            Value::Object(map) => map.values().for_each(|value| leaves(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    leaves(metadata, &mut found);
    if !found.is_empty() {
        texts.push(Text { place: place.to_owned(), code: false, text: found.join("\n") });
    }
}

/// The line of the file that contains a line of a text, as encoded in JSON.
fn line_of(file: &str, line: &str) -> Option<u32> {
    let spelled = Value::from(line).to_string();
    let spelled = spelled.trim_matches('"');
    let at = file.lines().position(|l| l.contains(spelled))?;
    u32::try_from(at + 1).ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const HASHED: &str = "$2b$12$abcdefghijklmnopqrstuuC1B2./DEFGHIJKLMNOPQRSTUVWXYZ1a";

    #[rstest]
    #[case::hash(&format!("T = '{HASHED}'"), &["deploy/token-in-file"])]
    #[case::token("t = 'of-record-1'", &["deploy/token-in-file"])]
    #[case::bearer("h = {'Authorization': 'Bearer abcdefghijklmnop123'}", &["deploy/token-in-file"])]
    #[case::query("url + '/queue?token=abcdefghijklmnop123'", &["deploy/token-in-file"])]
    #[case::quoted("url + '/queue?token=%242b%2412%24abcdefghi/jkl'", &["deploy/token-in-file"])]
    #[case::variable("h = {'Authorization': f'Bearer {token}'}", &[])]
    #[case::wrong_name("os.environ['COMFYUI_API_KEY']", &["deploy/variable-name"])]
    #[case::right_name("os.environ['COMFYUI_API_TOKEN']", &[])]
    #[case::address("URL = 'http://127.0.0.1:8188'", &["deploy/variable-name"])]
    #[case::named_address("URL = 'http://comfyui:8188/api'", &["deploy/variable-name"])]
    #[case::web_socket("ws.connect('ws://localhost:8188/ws')", &["deploy/variable-name"])]
    #[case::default("os.environ.get('COMFYUI_URL', 'http://127.0.0.1:8188')", &[])]
    #[case::comment("# see http://127.0.0.1:8188", &[])]
    #[case::elsewhere("# https://docs.example/comfyui", &[])]
    fn what_a_line_of_code_must_not_hold(#[case] line: &str, #[case] rules: &[&str]) {
        let found: Vec<&str> = faults(line, true, &keys::forms("of-record-1", None)).iter().map(|f| f.0.id()).collect();
        assert_eq!(found, rules);
    }

    #[test]
    fn what_papermill_writes_into_the_metadata_is_looked_through() {
        let notebook = serde_json::json!({
            "metadata": { "papermill": { "parameters": { "token": HASHED } } },
            "cells": [{ "cell_type": "code", "metadata": { "with": [HASHED] }, "source": "1", "outputs": [] }],
        });
        let held = texts(&notebook).into_iter().filter(|text| text.text.contains(HASHED));
        let places: Vec<String> = held.map(|text| text.place).collect();
        assert_eq!(places, ["the notebook's metadata", "the metadata of cell 1"]);
    }

    #[test]
    fn an_address_in_an_output_is_none_of_ours_but_a_token_is() {
        assert!(faults("connected to http://127.0.0.1:8188", false, &[]).is_empty());
        assert_eq!(faults(&format!("token={HASHED}"), false, &[]).len(), 1);
    }
}
