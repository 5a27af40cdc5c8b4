//! Converts the editor's format to the API format, as the editor does for *Queue*.
//!
//! | in the editor | in the prompt |
//! |---|---|
//! | a node of a class that the server has | a node, with its widgets' values and its links |
//! | muted | removed; nodes linked to it lose that input |
//! | bypassed | removed; its inputs are connected to outputs of the same type |
//! | reroute, set and get | removed; links are followed through them |
//! | primitive, in any mode | removed; its value is used in every linked widget |
//! | note, label, switchboard | removed |
//! | subgraph | its nodes, with ids `instance:node` |
//! | anything else | a [`Problem`] that names it |

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{
    bypass::bypass,
    editor::{Graph, Input, Link, Mode, Node, SUBGRAPH_INPUT, SUBGRAPH_OUTPUT, Subgraph, Workflow},
    info::{Class, ObjectInfo},
    problem::Problem,
    promoted::promoted,
    prompt::Prompt,
    virtual_nodes::{Virtual, kind},
    widgets,
};
use crate::{info, prompt};

/// The maximum number of steps of a link, to detect cycles.
const LONGEST: usize = 1000;
/// The maximum nesting of subgraphs, and their maximum number.
const DEEPEST: usize = 40;
const MOST: usize = 5000;

/// Why a node that shows a 3D model cannot be converted.
const RENDERED: &str = "cannot be converted: its picture is rendered in the browser when the workflow is \
    queued; replace the node with a saved picture (LoadImage)";

/// The result of a conversion.
#[derive(Clone, Debug, Default)]
pub struct Converted {
    /// The prompt, as far as it could be converted.
    pub prompt: Prompt,
    /// What could not be converted.
    pub problems: Vec<Problem>,
    /// What was removed or decided, in case the result is unexpected.
    pub notes: Vec<String>,
    /// Inputs that depend on nodes that could not be converted: the nodes as in problems, and the
    /// names of the inputs.
    lost: BTreeSet<(String, String)>,
}

impl From<Prompt> for Converted {
    /// A prompt that needs no conversion.
    fn from(prompt: Prompt) -> Self {
        Self { prompt, ..Self::default() }
    }
}

impl Converted {
    /// Whether a problem of the prompt is only caused by an incomplete conversion.
    pub fn explains(&self, problem: &Problem) -> bool {
        !self.problems.is_empty()
            && match &problem.input {
                Some(input) => self.lost.contains(&(problem.node.clone(), input.clone())),
                // A problem of the whole prompt may be caused by the missing part.
                None => problem.node == Problem::WHOLE,
            }
    }
}

/// Converts a workflow for a server.
pub fn convert(workflow: &Workflow, info: &ObjectInfo) -> Converted {
    let mut converter =
        Converter { workflow, info, scopes: Vec::new(), made: Converted::default(), refused: BTreeSet::new() };
    converter.enter(&workflow.root, String::new(), None, &mut Vec::new());
    for scope in 0..converter.scopes.len() {
        converter.scope(scope);
    }
    let (mut made, refused) = (converter.made, converter.refused);
    made.lost = drop_links_to_nobody(&mut made.prompt, &refused);
    made
}

/// A graph in use: the root, or a subgraph of one node.
struct Scope<'a> {
    graph: &'a Graph,
    /// The prefix of its node ids.
    prefix: String,
    /// Its parent, and its node there.
    parent: Option<Instance<'a>>,
}

#[derive(Clone, Copy)]
struct Instance<'a> {
    scope: usize,
    node: &'a Node,
    subgraph: &'a Subgraph,
}

/// The resolved source of an input.
enum Source {
    /// Another node's output.
    Output(String, usize),
    /// A value.
    Value(Value),
}

struct Converter<'a> {
    workflow: &'a Workflow,
    info: &'a ObjectInfo,
    scopes: Vec<Scope<'a>>,
    made: Converted,
    /// The ids of nodes that could not be converted.
    refused: BTreeSet<String>,
}

