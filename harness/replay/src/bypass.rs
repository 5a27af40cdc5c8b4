//! Finds what passes through a bypassed node.

use super::editor::{Input, Node};

/// The input that a bypassed node connects to an output, for an input of type `wanted`. As in the
/// editor, an input of any type first gets the input at the same index.
pub(super) fn bypass<'n>(node: &'n Node, slot: usize, wanted: &str) -> Option<&'n Input> {
    let same = node.inputs.get(slot);
    if is_any(wanted) {
        return same.or_else(|| node.inputs.first());
    }
    let kind = node.outputs.get(slot).map_or(wanted, |(kind, _)| kind.as_str());
    let fits = |input: &&Input| connects(&input.kind, kind) && connects(&input.kind, wanted);
    same.filter(fits)
        .or_else(|| node.inputs.iter().find(|input| input.kind == wanted))
        .or_else(|| node.inputs.iter().find(fits))
}

fn is_any(kind: &str) -> bool {
    matches!(kind, "" | "*")
}

/// Whether the editor allows a link between two types: lists are separated by commas, and `*`
/// matches any type.
fn connects(one: &str, other: &str) -> bool {
    let parts = |kinds: &str| kinds.split(',').map(str::to_lowercase).collect::<Vec<_>>();
    let others = parts(other);
    is_any(one) || is_any(other) || parts(one).iter().any(|part| others.contains(part))
}
