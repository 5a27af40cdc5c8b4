//! The notebook format, nbformat 4: what a file needs for execution, and what 4.5 adds.
//!
//! The runner's own `nbformat` package validates a notebook completely before it executes it. This
//! check finds errors before a container is started, and keeps every field.

use serde::Deserialize;
use serde_json::{Map, Value};

/// The fields that decide whether a notebook can be executed.
#[derive(Deserialize)]
struct Notebook {
    metadata: Metadata,
    cells: Vec<Cell>,
}

#[derive(Deserialize)]
struct Metadata {
    kernelspec: Option<KernelSpec>,
    language_info: Option<LanguageInfo>,
}

#[derive(Deserialize)]
struct KernelSpec {
    name: Option<String>,
    language: Option<String>,
}

#[derive(Deserialize)]
struct LanguageInfo {
    name: String,
}

#[derive(Deserialize)]
#[serde(tag = "cell_type", rename_all = "lowercase")]
#[expect(dead_code, reason = "serde reads the fields, and requires them")]
enum Cell {
    Code { metadata: Map<String, Value>, source: Text, execution_count: Option<i64>, outputs: Vec<Output> },
    Markdown { metadata: Map<String, Value>, source: Text },
    Raw { metadata: Map<String, Value>, source: Text },
}

#[derive(Deserialize)]
#[serde(tag = "output_type", rename_all = "snake_case")]
#[expect(dead_code, reason = "serde reads the fields, and requires them")]
enum Output {
    Stream { name: String, text: Text },
    DisplayData { data: Map<String, Value>, metadata: Map<String, Value> },
    UpdateDisplayData { data: Map<String, Value>, metadata: Map<String, Value> },
    ExecuteResult { execution_count: Option<i64>, data: Map<String, Value>, metadata: Map<String, Value> },
    Error { ename: String, evalue: String, traceback: Vec<String> },
}

/// One string, or its lines.
#[derive(Deserialize)]
#[serde(untagged)]
#[expect(dead_code, reason = "only the structure is checked")]
enum Text {
    Whole(String),
    Lines(Vec<String>),
}

/// The language of a notebook.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Language {
    /// The language of the notebook or its kernel.
    pub(super) name: Option<String>,
    /// The name of its kernel.
    pub(super) kernel: Option<String>,
}

/// Checks the structure of a notebook in nbformat 4, of any minor version.
///
/// # Errors
/// Serde's error.
pub(super) fn check(raw: &Value) -> serde_json::Result<Language> {
    let Notebook { metadata, cells } = Notebook::deserialize(raw)?;
    drop(cells);
    let (kernel, spoken) = metadata.kernelspec.map_or((None, None), |spec| (spec.name, spec.language));
    Ok(Language { name: metadata.language_info.map(|info| info.name).or(spoken), kernel })
}

/// The same notebook in nbformat 4.5, where every cell has a unique id.
pub(super) fn upgrade(raw: &Value) -> Value {
    let mut notebook = raw.clone();
    notebook["nbformat_minor"] = 5.into();
    let cells = notebook["cells"].as_array_mut().map(Vec::as_mut_slice).unwrap_or_default();
    let mut taken = std::collections::BTreeSet::new();
    for (index, cell) in cells.iter_mut().enumerate() {
        let known = cell["id"].as_str().filter(|id| is_id(id)).map(str::to_owned);
        let mut id = known.unwrap_or_else(|| format!("cell-{index}"));
        while !taken.insert(id.clone()) {
            id = format!("cell-{index}-{}", taken.len());
        }
        cell["id"] = id.into();
    }
    notebook
}

/// Whether nbformat 4.5 accepts a cell id.
fn is_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_cell_gets_an_id_of_its_own_and_nothing_else_changes() {
        let cell = |id: Value| json!({ "cell_type": "raw", "metadata": { "x": 1 }, "source": "", "id": id });
        let raw = json!({ "nbformat": 4, "nbformat_minor": 2, "metadata": { "own": [1] }, "cells": [
            cell("a".into()), cell("a".into()), cell("no id!".into()), cell(Value::Null),
        ] });
        let upgraded = upgrade(&raw);
        let ids: Vec<&str> =
            upgraded["cells"].as_array().expect("cells").iter().filter_map(|c| c["id"].as_str()).collect();
        assert_eq!(ids, ["a", "cell-1-1", "cell-2", "cell-3"]);
        assert_eq!((&upgraded["nbformat_minor"], &upgraded["metadata"]), (&json!(5), &raw["metadata"]));
    }

    #[test]
    fn a_notebook_names_its_language_and_its_kernel() {
        let of = |metadata: Value| check(&json!({ "metadata": metadata, "cells": [] })).expect("a notebook");
        let both = json!({ "language_info": { "name": "R", "version": "4" }, "kernelspec": { "name": "ir", "language": "x" } });
        assert_eq!(of(both), Language { name: Some("R".into()), kernel: Some("ir".into()) });
        let kernel = json!({ "kernelspec": { "name": "ir", "display_name": "R", "language": "R" } });
        assert_eq!(of(kernel), Language { name: Some("R".into()), kernel: Some("ir".into()) });
        assert_eq!(of(json!({})), Language { name: None, kernel: None });
    }

    #[test]
    fn a_cell_or_an_output_that_lacks_a_field_is_refused() {
        let cells = |cells: Value| check(&json!({ "metadata": {}, "cells": cells })).is_ok();
        let code = |output: Value| json!([{ "cell_type": "code", "metadata": {}, "source": ["a"], "execution_count": null, "outputs": [output] }]);
        assert!(cells(code(json!({ "output_type": "stream", "name": "stdout", "text": ["x"] }))));
        for wrong in [
            json!([{ "cell_type": "code", "metadata": {}, "source": "a" }]),
            json!([{ "cell_type": "heading", "metadata": {}, "source": "a" }]),
            json!([{ "cell_type": "raw", "metadata": {}, "source": 1 }]),
            code(json!({ "output_type": "stream", "name": "stdout" })),
            code(json!({ "output_type": "pyout" })),
        ] {
            assert!(!cells(wrong.clone()), "{wrong}");
        }
    }
}
