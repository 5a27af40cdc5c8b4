//! The values of a node's widgets, by name.
//!
//! The editor saves them as a list without names, in the order of its widgets: one for each input
//! with a widget, in the order of `/object_info`, even if it was converted to a socket. The list
//! also contains editor-only widgets, which are never sent to the server:
//!
//! | widget | position | value |
//! |---|---|---|
//! | control after generate | after `seed`, `noise_seed`, and inputs with `control_after_generate` | fixed, increment, decrement, randomize; formerly a boolean |
//! | its filter | after the one above, for a list of choices | text |
//! | upload | after all required inputs, if one of them accepts uploads | `image`, or nothing |

use serde_json::{Map, Value};

use super::{
    editor::Node,
    info::{Class, Input, Kind},
};

/// The values of the control.
const CONTROLS: [&str; 5] = ["fixed", "increment", "decrement", "randomize", "increment-wrap"];

/// The values of a node's widgets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Widgets {
    /// Values by the name of the input, in order.
    pub values: Map<String, Value>,
    /// Inputs without a value in the file and without a default on the server.
    pub unknown: Vec<String>,
    /// The number of remaining values, for which the server has no input.
    pub left_over: usize,
}

/// Reads the values of a node whose class the server has.
pub fn of(node: &Node, class: &Class) -> Widgets {
    match &node.values {
        Value::Object(named) => by_name(named, class),
        Value::Array(list) => by_place(list, node, class),
        _ => by_place(&[], node, class),
    }
}

fn by_name(named: &Map<String, Value>, class: &Class) -> Widgets {
    let mut widgets = Widgets::default();
    for input in class.inputs.iter() {
        match named.get(&input.name) {
            Some(value) => widgets.set(input, value.clone()),
            None if input.has_widget() => widgets.fall_back(input),
            None => {}
        }
    }
    widgets
}

fn by_place(list: &[Value], node: &Node, class: &Class) -> Widgets {
    let mut widgets = Widgets::default();
    let mut rest = list;
    let mut upload = class.inputs.iter().any(|input| input.required && input.is_upload());
    for input in &class.inputs {
        if !input.required && std::mem::take(&mut upload) {
            rest = skip(rest, is_upload_button);
        }
        if !takes_a_place(input, node) {
            continue;
        }
        match rest.split_first() {
            Some((value, after)) => {
                rest = after;
                widgets.set(input, value.clone());
            }
            None => widgets.fall_back(input),
        }
        if has_control(input) {
            let before = rest.len();
            // The first editors used a boolean for a new seed each time.
            rest = skip(rest, |value| value.is_boolean() || value.as_str().is_some_and(|t| CONTROLS.contains(&t)));
            // A list of choices has its own filter text.
            if rest.len() < before && matches!(input.kind, Kind::Choice(_)) {
                rest = skip(rest, Value::is_string);
            }
        }
    }
    if upload {
        rest = skip(rest, is_upload_button);
    }
    // A node without widgets shows its outputs, and the browser saves its buttons and players as
    // empty values. Neither means another version.
    if class.inputs.iter().any(Input::has_widget) {
        widgets.left_over = rest.iter().filter(|value| says_something(value)).count();
    }
    widgets
}

fn says_something(value: &Value) -> bool {
    !value.is_object() && !is_upload_button(value)
}

fn skip(rest: &[Value], is: impl Fn(&Value) -> bool) -> &[Value] {
    match rest.split_first() {
        Some((first, after)) if is(first) => after,
        _ => rest,
    }
}

fn is_upload_button(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(|text| ["image", "video", "audio", "upload", ""].contains(&text))
}

/// Whether the list contains a value for the input: it has a widget, or an editor extension adds
/// one, which newer editors record at the socket.
fn takes_a_place(input: &Input, node: &Node) -> bool {
    input.has_widget() || node.inputs.iter().any(|slot| slot.widget.as_deref() == Some(input.name.as_str()))
}

fn has_control(input: &Input) -> bool {
    match input.kind {
        // Some versions show it at a seed with `control_after_generate: false`.
        Kind::Int => input.flag("control_after_generate") || matches!(input.name.as_str(), "seed" | "noise_seed"),
        Kind::Choice(_) => input.flag("control_after_generate"),
        _ => false,
    }
}

impl Widgets {
    fn set(&mut self, input: &Input, value: Value) {
        let value = sent(input, value);
        if value.is_null() && input.has_widget() {
            return self.fall_back(input);
        }
        self.values.insert(input.name.clone(), value);
    }

    fn fall_back(&mut self, input: &Input) {
        match input.default() {
            Some(value) => {
                self.values.insert(input.name.clone(), value);
            }
            None => self.unknown.push(input.name.clone()),
        }
    }
}

/// What the editor sends for a widget's value.
pub(super) fn sent(input: &Input, value: Value) -> Value {
    match value {
        Value::String(text) if input.flag("dynamicPrompts") => dynamic(&text).into(),
        other => other,
    }
}

