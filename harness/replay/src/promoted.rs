//! The values of widgets that a subgraph promotes to its node.

use serde_json::Value;

use super::editor::{Node, SUBGRAPH_INPUT, Subgraph};

/// The value of the promoted widget of a subgraph's input. Their order is that of a list in the
/// node, else that of the inputs linked to an inner widget.
pub(super) fn promoted(node: &Node, subgraph: &Subgraph, name: &str) -> Option<Value> {
    let value = match &node.values {
        Value::Array(values) => values.get(place(node, subgraph, name, values.len())?),
        Value::Object(values) => values.get(name),
        _ => None,
    };
    value.filter(|value| !value.is_null()).cloned()
}

fn place(node: &Node, subgraph: &Subgraph, name: &str, values: usize) -> Option<usize> {
    let inputs = subgraph.inputs.iter().enumerate();
    let widgets: Vec<&String> = inputs.filter(|(slot, _)| is_widget(subgraph, *slot)).map(|(_, input)| input).collect();
    let by_input = || widgets.iter().position(|input| *input == name);
    let listed = node.properties.get("proxyWidgets").and_then(Value::as_array).filter(|list| !list.is_empty());
    match listed {
        // Some versions list widgets without a value too, but save only the values of inputs.
        Some(list) if list.len() != values && values == widgets.len() => by_input(),
        Some(list) => list
            .iter()
            .position(|proxy| proxy.get(0).and_then(Value::as_str) == Some("-1") && proxy.get(1) == Some(&name.into())),
        None => by_input(),
    }
}

/// Whether an input of a subgraph is linked to an inner widget.
fn is_widget(subgraph: &Subgraph, slot: usize) -> bool {
    let graph = &subgraph.graph;
    let links = graph.links.iter().filter(|(_, link)| link.origin == SUBGRAPH_INPUT && link.origin_slot == slot);
    links.into_iter().any(|(id, link)| {
        let inputs = graph.node(&link.target).into_iter().flat_map(|node| &node.inputs);
        inputs.into_iter().any(|input| input.link.as_ref() == Some(id) && input.widget.is_some())
    })
}
