//! Checks whether a server has what a notebook needs.

use std::time::Duration;

use serde_json::Value;

use super::{Request, settings::Needs};
use lockproof_model::{
    error::{Error, Result},
    secret,
};
use lockproof_probe::{
    client::Client,
    look::patiently,
    message::{Request as Question, in_words},
    server::{Server, Trust},
};

/// Why the notebook is skipped: what the server lacks.
pub(super) async fn lacks(request: &Request, needs: &Needs) -> Result<Option<String>> {
    if !needs.any() {
        return Ok(None);
    }
    let trust = Trust { ca: request.ca.as_deref(), insecure: request.insecure };
    let client = Client::of(Server::named(&request.url, &trust)?, Duration::from_secs(30));
    let ask = async |path: String| -> Result<Option<Value>> {
        let question = Question::get(path.clone());
        let question = match &request.token {
            Some(token) => question.header("Authorization", format!("Bearer {token}")),
            None => question,
        };
        let outcome = patiently(&client, &question).await;
        match &outcome {
            Ok(answer) if answer.status == http::StatusCode::NOT_FOUND => Ok(None),
            Ok(answer) if answer.status.is_success() => Ok(serde_json::from_slice(&answer.body).ok()),
            _ => Err(Error::undecided("cannot read which nodes and models the server has")
                .at(format!("{}{path}", request.url))
                .detail(in_words(&outcome))
                .fix("check that the server is running and accepts the token: lockproof token check --url …")),
        }
    };
    for node in &needs.custom_nodes {
        let path = format!("/object_info/{}", secret::percent_encode(node));
        if ask(path).await?.is_none_or(|info| info.get(node).is_none()) {
            return Ok(Some(format!("the server has no node {node}")));
        }
    }
    for model in &needs.models {
        let (folder, name) = model.split_once('/').unwrap_or(("checkpoints", model));
        let there = ask(format!("/models/{}", secret::percent_encode(folder))).await?;
        if !there.and_then(|v| v.as_array().cloned()).is_some_and(|all| all.iter().any(|m| m == name)) {
            return Ok(Some(format!("the server has no model {model}")));
        }
    }
    if needs.gpu {
        let stats = ask("/system_stats".to_owned()).await?.unwrap_or_default();
        let devices = stats["devices"].as_array().cloned().unwrap_or_default();
        if devices.iter().all(|device| device["type"] == "cpu") {
            return Ok(Some("the server has no GPU".to_owned()));
        }
    }
    Ok(None)
}