/// Expands dynamic prompts as the editor does before sending. The editor picks a random choice of
/// `{a|b}`, which could not be replayed: here it is the first.
fn dynamic(text: &str) -> String {
    let mut chars = without_comments(text).chars().collect::<Vec<_>>().into_iter().peekable();
    let mut out = String::new();
    while let Some(c) = chars.next() {
        match c {
            '\\' if matches!(chars.peek(), Some('{' | '}' | '|')) => out.extend(chars.next()),
            '{' => out.push_str(&first_choice(&mut chars)),
            c => out.push(c),
        }
    }
    out
}

/// The first choice up to the closing brace, with its own choices expanded.
fn first_choice(chars: &mut impl Iterator<Item = char>) -> String {
    let (mut depth, mut first, mut taken) = (1, String::new(), false);
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let next = chars.next();
                if !taken {
                    first.push('\\');
                    first.extend(next);
                }
                continue;
            }
            '{' => depth += 1,
            '}' => depth -= 1,
            '|' if depth == 1 => taken = true,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if !taken {
            first.push(c);
        }
    }
    // Each level is shorter than its parent, so this ends.
    dynamic(&first)
}

/// Removes `/* … */` and `// …`, as the editor does.
fn without_comments(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('/') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        rest = if let Some(comment) = from.strip_prefix("/*") {
            match comment.find("*/") {
                Some(end) => &comment[end + 2..],
                None => {
                    out.push_str("/*");
                    comment
                }
            }
        } else if let Some(comment) = from.strip_prefix("//") {
            comment.find('\n').map_or("", |end| &comment[end..])
        } else {
            out.push('/');
            &from[1..]
        };
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::info::ObjectInfo;

    fn recorded() -> ObjectInfo {
        ObjectInfo::parse(include_str!("../../../fixtures/contract/object_info.json")).expect("JSON")
    }

    fn read(class: &str, values: Value) -> Widgets {
        of(&Node { values, ..Node::default() }, recorded().class(class).expect("it is recorded"))
    }

    #[rstest]
    #[case::as_it_is_saved(json!([7, "fixed", 20, 8, "euler", "simple", 1]))]
    #[case::before_there_was_a_control(json!([7, 20, 8, "euler", "simple", 1]))]
    #[case::when_it_was_yes_or_no(json!([7, true, 20, 8, "euler", "simple", 1]))]
    #[case::by_name(json!({ "seed": 7, "steps": 20, "cfg": 8, "sampler_name": "euler", "scheduler": "simple", "denoise": 1 }))]
    fn a_seed_has_a_control_behind_it(#[case] values: Value) {
        let widgets = read("KSampler", values);
        assert_eq!(
            Value::Object(widgets.values),
            json!({ "seed": 7, "steps": 20, "cfg": 8, "sampler_name": "euler", "scheduler": "simple", "denoise": 1 })
        );
        assert_eq!((widgets.left_over, widgets.unknown), (0, vec![]));
    }

    #[test]
    fn what_the_file_does_not_say_is_the_default() {
        let widgets = read("ImageBlend", json!([0.25]));
        assert_eq!(Value::Object(widgets.values), json!({ "blend_factor": 0.25, "blend_mode": "normal" }));
        assert_eq!(read("UNETLoader", json!([])).unknown, ["unet_name"]);
    }

    #[test]
    fn the_upload_button_is_not_a_value() {
        for values in [json!(["a.png", "image"]), json!(["a.png"]), json!(["a.png", null])] {
            let widgets = read("LoadImage", values);
            assert_eq!((Value::Object(widgets.values), widgets.left_over), (json!({ "image": "a.png" }), 0));
        }
        assert_eq!(read("LoadImage", json!(["a.png", "image", 3])).left_over, 1);
    }

    #[rstest]
    #[case::a_player(json!({ "audio": [[], { "audio_upload": true }] }), json!(["a.mp3", null, ""]))]
    #[case::a_viewer(json!({ "filename_prefix": ["STRING", {}] }), json!(["x", ""]))]
    #[case::a_button(json!({ "image": [[], { "image_upload": true }] }), json!(["a.png", { "name": "upload" }, "image"]))]
    #[case::what_was_shown(json!({ "source": ["*", {}] }), json!(["a text", null, false]))]
    fn what_the_browser_shows_is_no_sign_of_another_version(#[case] inputs: Value, #[case] values: Value) {
        let info = json!({ "A": { "input": { "required": inputs } } }).to_string();
        let info = ObjectInfo::parse(&info).expect("JSON");
        let node = Node { values, ..Node::default() };
        assert_eq!(of(&node, info.class("A").expect("it is there")).left_over, 0);
    }

    #[rstest]
    #[case("a {red|green} car", "a red car")]
    #[case("a {{dark|light} red|green} car", "a dark red car")]
    #[case(r"curly \{braces\} stay", "curly {braces} stay")]
    #[case("one // gone\ntwo /* gone\ntoo */ three", "one \ntwo  three")]
    #[case("http:/x /* open", "http:/x /* open")]
    fn a_dynamic_prompt_is_made_the_same_each_time(#[case] text: &str, #[case] made: &str) {
        assert_eq!(dynamic(text), made);
    }

    proptest! {
        #[test]
        fn any_text_is_made_into_a_prompt(text in r"[a/*{}|\\\n]{0,40}") {
            dynamic(&text);
        }
    }
}
