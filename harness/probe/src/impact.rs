//! The impact of a bypass: what an intruder could do with the server's nodes and routes.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{client::Client, message::Request};

/// Words in the names of nodes that execute code.
const EXECUTES: [&str; 10] =
    ["python", "shell", "bash", "powershell", "subprocess", "terminal", "exec", "eval", "javascript", "command"];
/// The maximum number of named nodes.
const NAMED: usize = 3;
/// Read-only routes that return the version of ComfyUI-Manager.
const MANAGERS: [&str; 2] = ["/v2/manager/version", "/manager/version"];

/// The impact in one line, worst first. `admitted` gives a request the intruder's access.
pub async fn impact(client: &Client, admitted: impl Fn(Request) -> Request) -> String {
    let mut could = Vec::new();
    let nodes = match client.send(&admitted(Request::get("/object_info"))).await {
        Ok(answer) if answer.status.is_success() => executing(&answer.body),
        _ => BTreeSet::new(),
    };
    if !nodes.is_empty() {
        let named: Vec<&str> = nodes.iter().take(NAMED).map(String::as_str).collect();
        let more = nodes.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        could.push(format!("run code with the nodes {}{more}", named.join(", ")));
    }
    for path in MANAGERS {
        let answer = client.send(&admitted(Request::get(path))).await;
        if answer.is_ok_and(|answer| answer.status.is_success() && answer.media_type() != "text/html") {
            let root = path.trim_end_matches("/version");
            could.push(format!("install packages and custom nodes through ComfyUI-Manager ({root})"));
            break;
        }
    }
    could.push("queue workflows, read every image and workflow, and write files (/upload/image, /userdata)".to_owned());
    format!("an intruder could {}", could.join("; "))
}

/// The nodes of `/object_info` whose names suggest that they execute code.
fn executing(object_info: &[u8]) -> BTreeSet<String> {
    let Ok(Value::Object(nodes)) = serde_json::from_slice(object_info) else { return BTreeSet::new() };
    let executes = |name: &String| words(name).iter().any(|word| EXECUTES.iter().any(|known| word.starts_with(known)));
    nodes.into_iter().map(|(name, _)| name).filter(executes).collect()
}

/// The words of `a_nodeName`, in lower case.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = vec![String::new()];
    let mut was_small = false;
    for c in name.chars() {
        if !c.is_ascii_alphanumeric() || was_small && c.is_ascii_uppercase() {
            words.push(String::new());
        }
        if c.is_ascii_alphanumeric()
            && let Some(last) = words.last_mut()
        {
            last.push(c.to_ascii_lowercase());
        }
        was_small = c.is_ascii_lowercase();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stand_in::{Reply, StandIn};

    #[tokio::test]
    async fn nodes_that_execute_and_a_manager_come_first() {
        let server = StandIn::start(|request| match request.path() {
            "/object_info" => {
                Reply::json(200, r#"{"KSampler":{},"ExecutePython":{},"run_shell":{},"EvalFloats":{},"Bash":{}}"#)
            }
            "/v2/manager/version" => Reply::new(200, "text/plain", "V3.37"),
            _ => Reply::html(404, ""),
        })
        .await;
        insta::assert_snapshot!(
            impact(&server.client, |request| request).await,
            @"an intruder could run code with the nodes Bash, EvalFloats, ExecutePython and 1 more; install packages and custom nodes through ComfyUI-Manager (/v2/manager); queue workflows, read every image and workflow, and write files (/upload/image, /userdata)"
        );
    }

    #[test]
    fn a_name_that_only_holds_such_letters_executes_nothing() {
        let none = executing(br#"{"CLIPTextEncode":{},"Retrieval":{},"PreviewAny":{}}"#);
        assert_eq!(none, BTreeSet::new());
    }
}
