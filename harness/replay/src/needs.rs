//! Checks whether a server has what a workflow needs. If not, the replay is skipped, never passed.

use serde_json::Value;

use super::{
    info::{Kind, ObjectInfo},
    metadata::Needs,
    server::{Server, Trouble},
};

/// What the server lacks, for messages; empty if it has everything.
///
/// # Errors
/// If the server cannot be queried.
pub async fn lacks(server: &Server, needs: &Needs) -> Result<Vec<String>, Trouble> {
    let mut lacking = Vec::new();
    if needs.gpu && !has_gpu(&server.stats().await?) {
        lacking.push("a GPU".to_owned());
    }
    let info = server.info().await?;
    let packs = info.packs();
    for wanted in &needs.custom_nodes {
        if info.class(wanted).is_none() && !packs.iter().any(|pack| pack.eq_ignore_ascii_case(wanted)) {
            lacking.push(format!("the custom nodes {wanted}"));
        }
    }
    let mut models = Vec::new();
    for wanted in &needs.models {
        let (folder, file) = wanted.split_once('/').unwrap_or(("", wanted));
        let there = match server.models(folder).await? {
            Some(files) => files.iter().any(|there| there == file),
            None => is_a_choice(info, file),
        };
        if !there {
            models.push(wanted.as_str());
        }
    }
    match models.as_slice() {
        [] => {}
        [one] => lacking.push(format!("the model {one}")),
        several => lacking.push(format!("the models {}", several.join(", "))),
    }
    Ok(lacking)
}

/// Whether `/system_stats` lists a device other than the CPU.
fn has_gpu(stats: &Value) -> bool {
    let devices = stats["devices"].as_array().into_iter().flatten();
    devices.filter_map(|device| device["type"].as_str()).any(|kind| kind != "cpu")
}

/// Whether any input of any node offers the file; for servers that do not list their models.
fn is_a_choice(info: &ObjectInfo, file: &str) -> bool {
    let file = Value::from(file);
    info.names()
        .filter_map(|name| info.class(name))
        .flat_map(|class| &class.inputs)
        .any(|input| matches!(&input.kind, Kind::Choice(Some(choices)) if choices.contains(&file)))
}
