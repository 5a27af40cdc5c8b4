//! Merge rules for several files, and for a service with the one that it extends.
//!
//! | key | rule |
//! |---|---|
//! | `command`, `entrypoint`, `healthcheck.test` | the later value |
//! | `environment`, `labels`, `args`, `sysctls`, `annotations`, `extra_hosts` | by name, for mappings and lists |
//! | `depends_on`, `networks` | by name; a list is a mapping without values |
//! | `volumes`, `devices`, `secrets`, `configs` of a service | by the path in the container |
//! | `ports`, `expose`, `dns`, `tmpfs`, `env_file`, … | concatenated, without duplicates |
//! | mappings | key by key |
//! | `!reset` | removes the values of earlier files |
//! | `!override` | replaces the values of earlier files |
//! | everything else | the later value |

use super::{
    source::Span,
    volume,
    yaml::{Entry, Kind, Mark, Node},
};

/// How two values at a path are merged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    Replace,
    ByName,
    ByKey,
    ByTarget,
    Append,
    Build,
    Deep,
}

fn rule(path: &[&str]) -> Rule {
    let of_service = match path {
        ["services", _, rest @ ..] => rest,
        _ => return Rule::Deep,
    };
    match of_service {
        ["command" | "entrypoint"] | ["healthcheck", "test"] => Rule::Replace,
        ["environment" | "labels" | "sysctls" | "annotations" | "extra_hosts"]
        | ["build", "args" | "labels" | "additional_contexts" | "extra_hosts"]
        | ["deploy", "labels"] => Rule::ByName,
        ["depends_on" | "networks" | "models"] => Rule::ByKey,
        ["volumes" | "devices" | "secrets" | "configs"] => Rule::ByTarget,
        ["dns" | "dns_search" | "dns_opt" | "tmpfs" | "env_file" | "label_file" | "ports" | "expose" | "profiles"] => {
            Rule::Append
        }
        ["build"] => Rule::Build,
        _ => Rule::Deep,
    }
}

/// Merges a whole document `over` into `base`.
pub(super) fn documents(base: Node, over: Node) -> Node {
    merge(base, over, &[])
}

/// Merges a service `over` into the one that it extends.
pub(super) fn services(base: Node, over: Node) -> Node {
    merge(base, over, &["services", ""])
}

/// Removes `!reset` values without an earlier value, and clears `!override`.
pub(super) fn settle(node: &mut Node) {
    if node.mark == Some(Mark::Override) {
        node.mark = None;
    }
    match &mut node.kind {
        Kind::Map(entries) => {
            entries.retain(|entry| entry.value.mark != Some(Mark::Reset));
            entries.iter_mut().for_each(|entry| settle(&mut entry.value));
        }
        Kind::List(items) => {
            items.retain(|item| item.mark != Some(Mark::Reset));
            items.iter_mut().for_each(settle);
        }
        _ => {}
    }
}

fn merge(base: Node, over: Node, path: &[&str]) -> Node {
    if over.mark.is_some() {
        return over;
    }
    // A reset or overridden value stays so; later values are new.
    let base = if base.mark == Some(Mark::Reset) { return over } else { base };
    if over.is_null() {
        return base;
    }
    match rule(path) {
        Rule::Replace => over,
        Rule::ByName => deep(as_names(base), as_names(over), path),
        Rule::ByKey => deep(as_keys(base), as_keys(over), path),
        Rule::Build => deep(as_build(base), as_build(over), path),
        Rule::ByTarget => by(base, over, path.last().copied().unwrap_or_default()),
        Rule::Append => append(base, over),
        Rule::Deep => deep(base, over, path),
    }
}

fn deep(base: Node, over: Node, path: &[&str]) -> Node {
    let mark = base.mark;
    match (base.kind, over.kind) {
        (Kind::Map(mut entries), Kind::Map(more)) => {
            for entry in more {
                let Some(place) = entries.iter().position(|other| other.key == entry.key) else {
                    entries.push(entry);
                    continue;
                };
                let old = std::mem::replace(&mut entries[place].value, Node::null(entry.at));
                let inner: Vec<&str> = path.iter().copied().chain([entry.key.as_str()]).collect();
                let value = merge(old, entry.value, &inner);
                entries[place] = Entry { key: entry.key, at: entry.at, value };
            }
            Node { span: over.span, kind: Kind::Map(entries), mark }
        }
        (Kind::List(mut items), Kind::List(more)) => {
            items.extend(more);
            Node { span: over.span, kind: Kind::List(items), mark }
        }
        (_, kind) => Node { span: over.span, kind, mark },
    }
}

