//! What goes through a node that is bypassed.

use super::editor::{Input, Node};

/// The input that a bypassed node puts through to an output, for an input of the type `wanted`. The
/// editor asks first what the input behind it takes: one that takes anything gets whatever stands at
/// the same place.
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

/// Whether the editor lets two types be linked: several are separated by commas, and `*` goes with
/// all.
fn connects(one: &str, other: &str) -> bool {
    let parts = |kinds: &str| kinds.split(',').map(str::to_lowercase).collect::<Vec<_>>();
    let others = parts(other);
    is_any(one) || is_any(other) || parts(one).iter().any(|part| others.contains(part))
}
