//! Reads and checks notebook files, injects parameters as papermill does, and writes them as
//! Jupyter does.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{format, settings::Settings};
use lockproof_model::{
    error::{Error, Result},
    read, secret,
};

/// The tag of a cell injected by papermill or lockproof.
const INJECTED: &str = "injected-parameters";
/// The tag of the cell after which parameters are injected.
const PARAMETERS: &str = "parameters";

/// A notebook file.
#[derive(Clone, Debug)]
pub(super) struct File {
    /// The text of the file.
    pub(super) text: String,
    /// The notebook as parsed, in its own minor version.
    pub(super) raw: Value,
    /// The replay settings in its metadata.
    pub(super) settings: Settings,
    /// The notebook converted to nbformat 4.5, for execution.
    upgraded: Value,
}

/// A notebook that is ready to be executed.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    /// The notebook, as nbformat 4.5.
    pub(super) notebook: Value,
    /// Parameters that the notebook's own cell does not set.
    pub(super) unknown: Vec<String>,
}

impl File {
    /// Reads a notebook: nbformat 4.0 to 4.5, with a Python kernel.
    ///
    /// # Errors
    /// A usage error if it is invalid or unsupported.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let wrong = |what: &str| Error::usage(what).at(path.display());
        let text = read::text(path, read::LONG)
            .map_err(|e| wrong("cannot read the notebook").detail(e).fix("check its path"))?;
        Self::parse(text, path)
    }

    /// Reads the text of a notebook, which came from `path`.
    ///
    /// # Errors
    /// As [`File::read`].
    pub(super) fn parse(text: String, path: &Path) -> Result<Self> {
        let wrong = |what: &str| Error::usage(what).at(path.display());
        let raw: Value = serde_json::from_str(&text).map_err(|e| {
            wrong("the notebook is not valid JSON")
                .detail(e)
                .fix("open it in Jupyter and save it again; check it for merge conflict markers")
        })?;
        let (major, minor) = (raw["nbformat"].as_i64().unwrap_or(0), raw["nbformat_minor"].as_i64().unwrap_or(0));
        if major != 4 || !(0..=5).contains(&minor) {
            return Err(wrong(&format!("nbformat {major}.{minor} is not supported; supported versions: 4.0 to 4.5"))
                .fix("convert it: jupyter nbconvert --to notebook --nbformat 4 FILE"));
        }
        let format::Language { name, kernel } = format::check(&raw).map_err(|e| broken(path, &e))?;
        // Before its first run, a notebook has no language, only the name of its kernel.
        let language = name.or_else(|| kernel.filter(|name| is_another_kernel(name)));
        if let Some(language) = language.filter(|l| !l.eq_ignore_ascii_case("python") && !l.starts_with("ipython")) {
            return Err(wrong(&format!("the notebook's language is {language}, but only Python is supported")));
        }
        let upgraded = format::upgrade(&raw);
        let settings = Settings::of(&raw, path)?;
        Ok(Self { text, raw, settings, upgraded })
    }

    /// The notebook with injected parameters: in a new cell after the one tagged `parameters`, in
    /// place of an earlier injected cell, or at the start.
    pub(super) fn prepare(&self, parameters: &Map<String, Value>) -> Prepared {
        let mut notebook = self.upgraded.clone();
        let mut unknown = Vec::new();
        if let (false, Some(cells)) = (parameters.is_empty(), notebook["cells"].as_array_mut()) {
            let place = |tag: &str| cells.iter().position(|cell| has_tag(cell, tag));
            let (old, defaults) = (place(INJECTED), place(PARAMETERS));
            let defined = defaults.map_or(String::new(), |at| source(&cells[at]));
            unknown = parameters.keys().filter(|name| !assigns(&defined, name)).cloned().collect();
            let cell = json!({
                "cell_type": "code",
                "id": "lockproof-parameters",
                "metadata": { "tags": [INJECTED] },
                "execution_count": null,
                "source": in_python(parameters),
                "outputs": [],
            });
            match (old, defaults) {
                (Some(at), _) => cells[at] = cell,
                (None, Some(at)) => cells.insert(at + 1, cell),
                (None, None) => cells.insert(0, cell),
            }
        }
        Prepared { notebook, unknown }
    }

    /// The text of the file with new outputs, in the same format.
    pub(super) fn with_outputs(&self, executed: &Value) -> Result<String> {
        let mut raw = self.raw.clone();
        let mut outputs = code_cells(executed).into_iter();
        for cell in raw["cells"].as_array_mut().into_iter().flatten().filter(|cell| is_compared(cell)) {
            if let Some(new) = outputs.next() {
                cell["outputs"] = new["outputs"].clone();
                cell["execution_count"] = new["execution_count"].clone();
            }
        }
        render(&raw)
    }
}

