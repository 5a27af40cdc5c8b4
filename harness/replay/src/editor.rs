//! The editor's format, as saved by LiteGraph. Read leniently, because versions and extensions
//! differ.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The id of a subgraph's input node.
pub const SUBGRAPH_INPUT: &str = "-10";
/// The id of a subgraph's output node.
pub const SUBGRAPH_OUTPUT: &str = "-20";

/// A whole workflow.
#[derive(Clone, Debug, Default)]
pub struct Workflow {
    /// The main graph.
    pub root: Graph,
    /// The subgraphs, by node type.
    pub subgraphs: BTreeMap<String, Subgraph>,
}

/// Nodes and links.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// The nodes, in file order.
    pub nodes: Vec<Node>,
    /// The links, by id.
    pub links: BTreeMap<String, Link>,
}

/// A subgraph definition.
#[derive(Clone, Debug, Default)]
pub struct Subgraph {
    /// Its display name.
    pub name: String,
    /// What it is made of.
    pub graph: Graph,
    /// The names of its inputs.
    pub inputs: Vec<String>,
}

/// A node.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Its id, as used in links.
    pub id: String,
    /// Its class, the class of an editor-only node, or a subgraph's id.
    pub class: String,
    /// Its display name.
    pub title: Option<String>,
    /// Whether it is active.
    pub mode: Mode,
    /// Its inputs with sockets.
    pub inputs: Vec<Input>,
    /// The types of its outputs, and whether they are linked.
    pub outputs: Vec<(String, bool)>,
    /// The values of its widgets: a list, or an object by name.
    pub values: Value,
    /// Data of extensions.
    pub properties: Map<String, Value>,
}

/// Whether a node is active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It is active.
    #[default]
    Active,
    /// It is inactive, and its outputs are missing.
    Muted,
    /// It is inactive, and its inputs are connected to its outputs.
    Bypassed,
}

/// An input.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// The link to it.
    pub link: Option<String>,
    /// The widget that it replaces.
    pub widget: Option<String>,
}

/// A link.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// The source node.
    pub origin: String,
    /// The index of the source's output.
    pub origin_slot: usize,
    /// The target node.
    pub target: String,
    /// The index of the target's input.
    pub target_slot: usize,
}

impl Workflow {
    /// Whether this is the editor's format.
    pub fn looks_like(value: &Map<String, Value>) -> bool {
        value.get("nodes").is_some_and(Value::is_array)
    }

    /// Reads a workflow; invalid parts are ignored.
    pub fn of(value: &Map<String, Value>) -> Self {
        let defined = value.get("definitions").and_then(|d| d.get("subgraphs")).and_then(Value::as_array);
        let subgraphs = defined.into_iter().flatten().filter_map(Value::as_object).map(|subgraph| {
            let names = subgraph.get("inputs").and_then(Value::as_array).into_iter().flatten();
            let definition = Subgraph {
                name: text(subgraph.get("name")),
                graph: Graph::of(subgraph),
                inputs: names.map(|input| text(input.get("name"))).collect(),
            };
            (text(subgraph.get("id")), definition)
        });
        Self { root: Graph::of(value), subgraphs: subgraphs.collect() }
    }
}

impl Graph {
    fn of(value: &Map<String, Value>) -> Self {
        let list = |key: &str| value.get(key).and_then(Value::as_array).into_iter().flatten();
        Self {
            nodes: list("nodes").filter_map(Value::as_object).map(Node::of).collect(),
            links: list("links").filter_map(Link::of).collect(),
        }
    }

    /// A node by its id.
    pub fn node(&self, id: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }
}

impl Node {
    fn of(value: &Map<String, Value>) -> Self {
        let list = |key: &str| value.get(key).and_then(Value::as_array).into_iter().flatten();
        Self {
            id: text(value.get("id")),
            class: text(value.get("type")),
            title: value.get("title").and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned),
            mode: match value.get("mode").and_then(Value::as_i64) {
                Some(2) => Mode::Muted,
                Some(4) => Mode::Bypassed,
                _ => Mode::Active,
            },
            inputs: list("inputs").map(Input::of).collect(),
            outputs: list("outputs")
                .map(|o| (type_of(o), o.get("links").and_then(Value::as_array).is_some_and(|l| !l.is_empty())))
                .collect(),
            values: value.get("widgets_values").cloned().unwrap_or_default(),
            properties: value.get("properties").and_then(Value::as_object).cloned().unwrap_or_default(),
        }
    }

    /// The value of the first widget.
    pub fn first_value(&self) -> Option<&Value> {
        match &self.values {
            Value::Array(values) => values.first(),
            Value::Object(values) => values.values().next(),
            _ => None,
        }
    }

    /// The node for messages, prefixed by the ids of its subgraphs.
    pub fn words(&self, prefix: &str) -> String {
        let title = self.title.as_deref().filter(|title| *title != self.class);
        super::prompt::words(&format!("{prefix}{}", self.id), &self.class, title)
    }
}

impl Input {
    fn of(value: &Value) -> Self {
        Self {
            name: text(value.get("name")),
            kind: type_of(value),
            link: value.get("link").filter(|link| !link.is_null()).map(|link| text(Some(link))),
            widget: value.pointer("/widget/name").and_then(Value::as_str).map(str::to_owned),
        }
    }
}

impl Link {
    /// `[id, origin, slot, target, slot, type]`, or an object with the same fields.
    fn of(value: &Value) -> Option<(String, Self)> {
        let field = |index: usize, key: &str| match value {
            Value::Array(fields) => fields.get(index),
            _ => value.get(key),
        };
        let slot = |index, key| field(index, key).and_then(Value::as_u64).and_then(|s| usize::try_from(s).ok());
        let id = field(0, "id")?;
        let link = Self {
            origin: text(field(1, "origin_id")),
            origin_slot: slot(2, "origin_slot").unwrap_or_default(),
            target: text(field(3, "target_id")),
            target_slot: slot(4, "target_slot").unwrap_or_default(),
        };
        Some((text(Some(id)), link))
    }
}

/// A socket's type; a list of choices, as saved by older versions, is a separate type.
fn type_of(socket: &Value) -> String {
    match socket.get("type") {
        Some(Value::Array(_)) => "COMBO".to_owned(),
        kind => text(kind),
    }
}

/// A string, or a number as a string: ids can be both.
fn text(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}