impl<'a> Converter<'a> {
    /// Adds a graph and all its subgraphs.
    fn enter(&mut self, graph: &'a Graph, prefix: String, parent: Option<Instance<'a>>, above: &mut Vec<&'a str>) {
        let scope = self.scopes.len();
        self.scopes.push(Scope { graph, prefix: prefix.clone(), parent });
        // As in the editor, the mode of a subgraph only affects itself: nodes of nested subgraphs
        // still run, and only links through it are cut or bypassed.
        let nested = parent.is_some();
        for node in graph.nodes.iter().filter(|node| nested || node.mode == Mode::Active) {
            let Some(subgraph) = self.workflow.subgraphs.get(&node.class) else { continue };
            if self.scopes.len() > MOST {
                if self.scopes.len() == MOST + 1 {
                    let what = format!("subgraphs are nested more than {MOST} levels deep");
                    self.refuse(node, &prefix, what);
                }
                return;
            }
            if above.contains(&node.class.as_str()) || above.len() >= DEEPEST {
                let what = format!("the subgraph “{}” contains itself", subgraph.name);
                self.refuse(node, &prefix, what);
                continue;
            }
            above.push(&node.class);
            let inner = format!("{prefix}{}:", node.id);
            self.enter(&subgraph.graph, inner, Some(Instance { scope, node, subgraph }), above);
            above.pop();
        }
    }

    fn refuse(&mut self, node: &Node, prefix: &str, what: String) {
        self.made.problems.push(Problem::of(node.words(prefix), what));
        self.refused.insert(format!("{prefix}{}", node.id));
    }

    fn scope(&mut self, scope: usize) {
        let graph = self.scopes[scope].graph;
        let prefix = self.scopes[scope].prefix.clone();
        for node in graph.nodes.iter().filter(|node| node.mode == Mode::Active) {
            if self.workflow.subgraphs.contains_key(&node.class) {
                continue;
            }
            match kind(node) {
                Some(Virtual::Broadcast) => self.made.notes.push(format!(
                    "{}: its virtual links come from an editor extension and are ignored",
                    node.words(&prefix)
                )),
                Some(Virtual::Group(name)) => self.refuse(
                    node,
                    &prefix,
                    format!(
                        "cannot convert the group node “{name}”: convert it to a subgraph or to nodes in the \
                    editor, or export the workflow in the API format"
                    ),
                ),
                Some(_) => {}
                None => self.node(scope, node, &prefix),
            }
        }
    }

    fn node(&mut self, scope: usize, node: &'a Node, prefix: &str) {
        let Some(class) = self.info.class(&node.class) else {
            if is_apart(node) {
                let words = node.words(prefix);
                self.made
                    .notes
                    .push(format!("{words}: ignored, because the server does not know it and no node is linked to it"));
                return;
            }
            // It stays in the prompt, so that the check reports it as in other formats.
            self.push(scope, node, prefix, None, Map::new());
            return;
        };
        if class.inputs.iter().any(info::Input::is_rendered) {
            return self.refuse(node, prefix, RENDERED.to_owned());
        }
        let widgets = widgets::of(node, class);
        if widgets.left_over > 0 {
            self.made.notes.push(format!(
                "{}: {} of its saved values match no input: it was saved by another version of the node",
                node.words(prefix),
                widgets.left_over
            ));
        }
        self.push(scope, node, prefix, Some(class), widgets.values);
    }

    fn push(&mut self, scope: usize, node: &'a Node, prefix: &str, class: Option<&Class>, values: Map<String, Value>) {
        let mut inputs: Map<String, Value> = values
            .into_iter()
            // A list would be read as a link.
            .map(|(name, value)| (name, wrapped(value)))
            .collect();
        for input in &node.inputs {
            if let Some(value) = self.written(scope, input).cloned() {
                let known = class.and_then(|class| class.input(&input.name));
                let value = known.map_or_else(|| value.clone(), |known| widgets::sent(known, value.clone()));
                inputs.insert(input.name.clone(), wrapped(value));
                continue;
            }
            match self.input(scope, input, &mut 0) {
                Some(Source::Output(id, slot)) => {
                    inputs.insert(input.name.clone(), prompt::Link::to_value(&id, slot));
                }
                Some(Source::Value(value)) => {
                    inputs.insert(input.name.clone(), wrapped(value));
                }
                None => {}
            }
        }
        self.made.prompt.nodes.push(prompt::Node {
            id: format!("{prefix}{}", node.id),
            class: node.class.clone(),
            title: node.title.clone().filter(|title| *title != node.class),
            inputs,
        });
    }

    /// The source of an input; `None` if no active node is linked to it.
    fn input(&self, scope: usize, input: &'a Input, steps: &mut usize) -> Option<Source> {
        self.input_as(scope, input, &input.kind, steps)
    }

    /// The source for a type that another input needs.
    fn input_as(&self, scope: usize, input: &'a Input, wanted: &str, steps: &mut usize) -> Option<Source> {
        let link = self.scopes[scope].graph.links.get(input.link.as_ref()?)?;
        self.origin(scope, link, wanted, steps)
    }

