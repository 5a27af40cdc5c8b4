//! The files of a project, and positions in them.

use std::{path::PathBuf, sync::Arc};

/// A byte range in a file's text, without its byte-order mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The index of the file in [`Sources`].
    pub file: u32,
    /// The first byte.
    pub start: u32,
    /// The byte after the last one.
    pub end: u32,
}

/// A position as shown by editors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file's name as given.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column, in characters, from 1.
    pub column: u32,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A source file.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name, as given or referenced.
    pub name: String,
    /// Its path.
    pub path: PathBuf,
    /// Its text, without a byte-order mark.
    pub text: Arc<str>,
    /// Whether the file starts with a byte-order mark.
    pub bom: bool,
}

/// All files of a project.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<Source>,
}

impl Sources {
    /// Adds a file, and returns its index for spans.
    pub fn add(&mut self, name: String, path: PathBuf, text: &str) -> u32 {
        let stripped = text.strip_prefix('\u{feff}');
        let bom = stripped.is_some();
        self.files.push(Source { name, path, text: Arc::from(stripped.unwrap_or(text)), bom });
        u32::try_from(self.files.len() - 1).unwrap_or(u32::MAX)
    }

    /// The file with that index.
    pub fn get(&self, file: u32) -> Option<&Source> {
        self.files.get(file as usize)
    }

    /// All files, in the order in which they were read.
    pub fn all(&self) -> &[Source] {
        &self.files
    }

    /// The position of a span's start.
    pub fn place(&self, span: Span) -> Place {
        let Some(source) = self.get(span.file) else {
            return Place { file: String::new(), line: 1, column: 1 };
        };
        let before = before(&source.text, span.start as usize);
        let line = before.bytes().filter(|&b| b == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Place { file: source.name.clone(), line: number(line), column: number(column) }
    }

    /// The text that a span covers.
    pub fn text(&self, span: Span) -> &str {
        self.get(span.file)
            .and_then(|source| source.text.get(span.start as usize..span.end as usize))
            .unwrap_or_default()
    }

    /// The line that contains the span's start, without its line break.
    pub fn line(&self, span: Span) -> &str {
        let Some(source) = self.get(span.file) else { return "" };
        let start = before(&source.text, span.start as usize).rfind('\n').map_or(0, |n| n + 1);
        source.text[start..].lines().next().unwrap_or_default()
    }
}

fn before(text: &str, end: usize) -> &str {
    let mut end = end.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters() {
        let mut sources = Sources::default();
        let file = sources.add("a.yml".into(), "a.yml".into(), "\u{feff}a: é\r\nb: x\n");
        let at = |start| sources.place(Span { file, start, end: start + 1 }).to_string();
        assert_eq!([at(0), at(5), at(7), at(10)], ["a.yml:1:1", "a.yml:1:5", "a.yml:2:1", "a.yml:2:4"]);
        assert_eq!(sources.line(Span { file, start: 8, end: 9 }), "b: x");
        assert!(sources.all()[0].bom);
    }
}
