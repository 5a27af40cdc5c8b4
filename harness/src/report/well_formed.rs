//! Every format stays well-formed and complete, whatever text a finding contains.

use proptest::prelude::*;
use quick_xml::{Reader, events::Event as Xml};

use super::{FORMATS, html::Html, json::Json, junit::Junit, sample, text::visible};
use crate::report::Format;
use lockproof_model::report::Report;

/// Random texts, including those that have broken report writers before.
fn text() -> impl Strategy<Value = String> {
    let nasty = prop::sample::select(vec![
        "]]>",
        "<script>alert(1)</script>",
        "\"quoted\" 'text' `code`",
        "\u{1b}[31m",
        "\0",
        "\u{ffff}",
        "a|b",
        "&amp;",
        "<!--",
        "-->",
        "{{ x }}",
        "\r\n",
        "\u{202e}",
        "</pre>",
        "```",
        "%s",
        "\\",
    ]);
    let part = prop_oneof![nasty.prop_map(str::to_owned), any::<String>(), "\\PC{0,12}"];
    prop::collection::vec(part, 0..5).prop_map(|parts| parts.concat())
}

/// The sample report with `texts` in all free text fields.
fn report(texts: &[String; 4]) -> Report {
    let [a, b, c, d] = texts;
    let mut report = sample::report();
    report.config = Some(d.clone());
    report.subjects[2].error = Some(a.clone());
    report.subjects[1].name.clone_from(b);
    report.subjects[1].events[2].undecided = Some(c.clone());
    report.subjects[0].events[2].skipped = Some(d.clone());
    report.subjects[0].replays[1].why = Some(a.clone());
    for state in &mut report.subjects[0].states {
        state.paths = vec![b.clone(), c.clone()];
    }
    for finding in &mut report.findings {
        finding.subject.clone_from(b);
        finding.message.clone_from(a);
        finding.evidence = vec![c.clone(), a.clone()];
        finding.remedy.clone_from(d);
        finding.file = Some(b.clone());
        finding.routes = vec![c.clone()];
    }
    report
}

/// All text of an XML document and its attributes; panics if it is not well-formed.
fn xml_text(document: &str) -> String {
    let forbidden = |c: char| c.is_control() && !"\n\t\r".contains(c);
    assert!(!document.contains(forbidden), "a control character in {document:?}");
    let mut reader = Reader::from_str(document);
    let mut text = String::new();
    let mut depth = 0_usize;
    loop {
        let event = reader.read_event().expect("it is well-formed");
        match &event {
            Xml::Start(tag) | Xml::Empty(tag) => {
                for attribute in tag.attributes() {
                    let attribute = attribute.expect("an attribute is well-formed");
                    attribute.normalized_value(quick_xml::XmlVersion::Implicit1_0).expect("an attribute is escaped");
                }
                depth += usize::from(matches!(event, Xml::Start(_)));
            }
            Xml::End(_) => depth -= 1,
            Xml::Text(part) => text.push_str(&part.decode().expect("text")),
            Xml::CData(part) => text.push_str(&part.decode().expect("text")),
            Xml::GeneralRef(name) => match name.resolve_char_ref().expect("a reference") {
                Some(c) => text.push(c),
                None => {
                    let name = name.decode().expect("a name");
                    let known = quick_xml::escape::resolve_xml_entity(&name);
                    text.push_str(known.expect("one of the five entities"));
                }
            },
            Xml::Eof => break,
            _ => {}
        }
    }
    assert_eq!(depth, 0, "an element is not closed");
    text
}

fn rendered(format: &dyn Format, report: &Report) -> String {
    String::from_utf8(format.render(report).expect("it can be written")).expect("it is UTF-8")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_text_breaks_a_format(texts in [text(), text(), text(), text()]) {
        let report = report(&texts);
        for format in FORMATS {
            let written = rendered(format, &report);
            match format.name() {
                "json" | "sarif" => {
                    serde_json::from_str::<serde_json::Value>(&written).expect("it is JSON");
                }
                "ndjson" => for line in written.lines() {
                    serde_json::from_str::<serde_json::Value>(line).expect("it is JSON");
                },
                "junit" => {
                    xml_text(&written);
                    quick_junit::Report::deserialize_from_str(&written).expect("it is JUnit");
                }
                "html" => {
                    let text = xml_text(&written);
                    prop_assert!(text.contains(&visible(&texts[0])), "{:?} is not in the page", texts[0]);
                }
                _ => {}
            }
        }
        for width in [0, 20, 70] {
            super::terminal::render(&report, width, true);
        }
    }

    #[test]
    fn any_report_is_read_back_as_it_was(texts in [text(), text(), text(), text()]) {
        let report = report(&texts);
        let read = Report::from_json(&rendered(&Json, &report), "r.json").expect("one of ours");
        prop_assert_eq!(read, report);
    }
}

#[test]
fn the_sample_is_well_formed_too() {
    for format in [&Html as &dyn Format, &Junit] {
        xml_text(&rendered(format, &sample::report()));
    }
}
