//! YAML as a tree with positions. Resolves aliases and merge keys (`<<`), and limits the size of
//! the result.
//!
//! The text is parsed by `granit-parser`, which the parser of `lockproof.yaml` also uses. serde
//! cannot be used here: compose files may have unknown keys, merge keys must keep the position of
//! what they merge, and `!reset` is a tag.

use std::collections::HashMap;

use granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span as Marks, Tag};

use super::{
    error::Trouble,
    source::{Sources, Span},
};

/// The maximum number of nodes in a project after expanding aliases, against "billion laughs"
/// documents.
const MOST_NODES: usize = 200_000;

/// The maximum number of entries in a list or mapping.
const LONGEST: usize = 2_000;

/// The maximum nesting of nodes.
const DEEPEST: usize = 100;

/// A node with its position.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The position of its text; for an alias, that of its anchor.
    pub span: Span,
    /// Its kind.
    pub kind: Kind,
    /// Its merge tag.
    pub mark: Option<Mark>,
}

/// `!reset` and `!override` of Compose v2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Removes the values of earlier files.
    Reset,
    /// Replaces the values of earlier files.
    Override,
}

/// The kind of a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Nothing, `~` or `null`.
    Null,
    /// A scalar.
    Scalar(Scalar),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in file order.
    Map(Vec<Entry>),
}

/// A scalar.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scalar {
    /// The value, interpolated.
    pub text: String,
    /// Whether it was quoted, a block scalar, or tagged as a string.
    pub quoted: bool,
    /// The text before interpolation and its variables, if it contains a `$`.
    pub raw: Option<Box<super::raw::Raw>>,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The position of the key.
    pub at: Span,
    /// The value.
    pub value: Node,
}

impl Node {
    /// A scalar without a position of its own.
    pub fn text(text: impl Into<String>, span: Span) -> Self {
        Self { span, kind: Kind::Scalar(Scalar { text: text.into(), quoted: true, raw: None }), mark: None }
    }

    /// Nothing.
    pub fn null(span: Span) -> Self {
        Self { span, kind: Kind::Null, mark: None }
    }

    /// A mapping.
    pub fn map(entries: Vec<Entry>, span: Span) -> Self {
        Self { span, kind: Kind::Map(entries), mark: None }
    }

    /// A sequence.
    pub fn list(items: Vec<Self>, span: Span) -> Self {
        Self { span, kind: Kind::List(items), mark: None }
    }

    /// The value of `key`, if this is a mapping that contains it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The mutable value of `key`.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        match &mut self.kind {
            Kind::Map(entries) => entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value),
            _ => None,
        }
    }

    /// The value at a path of keys.
    pub fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The entries of a mapping; empty for other nodes.
    pub fn entries(&self) -> &[Entry] {
        match &self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a sequence; empty for other nodes.
    pub fn items(&self) -> &[Self] {
        match &self.kind {
            Kind::List(items) => items,
            _ => &[],
        }
    }

    /// The value of a scalar.
    pub fn as_str(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// The boolean value, by the rules of YAML 1.1 and Compose.
    pub fn as_bool(&self) -> Option<bool> {
        match self.as_str()?.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => Some(true),
            "false" | "no" | "off" | "n" => Some(false),
            _ => None,
        }
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        self.kind == Kind::Null
    }

    /// A scalar, or a sequence of scalars, as a list.
    pub fn strings(&self) -> Vec<(&str, Span)> {
        match &self.kind {
            Kind::Scalar(scalar) => vec![(scalar.text.as_str(), self.span)],
            Kind::List(items) => items.iter().filter_map(|item| Some((item.as_str()?, item.span))).collect(),
            _ => Vec::new(),
        }
    }

    /// Its kind with an article, for messages.
    pub fn word(&self) -> &'static str {
        match self.kind {
            Kind::Null => "nothing",
            Kind::Scalar(_) => "a scalar",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }

    fn count(&self) -> usize {
        1 + match &self.kind {
            Kind::List(items) => items.iter().map(Self::count).sum(),
            Kind::Map(entries) => entries.iter().map(|entry| entry.value.count()).sum::<usize>(),
            _ => 0,
        }
    }
}

/// A remark about accepted but unusual input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// Its position.
    pub at: Span,
    /// Its text.
    pub text: String,
}

/// The content of a file.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// Its documents.
    pub documents: Vec<Node>,
    /// Its comments, without the `#`.
    pub comments: Vec<Remark>,
}

