//! The nodes of a server, from `GET /object_info`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::json;

/// All nodes of a server, by class.
#[derive(Clone, Debug, Default)]
pub struct ObjectInfo {
    classes: BTreeMap<String, Class>,
}

/// A node class.
#[derive(Clone, Debug, Default)]
pub struct Class {
    /// The inputs, in widget order: required before optional.
    pub inputs: Vec<Input>,
    /// The types of the outputs.
    pub outputs: Vec<String>,
    /// Whether it shows or saves its result, so that a prompt can end in it.
    pub output_node: bool,
    /// Its Python module: `nodes`, `comfy_extras.…` or `custom_nodes.NAME`.
    pub module: String,
}

/// One input.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Whether it is required.
    pub required: bool,
    /// Its type.
    pub kind: Kind,
    /// Its options: `default`, `min`, `max`, `forceInput`, ….
    pub options: Map<String, Value>,
}

/// The type of an input.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// An integer.
    Int,
    /// A number.
    Float,
    /// A string.
    Text,
    /// A boolean.
    Boolean,
    /// One of a list; `None` if the server returns the list elsewhere.
    Choice(Option<Vec<Value>>),
    /// A type that only another node or an editor extension provides.
    Other(String),
}

impl ObjectInfo {
    /// Parses the server's answer. Invalid classes are ignored, because one broken custom node must
    /// not hide the others.
    ///
    /// # Errors
    /// The reason, if it is not a JSON object.
    pub fn parse(text: &str) -> Result<Self, String> {
        match json::parse(text) {
            Ok(Value::Object(classes)) => {
                Ok(Self { classes: classes.iter().map(|(name, value)| (name.clone(), Class::of(value))).collect() })
            }
            Ok(_) => Err("not a JSON object".to_owned()),
            Err(e) => Err(e.to_string()),
        }
    }

    /// A class by its name.
    pub fn class(&self, name: &str) -> Option<&Class> {
        self.classes.get(name)
    }

    /// The names of all classes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.classes.keys().map(String::as_str)
    }

    /// The custom node packages of the classes.
    pub fn packs(&self) -> BTreeSet<&str> {
        self.classes
            .values()
            .filter_map(|class| class.module.strip_prefix("custom_nodes."))
            .map(|rest| rest.split('.').next().unwrap_or(rest))
            .collect()
    }

    /// The class name most similar to `name`.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        nearest(name, self.names())
    }
}

/// The word most similar to `word`, if any is similar.
pub(super) fn nearest<'a>(word: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let (distance, found) =
        words.map(|known| (strsim::damerau_levenshtein(&known.to_lowercase(), &lower), known)).min()?;
    (distance <= word.chars().count().max(3) / 3).then_some(found)
}

impl Class {
    fn of(value: &Value) -> Self {
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut inputs = Vec::new();
        for (group, required) in [("required", true), ("optional", false)] {
            let Some(declared) = value.pointer(&format!("/input/{group}")).and_then(Value::as_object) else { continue };
            let order = value.pointer(&format!("/input_order/{group}")).and_then(Value::as_array);
            let ordered = order.into_iter().flatten().filter_map(Value::as_str).filter(|n| declared.contains_key(*n));
            let mut names: Vec<&str> = ordered.collect();
            for name in declared.keys() {
                if !names.contains(&name.as_str()) {
                    names.push(name);
                }
            }
            inputs.extend(names.into_iter().filter_map(|name| Input::of(name, required, &declared[name])));
        }
        let outputs = value.get("output").and_then(Value::as_array).into_iter().flatten();
        Self {
            inputs,
            // A list of choices is a separate type.
            outputs: outputs.map(|o| o.as_str().map_or_else(|| "COMBO".to_owned(), str::to_owned)).collect(),
            output_node: value.get("output_node").and_then(Value::as_bool).unwrap_or_default(),
            module: text("python_module"),
        }
    }