/// `[A=1, B]` as `{ A: 1, B: null }`.
pub(super) fn as_names(node: Node) -> Node {
    let span = node.span;
    let Kind::List(items) = node.kind else { return node };
    let mut entries: Vec<Entry> = Vec::with_capacity(items.len());
    for item in items {
        let Some(text) = item.as_str().map(str::to_owned) else { continue };
        let separator = text.find(['=', ':']).filter(|&n| text.as_bytes()[n] == b'=' || !text.contains('='));
        let (name, value) = match separator {
            Some(n) => {
                let mut value = item.clone();
                if let Kind::Scalar(scalar) = &mut value.kind {
                    scalar.text = text[n + 1..].to_owned();
                    scalar.quoted = true;
                }
                (text[..n].to_owned(), value)
            }
            None => (text, Node::null(item.span)),
        };
        match entries.iter_mut().find(|entry| entry.key == name) {
            Some(entry) => *entry = Entry { key: name, at: item.span, value },
            None => entries.push(Entry { key: name, at: item.span, value }),
        }
    }
    Node { span, kind: Kind::Map(entries), mark: node.mark }
}

fn as_keys(node: Node) -> Node {
    let (span, mark) = (node.span, node.mark);
    let Kind::List(items) = node.kind else { return node };
    let entries = items
        .into_iter()
        .filter_map(|item| Some(Entry { key: item.as_str()?.to_owned(), at: item.span, value: Node::null(item.span) }))
        .collect();
    Node { span, kind: Kind::Map(entries), mark }
}

fn as_build(node: Node) -> Node {
    let span = node.span;
    match node.kind {
        Kind::Scalar(_) => Node::map(vec![Entry { key: "context".to_owned(), at: span, value: node }], span),
        _ => node,
    }
}

fn as_list(node: Node) -> (Vec<Node>, Span) {
    let span = node.span;
    match node.kind {
        Kind::List(items) => (items, span),
        Kind::Null => (Vec::new(), span),
        _ => (vec![node], span),
    }
}

fn append(base: Node, over: Node) -> Node {
    let mark = base.mark;
    let (mut items, _) = as_list(base);
    let (more, span) = as_list(over);
    for item in more {
        if !items.iter().any(|other| same(other, &item)) {
            items.push(item);
        }
    }
    Node { span, kind: Kind::List(items), mark }
}

fn by(base: Node, over: Node, what: &str) -> Node {
    let mark = base.mark;
    let (mut items, _) = as_list(base);
    let (more, span) = as_list(over);
    for item in more {
        let target = target_of(&item, what);
        match items.iter_mut().find(|other| target.is_some() && target_of(other, what) == target) {
            Some(other) => *other = item,
            None => items.push(item),
        }
    }
    Node { span, kind: Kind::List(items), mark }
}

/// The path in the container, which identifies an entry.
fn target_of(item: &Node, what: &str) -> Option<String> {
    if let Some(text) = item.as_str() {
        return Some(match what {
            "volumes" => volume::split(text).get(1).map_or(text, |target| target).trim_end_matches('/').to_owned(),
            "devices" => text.split(':').nth(1).unwrap_or(text).to_owned(),
            _ => text.to_owned(),
        });
    }
    let target = item.get("target").or_else(|| item.get("source"))?;
    Some(target.as_str()?.trim_end_matches('/').to_owned())
}

/// Whether two nodes are equal, apart from their positions.
fn same(a: &Node, b: &Node) -> bool {
    match (&a.kind, &b.kind) {
        (Kind::Null, Kind::Null) => true,
        (Kind::Scalar(a), Kind::Scalar(b)) => a.text == b.text,
        (Kind::List(a), Kind::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Kind::Map(a), Kind::Map(b)) => {
            a.len() == b.len() && a.iter().all(|e| b.iter().any(|o| o.key == e.key && same(&e.value, &o.value)))
        }
        _ => false,
    }
}
