//! The bodies of the recorded requests, which the recordings only name.

use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

/// A body of one of the kinds that the recordings have.
pub(super) enum Body {
    None,
    Text(String),
    Form(Form),
}

/// The body that belongs to a label; a label that is only method and path has none.
pub(super) fn of(label: &str) -> Body {
    let label = label.replace("/api/", "/");
    if let Some(case) = label.strip_prefix("POST /prompt ") {
        return Body::Text(prompt(case));
    }
    if let Some(case) = label.strip_prefix("POST /upload/image") {
        return Body::Form(upload(case.trim_start()));
    }
    let json = match label.as_str() {
        "POST /queue clear" | "POST /history clear" => json!({ "clear": true }),
        "POST /history delete" => json!({ "delete": ["nope"] }),
        "POST /free" => json!({ "unload_models": true, "free_memory": true }),
        "POST /settings" => json!({ "contract": 1 }),
        "POST /settings/id" => json!(2),
        "POST /users" => json!({ "username": "bob" }),
        "POST /userdata" => json!({}),
        "POST /userdata js" => json!(1),
        _ => return Body::None,
    };
    Body::Text(json.to_string())
}

/// A workflow that any server runs: a black image, inverted, saved.
pub(super) fn graph(color: u32) -> Value {
    json!({
        "1": { "class_type": "EmptyImage",
               "inputs": { "width": 8, "height": 8, "batch_size": 1, "color": color } },
        "2": { "class_type": "ImageInvert", "inputs": { "image": ["1", 0] } },
        "3": { "class_type": "SaveImage",
               "inputs": { "images": ["2", 0], "filename_prefix": "contract" } },
    })
}

fn prompt(case: &str) -> String {
    let mut graph = graph(0);
    match case {
        "not json" => return "not json".to_owned(),
        "no prompt key" => return "{}".to_owned(),
        "empty graph" => graph = json!({}),
        "unknown node" => graph = json!({ "1": { "class_type": "Nope", "inputs": {} } }),
        "no output node" => graph = json!({ "1": graph["1"] }),
        "no class_type" => graph["2"] = json!({ "inputs": {} }),
        "missing input" => graph["3"]["inputs"] = json!({ "filename_prefix": "contract" }),
        "value too small" => graph["1"]["inputs"]["width"] = json!(0),
        "bad int" => graph["1"]["inputs"]["width"] = json!("abc"),
        "dangling link" => graph["3"]["inputs"]["images"] = json!(["9", 0]),
        "missing file" => {
            graph["4"] = json!({ "class_type": "LoadImage", "inputs": { "image": "missing.png" } });
            graph["3"]["inputs"]["images"] = json!(["4", 0]);
        }
        _ => {}
    }
    json!({ "prompt": graph }).to_string()
}

fn upload(case: &str) -> Form {
    match case {
        "no file" => Form::new().text("type", "input"),
        "overwrite" => file("contract.png", PNG).text("overwrite", "true"),
        "traversal" => file("contract.png", PNG).text("subfolder", "../../contract"),
        _ => file("contract.png", PNG),
    }
}

/// An upload.
pub(super) fn file(name: &str, bytes: &'static [u8]) -> Form {
    Form::new().part("image", Part::bytes(bytes).file_name(name.to_owned()))
}

/// One white pixel.
const PNG: &[u8] = &[
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x48, 0x44, 0x52, 0x00, 0x00, 0x00,
    0x01, 0x00, 0x00, 0x00, 0x01, 0x08, 0x00, 0x00, 0x00, 0x00, 0x3a, 0x7e, 0x9b, 0x55, 0x00, 0x00, 0x00, 0x0a, 0x49,
    0x44, 0x41, 0x54, 0x78, 0x9c, 0x63, 0xf8, 0x0f, 0x00, 0x01, 0x01, 0x01, 0x00, 0xb1, 0x38, 0xf6, 0x14, 0x00, 0x00,
    0x00, 0x00, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82,
];
