//! `json`: the whole report, indented, with keys in a fixed order and a final line break.
//!
//! ```json
//! {
//!   "schema": 1,
//!   "tool": { "name": "lockproof", "version": "0.1.0" },
//!   "outcome": "fail",
//!   "exit_code": 1,
//!   "started": "2026-10-01T08:00:00Z",
//!   "duration_ms": 61250,
//!   "fail_on": "warning",
//!   "subjects": [ … ],
//!   "findings": [ … ]
//! }
//! ```

use super::format::{Format, cannot_render};
use lockproof_model::{error::Result, report::Report};

/// The format `json`.
#[derive(Debug)]
pub(super) struct Json;

impl Format for Json {
    fn name(&self) -> &'static str {
        "json"
    }

    fn body(&self, redacted: &Report) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(redacted).map_err(|e| cannot_render(self.name(), e))?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn the_rich_report() {
        insta::assert_snapshot!(sample::rendered(&Json));
    }

    #[test]
    fn what_was_written_is_read_back() {
        let read = Report::from_json(&sample::rendered(&Json), "r.json").expect("one of ours");
        assert_eq!(read, sample::report());
    }

    #[test]
    fn the_published_keys_are_there_in_their_order() {
        let value: serde_json::Value = serde_json::from_str(&sample::rendered(&Json)).expect("it is JSON");
        let keys = |value: &serde_json::Value| -> Vec<String> {
            value.as_object().expect("an object").keys().cloned().collect()
        };
        let first = |key: &str| value["subjects"][0][key][0].clone();
        assert_eq!(
            keys(&value),
            [
                "schema",
                "tool",
                "outcome",
                "exit_code",
                "started",
                "duration_ms",
                "fail_on",
                "config",
                "subjects",
                "findings"
            ]
        );
        assert_eq!(keys(&value["subjects"][0]), ["name", "image", "layout", "states", "events", "replays"]);
        assert_eq!(keys(&first("states")), ["state", "paths", "owner", "survives"]);
        assert_eq!(
            keys(&first("events")),
            [
                "event",
                "verdict",
                "expected",
                "predicted",
                "skipped",
                "undecided",
                "effective",
                "exposure_ms",
                "ready_ms",
                "duration_ms",
                "probes"
            ]
        );
        assert_eq!(keys(&first("replays")), ["name", "event", "outcome", "why"]);
        let finding = keys(&value["findings"][0]);
        assert_eq!(
            finding[..12],
            [
                "rule", "severity", "subject", "event", "message", "evidence", "impact", "remedy", "file", "line",
                "accepted", "expected"
            ]
        );
    }

    #[test]
    fn a_secret_is_in_no_format() {
        let secret = "Zq7\"<secret>&'\\x-report";
        lockproof_model::secret::register(secret);
        let mut report = sample::report();
        report.subjects[0].error = Some(format!("failed with {secret}"));
        report.findings[0].evidence.push(format!("curl -H 'Authorization: Bearer {secret}'"));
        let terminal = crate::report::terminal::render(&report, 100, false);
        let files = crate::report::FORMATS
            .iter()
            .map(|format| String::from_utf8(format.render(&report).expect("rendered")).expect("text"));
        for text in files.chain([terminal]) {
            assert!(!text.contains("Zq7"), "{text}");
            assert!(text.contains("redacted"), "{text}");
        }
    }

    #[test]
    fn unknown_keys_are_ignored_and_missing_additions_have_defaults() {
        let mut value = serde_json::to_value(sample::report()).expect("it is data");
        value["novelty"] = serde_json::json!({ "a": 1 });
        let top = value.as_object_mut().expect("an object");
        top.shift_remove("fail_on");
        top.shift_remove("config");
        value["subjects"][0]["events"][0].as_object_mut().expect("an event").shift_remove("effective");
        let read = Report::from_json(&value.to_string(), "r.json").expect("it is one of ours");
        assert_eq!(read, Report { config: None, ..sample::report() });
    }

    #[test]
    fn the_schema_describes_the_keys_that_are_written() {
        let schema = schemars::schema_for!(Report).to_value();
        let written = serde_json::to_value(sample::report()).expect("it is data");
        for key in written.as_object().expect("an object").keys() {
            assert!(schema["properties"][key].is_object(), "{key} is not in the schema");
        }
        let required = schema["required"].as_array().expect("a list");
        assert!(!required.contains(&"config".into()) && required.contains(&"findings".into()));
    }
}
