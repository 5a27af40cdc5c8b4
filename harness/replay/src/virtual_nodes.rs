//! Nodes that the editor knows and the server does not.

use serde_json::Value;

use super::editor::Node;

/// What a node of the editor alone stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Virtual<'a> {
    /// What goes in comes out.
    Reroute,
    /// A value for every input that it is linked to.
    Primitive,
    /// Gives what comes in a name.
    Set(&'a str),
    /// Stands for what has the name.
    Get(&'a str),
    /// Links itself to whatever has a free input of the same type.
    Broadcast,
    /// Several nodes in one, as the editor had them before subgraphs.
    Group(&'a str),
    /// Something to read or to press.
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

/// What kind of node of the editor alone it is; `None`: it is for the server.
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