/// Parses every document of file number `file`. `nodes` counts the nodes of the project so far.
///
/// # Errors
/// Invalid YAML, an unknown anchor, or an exceeded limit.
pub fn parse(sources: &Sources, file: u32, nodes: &mut usize, remarks: &mut Vec<Remark>) -> Result<Parsed, Trouble> {
    let text = sources.get(file).map_or("", |source| &source.text);
    let mut options = Options::default();
    options.block_nesting_limit = DEEPEST;
    options.flow_nesting_limit = DEEPEST;
    let parser = Parser::new_from_str_with_options(text, options);
    let mut builder = Builder {
        file,
        text,
        remarks,
        anchors: HashMap::new(),
        open: Vec::new(),
        nodes,
        done: Vec::new(),
        comments: Vec::new(),
    };
    for event in parser {
        let (event, marks) = event.map_err(|e| builder.scan_error(&e))?;
        builder.take(event, &marks)?;
    }
    Ok(Parsed { documents: builder.done, comments: builder.comments })
}

/// A collection that is not closed yet.
enum Open {
    List {
        items: Vec<Node>,
        start: Span,
        anchor: usize,
        mark: Option<Mark>,
    },
    Map {
        entries: Vec<Entry>,
        /// Entries from `<<`; written entries take precedence.
        merged: Vec<Entry>,
        key: Option<(String, Span, bool)>,
        start: Span,
        anchor: usize,
        mark: Option<Mark>,
    },
}

struct Builder<'a> {
    file: u32,
    text: &'a str,
    remarks: &'a mut Vec<Remark>,
    anchors: HashMap<usize, (Node, usize)>,
    open: Vec<Open>,
    nodes: &'a mut usize,
    done: Vec<Node>,
    comments: Vec<Remark>,
}

impl Builder<'_> {
    fn span(&self, marks: &Marks) -> Span {
        let offset =
            |byte: Option<usize>, otherwise: usize| u32::try_from(byte.unwrap_or(otherwise)).unwrap_or(u32::MAX);
        let start = offset(marks.start.byte_offset(), 0);
        let end = offset(marks.end.byte_offset(), start as usize).max(start);
        // A block ends where the next token begins.
        let covered = self.text.get(start as usize..end as usize).unwrap_or_default();
        let end = start + u32::try_from(covered.trim_end().len()).unwrap_or(0);
        Span { file: self.file, start, end }
    }

    fn scan_error(&self, error: &ScanError) -> Trouble {
        let start = error.marker().byte_offset().unwrap_or(self.text.len()).min(self.text.len());
        let start = u32::try_from(start).unwrap_or(u32::MAX);
        Trouble::new(format!("invalid YAML: {}", error.info()), Span { file: self.file, start, end: start + 1 })
            .fix("correct the file at this position; `docker compose config` reports the same error")
    }

    fn take(&mut self, event: Event<'_>, marks: &Marks) -> Result<(), Trouble> {
        let span = self.span(marks);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let mark = mark_of(tag.as_deref());
                let string = tag.as_deref().and_then(Tag::core_suffix) == Some("str");
                let quoted = style != ScalarStyle::Plain || string;
                let null = !quoted && matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL");
                let kind =
                    if null { Kind::Null } else { Kind::Scalar(Scalar { text: text.into_owned(), quoted, raw: None }) };
                self.put(Node { span, kind, mark }, anchor, 1)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.push(Open::List { items: Vec::new(), start: span, anchor, mark: mark_of(tag.as_deref()) })
            }
            Event::MappingStart(_, anchor, tag) => self.push(Open::Map {
                entries: Vec::new(),
                merged: Vec::new(),
                key: None,
                start: span,
                anchor,
                mark: mark_of(tag.as_deref()),
            }),
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some((node, count)) => {
                    *self.nodes += count;
                    self.check(span)?;
                    self.put(node, 0, 0)
                }
                None => {
                    Err(Trouble::new("an alias refers to the anchor that contains it", span).fix("write the value out"))
                }
            },
            Event::Comment(text, _) => {
                self.comments.push(Remark { at: span, text: text.into_owned() });
                Ok(())
            }
            Event::DocumentStart(..) => {
                self.anchors.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn check(&self, span: Span) -> Result<(), Trouble> {
        if *self.nodes > MOST_NODES {
            return Err(Trouble::new(
                format!("the project has more than {MOST_NODES} values after expanding aliases"),
                span,
            )
            .fix("write nested aliases out"));
        }
        Ok(())
    }

    fn push(&mut self, open: Open) -> Result<(), Trouble> {
        *self.nodes += 1;
        let (Open::List { start, .. } | Open::Map { start, .. }) = &open;
        let start = *start;
        self.open.push(open);
        if self.open.len() > DEEPEST {
            return Err(Trouble::new(format!("values are nested more than {DEEPEST} levels deep"), start)
                .fix("reduce the nesting at this position"));
        }
        self.check(start)
    }

    fn close(&mut self, end: Span) -> Result<(), Trouble> {
        let close = |start: Span| {
            let covered = self.text.get(start.start as usize..end.start as usize).unwrap_or_default();
            let flow = self.text[end.start as usize..].starts_with([']', '}']);
            let length = if flow {
                end.end.max(end.start + 1) - start.start
            } else {
                u32::try_from(covered.trim_end().len()).unwrap_or(0)
            };
            Span { end: start.start + length, ..start }
        };
        match self.open.pop() {
            Some(Open::List { items, start, anchor, mark }) => {
                let node = Node { span: close(start), kind: Kind::List(items), mark };
                self.put(node, anchor, 0)
            }
            Some(Open::Map { mut entries, merged, start, anchor, mark, .. }) => {
                add_missing(&mut entries, merged);
                let node = Node { span: close(start), kind: Kind::Map(entries), mark };
                self.put(node, anchor, 0)
            }
            None => Ok(()),
        }
    }

    /// Adds a finished node to its parent.
    fn put(&mut self, node: Node, anchor: usize, nodes: usize) -> Result<(), Trouble> {
        *self.nodes += nodes;
        self.check(node.span)?;
        if anchor > 0 {
            // The anchor keeps a copy, and nested anchors keep copies of copies.
            let count = node.count();
            *self.nodes += count;
            self.check(node.span)?;
            self.anchors.insert(anchor, (node.clone(), count));
        }
        match self.open.last_mut() {
            None => self.done.push(node),
            Some(Open::List { items, .. }) => {
                if items.len() >= LONGEST {
                    return Err(too_long("list", node.span));
                }
                items.push(node);
            }
            Some(Open::Map { key: key @ None, .. }) => {
                let plain = matches!(&node.kind, Kind::Scalar(scalar) if !scalar.quoted);
                let text = match &node.kind {
                    Kind::Scalar(scalar) => scalar.text.clone(),
                    Kind::Null => String::new(),
                    _ => {
                        return Err(Trouble::new("a key must be a scalar", node.span)
                            .fix("braces start a mapping in YAML: quote the key"));
                    }
                };
                *key = Some((text, node.span, plain));
            }
            Some(Open::Map { entries, merged, key, .. }) => {
                let (name, at, plain) = key.take().unwrap_or_default();
                if entries.len().max(merged.len()) >= LONGEST {
                    return Err(too_long("mapping", at));
                }
                if plain && name == "<<" {
                    return merge_key(merged, node, at);
                }
                insert(entries, Entry { key: name, at, value: node }, self.remarks);
            }
        }
        Ok(())
    }
}