    /// The value that a primitive node writes to its linked widget. As in the editor, the node's
    /// mode does not matter, and other nodes are not followed.
    fn written(&self, scope: usize, input: &Input) -> Option<&'a Value> {
        let graph = self.scopes[scope].graph;
        let origin = graph.node(&graph.links.get(input.link.as_ref()?)?.origin)?;
        let value = (kind(origin) == Some(Virtual::Primitive)).then(|| origin.first_value())?;
        value.filter(|value| !value.is_null())
    }

    fn origin(&self, scope: usize, link: &'a Link, wanted: &str, steps: &mut usize) -> Option<Source> {
        *steps += 1;
        if *steps > LONGEST {
            return None;
        }
        if link.origin == SUBGRAPH_INPUT && self.scopes[scope].parent.is_some() {
            return self.outside(scope, link.origin_slot, steps);
        }
        let node = self.scopes[scope].graph.node(&link.origin)?;
        self.output(scope, node, link.origin_slot, wanted, steps)
    }

    /// The source of a subgraph's input: a link to its node, or a widget of its node.
    fn outside(&self, scope: usize, slot: usize, steps: &mut usize) -> Option<Source> {
        let Instance { scope: outer, node, subgraph } = self.scopes[scope].parent?;
        let name = subgraph.inputs.get(slot)?;
        // Some versions omit sockets without a link.
        match node.inputs.iter().find(|input| input.name == *name).filter(|input| input.link.is_some()) {
            Some(input) => match self.written(outer, input) {
                Some(value) => Some(Source::Value(value.clone())),
                None => self.input(outer, input, steps),
            },
            None => promoted(node, subgraph, name).map(Source::Value),
        }
    }

    fn output(&self, scope: usize, node: &'a Node, slot: usize, wanted: &str, steps: &mut usize) -> Option<Source> {
        match node.mode {
            Mode::Muted => return None,
            Mode::Bypassed => return self.input(scope, bypass(node, slot, wanted)?, steps),
            Mode::Active => {}
        }
        // Links to nodes that are not in the prompt are removed later.
        let itself = || Some(Source::Output(format!("{}{}", self.scopes[scope].prefix, node.id), slot));
        if let Some(subgraph) = self.workflow.subgraphs.get(&node.class) {
            let inside = (0..self.scopes.len()).find(|inner| {
                self.scopes[*inner].parent.is_some_and(|p| p.scope == scope && std::ptr::eq(p.node, node))
            });
            let Some(inside) = inside else { return itself() };
            let mut links = subgraph.graph.links.values();
            let link = links.find(|link| link.target == SUBGRAPH_OUTPUT && link.target_slot == slot)?;
            return self.origin(inside, link, wanted, steps);
        }
        match kind(node) {
            None | Some(Virtual::Group(_)) => itself(),
            Some(Virtual::Reroute | Virtual::Set(_)) => self.input_as(scope, node.inputs.first()?, wanted, steps),
            Some(Virtual::Get(name)) => {
                let (at, setter) = self.setter(scope, name)?;
                self.input_as(at, setter.inputs.first()?, wanted, steps)
            }
            Some(Virtual::Primitive | Virtual::Broadcast | Virtual::Decoration) => None,
        }
    }

    /// The node that sets a name, in this graph or its parents.
    fn setter(&self, scope: usize, name: &str) -> Option<(usize, &'a Node)> {
        let graph = self.scopes[scope].graph;
        let sets =
            |node: &&Node| node.mode == Mode::Active && matches!(kind(node), Some(Virtual::Set(set)) if set == name);
        match graph.nodes.iter().find(sets) {
            Some(node) => Some((scope, node)),
            None => self.setter(self.scopes[scope].parent?.scope, name),
        }
    }
}

fn wrapped(value: Value) -> Value {
    if value.is_array() { serde_json::json!({ "__value__": value }) } else { value }
}

/// Whether a node has no links to others.
fn is_apart(node: &Node) -> bool {
    node.inputs.iter().all(|input| input.link.is_none()) && node.outputs.iter().all(|(_, linked)| !linked)
}

/// Removes links to nodes that are not in the prompt, as the editor does. Returns the inputs that
/// lose a link to a `refused` node.
fn drop_links_to_nobody(prompt: &mut Prompt, refused: &BTreeSet<String>) -> BTreeSet<(String, String)> {
    let ids: BTreeSet<String> = prompt.nodes.iter().map(|node| node.id.clone()).collect();
    let mut lost = BTreeSet::new();
    for node in &mut prompt.nodes {
        let words = node.words();
        node.inputs.retain(|name, value| {
            let Some(link) = prompt::Link::of(value) else { return true };
            if refused.contains(link.node) {
                lost.insert((words.clone(), name.clone()));
            }
            ids.contains(link.node)
        });
    }
    lost
}
