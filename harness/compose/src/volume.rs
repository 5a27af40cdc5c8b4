//! `volumes:` of a service, in the short and the long syntax.

use super::{error::Trouble, yaml::Node};

/// Splits a short entry at its colons, except after a drive letter or inside braces.
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
                    // A one-letter volume with an absolute path looks the same; Compose reads it as
                    // a drive too.
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

/// The type of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A bind mount of a host path.
    Bind,
    /// A named volume or, without a source, an anonymous volume.
    Volume,
    /// A tmpfs.
    Tmpfs,
    /// A Windows named pipe.
    Pipe,
    /// A mount of another image.
    Image,
    /// A cluster volume.
    Cluster,
}

impl Type {
    /// Its name in a compose file.
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

/// An entry as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The type of the mount.
    pub kind: Type,
    /// The host path or volume name as written; `None` for an anonymous volume.
    pub source: Option<String>,
    /// The path in the container.
    pub target: String,
    /// Whether it is read-only.
    pub read_only: bool,
    /// The mounted subdirectory of the volume.
    pub subpath: Option<String>,
    /// Whether the volume is not filled from the image.
    pub nocopy: bool,
    /// Whether Compose creates a missing source.
    pub creates_source: bool,
    /// Whether unset variables left the source empty, which Compose rejects.
    pub unknown_source: bool,
}

/// Reads an entry.
///
/// # Errors
/// An entry in neither of the two forms, or without a target.
pub fn parse(node: &Node) -> Result<Entry, Trouble> {
    match node.as_str() {
        Some(text) => short(text, node),
        None => long(node),
    }
}

fn short(text: &str, node: &Node) -> Result<Entry, Trouble> {
    let wrong = |what: &str| {
        let fix = if text.starts_with(':') {
            "the part before the `:` is empty: set its variable, or give it a default, `${NAME:-./data}`"
        } else {
            "write SOURCE:TARGET or SOURCE:TARGET:ro"
        };
        Trouble::new(format!("invalid volume `{text}`: {what}"), node.span).fix(fix)
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
                return Err(wrong("a part beside a colon is empty"));
            }
            Ok(entry(Some(source), target, rest.first().copied().unwrap_or_default()))
        }
        _ => Err(wrong("too many colons")),
    }
}

/// Whether a source is a host path or the name of a volume.
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
        return Err(wrong(format!("a volume must be a string or a mapping, not {}", node.word()), node)
            .fix("write SOURCE:TARGET, or type, source and target"));
    }
    let text = |key: &str| node.get(key).and_then(Node::as_str).map(str::to_owned);
    let source = text("source").or_else(|| text("src")).filter(|s| !s.is_empty());
    let word = text("type").unwrap_or_else(|| "volume".to_owned());
    let kind = Type::of(&word).ok_or_else(|| {
        wrong(format!("unknown volume type `{word}`"), node.get("type").unwrap_or(node))
            .fix("supported types: bind, volume, tmpfs, npipe, image, cluster")
    })?;
    let target =
        text("target").or_else(|| text("destination")).or_else(|| text("dst")).filter(|t| !t.is_empty()).ok_or_else(
            || wrong("volume without a target".to_owned(), node).fix("add `target: /path/in/the/container`"),
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
    fn invalid_entries_are_rejected(#[case] text: &str) {
        assert!(parse(&Node::text(text, super::super::source::Span::default())).is_err());
    }
}