fn broken(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::usage("the notebook does not match the nbformat schema")
        .at(path.display())
        .detail(error)
        .fix("open it in Jupyter and save it again")
}

/// A notebook as written by Jupyter: indented by one space, with a newline at the end.
pub(super) fn render(notebook: &Value) -> Result<String> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    let broken = |e: &dyn std::fmt::Display| Error::environment("cannot write the notebook").detail(e);
    notebook.serialize(&mut serializer).map_err(|e| broken(&e))?;
    bytes.push(b'\n');
    String::from_utf8(bytes).map_err(|e| broken(&e))
}

/// The code cells whose outputs are compared: all except the injected one.
pub(super) fn code_cells(notebook: &Value) -> Vec<&Value> {
    notebook["cells"].as_array().into_iter().flatten().filter(|cell| is_compared(cell)).collect()
}

pub(super) fn is_compared(cell: &Value) -> bool {
    cell["cell_type"] == "code" && !has_tag(cell, INJECTED)
}

pub(super) fn has_tag(cell: &Value, tag: &str) -> bool {
    cell["metadata"]["tags"].as_array().into_iter().flatten().any(|t| t == tag)
}

/// The source of a cell, which is a string or a list of strings.
pub(super) fn source(cell: &Value) -> String {
    joined(&cell["source"])
}

/// A text that is stored as one string or as lines.
pub(super) fn joined(text: &Value) -> String {
    match text {
        Value::String(text) => text.clone(),
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
        _ => String::new(),
    }
}

/// The first line of a cell that is not empty, redacted before it is shortened.
pub(super) fn title(cell: &Value) -> String {
    let source = secret::redact(&source(cell));
    let line = source.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().take(60).collect()
}

fn assigns(source: &str, name: &str) -> bool {
    source.lines().any(|line| {
        line.strip_prefix(name).is_some_and(|rest| {
            let rest = rest.trim_start();
            rest.starts_with(':') || (rest.starts_with('=') && !rest.starts_with("=="))
        })
    })
}

/// Parameters as assignments in Python.
fn in_python(parameters: &Map<String, Value>) -> String {
    let mut text = "# Parameters\n".to_owned();
    for (name, value) in parameters {
        text.push_str(&format!("{name} = {}\n", literal(value)));
    }
    text.trim_end().to_owned()
}

fn literal(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        // A JSON string is also a valid Python string.
        Value::String(_) => value.to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(literal).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let pairs: Vec<String> =
                map.iter().map(|(key, value)| format!("{}: {}", Value::from(key.as_str()), literal(value))).collect();
            format!("{{{}}}", pairs.join(", "))
        }
    }
}

