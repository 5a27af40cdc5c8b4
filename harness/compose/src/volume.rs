//! `volumes:` of a service, in the short and the long syntax.

use super::{error::Trouble, yaml::Node};

/// The parts of a short entry. A drive letter is no separator, and neither is a colon in braces.
pub fn split(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (n, &byte) in bytes.iter().enumerate() {
        match byte {
            b'{' if n > 0 && bytes[n - 1] == b'$' => depth += 1,
            b'}' if depth > 0 => depth -= 1,
            b':' if depth == 0 => {
                let drive = n == start + 1
                    && bytes[start].is_ascii_alphabetic()
                    && matches!(bytes.get(n + 1), Some(b'\\' | b'/'))
                    // A volume of one letter at an absolute path looks the same; Compose takes it for a drive, too.
                    && parts.is_empty();
                if !drive {
                    parts.push(&text[start..n]);
                    start = n + 1;
                }
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// What is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A path of the host.
    Bind,
    /// A named volume, or, without a source, an anonymous one.
    Volume,
    /// Memory.
    Tmpfs,
    /// A named pipe of Windows.
    Pipe,
    /// Another image.
    Image,
    /// A cluster volume.
    Cluster,
}

impl Type {
    /// The word in a compose file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Volume => "volume",
            Self::Tmpfs => "tmpfs",
            Self::Pipe => "npipe",
            Self::Image => "image",
            Self::Cluster => "cluster",
        }
    }

    fn of(word: &str) -> Option<Self> {
        [Self::Bind, Self::Volume, Self::Tmpfs, Self::Pipe, Self::Image, Self::Cluster]
            .into_iter()
            .find(|kind| kind.name() == word)
    }
}

/// An entry as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What is mounted.
    pub kind: Type,
    /// The path of the host or the name of the volume, as written; none for an anonymous volume.
    pub source: Option<String>,
    /// The path in the container.
    pub target: String,
    /// Mounted read-only.
    pub read_only: bool,
    /// A part of the volume.
    pub subpath: Option<String>,
    /// Not filled from the image.
    pub nocopy: bool,
    /// Whether the source may be missing: Compose makes it.
    pub creates_source: bool,
    /// Whether the source was left empty by variables that are not set, which Compose refuses.
    pub unknown_source: bool,
}

/// Reads an entry.
///
/// # Errors
/// What is neither of the two syntaxes, or lacks a target.
pub fn parse(node: &Node) -> Result<Entry, Trouble> {
    match node.as_str() {
        Some(text) => short(text, node),
        None => long(node),
    }
}

fn short(text: &str, node: &Node) -> Result<Entry, Trouble> {
    let wrong = |what: &str| {
        let fix = if text.starts_with(':') {
            "before the `:` nothing is left: set the variable that stands there, or give it a default, `${NAME:-./data}`"
        } else {
            "write SOURCE:TARGET or SOURCE:TARGET:ro"
        };
        Trouble::new(format!("`{text}` is no volume: {what}"), node.span).fix(fix)
    };
    let parts = split(text);
    let entry = |source: Option<&str>, target: &str, options: &str| Entry {
        kind: source.map_or(Type::Volume, kind_of),
        source: source.map(str::to_owned),
        target: target.to_owned(),
        read_only: options.split(',').any(|o| o == "ro"),
        subpath: None,
        nocopy: options.split(',').any(|o| o == "nocopy"),
        creates_source: true,
        unknown_source: false,
    };
    let from_unset = |node: &Node| {
        let super::yaml::Kind::Scalar(scalar) = &node.kind else { return false };
        scalar.raw.as_ref().is_some_and(|raw| raw.unset().next().is_some())
    };
    match parts.as_slice() {
        [""] => Err(wrong("it is empty")),
        [target] => Ok(entry(None, target, "")),
        ["", target] | ["", target, _] if !target.is_empty() && from_unset(node) => Ok(Entry {
            kind: Type::Bind,
            unknown_source: true,
            ..entry(None, target, parts.get(2).copied().unwrap_or_default())
        }),
        [source, target, rest @ ..] if rest.len() <= 1 => {
            if source.is_empty() || target.is_empty() {
                return Err(wrong("nothing stands before or behind a colon"));
            }
            Ok(entry(Some(source), target, rest.first().copied().unwrap_or_default()))
        }
        _ => Err(wrong("it has too many colons")),
    }
}

