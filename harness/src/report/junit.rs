//! `junit`: a test suite per subject and a test case per event.
//!
//! A case fails if its verdict is not the expected one or a finding counts at its event; it is
//! skipped if the event does not apply, and an error if it is undecided. Findings without an event
//! are in a case `inspection`; a subject that could not be gated has a case `bring-up`.
//!
//! ```xml
//! <testsuites name="lockproof" tests="3" failures="1" errors="0" …>
//!   <testsuite name="half-fixed" tests="3" disabled="0" errors="0" failures="1">
//!     <testcase name="recreate" classname="half-fixed" time="9.210">
//!       <properties>
//!         <property name="verdict" value="open"/>
//!         <property name="expected" value="locked"/>
//!         …
//!       </properties>
//!       <failure message="open, expected locked" type="lock/open">error lock/open: …</failure>
//!     </testcase>
//! ```

use std::time::Duration;

use quick_junit::{NonSuccessKind, Property, TestCase, TestCaseStatus, TestSuite};

use super::{
    format::{Format, cannot_render},
    text::{count, one_line, visible},
    view::{Standing, remark},
};
use lockproof_model::{
    error::Result,
    event::Event,
    finding::Finding,
    report::{EventReport, Report, SubjectReport},
};

/// The format `junit`.
#[derive(Debug)]
pub(super) struct Junit;

impl Format for Junit {
    fn name(&self) -> &'static str {
        "junit"
    }

    fn body(&self, redacted: &Report) -> Result<Vec<u8>> {
        let report = redacted.map_text(visible);
        let mut bytes = Vec::new();
        suites(&report).serialize(&mut bytes).map_err(|e| cannot_render(self.name(), e))?;
        Ok(bytes)
    }
}

fn suites(report: &Report) -> quick_junit::Report {
    let mut suites = quick_junit::Report::new(&report.tool.name);
    // quick-junit's time type is not exported, but can be parsed from RFC 3339.
    suites.timestamp = report.started.to_string().parse().ok();
    suites.set_time(Duration::from_millis(report.duration_ms));
    for subject in &report.subjects {
        suites.add_test_suite(suite(report, subject));
    }
    let homeless: Vec<&Finding> = report
        .findings
        .iter()
        .filter(|finding| report.subjects.iter().all(|subject| subject.name != finding.subject))
        .collect();
    if !homeless.is_empty() {
        let mut suite = TestSuite::new("run");
        suite.add_test_case(inspection("run", report, &homeless));
        suites.add_test_suite(suite);
    }
    suites
}

fn suite(report: &Report, subject: &SubjectReport) -> TestSuite {
    let mut suite = TestSuite::new(&subject.name);
    suite.set_time(Duration::from_millis(subject.events.iter().map(|e| e.duration_ms).sum()));
    suite.add_property(Property::new("image", &subject.image));
    if let Some(error) = &subject.error {
        let status = failure(NonSuccessKind::Error, "environment", &one_line(error), error);
        suite.add_test_case(case(&subject.name, "bring-up", status));
    }
    let own: Vec<&Finding> = report.findings.iter().filter(|finding| finding.subject == subject.name).collect();
    let (at_events, rest): (Vec<&Finding>, Vec<&Finding>) =
        own.into_iter().partition(|finding| subject.events.iter().any(|e| Some(e.event) == finding.event));
    if !rest.is_empty() {
        suite.add_test_case(inspection(&subject.name, report, &rest));
    }
    for event in &subject.events {
        let here: Vec<&Finding> = at_events.iter().copied().filter(|f| f.event == Some(event.event)).collect();
        suite.add_test_case(event_case(report, subject, event, &here));
    }
    suite
}

/// The status of an event's case; the first matching row applies.
///
/// | | status |
/// |---|---|
/// | the verdict is not the expected one | failure |
/// | a finding counts | failure |
/// | there is no verdict: it was skipped | skipped |
/// | it is undecided | error |
/// | else | success |
fn event_case(report: &Report, subject: &SubjectReport, event: &EventReport, findings: &[&Finding]) -> TestCase {
    let counting = counting(report, findings);
    let wrong = match event.verdict {
        Some(verdict) if event.as_it_must_be() == Some(false) => {
            Some(format!("{verdict}, expected {}", event.expected))
        }
        _ => None,
    };
    let status = if wrong.is_some() || !counting.is_empty() {
        let message = wrong.unwrap_or_else(|| summary(&counting));
        let kind = counting.first().map_or("verdict", |finding| finding.rule.id());
        failure(NonSuccessKind::Failure, kind, &message, &details(&counting))
    } else {
        match (remark(event), &event.skipped) {
            (_, Some(why)) if event.verdict.is_none() => {
                let mut status = TestCaseStatus::skipped();
                status.set_message(one_line(why));
                status
            }
            (Some(why), _) if event.verdict.is_none() || event.undecided.is_some() => {
                failure(NonSuccessKind::Error, "undecided", &why, "")
            }
            _ => TestCaseStatus::success(),
        }
    };
    let mut case = case(&subject.name, event.event.name(), status);
    case.set_time(Duration::from_millis(event.duration_ms));
    case.add_properties(properties(event));
    let said = beside(report, findings, replays(subject, event.event));
    if !said.is_empty() {
        case.set_system_out(said);
    }
    case
}

