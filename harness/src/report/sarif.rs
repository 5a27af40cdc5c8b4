//! `sarif`: SARIF 2.1.0, for code scanning.
//!
//! A finding from a file has its position in that file. Other findings are placed at the
//! configuration file, because code scanning rejects results without a physical location; their
//! logical location names the subject and the event.
//!
//! ```json
//! { "$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0",
//!   "runs": [ { "tool": { "driver": { "name": "lockproof", "rules": [ { "id": "lock/open", … } ] } },
//!     "invocations": [ { "executionSuccessful": true, "exitCode": 1, … } ],
//!     "results": [ { "ruleId": "lock/open", "ruleIndex": 0, "level": "error",
//!       "message": { "text": "…" }, "locations": [ … ], "partialFingerprints": { … } } ] } ] }
//! ```

use std::time::Duration;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    format::{Format, cannot_render},
    view::{Standing, remark},
};
use lockproof_model::{
    error::Result,
    finding::{Finding, Rule},
    report::{Outcome, Report},
    secret::percent_encode,
};

/// The format `sarif`.
#[derive(Debug)]
pub(super) struct Sarif;

impl Format for Sarif {
    fn name(&self) -> &'static str {
        "sarif"
    }

    fn body(&self, redacted: &Report) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(&log(redacted)).map_err(|e| cannot_render(self.name(), e))?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// The file of findings without one, if the run had no configuration file.
const DEFAULT_FILE: &str = "lockproof.yaml";

