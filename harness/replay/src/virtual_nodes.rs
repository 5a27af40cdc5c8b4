//! Nodes that exist only in the editor.

use serde_json::Value;

use super::editor::Node;

/// The function of an editor-only node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Virtual<'a> {
    /// Passes its input on.
    Reroute,
    /// Provides a value for every linked input.
    Primitive,
    /// Names its input.
    Set(&'a str),
    /// Refers to a named input.
    Get(&'a str),
    /// Links itself to every free input of the same type.
    Broadcast,
    /// Several nodes in one; replaced by subgraphs in newer editors.
    Group(&'a str),
    /// A note or a button.
    Decoration,
}

/// Names of decorations, in lower case: the editor's own, and those of rgthree-comfy.
const DECORATIONS: [&str; 15] = [
    "note",
    "markdownnote",
    "label (rgthree)",
    "bookmark (rgthree)",
    "fast muter (rgthree)",
    "fast bypasser (rgthree)",
    "fast groups muter (rgthree)",
    "fast groups bypasser (rgthree)",
    "fast actions button (rgthree)",
    "mute / bypass repeater (rgthree)",
    "mute / bypass relay (rgthree)",
    "node mode repeater (rgthree)",
    "node mode relay (rgthree)",
    "random unmuter (rgthree)",
    "node collector (rgthree)",
];

/// The function of a node; `None` if it is a server node.
pub fn kind(node: &Node) -> Option<Virtual<'_>> {
    let name = || node.first_value().and_then(Value::as_str).unwrap_or_default();
    Some(match node.class.as_str() {
        "Reroute" | "Reroute (rgthree)" | "RerouteNode" => Virtual::Reroute,
        "PrimitiveNode" => Virtual::Primitive,
        "SetNode" | "easy setNode" => Virtual::Set(name()),
        "GetNode" | "easy getNode" => Virtual::Get(name()),
        "Anything Everywhere"
        | "Anything Everywhere?"
        | "Anything Everywhere3"
        | "Prompts Everywhere"
        | "Seed Everywhere"
        | "Simple String Everywhere" => Virtual::Broadcast,
        class => {
            let group = class.strip_prefix("workflow>").or_else(|| class.strip_prefix("workflow/"));
            match group {
                Some(group) => Virtual::Group(group),
                None if DECORATIONS.contains(&class.to_lowercase().as_str()) => Virtual::Decoration,
                None => return None,
            }
        }
    })
}
