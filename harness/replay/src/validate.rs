//! Checks a prompt against `/object_info` before it is sent, so that errors name the node, the
//! input and the valid values.
//!
//! Like the server, it requires known classes for all nodes, and checks inputs only of nodes that
//! an output needs.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    circle::circles,
    info::{Class, Input, Kind, ObjectInfo, nearest},
    problem::Problem,
    prompt::{Link, Node, Prompt},
};

/// The maximum number of listed choices.
const LISTED: usize = 6;

/// The problems of a prompt.
pub fn validate(prompt: &Prompt, info: &ObjectInfo) -> Vec<Problem> {
    let mut problems: Vec<Problem> = prompt
        .nodes
        .iter()
        .filter(|node| info.class(&node.class).is_none())
        .map(|node| Problem::of(node.words(), unknown_class(&node.class, info)))
        .collect();
    if prompt.nodes.is_empty() {
        problems.push(Problem::of(Problem::WHOLE, "no active nodes"));
    } else if problems.is_empty() && outputs(prompt, info).next().is_none() {
        problems.push(Problem::of(Problem::WHOLE, "no output node, so nothing would run"));
    }
    let needed = needed(prompt, info);
    problems.extend(circles(&needed));
    for node in needed {
        if let Some(class) = info.class(&node.class) {
            Check { prompt, info, node, class }.inputs(&mut problems);
        }
    }
    problems
}

fn unknown_class(class: &str, info: &ObjectInfo) -> String {
    let near = info.nearest(class).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    let packs = info.packs();
    let packs = match packs.len() {
        0 => "no custom nodes".to_owned(),
        _ => format!("custom nodes from {}", packs.into_iter().collect::<Vec<_>>().join(", ")),
    };
    format!("unknown node; the server has {} nodes, with {packs}{near}", info.names().count())
}

fn outputs<'a>(prompt: &'a Prompt, info: &'a ObjectInfo) -> impl Iterator<Item = &'a Node> {
    prompt.nodes.iter().filter(|node| info.class(&node.class).is_some_and(|class| class.output_node))
}

/// The nodes that an output needs.
fn needed<'a>(prompt: &'a Prompt, info: &'a ObjectInfo) -> Vec<&'a Node> {
    let mut wanted: Vec<&str> = outputs(prompt, info).map(|node| node.id.as_str()).collect();
    let mut found: BTreeSet<&str> = BTreeSet::new();
    while let Some(id) = wanted.pop() {
        if found.insert(id)
            && let Some(node) = prompt.node(id)
        {
            wanted.extend(node.inputs.values().filter_map(Link::of).map(|link| link.node));
        }
    }
    prompt.nodes.iter().filter(|node| found.contains(node.id.as_str())).collect()
}

struct Check<'a> {
    prompt: &'a Prompt,
    info: &'a ObjectInfo,
    node: &'a Node,
    class: &'a Class,
}

impl Check<'_> {
    fn inputs(&self, problems: &mut Vec<Problem>) {
        for input in &self.class.inputs {
            let mut missing_file = false;
            let wrong = match self.node.inputs.get(&input.name) {
                None => input.required.then(|| format!("missing; expected {}", takes(input))),
                Some(value) if value.is_array() => self.link(input, value),
                Some(value) => {
                    let value = value.get("__value__").unwrap_or(value);
                    let wrong = value_of(input, value);
                    missing_file = wrong.is_some() && is_file(input, value);
                    wrong
                }
            };
            if let Some(what) = wrong {
                let problem = Problem::of(self.node.words(), what).input(&input.name);
                problems.push(Problem { missing_file, ..problem });
            }
        }
    }

    fn link(&self, input: &Input, value: &Value) -> Option<String> {
        let Some(link) = Link::of(value) else {
            return Some(format!("{value} is not a link; expected [\"NODE\", OUTPUT]"));
        };
        let Some(origin) = self.prompt.node(link.node) else {
            return Some(format!("linked to node {}, which does not exist or is inactive", link.node));
        };
        // Reported for that node.
        let class = self.info.class(&origin.class)?;
        let Some(given) = class.outputs.get(link.slot) else {
            let count = class.outputs.len();
            return Some(format!("linked to output {} of {}, which has {count}", link.slot, origin.words()));
        };
        let wanted = input.type_name();
        (!fits(given, wanted)).then(|| format!("expected {wanted}, but {} outputs {given}", origin.words()))
    }
}