    /// An input by its name.
    pub fn input(&self, name: &str) -> Option<&Input> {
        self.inputs.iter().find(|input| input.name == name)
    }
}

impl Input {
    fn of(name: &str, required: bool, spec: &Value) -> Option<Self> {
        let spec = spec.as_array()?;
        let options = spec.get(1).and_then(Value::as_object).cloned().unwrap_or_default();
        let kind = match spec.first()? {
            Value::Array(choices) => Kind::Choice(Some(choices.clone())),
            Value::String(kind) => match kind.as_str() {
                "INT" => Kind::Int,
                "FLOAT" => Kind::Float,
                "STRING" => Kind::Text,
                "BOOLEAN" => Kind::Boolean,
                "COMBO" => Kind::Choice(options.get("options").and_then(Value::as_array).cloned()),
                other => Kind::Other(other.to_owned()),
            },
            _ => return None,
        };
        Some(Self { name: name.to_owned(), required, kind, options })
    }

    /// Whether the editor shows a widget for it.
    pub fn has_widget(&self) -> bool {
        !matches!(self.kind, Kind::Other(_)) && !self.flag("forceInput")
    }

    /// Whether an option is present and true.
    pub fn flag(&self, name: &str) -> bool {
        self.options.get(name).is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false)))
    }

    /// Whether its choices are uploaded files; then it also accepts unlisted files in folders.
    pub fn is_upload(&self) -> bool {
        ["image_upload", "video_upload", "audio_upload", "file_upload", "upload"].iter().any(|name| self.flag(name))
    }

    /// Whether its value is a picture of a 3D model, which the browser renders when the workflow is
    /// queued.
    pub fn is_rendered(&self) -> bool {
        matches!(self.type_name(), "LOAD_3D" | "LOAD_3D_ANIMATION")
    }

    /// The default value of its widget.
    pub fn default(&self) -> Option<Value> {
        let given = self.options.get("default").filter(|value| !value.is_null()).cloned();
        given.or_else(|| match &self.kind {
            Kind::Int => Some(0.into()),
            Kind::Float => Some(0.0.into()),
            Kind::Text => Some("".into()),
            Kind::Boolean => Some(false.into()),
            Kind::Choice(choices) => choices.as_ref()?.first().cloned(),
            Kind::Other(_) => None,
        })
    }

    /// The name of its type.
    pub fn type_name(&self) -> &str {
        match &self.kind {
            Kind::Int => "INT",
            Kind::Float => "FLOAT",
            Kind::Text => "STRING",
            Kind::Boolean => "BOOLEAN",
            Kind::Choice(_) => "COMBO",
            Kind::Other(name) => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorded_definitions_are_read() {
        let info = ObjectInfo::parse(include_str!("../../../fixtures/contract/object_info.json")).expect("JSON");
        let sampler = info.class("KSampler").expect("it is there");
        let names: Vec<&str> = sampler.inputs.iter().map(|i| i.name.as_str()).collect();
        assert_eq!(names[..4], ["model", "seed", "steps", "cfg"]);
        assert!(!sampler.inputs[0].has_widget() && sampler.inputs[1].has_widget());
        let blend = info.class("ImageBlend").and_then(|c| c.input("blend_mode")).expect("it is there");
        assert!(matches!(&blend.kind, Kind::Choice(Some(choices)) if choices.len() == 6));
        assert_eq!(info.nearest("KSampler2"), Some("KSampler"));
        assert_eq!(info.nearest("Florence2Run"), None);
    }

    #[test]
    fn python_s_infinity_does_not_hide_the_nodes() {
        let text = r#"{ "A": { "input": { "required": { "x": ["FLOAT", {"max": Infinity, "tooltip": "NaN, -Infinity"}] } } } }"#;
        let info = ObjectInfo::parse(text).expect("it is read");
        let input = &info.class("A").expect("it is there").inputs[0];
        assert_eq!(input.options["max"], Value::Null);
        assert_eq!(input.options["tooltip"], "NaN, -Infinity");
    }
}