/// A path of the host, or the name of a volume.
fn kind_of(source: &str) -> Type {
    let bytes = source.as_bytes();
    let drive = bytes.len() > 1 && bytes[0].is_ascii_alphabetic() && bytes[1] == b':';
    if source.starts_with(r"\\.\pipe") {
        Type::Pipe
    } else if source.starts_with(['.', '/', '~', '\\']) || drive {
        Type::Bind
    } else {
        Type::Volume
    }
}

fn long(node: &Node) -> Result<Entry, Trouble> {
    let wrong = |what: String, node: &Node| Trouble::new(what, node.span);
    if node.entries().is_empty() {
        return Err(wrong(format!("a volume is a text or a mapping, and this is {}", node.word()), node)
            .fix("write SOURCE:TARGET, or type, source and target"));
    }
    let text = |key: &str| node.get(key).and_then(Node::as_str).map(str::to_owned);
    let source = text("source").or_else(|| text("src")).filter(|s| !s.is_empty());
    let word = text("type").unwrap_or_else(|| "volume".to_owned());
    let kind = Type::of(&word).ok_or_else(|| {
        wrong(format!("`{word}` is no type of a volume"), node.get("type").unwrap_or(node))
            .fix("the types are: bind, volume, tmpfs, npipe, image, cluster")
    })?;
    let target =
        text("target").or_else(|| text("destination")).or_else(|| text("dst")).filter(|t| !t.is_empty()).ok_or_else(
            || wrong("this volume has no target".to_owned(), node).fix("add `target: /path/in/the/container`"),
        )?;
    let flag = |path: &[&str]| node.at(path).and_then(Node::as_bool);
    Ok(Entry {
        kind,
        unknown_source: kind == Type::Bind && source.is_none(),
        source,
        target,
        read_only: flag(&["read_only"]).unwrap_or(false),
        subpath: node.at(&["volume", "subpath"]).and_then(Node::as_str).map(str::to_owned),
        nocopy: flag(&["volume", "nocopy"]).unwrap_or(false),
        creates_source: flag(&["bind", "create_host_path"]).unwrap_or(true),
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("./a:/b", Type::Bind, Some("./a"), "/b", false)]
    #[case("data:/b:ro", Type::Volume, Some("data"), "/b", true)]
    #[case("/anonymous", Type::Volume, None, "/anonymous", false)]
    #[case(r"C:\Users\me\ComfyUI:/app", Type::Bind, Some(r"C:\Users\me\ComfyUI"), "/app", false)]
    #[case("D:/models:/app/models:rw", Type::Bind, Some("D:/models"), "/app/models", false)]
    #[case("~/x:/b:ro,z", Type::Bind, Some("~/x"), "/b", true)]
    #[case(
        r"\\.\pipe\docker_engine:\\.\pipe\docker_engine",
        Type::Pipe,
        Some(r"\\.\pipe\docker_engine"),
        r"\\.\pipe\docker_engine",
        false
    )]
    #[case("./w:/workspace:rshared", Type::Bind, Some("./w"), "/workspace", false)]
    fn short_entries(
        #[case] text: &str,
        #[case] kind: Type,
        #[case] source: Option<&str>,
        #[case] target: &str,
        #[case] read_only: bool,
    ) {
        let entry = parse(&Node::text(text, super::super::source::Span::default())).expect("it is right");
        assert_eq!(
            (entry.kind, entry.source.as_deref(), entry.target.as_str(), entry.read_only),
            (kind, source, target, read_only)
        );
    }

    #[rstest]
    #[case("")]
    #[case(":/b")]
    #[case("a:b:c:d")]
    #[case("a:")]
    fn what_is_no_entry(#[case] text: &str) {
        assert!(parse(&Node::text(text, super::super::source::Span::default())).is_err());
    }
}
