//! A tree as data, in the types that Compose reads out of YAML.

use serde_json::{Map, Value};

use super::yaml::{Kind, Node};

/// The tree as JSON that Compose can read again: a `$` is doubled, and plain scalars become numbers and booleans where YAML 1.2 says so.
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
    // `010` and `1_000` are no numbers to everybody: they stay what they were written as.
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
