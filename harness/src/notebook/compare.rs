//! Compares the output of a cell with the stored output: text after sanitising, pictures by pixels.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{file::joined, settings::Sanitizer};
use lockproof_model::secret;

/// Tags that exclude a cell's output from the comparison; the last two are nbval's.
const IGNORED: [&str; 3] = ["lockproof-ignore-output", "nbval-ignore-output", "NBVAL_IGNORE_OUTPUT"];

/// The maximum length of a displayed line.
const SHOWN: usize = 120;

/// A part of a cell's output.
#[derive(Clone, Debug, PartialEq)]
enum Piece {
    /// The whole output of a stream, because its chunks differ from run to run.
    Stream(String, String),
    /// A result or a display, by media type.
    Data(Vec<(String, Value)>),
    /// An error: its name and message. The traceback is ignored, because it contains paths and line
    /// numbers.
    Error(String, String),
}

/// How the output of a cell differs from the stored output, in one line; `None` if it is the same.
pub(super) fn difference(stored: &Value, new: &Value, rules: &Sanitizer) -> Option<String> {
    if IGNORED.iter().any(|tag| super::file::has_tag(stored, tag)) {
        return None;
    }
    let (before, after) = (pieces(&stored["outputs"]), pieces(&new["outputs"]));
    for (before, after) in before.iter().zip(&after) {
        if let Some(how) = piece_difference(before, after, rules) {
            return Some(how);
        }
    }
    match (before.get(after.len()), after.get(before.len())) {
        (Some(missing), _) => Some(format!("{} is stored but missing now", missing.name())),
        (None, Some(_)) if before.is_empty() => {
            Some("there is output now but none is stored (--update stores it)".to_owned())
        }
        (None, Some(more)) => Some(format!("there is {} now but none is stored", more.name())),
        (None, None) => None,
    }
}

impl Piece {
    fn name(&self) -> String {
        match self {
            Self::Stream(name, _) => format!("text on {name}"),
            Self::Error(name, _) => format!("an error ({name})"),
            Self::Data(data) => match data.iter().map(|(kind, _)| kind.as_str()).find(|kind| *kind != "text/plain") {
                Some(kind) => format!("output of type {kind}"),
                None => "a result".to_owned(),
            },
        }
    }
}

fn pieces(outputs: &Value) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for output in outputs.as_array().into_iter().flatten() {
        match output["output_type"].as_str().unwrap_or_default() {
            "stream" => {
                let name = output["name"].as_str().unwrap_or("stdout");
                let text = joined(&output["text"]);
                let known = pieces.iter_mut().find_map(|piece| match piece {
                    Piece::Stream(of, all) if of == name => Some(all),
                    _ => None,
                });
                match known {
                    Some(all) => all.push_str(&text),
                    None => pieces.push(Piece::Stream(name.to_owned(), text)),
                }
            }
            "error" => {
                let text = |key: &str| secret::redact(output[key].as_str().unwrap_or_default());
                pieces.push(Piece::Error(text("ename"), text("evalue")));
            }
            _ => {
                let data = output["data"].as_object().into_iter().flatten();
                let mut data: Vec<(String, Value)> = data.map(|(kind, value)| (kind.clone(), value.clone())).collect();
                data.sort_by(|a, b| a.0.cmp(&b.0));
                pieces.push(Piece::Data(data));
            }
        }
    }
    // The order of stdout and stderr is not fixed; each stream by itself is in order.
    pieces.sort_by_key(|piece| match piece {
        Piece::Stream(name, _) if name == "stdout" => 0,
        Piece::Stream(..) => 1,
        _ => 2,
    });
    pieces
}

fn piece_difference(before: &Piece, after: &Piece, rules: &Sanitizer) -> Option<String> {
    match (before, after) {
        (Piece::Stream(of, a), Piece::Stream(now, b)) if of == now => {
            text_difference(a, b, rules).map(|how| format!("{of}: {how}"))
        }
        (Piece::Error(name_a, a), Piece::Error(name_b, b)) if name_a == name_b => {
            text_difference(a, b, rules).map(|how| format!("{name_a}: {how}"))
        }
        (Piece::Data(a), Piece::Data(b)) => data_difference(a, b, rules),
        _ => Some(format!("stored {}, now {}", before.name(), after.name())),
    }
}

