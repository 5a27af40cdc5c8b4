//! Reads a workflow from a file: the API format, the editor's format, or a picture with an embedded
//! workflow.

use std::{borrow::Cow, io::Cursor, path::Path};

use image::ImageDecoder;
use serde_json::{Map, Value};

use super::{editor::Workflow, json, metadata::Metadata, prompt::Prompt};
use lockproof_model::error::{Error, Result};

/// The size limit of a workflow file, in bytes.
const LARGEST: u64 = 256 * 1024 * 1024;

/// A workflow with its name and settings.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name in reports: that of the file.
    pub name: String,
    /// The file.
    pub path: std::path::PathBuf,
    /// The workflow.
    pub workflow: Kind,
    /// Its requirements and comparison settings.
    pub metadata: Metadata,
}

/// The formats.
#[derive(Clone, Debug)]
pub enum Kind {
    /// The API format.
    Api(Prompt),
    /// The editor's format, which must be converted for a server; and the original JSON, which is
    /// sent along with the prompt.
    Editor(Box<Workflow>, Map<String, Value>),
}

impl Source {
    /// Reads the bytes of a file, without its neighbouring files; `shown` is its name in messages.
    ///
    /// # Errors
    /// A usage error with the place, when it is no workflow.
    pub fn parse(bytes: &[u8], shown: &str) -> Result<Kind> {
        kind_of(bytes, shown).map(|(workflow, _)| workflow)
    }

    /// Reads a file and its settings.
    ///
    /// # Errors
    /// A usage error with position, if it is not a workflow.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        let unreadable = |e: &std::io::Error| {
            Error::usage(format!("cannot read {shown}: {e}")).fix("use the path of a workflow or a notebook")
        };
        let size = std::fs::metadata(path).map_err(|e| unreadable(&e))?.len();
        if size > LARGEST {
            return Err(Error::usage(format!("{shown} is {size} bytes long; the limit for a workflow is {LARGEST}")));
        }
        let bytes = lockproof_model::read::bytes(path, LARGEST).map_err(|e| unreadable(&e))?;
        let (workflow, extra) = kind_of(&bytes, &shown)?;
        let name = path.file_name().map_or_else(|| shown.clone(), |name| name.to_string_lossy().into_owned());
        Ok(Self { name, path: path.to_owned(), workflow, metadata: Metadata::read(path, extra.as_ref())? })
    }
}

const FIX: &str = "use a file written by ComfyUI's *Save* or *Export (API)*, or a picture saved by ComfyUI";

fn kind_of(bytes: &[u8], shown: &str) -> Result<(Kind, Option<Value>)> {
    if bytes.is_empty() {
        return Err(no_workflow(shown, "the file is empty"));
    }
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return from_texts(png_texts(bytes), shown);
    }
    if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return from_texts(webp_texts(bytes), shown);
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Error::usage("not valid JSON and not a PNG or WebP picture").at(shown).fix(FIX))?;
    let value = json::parse(text.trim_start_matches('\u{feff}')).map_err(|e| {
        Error::usage("not valid JSON").at(format!("{shown}:{}:{}", e.line(), e.column())).detail(e).fix(FIX)
    })?;
    let Value::Object(value) = value else { return Err(no_workflow(shown, "it is JSON, but not an object")) };
    from_json(value, shown)
}

fn no_workflow(shown: &str, why: &str) -> Error {
    Error::usage("the file contains no workflow").at(shown).detail(why).fix(FIX)
}

fn from_json(value: Map<String, Value>, shown: &str) -> Result<(Kind, Option<Value>)> {
    if Workflow::looks_like(&value) {
        let extra = value.get("extra").and_then(|extra| extra.get("lockproof")).cloned();
        return Ok((Kind::Editor(Box::new(Workflow::of(&value)), value), extra));
    }
    // Some tools wrap it: in a request body, or beside the other format.
    for key in ["prompt", "output", "workflow"] {
        let Some(inner) = value.get(key).and_then(object) else { continue };
        if Prompt::looks_like(&inner) || Workflow::looks_like(&inner) {
            return from_json(inner.into_owned(), shown);
        }
    }
    let mut ran = value.values().filter_map(ran);
    if let Some(prompt) = ran.next() {
        let others = ran.count();
        if others > 0 {
            let why = format!("it is a history of {} runs: keep only one of them", others + 1);
            return Err(no_workflow(shown, &why));
        }
        return from_json(prompt.clone(), shown);
    }
    if Prompt::looks_like(&value) {
        let prompt = Prompt::of(&value).map_err(|why| Error::usage(why).at(shown).fix(FIX))?;
        return Ok((Kind::Api(prompt), None));
    }
    Err(no_workflow(shown, "it has no `nodes` and no entries with a `class_type`"))
}