/// Adds an entry. For a duplicate key, the last value is used, with a remark.
fn insert(entries: &mut Vec<Entry>, entry: Entry, remarks: &mut Vec<Remark>) {
    match entries.iter_mut().find(|other| other.key == entry.key) {
        Some(other) => {
            remarks.push(Remark {
                at: entry.at,
                text: format!("duplicate key `{}`: Compose v2 rejects it, v1 uses the last value", entry.key),
            });
            *other = entry;
        }
        None => entries.push(entry),
    }
}

/// Collects the entries from `<<: *a` and `<<: [*a, *b]`; the first one takes precedence.
fn merge_key(merged: &mut Vec<Entry>, node: Node, at: Span) -> Result<(), Trouble> {
    let from = match node.kind {
        Kind::Map(_) => vec![node],
        Kind::List(items) => items,
        Kind::Null => Vec::new(),
        Kind::Scalar(_) => {
            return Err(
                Trouble::new("`<<` merges mappings, but this is a scalar", at).fix("reference a mapping: `<<: *name`")
            );
        }
    };
    for node in from {
        let Kind::Map(entries) = node.kind else {
            return Err(Trouble::new("`<<` merges mappings, but this is not a mapping", at)
                .fix("reference mappings: `<<: [*a, *b]`"));
        };
        add_missing(merged, entries);
    }
    Ok(())
}

fn too_long(what: &str, at: Span) -> Trouble {
    Trouble::new(format!("{what} with more than {LONGEST} entries"), at).fix("reduce the entries at this position")
}

fn add_missing(entries: &mut Vec<Entry>, more: Vec<Entry>) {
    for entry in more {
        if !entries.iter().any(|other| other.key == entry.key) {
            entries.push(entry);
        }
    }
}

fn mark_of(tag: Option<&Tag>) -> Option<Mark> {
    let tag = tag?;
    match (tag.handle(), tag.suffix()) {
        (_, "reset") => Some(Mark::Reset),
        (_, "override") => Some(Mark::Override),
        _ => None,
    }
}
