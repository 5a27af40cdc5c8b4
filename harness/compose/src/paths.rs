//! Resolves relative paths, each against the directory of its own project.

use std::path::{Component, Path, PathBuf};

use super::{
    volume,
    yaml::{Kind, Node},
};
use lockproof_model::path::normalise;

/// Makes every host path in a service absolute.
pub(super) fn resolve_service(service: &mut Node, directory: &Path) {
    if let Some(build) = service.get_mut("build") {
        match &build.kind {
            Kind::Scalar(_) => resolve(build, directory),
            _ => {
                if let Some(context) = build.get_mut("context") {
                    resolve(context, directory);
                }
            }
        }
    }
    if let Some(files) = service.get_mut("env_file") {
        match &mut files.kind {
            Kind::Scalar(_) => resolve(files, directory),
            Kind::List(items) => {
                for item in items {
                    match item.get_mut("path") {
                        Some(path) => resolve(path, directory),
                        None => resolve(item, directory),
                    }
                }
            }
            _ => {}
        }
    }
    if let Some(Node { kind: Kind::List(items), .. }) = service.get_mut("volumes") {
        items.iter_mut().for_each(|item| resolve_volume(item, directory));
    }
}

/// Makes the paths of `secrets:` and `configs:` absolute.
pub(super) fn resolve_top(document: &mut Node, directory: &Path) {
    for section in ["secrets", "configs"] {
        if let Some(Node { kind: Kind::Map(entries), .. }) = document.get_mut(section) {
            for file in entries.iter_mut().filter_map(|entry| entry.value.get_mut("file")) {
                resolve(file, directory);
            }
        }
    }
}

fn resolve_volume(item: &mut Node, directory: &Path) {
    if let Kind::Scalar(scalar) = &mut item.kind {
        let parts = volume::split(&scalar.text);
        if parts.len() > 1 && is_relative(parts[0]) {
            let source = join(directory, parts[0]);
            scalar.text =
                std::iter::once(source.as_str()).chain(parts[1..].iter().copied()).collect::<Vec<_>>().join(":");
        }
    } else if item.get("type").and_then(Node::as_str) == Some("bind")
        && let Some(source) = item.get_mut("source")
    {
        resolve(source, directory);
    }
}

/// Whether the source of a volume is relative to the project or the home directory.
fn is_relative(source: &str) -> bool {
    source.starts_with('.') || source.starts_with('~')
}

fn resolve(node: &mut Node, directory: &Path) {
    if let Kind::Scalar(scalar) = &mut node.kind {
        let text = &scalar.text;
        let bytes = text.as_bytes();
        let drive = bytes.len() > 1 && bytes[0].is_ascii_alphabetic() && bytes[1] == b':';
        let remote = text.contains("://") || text.starts_with("git@") || text.starts_with("github.com/");
        if !text.is_empty() && !text.starts_with(['/', '\\']) && !drive && !remote {
            scalar.text = join(directory, text);
        }
    }
}

fn join(directory: &Path, path: &str) -> String {
    if let Some(rest) = path.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/'))
        && let Some(home) = std::env::var_os("HOME")
    {
        return clean(&Path::new(&home).join(rest.trim_start_matches('/'))).display().to_string();
    }
    clean(&directory.join(path)).display().to_string()
}

/// Removes `.` and `..` without looking at the file system.
pub fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if out.parent().is_some() => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// A container path without `.`, `..`, and duplicate or trailing slashes.
pub fn in_container(path: &str) -> String {
    let whole = normalise(path);
    if path.starts_with('/') { whole } else { whole.trim_start_matches('/').to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_a_container_are_plain() {
        let plain: Vec<String> = ["/a//b/./c/", "/a/../../b", "/", "a/b/"].map(in_container).into();
        assert_eq!(plain, ["/a/b/c", "/b", "/", "a/b"]);
    }

    #[test]
    fn only_relative_sources_are_joined() {
        let span = super::super::source::Span::default();
        let mut service = Node::list(
            ["./a:/a", "data:/b", "/abs:/c", r"C:\x:/d", "../up:/e:ro"].map(|t| Node::text(t, span)).into(),
            span,
        );
        let Kind::List(items) = &mut service.kind else { panic!("a list") };
        items.iter_mut().for_each(|item| resolve_volume(item, Path::new("/srv/p")));
        let texts: Vec<&str> = service.items().iter().filter_map(Node::as_str).collect();
        assert_eq!(texts, ["/srv/p/a:/a", "data:/b", "/abs:/c", r"C:\x:/d", "/srv/up:/e:ro"]);
    }
}