/// An object, or one encoded as a string.
fn object(value: &Value) -> Option<Cow<'_, Map<String, Value>>> {
    match value {
        Value::Object(object) => Some(Cow::Borrowed(object)),
        Value::String(text) => match json::parse(text) {
            Ok(Value::Object(object)) => Some(Cow::Owned(object)),
            _ => None,
        },
        _ => None,
    }
}

/// The prompt of a `GET /history` entry: `{"prompt": [number, id, {…}, …], …}`.
fn ran(entry: &Value) -> Option<&Map<String, Value>> {
    entry.get("prompt")?.get(2)?.as_object().filter(|prompt| Prompt::looks_like(prompt))
}

/// The workflow in a picture's texts; the executed prompt takes precedence over the editor's
/// workflow.
fn from_texts(texts: Vec<(String, String)>, shown: &str) -> Result<(Kind, Option<Value>)> {
    let mut broken = None;
    for wanted in ["prompt", "workflow"] {
        for (_, text) in texts.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted)) {
            match json::parse(text) {
                Ok(Value::Object(value)) => return from_json(value, shown),
                Ok(_) => {}
                Err(e) => broken = Some(format!("its `{wanted}` is not valid JSON: {e}")),
            }
        }
    }
    if let Some(why) = broken {
        return Err(no_workflow(shown, &why));
    }
    if texts.iter().any(|(name, _)| name == "parameters") {
        return Err(no_workflow(shown, "the picture was made by another program, which writes `parameters`"));
    }
    Err(no_workflow(shown, "the picture has no workflow metadata: it was saved with --disable-metadata, or edited"))
}

/// The texts of a PNG, before and after its pixels.
fn png_texts(bytes: &[u8]) -> Vec<(String, String)> {
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_ignore_text_chunk(false);
    let Ok(mut reader) = decoder.read_info() else { return Vec::new() };
    // Texts can come after the pixels. A truncated picture still has those before them.
    let _cut_off = reader.finish();
    let info = reader.info();
    let plain = info.uncompressed_latin1_text.iter().map(|t| (t.keyword.clone(), Some(t.text.clone())));
    let packed = info.compressed_latin1_text.iter().map(|t| (t.keyword.clone(), t.get_text().ok()));
    let unicode = info.utf8_text.iter().map(|t| (t.keyword.clone(), t.get_text().ok()));
    plain.chain(packed).chain(unicode).filter_map(|(name, text)| Some((name, text?))).collect()
}

/// ComfyUI writes `prompt:{…}` and `workflow:{…}` to texts of a WebP's EXIF data.
fn webp_texts(bytes: &[u8]) -> Vec<(String, String)> {
    let exif = image::codecs::webp::WebPDecoder::new(Cursor::new(bytes))
        .ok()
        .and_then(|mut decoder| decoder.exif_metadata().ok().flatten())
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&exif);
    let begun = |name: &str| {
        let from = text.split_once(&format!("{name}:{{"))?.1;
        // Texts end with a zero byte.
        Some((name.to_owned(), format!("{{{}", from.split('\0').next()?)))
    };
    ["prompt", "workflow"].into_iter().filter_map(|name| begun(name).or_else(|| begun(&capital(name)))).collect()
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    const NODE: &str = r#"{"1":{"class_type":"EmptyImage","inputs":{}}}"#;

    #[rstest]
    #[case::as_it_is(NODE.to_owned())]
    #[case::the_body_of_a_request(format!(r#"{{"prompt":{NODE},"client_id":"x"}}"#))]
    #[case::in_a_text(json!({ "prompt": NODE }).to_string())]
    #[case::a_run_of_the_history(format!(r#"{{"5e1f":{{"prompt":[3,"5e1f",{NODE},{{}},["1"]],"outputs":{{}}}}}}"#))]
    fn a_prompt_is_found_where_tools_put_it(#[case] text: String) {
        let (kind, _) = kind_of(text.as_bytes(), "x.json").expect("a workflow");
        assert!(matches!(kind, Kind::Api(prompt) if prompt.node("1").is_some_and(|node| node.class == "EmptyImage")));
    }

    #[rstest]
    #[case::empty(String::new(), "the file is empty")]
    #[case::two_runs(format!(r#"{{"a":{{"prompt":[1,"a",{NODE}]}},"b":{{"prompt":[2,"b",{NODE}]}}}}"#), "a history of 2 runs")]
    #[case::no_prompt(json!({ "prompt": "a cat" }).to_string(), "no `nodes` and no entries")]
    fn a_file_without_a_workflow_is_rejected(#[case] text: String, #[case] why: &str) {
        let error = kind_of(text.as_bytes(), "x.png").expect_err("there is none");
        let told = format!("{error:?}");
        assert!(told.contains(why), "{told}");
    }
}
