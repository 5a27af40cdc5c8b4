//! The images of a stack: local, pulled, or built by Compose.

use std::collections::BTreeMap;

use serde_json::json;

use super::{command::Compose, rewrite::services};
use crate::{
    engine::{Engine, Run},
    lab::{self, Found},
    subject::{ComposeSubject, Subject},
};
use lockproof_compose::{Service, document::to_json};
use lockproof_model::error::{Error, Result};

/// The image of every started service, by service.
///
/// A service with `build:` uses its existing image. If there is none, Compose builds it under a
/// name of the run, and it is removed with the run.
pub async fn images(engine: &Engine, run: &Run, subject: &Subject) -> Result<BTreeMap<String, Found>> {
    let Some(of) = &subject.compose else { return Ok(BTreeMap::new()) };
    let mut found = BTreeMap::new();
    for service in services(&of.project, &of.service) {
        let image = match (&service.build, &service.image) {
            (Some(_), _) => built(engine, run, of, service).await?,
            (None, Some(image)) => {
                lab::require(engine, &image.text).await.map_err(|e| e.or_at(of.project.sources.place(image.at)))?
            }
            (None, None) => {
                return Err(Error::usage(format!("the service `{}` has neither `image` nor `build`", service.name))
                    .at(of.project.sources.place(service.at))
                    .fix("add its image"));
            }
        };
        found.insert(service.name.clone(), image);
    }
    Ok(found)
}

async fn built(engine: &Engine, run: &Run, of: &ComposeSubject, service: &Service) -> Result<Found> {
    let own = run.name(&format!("built-{}", service.name.to_lowercase()));
    let project = &of.project.name;
    // By `image:`, else by the names that v2 and v1 give.
    let names = match &service.image {
        Some(image) => vec![image.text.clone()],
        None => vec![format!("{project}-{}", service.name), format!("{project}_{}", service.name)],
    };
    for name in names.iter().chain([&own]) {
        if let Some(facts) = engine.image(name).await? {
            return Ok(Found { name: name.clone(), facts });
        }
    }
    let labels = run.labels(&of.service);
    let mut build = match service.node.get("build").map(to_json) {
        Some(serde_json::Value::Object(build)) => build,
        Some(context) => serde_json::Map::from_iter([("context".to_owned(), context)]),
        None => serde_json::Map::new(),
    };
    build.insert("labels".to_owned(), json!(labels));
    build.remove("tags");
    let file = json!({ "services": { &service.name: { "build": build, "image": own } } });
    let compose = Compose::find(engine).await?;
    compose
        .run(&run.name("build"), file.to_string().as_bytes(), &["build", &service.name])
        .await
        .map_err(|e| e.or_at(of.project.sources.place(service.at)))?;
    let facts = engine.require_image(&own).await?;
    Ok(Found { name: own, facts })
}