/// Whether a kernel's name clearly means another language than Python 3.
fn is_another_kernel(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let others =
        ["julia", "javascript", "deno", "octave", "matlab", "scala", "xcpp", "xeus-cling", "rust", "bash", "sos"];
    matches!(name.as_str(), "ir" | "python2") || others.iter().any(|other| name.starts_with(other))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn notebook(minor: u8, cells: &Value) -> File {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.ipynb");
        let text = json!({ "nbformat": 4, "nbformat_minor": minor, "metadata": {}, "cells": cells }).to_string();
        std::fs::write(&path, text).expect("written");
        File::read(&path).expect("it is a notebook")
    }

    fn code(source: &str, tags: &[&str]) -> Value {
        json!({ "cell_type": "code", "metadata": { "tags": tags }, "execution_count": null, "source": source, "outputs": [] })
    }

    fn sources(file: &File, parameters: &Value) -> (Vec<String>, Vec<String>) {
        let prepared = file.prepare(parameters.as_object().expect("an object"));
        (prepared.notebook["cells"].as_array().expect("cells").iter().map(source).collect(), prepared.unknown)
    }

    #[rstest]
    fn every_minor_version_can_be_executed(#[values(0, 1, 2, 3, 4, 5)] minor: u8) {
        let file = notebook(
            minor,
            &json!([
                { "cell_type": "markdown", "metadata": {}, "source": ["# a\n", "b"] },
                { "cell_type": "raw", "metadata": { "format": "text/plain" }, "source": "raw" },
                { "cell_type": "code", "metadata": { "collapsed": false }, "execution_count": 3, "source": ["a\n", "b"], "outputs": [
                    { "output_type": "stream", "name": "stdout", "text": ["x\n"] },
                    { "output_type": "execute_result", "execution_count": 3, "metadata": {}, "data": { "text/plain": "1", "application/x-own": { "a": 1 } } },
                    { "output_type": "display_data", "metadata": {}, "data": { "image/png": "aGFsbG8=\n", "text/plain": ["<Figure>"] } },
                    { "output_type": "error", "ename": "E", "evalue": "v", "traceback": [] },
                ] },
            ]),
        );
        let prepared = file.prepare(&Map::new()).notebook;
        assert_eq!(prepared["nbformat_minor"], 5);
        assert_eq!(prepared["cells"].as_array().map(Vec::len), Some(3));
        assert_eq!(code_cells(&prepared).len(), 1);
        assert_eq!(title(code_cells(&prepared)[0]), "a");
    }

    #[test]
    fn parameters_go_where_papermill_puts_them() {
        let values = json!({ "a": 1, "b": "it's \"x\"\n", "c": [true, null, { "k": 1.5 }] });
        let injected = "# Parameters\na = 1\nb = \"it's \\\"x\\\"\\n\"\nc = [True, None, {\"k\": 1.5}]".to_owned();
        let first = code("import os", &[]);
        let tagged = code("a = 0\nb: str = ''", &["parameters"]);
        let old = code("# Parameters\na = 9", &["injected-parameters"]);
        let none = notebook(5, &json!([first]));
        assert_eq!(sources(&none, &values).0, [injected.clone(), "import os".into()]);
        let behind = notebook(4, &json!([first, tagged]));
        let (cells, unknown) = sources(&behind, &values);
        assert_eq!(cells, ["import os".to_owned(), "a = 0\nb: str = ''".into(), injected.clone()]);
        assert_eq!(unknown, ["c"]);
        let again = notebook(4, &json!([tagged, old, first]));
        assert_eq!(sources(&again, &values).0, ["a = 0\nb: str = ''".to_owned(), injected, "import os".into()]);
        assert_eq!(sources(&again, &json!({})).0.len(), 3, "without parameters nothing is put in");
    }

    #[test]
    fn new_outputs_change_nothing_else() {
        let file =
            notebook(2, &json!([code("a", &[]), code("# Parameters", &["injected-parameters"]), code("b", &[])]));
        let executed = json!({ "cells": [
            { "cell_type": "code", "metadata": {}, "execution_count": 1, "outputs": [{ "output_type": "stream", "name": "stdout", "text": "A" }] },
            { "cell_type": "code", "metadata": {}, "execution_count": 2, "outputs": [] },
        ] });
        let text = file.with_outputs(&executed).expect("written");
        let new: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(new["nbformat_minor"], 2);
        assert_eq!(new["cells"][0]["outputs"][0]["text"], "A");
        assert_eq!(new["cells"][1]["outputs"], json!([]));
        assert!(text.starts_with("{\n \"nbformat\": 4,") && text.ends_with("}\n"));
    }

    #[rstest]
    #[case("{", "not valid JSON")]
    #[case("{\"nbformat\": 3, \"nbformat_minor\": 0, \"worksheets\": []}", "nbformat 3.0")]
    #[case(
        "{\"nbformat\": 4, \"nbformat_minor\": 5, \"metadata\": {}, \"cells\": [{}]}",
        "does not match the nbformat schema"
    )]
    #[case(
        "{\"nbformat\": 4, \"nbformat_minor\": 5, \"metadata\": {\"language_info\": {\"name\": \"R\"}}, \"cells\": []}",
        "language is R"
    )]
    #[case(
        "{\"nbformat\": 4, \"nbformat_minor\": 5, \"metadata\": {\"kernelspec\": {\"name\": \"ir\", \"display_name\": \"R\"}}, \"cells\": []}",
        "language is ir"
    )]
    fn an_unsupported_notebook_is_rejected(#[case] text: &str, #[case] told: &str) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.ipynb");
        std::fs::write(&path, text).expect("written");
        let error = File::read(&path).expect_err("it is none").to_string();
        assert!(error.contains(told) && error.contains("a.ipynb"), "{error}");
    }
}