/// The case of findings without an event.
fn inspection(suite: &str, report: &Report, findings: &[&Finding]) -> TestCase {
    let counting = counting(report, findings);
    let status = match counting.first() {
        None => TestCaseStatus::success(),
        Some(first) => failure(NonSuccessKind::Failure, first.rule.id(), &summary(&counting), &details(&counting)),
    };
    let mut case = case(suite, "inspection", status);
    let said = beside(report, findings, Vec::new());
    if !said.is_empty() {
        case.set_system_out(said);
    }
    case
}

fn case(suite: &str, name: &str, status: TestCaseStatus) -> TestCase {
    let mut case = TestCase::new(name, status);
    case.set_classname(suite);
    case
}

fn failure(kind: NonSuccessKind, rule: &str, message: &str, text: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_type(rule).set_message(message);
    if !text.is_empty() {
        status.set_description(text);
    }
    status
}

fn properties(event: &EventReport) -> Vec<Property> {
    let mut properties = Vec::new();
    let mut add = |name: &str, value: Option<String>| {
        properties.extend(value.map(|value| Property::new(name, value)));
    };
    add("verdict", event.verdict.map(|verdict| verdict.to_string()));
    add("expected", Some(event.expected.to_string()));
    add("predicted", event.predicted.map(|verdict| verdict.to_string()));
    add("exposure_ms", event.exposure_ms.map(|ms| ms.to_string()));
    add("ready_ms", event.ready_ms.map(|ms| ms.to_string()));
    add("effective", (!event.effective).then(|| "false".to_owned()));
    add("probes", (event.probes.sent > 0).then(|| event.probes.sent.to_string()));
    properties
}

fn counting<'a>(report: &Report, findings: &[&'a Finding]) -> Vec<&'a Finding> {
    findings.iter().copied().filter(|finding| finding.counts(report.fail_on)).collect()
}

fn summary(findings: &[&Finding]) -> String {
    match findings {
        [one] => one_line(&one.message),
        several => {
            let rules: Vec<&str> = several.iter().map(|finding| finding.rule.id()).collect();
            format!("{}: {}", count(several.len(), "finding"), rules.join(", "))
        }
    }
}

fn details(findings: &[&Finding]) -> String {
    let one = |finding: &&Finding| {
        let mut lines = vec![format!("{} {}: {}", finding.severity, finding.rule, finding.message)];
        lines.extend(finding.evidence.iter().cloned());
        lines.push(format!("remedy: {}", finding.remedy));
        lines.join("\n").replace('\n', "\n  ")
    };
    findings.iter().map(one).collect::<Vec<_>>().join("\n\n")
}

fn replays(subject: &SubjectReport, event: Event) -> Vec<String> {
    subject
        .replays
        .iter()
        .filter(|replay| replay.event == event)
        .map(|replay| match &replay.why {
            Some(why) => {
                format!("replay {} {}: {}", replay.name, replay.outcome.name(), one_line(why))
            }
            None => format!("replay {} {}", replay.name, replay.outcome.name()),
        })
        .collect()
}

/// The text beside the status: replays, and findings that do not count.
fn beside(report: &Report, findings: &[&Finding], mut lines: Vec<String>) -> String {
    for finding in findings {
        let standing = Standing::of(finding, report.fail_on);
        if standing != Standing::Counts {
            let message = one_line(&finding.message);
            lines.push(format!("{} {} ({standing}): {message}", finding.severity, finding.rule));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn the_rich_report() {
        insta::assert_snapshot!(sample::rendered(&Junit));
    }

    #[test]
    fn every_event_is_a_case_with_the_status_that_it_deserves() {
        let text = sample::rendered(&Junit);
        let read = quick_junit::Report::deserialize_from_str(&text).expect("it is JUnit");
        let cases: Vec<String> = read
            .test_suites
            .iter()
            .flat_map(|suite| suite.test_cases.iter().map(move |case| (suite, case)))
            .map(|(suite, case)| {
                let status = match &case.status {
                    TestCaseStatus::Success { .. } => "success",
                    TestCaseStatus::NonSuccess { kind: NonSuccessKind::Failure, .. } => "failure",
                    TestCaseStatus::NonSuccess { .. } => "error",
                    TestCaseStatus::Skipped { .. } => "skipped",
                };
                format!("{} {} {status}", suite.name.as_str(), case.name.as_str())
            })
            .collect();
        insta::assert_snapshot!(cases.join("\n"));
    }
}
