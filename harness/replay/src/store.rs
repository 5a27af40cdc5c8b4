//! Stores outputs beside a workflow, in `NAME.outputs/`, and compares new ones with them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use super::{
    outputs::{Content, Item},
    pixels,
};
use lockproof_model::error::{Error, Result};

/// The directory of a workflow's stored outputs.
pub fn directory(workflow: &Path) -> PathBuf {
    workflow.with_extension("outputs")
}

/// The stored outputs; `None` if there are none.
///
/// # Errors
/// An environment error if they cannot be read.
pub fn load(directory: &Path) -> Result<Option<Vec<Item>>> {
    let unreadable = |e: std::io::Error| {
        Error::environment(format!("cannot read the stored outputs in {}", directory.display())).detail(e)
    };
    if !directory.is_dir() {
        return Ok(None);
    }
    let mut items = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || !entry.path().is_file() {
            continue;
        }
        let bytes = lockproof_model::read::bytes(&entry.path(), lockproof_model::read::LONG).map_err(unreadable)?;
        let content = if name.ends_with(".txt") {
            Content::Text(String::from_utf8_lossy(&bytes).into_owned())
        } else if pixels::suffix(&bytes).is_some() {
            Content::Picture(bytes)
        } else {
            Content::File(bytes)
        };
        items.push(Item { name, content });
    }
    items.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((!items.is_empty()).then_some(items))
}

/// Replaces the stored outputs. Pictures are stored without metadata, which would repeat the
/// workflow.
///
/// # Errors
/// An environment error if they cannot be written.
pub fn save(directory: &Path, items: &[Item]) -> Result<()> {
    let unwritable = |e: std::io::Error| {
        Error::environment(format!("cannot store the outputs in {}", directory.display())).detail(e)
    };
    fs::create_dir_all(directory).map_err(unwritable)?;
    for old in load(directory)?.into_iter().flatten() {
        fs::remove_file(directory.join(&old.name)).map_err(unwritable)?;
    }
    for item in items {
        let (name, bytes) = bare(item);
        fs::write(directory.join(name), bytes).map_err(unwritable)?;
    }
    Ok(())
}

fn bare(item: &Item) -> (String, Vec<u8>) {
    match &item.content {
        Content::Text(text) => (item.name.clone(), text.clone().into_bytes()),
        Content::File(bytes) => (item.name.clone(), bytes.clone()),
        // Only a lossless picture stays the same when it is encoded again.
        Content::Picture(bytes) if item.name.ends_with(".png") => {
            (item.name.clone(), pixels::bare(bytes).unwrap_or_else(|_| bytes.clone()))
        }
        Content::Picture(bytes) => (item.name.clone(), bytes.clone()),
    }
}

/// An output that differs.
#[derive(Clone, Debug)]
pub struct Change {
    /// The name of the output.
    pub name: String,
    /// How it differs.
    pub what: String,
    /// The stored picture, the new one, and the difference.
    pub picture: Option<image::RgbaImage>,
}

/// Compares all new outputs with the stored ones.
pub fn compare(stored: &[Item], new: &[Item], tolerance: f64) -> Vec<Change> {
    let by_name =
        |items: &[Item]| items.iter().map(|item| (stem(item).to_owned(), item.clone())).collect::<BTreeMap<_, _>>();
    let (stored, new) = (by_name(stored), by_name(new));
    let names: BTreeSet<&String> = stored.keys().chain(new.keys()).collect();
    let change = |name: &str, what: String, picture| Some(Change { name: name.to_owned(), what, picture });
    names
        .into_iter()
        .filter_map(|name| match (stored.get(name), new.get(name)) {
            (Some(_), None) => change(name, "stored, but missing from the run".to_owned(), None),
            (None, Some(_)) => change(name, "new in the run, but not stored".to_owned(), None),
            (Some(stored), Some(new)) => match (&stored.content, &new.content) {
                (Content::Picture(stored), Content::Picture(new)) => {
                    let found = pixels::compare(stored, new, tolerance)?;
                    change(name, found.what, found.picture)
                }
                (Content::Text(stored), Content::Text(new)) => {
                    (stored != new).then(|| change(name, text(stored, new), None)).flatten()
                }
                (Content::File(stored), Content::File(new)) => (stored != new)
                    .then(|| {
                        change(name, format!("{} bytes, different from the stored {}", new.len(), stored.len()), None)
                    })
                    .flatten(),
                _ => change(name, "the type differs from the stored output".to_owned(), None),
            },
            (None, None) => None,
        })
        .collect()
}

/// The name without its suffix, because the picture format may change.
fn stem(item: &Item) -> &str {
    item.name.rsplit_once('.').map_or(&item.name, |(stem, _)| stem)
}

/// The first line that differs.
fn text(stored: &str, new: &str) -> String {
    let (mut old, mut now) = (stored.lines(), new.lines());
    for number in 1.. {
        match (old.next(), now.next()) {
            (None, None) => break,
            (a, b) if a == b => {}
            (a, b) => {
                return format!(
                    "line {number} is `{}` instead of `{}`",
                    b.unwrap_or("(nothing)"),
                    a.unwrap_or("(nothing)")
                );
            }
        }
    }
    "the line endings differ".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str, text: &str) -> Item {
        Item { name: name.to_owned(), content: Content::Text(text.to_owned()) }
    }

    #[test]
    fn missing_and_new_outputs_are_changes() {
        let changes = compare(
            &[text("1-text-0.txt", "a"), text("2-text-0.txt", "a\nb")],
            &[text("2-text-0.txt", "a\nc"), text("3-text-0.txt", "")],
            0.0,
        );
        let told: Vec<String> = changes.iter().map(|c| format!("{}: {}", c.name, c.what)).collect();
        assert_eq!(
            told,
            [
                "1-text-0: stored, but missing from the run",
                "2-text-0: line 2 is `c` instead of `b`",
                "3-text-0: new in the run, but not stored",
            ]
        );
    }

    #[test]
    fn stored_outputs_are_loaded_unchanged() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = directory.path().join("a.outputs");
        assert_eq!(load(&place).expect("it is not there"), None);
        let first = [text("1-text-0.txt", "a"), Item { name: "2-x-0.bin".into(), content: Content::File(vec![0, 1]) }];
        save(&place, &first).expect("it is stored");
        assert_eq!(load(&place).expect("it is there").as_deref(), Some(&first[..]));
        save(&place, &first[..1]).expect("it is stored");
        assert_eq!(load(&place).expect("it is there").as_deref(), Some(&first[..1]));
    }
}
