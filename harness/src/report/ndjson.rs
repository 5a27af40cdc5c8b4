//! `ndjson`: one JSON object per line, each with its `type`, for line-based tools.
//!
//! ```json
//! {"type":"run","schema":1,"tool":{…},"outcome":"fail","exit_code":1,"started":"…","duration_ms":61250,"fail_on":"warning"}
//! {"type":"subject","name":"fixed","image":"comfyui:cpu","layout":{…},"states":[…],"replays":[…]}
//! {"type":"event","subject":"fixed","event":"installed","verdict":"locked",…}
//! {"type":"finding","rule":"lock/open","severity":"error","subject":"half-fixed",…}
//! ```

use serde_json::{Map, Value, json};

use super::format::{Format, cannot_render};
use lockproof_model::{error::Result, report::Report};

/// The format `ndjson`.
#[derive(Debug)]
pub(super) struct Ndjson;

impl Format for Ndjson {
    fn name(&self) -> &'static str {
        "ndjson"
    }

    fn body(&self, redacted: &Report) -> Result<Vec<u8>> {
        lines(redacted).map_err(|e| cannot_render(self.name(), e))
    }
}

fn lines(report: &Report) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Vec::new();
    let mut line = |head: Value, body: Value, without: &[&str]| {
        let mut object = Map::new();
        for (key, value) in [head, body].into_iter().filter_map(into_object).flatten() {
            if !without.contains(&key.as_str()) {
                object.insert(key, value);
            }
        }
        serde_json::to_writer(&mut out, &object)?;
        out.push(b'\n');
        Ok::<(), serde_json::Error>(())
    };
    line(json!({ "type": "run" }), serde_json::to_value(report)?, &["subjects", "findings"])?;
    for subject in &report.subjects {
        line(json!({ "type": "subject" }), serde_json::to_value(subject)?, &["events"])?;
        for event in &subject.events {
            let head = json!({ "type": "event", "subject": subject.name });
            line(head, serde_json::to_value(event)?, &[])?;
        }
    }
    for finding in &report.findings {
        line(json!({ "type": "finding" }), serde_json::to_value(finding)?, &[])?;
    }
    Ok(out)
}

fn into_object(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn the_rich_report() {
        insta::assert_snapshot!(sample::rendered(&Ndjson));
    }

    #[test]
    fn every_part_of_the_report_is_one_line() {
        let report = sample::report();
        let text = sample::rendered(&Ndjson);
        let types: Vec<String> = text
            .lines()
            .map(|line| {
                let value: Value = serde_json::from_str(line).expect("a line is an object");
                value["type"].as_str().expect("with its type").to_owned()
            })
            .collect();
        let of = |name: &str| types.iter().filter(|t| *t == name).count();
        let events: usize = report.subjects.iter().map(|s| s.events.len()).sum();
        assert_eq!(
            (of("run"), of("subject"), of("event"), of("finding")),
            (1, report.subjects.len(), events, report.findings.len())
        );
    }
}
