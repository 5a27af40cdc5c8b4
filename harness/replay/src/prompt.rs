//! A prompt in the API format.

use serde_json::{Map, Value, json};

/// A graph of nodes, in file order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prompt {
    /// The nodes.
    pub nodes: Vec<Node>,
}

/// One node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its id, as used in links.
    pub id: String,
    /// Its class.
    pub class: String,
    /// Its display name, if it differs from its class.
    pub title: Option<String>,
    /// Its inputs: values, and links to outputs of other nodes.
    pub inputs: Map<String, Value>,
}

/// The source of a link: an output of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link<'a> {
    /// The node.
    pub node: &'a str,
    /// The index of the output, from 0.
    pub slot: usize,
}

impl<'a> Link<'a> {
    /// Parses a link value such as `["4", 0]`.
    pub fn of(value: &'a Value) -> Option<Self> {
        let [node, slot] = value.as_array()?.as_slice() else { return None };
        Some(Self { node: node.as_str()?, slot: usize::try_from(slot.as_u64()?).ok()? })
    }

    /// The link as a value.
    pub fn to_value(node: &str, slot: usize) -> Value {
        json!([node, slot])
    }
}

impl Prompt {
    /// Reads the API format.
    ///
    /// # Errors
    /// What is wrong, with the node.
    pub fn of(nodes: &Map<String, Value>) -> Result<Self, String> {
        let nodes = nodes.iter().map(|(id, value)| Node::of(id, value)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { nodes })
    }

    /// Whether this is the API format: every entry names a class.
    pub fn looks_like(nodes: &Map<String, Value>) -> bool {
        !nodes.is_empty() && nodes.values().any(|node| node.get("class_type").is_some())
    }

    /// The JSON to send.
    pub fn to_json(&self) -> Value {
        let nodes = self.nodes.iter().map(|node| {
            let mut value = json!({ "class_type": node.class, "inputs": node.inputs });
            if let Some(title) = &node.title {
                value["_meta"] = json!({ "title": title });
            }
            (node.id.clone(), value)
        });
        Value::Object(nodes.collect())
    }

    /// A node by its id.
    pub fn node(&self, id: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }
}

impl Node {
    fn of(id: &str, value: &Value) -> Result<Self, String> {
        let class = value.get("class_type").and_then(Value::as_str);
        let class = class.ok_or_else(|| format!("node {id} has no `class_type`"))?;
        let inputs = match value.get("inputs") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(inputs)) => inputs.clone(),
            Some(_) => return Err(format!("the `inputs` of node {id} ({class}) are not an object")),
        };
        let title = value.pointer("/_meta/title").and_then(Value::as_str).filter(|t| *t != class && !t.is_empty());
        Ok(Self { id: id.to_owned(), class: class.to_owned(), title: title.map(str::to_owned), inputs })
    }

    /// The node for messages: `node 3 (KSampler)`, with its title if it has one.
    pub fn words(&self) -> String {
        words(&self.id, &self.class, self.title.as_deref())
    }
}

/// A node for messages.
pub(super) fn words(id: &str, class: &str, title: Option<&str>) -> String {
    match title {
        Some(title) => format!("node {id} ({class}, “{title}”)"),
        None => format!("node {id} ({class})"),
    }
}