#[derive(Serialize)]
struct Log {
    #[serde(rename = "$schema")]
    schema: &'static str,
    version: &'static str,
    runs: [Run; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    tool: ToolComponent,
    invocations: [Invocation; 1],
    results: Vec<SarifResult>,
    column_kind: &'static str,
}

#[derive(Serialize)]
struct ToolComponent {
    driver: Driver,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Driver {
    name: String,
    semantic_version: String,
    rules: Vec<Descriptor>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    id: &'static str,
    name: String,
    short_description: Text,
    full_description: Text,
    help: Text,
    default_configuration: Level,
}

#[derive(Serialize)]
struct Level {
    level: String,
}

#[derive(Serialize)]
struct Text {
    text: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Invocation {
    execution_successful: bool,
    exit_code: u8,
    start_time_utc: String,
    end_time_utc: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_execution_notifications: Vec<Notification>,
}

#[derive(Serialize)]
struct Notification {
    level: &'static str,
    message: Text,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SarifResult {
    rule_id: &'static str,
    rule_index: usize,
    kind: &'static str,
    level: String,
    message: Text,
    locations: [Location; 1],
    partial_fingerprints: Fingerprints,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline_state: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    suppressions: Vec<Suppression>,
    properties: Properties,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    physical_location: Physical,
    logical_locations: [Logical; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Physical {
    artifact_location: Artifact,
    region: Region,
}

#[derive(Serialize)]
struct Artifact {
    uri: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    start_line: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_column: Option<u32>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Logical {
    name: String,
    fully_qualified_name: String,
    kind: &'static str,
}

#[derive(Serialize)]
struct Fingerprints {
    #[serde(rename = "lockproof/v1")]
    identity: String,
}

#[derive(Serialize)]
struct Suppression {
    kind: &'static str,
    justification: String,
}

#[derive(Serialize)]
struct Properties {
    subject: String,
    event: Option<&'static str>,
    evidence: Vec<String>,
    remedy: String,
    routes: Vec<String>,
}

fn log(report: &Report) -> Log {
    let mut rules: Vec<Rule> = report.findings.iter().map(|finding| finding.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    let results = report
        .findings
        .iter()
        .filter_map(|finding| {
            let index = rules.binary_search(&finding.rule).ok()?;
            Some(result(report, finding, index))
        })
        .collect();
    let driver = Driver {
        name: report.tool.name.clone(),
        semantic_version: report.tool.version.clone(),
        rules: rules.iter().copied().map(descriptor).collect(),
    };
    Log {
        schema: "https://json.schemastore.org/sarif-2.1.0.json",
        version: "2.1.0",
        runs: [Run {
            tool: ToolComponent { driver },
            invocations: [invocation(report)],
            results,
            column_kind: "unicodeCodePoints",
        }],
    }
}

fn descriptor(rule: Rule) -> Descriptor {
    let facts = rule.facts();
    let text = |text: &str| Text { text: text.trim().to_owned() };
    Descriptor {
        id: rule.id(),
        name: pascal_case(rule.id()),
        short_description: text(&facts.title),
        full_description: text(&facts.why),
        help: text(&facts.remedy),
        default_configuration: Level { level: rule.severity().to_string() },
    }
}

/// `lock/empty-token` as `LockEmptyToken`: the style of rule names in SARIF.
fn pascal_case(id: &str) -> String {
    id.split(['/', '-'])
        .filter_map(|word| {
            let mut letters = word.chars();
            let first = letters.next()?;
            Some(first.to_uppercase().chain(letters).collect::<String>())
        })
        .collect()
}

fn invocation(report: &Report) -> Invocation {
    let errors = report.subjects.iter().filter_map(|subject| {
        let error = subject.error.as_ref()?;
        Some(Notification { level: "error", message: Text { text: format!("{}: {error}", subject.name) } })
    });
    let remarks = report.subjects.iter().flat_map(|subject| {
        subject.events.iter().filter_map(move |event| {
            let text = format!("{}, {}: {}", subject.name, event.event, remark(event)?);
            let level = if event.skipped.is_some() { "note" } else { "warning" };
            Some(Notification { level, message: Text { text } })
        })
    });
    let duration = Duration::from_millis(report.duration_ms);
    let end = report.started.saturating_add(duration).unwrap_or(report.started);
    Invocation {
        execution_successful: matches!(report.outcome, Outcome::Pass | Outcome::Fail),
        exit_code: report.exit_code,
        start_time_utc: report.started.to_string(),
        end_time_utc: end.to_string(),
        tool_execution_notifications: errors.chain(remarks).collect(),
    }
}

fn result(report: &Report, finding: &Finding, rule_index: usize) -> SarifResult {
    let event = finding.event.map(|event| event.name());
    let standing = Standing::of(finding, report.fail_on);
    let justification = match standing {
        Standing::Accepted => Some("accepted by an entry of `accept`"),
        Standing::Expected => Some("expected by the subject's `expect`"),
        _ => None,
    };
    SarifResult {
        rule_id: finding.rule.id(),
        rule_index,
        kind: "fail",
        level: finding.severity.to_string(),
        message: Text { text: message(finding) },
        locations: [location(report, finding)],
        partial_fingerprints: Fingerprints { identity: fingerprint(finding) },
        // Either all results of a run have one, or none.
        baseline_state: report.findings.iter().any(|f| f.baseline).then_some(if finding.baseline {
            "unchanged"
        } else {
            "new"
        }),
        suppressions: justification
            .into_iter()
            .map(|text| Suppression { kind: "external", justification: text.to_owned() })
            .collect(),
        properties: Properties {
            subject: finding.subject.clone(),
            event,
            evidence: finding.evidence.clone(),
            remedy: finding.remedy.clone(),
            routes: finding.routes.clone(),
        },
    }
}

/// The whole finding as text, because viewers show little else.
fn message(finding: &Finding) -> String {
    let when = finding.event.map(|event| format!(", {event}")).unwrap_or_default();
    let mut lines = vec![format!("{}{when}: {}", finding.subject, finding.message)];
    lines.extend(finding.evidence.iter().map(|line| format!("  {line}")));
    lines.push(format!("Remedy: {}", finding.remedy));
    lines.join("\n")
}

fn location(report: &Report, finding: &Finding) -> Location {
    let (file, line) = match &finding.file {
        Some(file) => (file.as_str(), finding.line),
        None => (report.config.as_deref().unwrap_or(DEFAULT_FILE), None),
    };
    let path = match finding.event {
        Some(event) => format!("{}/{event}", finding.subject),
        None => finding.subject.clone(),
    };
    Location {
        physical_location: Physical {
            artifact_location: Artifact { uri: uri(file) },
            region: Region { start_line: line.unwrap_or(1).max(1), start_column: finding.column },
        },
        logical_locations: [Logical { name: finding.subject.clone(), fully_qualified_name: path, kind: "resource" }],
    }
}

/// A path as a URI reference.
fn uri(path: &str) -> String {
    let path = path.strip_prefix("./").unwrap_or(path);
    let encoded = path.split('/').map(percent_encode).collect::<Vec<_>>().join("/");
    if path.starts_with('/') { format!("file://{encoded}") } else { encoded }
}

/// The identity of a finding across runs.
fn fingerprint(finding: &Finding) -> String {
    let (rule, subject, event, routes) = finding.identity();
    let event = event.map(|event| event.name()).unwrap_or_default();
    let identity = [rule.id(), subject, event].into_iter().chain(routes.iter().map(String::as_str));
    let mut hash = Sha256::new();
    for part in identity {
        // No part contains a zero byte, so different lists of parts have different hashes.
        hash.update(part.replace('\0', "\u{fffd}").as_bytes());
        hash.update([0]);
    }
    hex::encode(&hash.finalize()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn the_rich_report() {
        insta::assert_snapshot!(sample::rendered(&Sarif));
    }

    #[test]
    fn every_result_names_its_rule_and_a_file() {
        let log: serde_json::Value = serde_json::from_str(&sample::rendered(&Sarif)).expect("it is JSON");
        let run = &log["runs"][0];
        let results = run["results"].as_array().expect("a list");
        assert_eq!(results.len(), sample::report().findings.len());
        for result in results {
            let index = result["ruleIndex"].as_u64().expect("a number");
            let index = usize::try_from(index).expect("a small one");
            assert_eq!(run["tool"]["driver"]["rules"][index]["id"], result["ruleId"]);
            let place = &result["locations"][0]["physicalLocation"];
            assert!(place["artifactLocation"]["uri"].is_string(), "{result}");
            assert!(place["region"]["startLine"].as_u64() >= Some(1), "{result}");
        }
    }

    #[test]
    fn paths_are_uris() {
        assert_eq!(uri("./a b/docker-compose.yml"), "a%20b/docker-compose.yml");
        assert_eq!(uri("/srv/x#y.yml"), "file:///srv/x%23y.yml");
        assert_eq!(pascal_case("lock/empty-token"), "LockEmptyToken");
    }

    #[test]
    fn a_fingerprint_changes_with_the_identity_and_with_nothing_else() {
        let finding = sample::report().findings[0].clone();
        let said_otherwise = finding.clone().evidence("another line");
        let elsewhere = Finding { subject: "another".to_owned(), ..finding.clone() };
        assert_eq!(fingerprint(&finding), fingerprint(&said_otherwise));
        assert_ne!(fingerprint(&finding), fingerprint(&elsewhere));
    }
}