fn data_difference(a: &[(String, Value)], b: &[(String, Value)], rules: &Sanitizer) -> Option<String> {
    let kinds = |data: &[(String, Value)]| data.iter().map(|(kind, _)| kind.clone()).collect::<Vec<_>>();
    if kinds(a) != kinds(b) {
        return Some(format!("stored types {}, now {}", kinds(a).join(", "), kinds(b).join(", ")));
    }
    a.iter().zip(b).find_map(|((kind, stored), (_, new))| {
        let how = if is_picture(kind) {
            picture_difference(&joined(stored), &joined(new))
        } else if kind.starts_with("text/") || kind.ends_with("+xml") {
            text_difference(&joined(stored), &joined(new), rules)
        } else {
            text_difference(&whole(stored), &whole(new), rules)
        };
        how.map(|how| format!("{kind}: {how}"))
    })
}

fn is_picture(kind: &str) -> bool {
    matches!(kind, "image/png" | "image/jpeg" | "image/webp" | "image/gif")
}

/// Other data: JSON as text; notebooks keep the order of keys.
fn whole(value: &Value) -> String {
    match value {
        Value::String(_) => joined(value),
        Value::Array(lines) if lines.iter().all(Value::is_string) => joined(value),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    }
}

fn text_difference(stored: &str, new: &str, rules: &Sanitizer) -> Option<String> {
    // Redact before shortening: a truncated token would not be recognised.
    let (stored, new) = (rules.clean(&secret::redact(stored)), rules.clean(&secret::redact(new)));
    if stored == new {
        return None;
    }
    let (a, b): (Vec<&str>, Vec<&str>) = (stored.lines().collect(), new.lines().collect());
    let line = a.iter().zip(&b).position(|(a, b)| a != b).unwrap_or(a.len().min(b.len()));
    let shown = |lines: &[&str]| match lines.get(line) {
        Some(text) => format!("`{}`", shorten(text)),
        None => "nothing".to_owned(),
    };
    Some(format!("line {}: stored {}, now {}", line + 1, shown(&a), shown(&b)))
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// How two pictures differ: by size, or by pixels.
fn picture_difference(stored: &str, new: &str) -> Option<String> {
    let decode = |text: &str, which: &str| {
        let compact: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let bytes = STANDARD.decode(compact).map_err(|_| format!("the {which} picture is not valid base64"))?;
        let picture = image::load_from_memory(&bytes).map_err(|e| format!("cannot read the {which} picture: {e}"))?;
        Ok::<_, String>(picture.into_rgba16())
    };
    let (before, after) = match (decode(stored, "stored"), decode(new, "new")) {
        (Ok(before), Ok(after)) => (before, after),
        (Err(why), _) | (_, Err(why)) => return Some(why),
    };
    if before.dimensions() != after.dimensions() {
        let size = |picture: &image::ImageBuffer<_, _>| format!("{}×{}", picture.width(), picture.height());
        return Some(format!("the picture size was {} and is now {}", size(&before), size(&after)));
    }
    let mut differing = before.enumerate_pixels().zip(after.pixels()).filter(|((_, _, a), b)| a != b);
    let ((x, y, _), _) = differing.next()?;
    let all = u64::from(before.width()) * u64::from(before.height());
    Some(format!("{} of {all} pixels differ, first at {x},{y}", differing.count() + 1))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::{super::settings::Settings, *};

    fn how(stored: &Value, new: &Value) -> Option<String> {
        let rules = Settings::default().sanitizer(Path::new("a.ipynb")).expect("ours");
        difference(&json!({ "outputs": stored }), &json!({ "outputs": new }), &rules)
    }

    fn picture(pixels: &[[u8; 3]; 4], compressed: bool) -> Value {
        use image::{ExtendedColorType, ImageEncoder, codecs::png};
        let mut bytes = Vec::new();
        let level = if compressed { png::CompressionType::Best } else { png::CompressionType::Fast };
        png::PngEncoder::new_with_quality(&mut bytes, level, png::FilterType::NoFilter)
            .write_image(pixels.as_flattened(), 2, 2, ExtendedColorType::Rgb8)
            .expect("it can be written");
        json!([{ "output_type": "display_data", "metadata": {}, "data": { "image/png": STANDARD.encode(bytes) } }])
    }

    fn stream(name: &str, text: &str) -> Value {
        json!({ "output_type": "stream", "name": name, "text": text })
    }

    #[test]
    fn how_a_stream_is_cut_makes_no_difference() {
        let stored = json!([stream("stdout", "a\nb\n"), stream("stderr", "w\n")]);
        let new = json!([stream("stdout", "a\n"), stream("stderr", "w\n"), stream("stdout", "b\n")]);
        assert_eq!(how(&stored, &new), None);
    }

    #[test]
    fn the_first_difference_is_reported() {
        let a = json!([stream("stdout", "a\nb in 1.2 s\nc\n")]);
        insta::assert_snapshot!(how(&a, &json!([stream("stdout", "a\nb in 3 s\nd\n")])).unwrap_or_default(), @"stdout: line 3: stored `c`, now `d`");
        insta::assert_snapshot!(how(&a, &json!([stream("stdout", "a\n")])).unwrap_or_default(), @"stdout: line 2: stored `b in <duration>`, now nothing");
        insta::assert_snapshot!(how(&a, &json!([])).unwrap_or_default(), @"text on stdout is stored but missing now");
        insta::assert_snapshot!(how(&json!([]), &a).unwrap_or_default(), @"there is output now but none is stored (--update stores it)");
        let error = json!([{ "output_type": "error", "ename": "E", "evalue": "v", "traceback": ["x"] }]);
        insta::assert_snapshot!(how(&a, &error).unwrap_or_default(), @"stored text on stdout, now an error (E)");
        let result = |n: i32| json!([{ "output_type": "execute_result", "execution_count": n, "metadata": {}, "data": { "text/plain": ["1"], "application/json": { "n": n } } }]);
        insta::assert_snapshot!(how(&result(1), &result(2)).unwrap_or_default(), @r#"application/json: line 2: stored `  "n": 1`, now `  "n": 2`"#);
    }

    #[test]
    fn a_token_that_is_cut_off_is_left_out_as_well() {
        let token = format!("$2b$12${}", "compare".repeat(20));
        secret::register(&token);
        let told = how(&json!([stream("stdout", "a")]), &json!([stream("stdout", &token)])).unwrap_or_default();
        assert!(told.contains("<redacted>") && !told.contains("$2b$12$compare"), "{told}");
    }

    #[test]
    fn a_picture_is_its_pixels() {
        let pixels = [[1, 2, 3], [4, 5, 6], [7, 8, 9], [0, 0, 0]];
        assert_eq!(how(&picture(&pixels, true), &picture(&pixels, false)), None);
        let mut changed = pixels;
        changed[2] = [7, 8, 10];
        insta::assert_snapshot!(how(&picture(&pixels, true), &picture(&changed, true)).unwrap_or_default(), @"image/png: 1 of 4 pixels differ, first at 0,1");
        let broken = json!([{ "output_type": "display_data", "metadata": {}, "data": { "image/png": "AAAA" } }]);
        assert!(how(&picture(&pixels, true), &broken).is_some_and(|how| how.contains("cannot read the new picture")));
    }

    #[test]
    fn a_cell_may_say_that_its_output_is_not_compared() {
        let rules = Settings::default().sanitizer(Path::new("a.ipynb")).expect("ours");
        let stored = json!({ "metadata": { "tags": ["nbval-ignore-output"] }, "outputs": [] });
        assert_eq!(difference(&stored, &json!({ "outputs": [stream("stdout", "x")] }), &rules), None);
    }
}
