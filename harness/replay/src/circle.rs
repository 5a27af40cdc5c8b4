//! Finds nodes that depend on their own outputs: the server rejects such a prompt without naming
//! them.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    problem::Problem,
    prompt::{Link, Node},
};

/// The cycles among nodes, each reported once; a node in several cycles is reported with one of
/// them.
pub(super) fn circles(nodes: &[&Node]) -> Vec<Problem> {
    let by_id: BTreeMap<&str, &Node> = nodes.iter().map(|node| (node.id.as_str(), *node)).collect();
    let (mut done, mut told, mut problems) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for start in nodes {
        // Not recursive: a chain can be very long.
        let mut path: Vec<Step> = Vec::new();
        let mut on_path: BTreeSet<&str> = BTreeSet::new();
        let mut next = (!done.contains(start.id.as_str())).then_some(*start);
        loop {
            if let Some(node) = next.take() {
                on_path.insert(&node.id);
                path.push(Step { node, origins: origins(node) });
            }
            let Some(step) = path.last_mut() else { break };
            let Some(origin) = step.origins.pop() else {
                on_path.remove(step.node.id.as_str());
                done.insert(step.node.id.as_str());
                path.pop();
                continue;
            };
            if on_path.contains(origin) {
                let begin = path.iter().position(|step| step.node.id == origin).unwrap_or_default();
                let circle: Vec<&Node> = path[begin..].iter().map(|step| step.node).collect();
                if !circle.iter().any(|node| told.contains(node.id.as_str())) {
                    told.extend(circle.iter().map(|node| node.id.as_str()));
                    problems.push(Problem::of("a cycle of links", in_words(&circle)));
                }
            } else if !done.contains(origin) {
                next = by_id.get(origin).copied();
            }
        }
    }
    problems
}

struct Step<'a> {
    node: &'a Node,
    /// The dependencies that are not visited yet, in reverse order.
    origins: Vec<&'a str>,
}

fn origins(node: &Node) -> Vec<&str> {
    let links = node.inputs.values().rev();
    links.filter_map(Link::of).map(|link| link.node).collect()
}

fn in_words(circle: &[&Node]) -> String {
    // In the direction of the links.
    let names: Vec<String> = circle.iter().rev().chain(circle.last()).map(|node| node.words()).collect();
    format!("none of these nodes can start: {}", names.join(" → "))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::prompt::Prompt;

    /// Of nodes as `ID<FROM,FROM`.
    fn told(links: &str) -> Vec<String> {
        let nodes = links.split(' ').map(|node| {
            let (id, from) = node.split_once('<').unwrap_or((node, ""));
            let from = from.split(',').filter(|from| !from.is_empty()).enumerate();
            let inputs = Value::Object(from.map(|(n, from)| (n.to_string(), json!([from, 0]))).collect());
            (id.to_owned(), json!({ "class_type": "A", "inputs": inputs }))
        });
        let prompt = Prompt::of(&nodes.collect()).expect("a prompt");
        let problems = circles(&prompt.nodes.iter().collect::<Vec<_>>());
        problems.iter().map(|p| p.what.rsplit(": ").next().unwrap_or_default().replace(" (A)", "")).collect()
    }

    #[rstest]
    #[case::a_chain("1 2<1 3<2,1", &[])]
    #[case::itself("1<1", &["node 1 → node 1"])]
    #[case::three("1<3 2<1 3<2 4<3", &["node 2 → node 3 → node 1 → node 2"])]
    #[case::two_apart("1<1 2<3 3<2", &["node 1 → node 1", "node 3 → node 2 → node 3"])]
    #[case::two_that_share_a_node("1<2,3 2<1 3<1", &["node 2 → node 1 → node 2"])]
    #[case::to_nobody("1<9", &[])]
    fn a_cycle_is_reported_in_link_order(#[case] links: &str, #[case] expected: &[&str]) {
        assert_eq!(told(links), expected);
    }

    #[test]
    fn a_long_one_needs_no_stack() {
        let links: Vec<String> = (0..20_000).map(|n| format!("{n}<{}", (n + 1) % 20_000)).collect();
        assert_eq!(told(&links.join(" ")).len(), 1);
    }
}