/// Whether an output can be linked to an input: `*` matches any type, and lists are separated by
/// commas.
fn fits(given: &str, wanted: &str) -> bool {
    if given == wanted || given == "*" || wanted == "*" || wanted.starts_with("COMFY_") || given.starts_with("COMFY_") {
        return true;
    }
    let parts = |kinds: &str| kinds.split(',').map(|kind| kind.trim().to_owned()).collect::<BTreeSet<_>>();
    !parts(given).is_disjoint(&parts(wanted))
}

/// What an input accepts, for messages.
fn takes(input: &Input) -> String {
    match &input.kind {
        Kind::Choice(Some(choices)) => listed("", choices),
        Kind::Other(name) => format!("a link to a node that outputs {name}"),
        _ => input.type_name().to_owned(),
    }
}

fn value_of(input: &Input, value: &Value) -> Option<String> {
    let number = match &input.kind {
        Kind::Int => whole(value).ok_or("a whole number"),
        Kind::Float => real(value).ok_or("an integer"),
        Kind::Text if value.is_object() => Err("text"),
        // The server converts numbers to strings, and accepts any value as a boolean.
        Kind::Text | Kind::Boolean | Kind::Other(_) => return None,
        Kind::Choice(choices) => return not_among(input, choices.as_deref()?, value),
    };
    let number = match number {
        Ok(number) => number,
        Err(wanted) => return Some(format!("{value} is not {wanted}")),
    };
    let limit = |name: &str| input.options.get(name).and_then(Value::as_f64);
    let shown = |name: &str| input.options.get(name).map(ToString::to_string).unwrap_or_default();
    if limit("min").is_some_and(|min| number < min) {
        return Some(format!("{value} is less than the minimum {}", shown("min")));
    }
    if limit("max").is_some_and(|max| number > max) {
        return Some(format!("{value} is greater than the maximum {}", shown("max")));
    }
    None
}

/// As Python's `int()`.
fn whole(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => text.trim().parse::<i128>().ok().map(|n| n as f64),
        other => real(other).map(f64::trunc),
    }
}

/// As Python's `float()`.
fn real(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::Bool(yes) => Some(f64::from(u8::from(*yes))),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn not_among(input: &Input, choices: &[Value], value: &Value) -> Option<String> {
    if choices.contains(value) || same_number(choices, value) {
        return None;
    }
    // Files in folders, and in another directory, are accepted without being listed.
    let text = value.as_str().unwrap_or_default();
    if input.is_upload() && (text.contains('/') || text.ends_with(']')) {
        return None;
    }
    Some(format!("{value} is not available; expected {}", listed(text, choices)))
}

/// Python treats 1 and 1.0 as equal.
fn same_number(choices: &[Value], value: &Value) -> bool {
    value.as_f64().is_some_and(|number| choices.iter().any(|choice| choice.as_f64() == Some(number)))
}

/// Whether a value names a file.
fn is_file(input: &Input, value: &Value) -> bool {
    let suffixed = |text: &str| text.rsplit_once('.').is_some_and(|(_, suffix)| (2..=11).contains(&suffix.len()));
    matches!(input.kind, Kind::Choice(_)) && value.as_str().is_some_and(suffixed)
}

fn listed(wanted: &str, choices: &[Value]) -> String {
    let words: Vec<String> =
        choices.iter().map(|choice| choice.as_str().map_or_else(|| choice.to_string(), str::to_owned)).collect();
    if words.is_empty() {
        return "nothing (the list is empty)".to_owned();
    }
    let near = nearest(wanted, words.iter().map(String::as_str)).filter(|_| !wanted.is_empty());
    let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    let shown = words.iter().take(LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = words.len().saturating_sub(LISTED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{} {shown}{more}{near}", if words.len() == 1 { "only" } else { "one of" })
}
