//! Converts a YAML tree to JSON, with the types that Compose uses.

use serde_json::{Map, Value};

use super::yaml::{Kind, Node};

/// The tree as JSON that Compose can read again: every `$` is doubled, and plain scalars become
/// numbers and booleans by YAML 1.2.
pub fn to_json(node: &Node) -> Value {
    match &node.kind {
        Kind::Null => Value::Null,
        Kind::Scalar(scalar) if scalar.quoted || scalar.raw.is_some() => Value::String(scalar.text.replace('$', "$$")),
        Kind::Scalar(scalar) => plain(&scalar.text),
        Kind::List(items) => Value::Array(items.iter().map(to_json).collect()),
        Kind::Map(entries) => {
            let mut map = Map::new();
            for entry in entries {
                map.insert(entry.key.clone(), to_json(&entry.value));
            }
            Value::Object(map)
        }
    }
}

fn plain(text: &str) -> Value {
    match text {
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    // `010` and `1_000` are not numbers in every YAML version: keep them as written.
    let number = text.strip_prefix('-').unwrap_or(text);
    let ordinary = number == "0" || number.starts_with(|c: char| ('1'..='9').contains(&c)) || number.starts_with("0.");
    if ordinary && let Ok(value) = text.parse::<i64>() {
        return value.into();
    }
    if ordinary
        && number.chars().all(|c| c.is_ascii_digit() || c == '.')
        && let Ok(value) = text.parse::<f64>()
    {
        return value.into();
    }
    Value::String(text.to_owned())
}
