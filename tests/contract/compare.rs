//! Where an answer differs from the recorded one.
//!
//! Status, type, location, the keys of JSON and error types are compared as they are; of what varies
//! from run to run only the kind of value is.

use serde_json::Value;

use super::http::Answer;
use super::record::Record;
use super::report::Difference;

/// Where ComfyUI was when it was recorded.
const RECORDED_CODE_DIR: &str = "/opt/ComfyUI";

/// Keys whose value varies: times, memory, identifiers, versions, places in the code, and counters,
/// which lines that were left out have moved on.
const VARYING: [&str; 18] = [
    "argv",
    "comfyui_version",
    "filename",
    "installed_templates_version",
    "number",
    "prompt_id",
    "python_version",
    "pytorch_version",
    "ram_free",
    "ram_total",
    "required_frontend_version",
    "required_templates_version",
    "timestamp",
    "torch_vram_free",
    "torch_vram_total",
    "traceback",
    "vram_free",
    "vram_total",
];

/// Keys whose list has no order; of a list that is the whole answer, the last segment of the path.
const UNORDERED: [&str; 3] = ["current_outputs", "dependent_outputs", "extensions"];

/// The differences between the recorded answer and this one.
pub(super) fn answers(record: &Record, answer: &Answer, code_dir: &str) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut check = |at: &str, recorded: &dyn ToString, answered: &dyn ToString| {
        if recorded.to_string() != answered.to_string() {
            found.push(Difference::new(at, recorded, answered));
        }
    };
    check("status", &record.status, &answer.status);
    check("content_type", &record.content_type, &answer.content_type);
    let none = String::new();
    check("location", record.location.as_ref().unwrap_or(&none), answer.location.as_ref().unwrap_or(&none));
    if let Some(length) = record.length {
        check("length", &length, &answer.body.len());
    }
    if let Some(text) = &record.text {
        check("text", text, &String::from_utf8_lossy(&answer.body));
    }
    if let Some(recorded) = &record.json {
        match serde_json::from_slice(&answer.body) {
            Ok(answered) => {
                let key = record.path.rsplit('/').next().unwrap_or_default();
                walk("json", key, recorded, &answered, code_dir, &mut found);
            }
            Err(_) => {
                let text = String::from_utf8_lossy(&answer.body);
                found.push(Difference::new("json", recorded, &text));
            }
        }
    }
    found
}

/// The differences between two JSON values, each with its place: `json.system.lab`.
pub(super) fn json(recorded: &Value, answered: &Value, code_dir: &str) -> Vec<Difference> {
    let mut found = Vec::new();
    walk("json", "", recorded, answered, code_dir, &mut found);
    found
}

fn walk(at: &str, key: &str, recorded: &Value, answered: &Value, code_dir: &str, found: &mut Vec<Difference>) {
    match (recorded, answered) {
        _ if VARYING.contains(&key) => {
            if kind(recorded) != kind(answered) {
                found.push(Difference::new(at, &kind(recorded), &kind(answered)));
            }
        }
        (Value::Object(recorded), Value::Object(answered)) => {
            for (key, value) in recorded {
                let at = format!("{at}.{key}");
                match answered.get(key) {
                    Some(other) => walk(&at, key, value, other, code_dir, found),
                    None => found.push(Difference::new(&at, value, &"(absent)")),
                }
            }
            for (key, value) in answered.iter().filter(|(key, _)| !recorded.contains_key(*key)) {
                found.push(Difference::new(&format!("{at}.{key}"), &"(absent)", value));
            }
        }
        (Value::Array(recorded), Value::Array(answered)) if recorded.len() == answered.len() => {
            let (mut recorded, mut answered) = (recorded.clone(), answered.clone());
            if UNORDERED.contains(&key) {
                recorded.sort_by_key(Value::to_string);
                answered.sort_by_key(Value::to_string);
            }
            for (index, (value, other)) in recorded.iter().zip(&answered).enumerate() {
                walk(&format!("{at}[{index}]"), "", value, other, code_dir, found);
            }
        }
        (Value::String(recorded), Value::String(answered)) => {
            let recorded = recorded.replace(RECORDED_CODE_DIR, code_dir);
            if without_uuids(&recorded) != without_uuids(answered) {
                found.push(Difference::new(at, &recorded, answered));
            }
        }
        _ if recorded == answered => {}
        _ => found.push(Difference::new(at, recorded, answered)),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// The text with every UUID replaced by the same sign.
pub(super) fn without_uuids(text: &str) -> String {
    const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
    const LENGTH: usize = 36;
    let is_uuid = |candidate: &str| {
        let mut groups = candidate.split('-');
        GROUPS.iter().all(|length| {
            groups
                .next()
                .is_some_and(|group| group.len() == *length && group.bytes().all(|byte| byte.is_ascii_hexdigit()))
        })
    };
    let mut rest = text;
    let mut out = String::new();
    while let Some(first) = rest.chars().next() {
        if rest.get(..LENGTH).is_some_and(is_uuid) {
            out.push_str("<uuid>");
            rest = rest.get(LENGTH..).unwrap_or_default();
        } else {
            out.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn places(recorded: Value, answered: Value) -> Vec<String> {
        json(&recorded, &answered, "/code").into_iter().map(|difference| difference.at).collect()
    }

    #[test]
    fn a_key_too_many_and_a_key_too_few_are_seen() {
        let found = places(json!({ "a": { "b": 1 } }), json!({ "a": { "c": 1 } }));
        assert_eq!(found, ["json.a.b", "json.a.c"]);
    }

    #[test]
    fn what_varies_may_vary_but_not_in_kind() {
        assert_eq!(places(json!({ "prompt_id": "a" }), json!({ "prompt_id": "b" })), [""; 0]);
        assert_eq!(places(json!({ "prompt_id": "a" }), json!({ "prompt_id": 1 })), ["json.prompt_id"]);
    }

    #[test]
    fn the_place_of_the_code_and_uuids_are_not_differences() {
        let user = |id| json!(format!("bob_{id}"));
        assert_eq!(places(json!("/opt/ComfyUI/x"), json!("/code/x")), [""; 0]);
        assert_eq!(
            places(user("14f46fc5-4d81-4af5-87cb-1c62bae7edca"), user("8c23d101-5d7d-483f-a5f0-5fec50399b95")),
            [""; 0]
        );
        assert_eq!(places(user("14f46fc5"), user("8c23d101")), ["json"]);
    }

    #[test]
    fn a_list_of_another_length_is_one_difference() {
        assert_eq!(places(json!([1, 2]), json!([1])), ["json"]);
    }
}
