//! The outputs of a run: pictures, files and texts, node by node.

use serde_json::Value;

use super::{
    failure::{Failure, execution_error},
    pixels,
    prompt::Prompt,
    server::Server,
};
use lockproof_model::secret::percent_encode;
use lockproof_probe::message::{Request, in_words};

/// One output, new or stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The node id, the kind and the index of the output: `9-images-0.png`. The server's file name
    /// differs in every run.
    pub name: String,
    /// Its content.
    pub content: Content,
}

/// The content of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A picture file.
    Picture(Vec<u8>),
    /// Any other file.
    File(Vec<u8>),
    /// Text or numbers.
    Text(String),
}

/// Fetches the outputs of a history entry.
///
/// # Errors
/// Why there are no outputs: the run failed, or they cannot be fetched.
pub async fn fetch(server: &Server, prompt: &Prompt, entry: &Value) -> Result<Vec<Item>, Failure> {
    check_status(entry, prompt)?;
    let mut items = Vec::new();
    for (node, given) in entry["outputs"].as_object().into_iter().flatten() {
        // `animated` repeats whether the pictures are animated.
        for (key, list) in given.as_object().into_iter().flatten().filter(|(key, _)| *key != "animated") {
            let list = list.as_array().map_or_else(|| vec![list.clone()], Clone::clone);
            for (index, one) in list.iter().enumerate() {
                let place = format!("{}-{key}-{index}", node.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
                items.push(item(server, &place, one).await?);
            }
        }
    }
    if items.is_empty() {
        return Err(nothing(prompt));
    }
    items.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(items)
}

fn nothing(prompt: &Prompt) -> Failure {
    let mut failure = Failure::new("the server reports success but returned no picture or text");
    let nodes = prompt.nodes.iter().filter(|node| node.class == "SaveImageWebsocket");
    failure.details.extend(nodes.map(|node| {
        format!("{} sends its picture only over the WebSocket: use SaveImage or PreviewImage", node.words())
    }));
    failure
}

fn check_status(entry: &Value, prompt: &Prompt) -> Result<(), Failure> {
    let messages = entry.pointer("/status/messages").and_then(Value::as_array).into_iter().flatten();
    for message in messages {
        match message.get(0).and_then(Value::as_str) {
            Some("execution_error") => return Err(execution_error(&message[1], prompt)),
            Some("execution_interrupted") => return Err(Failure::new("the run was interrupted by someone else")),
            _ => {}
        }
    }
    match entry.pointer("/status/status_str").and_then(Value::as_str) {
        Some("error") => Err(Failure::new("the server reports a failure without a reason")),
        _ => Ok(()),
    }
}

async fn item(server: &Server, place: &str, one: &Value) -> Result<Item, Failure> {
    let Some(file) = one.get("filename").and_then(Value::as_str) else {
        let text = one.as_str().map_or_else(|| format!("{one:#}"), str::to_owned);
        return Ok(Item { name: format!("{place}.txt"), content: Content::Text(text) });
    };
    let field = |key: &str| percent_encode(one.get(key).and_then(Value::as_str).unwrap_or_default());
    let target =
        format!("/view?filename={}&subfolder={}&type={}", percent_encode(file), field("subfolder"), field("type"));
    let answer = server.ask(Request::get(target)).await?;
    if !answer.status.is_success() {
        let said = in_words(&Ok(answer));
        return Err(Failure::new(format!(
            "the server reports that it saved {file}, but the request for it returned {said}"
        )));
    }
    let bytes = answer.body.to_vec();
    Ok(match pixels::suffix(&bytes) {
        Some(suffix) => Item { name: format!("{place}.{suffix}"), content: Content::Picture(bytes) },
        None => {
            let suffix = file.rsplit_once('.').map_or("bin", |(_, suffix)| suffix);
            let suffix: String = suffix.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
            Item { name: format!("{place}.{suffix}"), content: Content::File(bytes) }
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_picture_that_goes_over_the_web_socket_only_is_named() {
        let nodes = json!({ "3": { "class_type": "SaveImageWebsocket" } });
        let prompt = Prompt::of(nodes.as_object().expect("an object")).expect("a prompt");
        let details = nothing(&prompt).details;
        assert!(details.len() == 1 && details[0].contains("node 3 (SaveImageWebsocket)"), "{details:?}");
        assert_eq!(nothing(&Prompt::default()).details, Vec::<String>::new());
    }
}
