//! The possible values of options, with the descriptions of their schemas, so that `--help` and the schema of
//! `lockproof.yaml` agree.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use schemars::{JsonSchema, schema_for};
use serde::de::DeserializeOwned;

use lockproof_model::{event::Event, finding::Severity};

/// An event by its name.
pub(super) fn event() -> impl TypedValueParser<Value = Event> {
    named(Event::ALL.map(Event::name))
}

/// A severity by its name.
pub(super) fn severity() -> impl TypedValueParser<Value = Severity> {
    named(Severity::ALL.map(Severity::name))
}

fn named<T: JsonSchema + DeserializeOwned + Clone + Send + Sync + 'static>(
    names: impl IntoIterator<Item = &'static str>,
) -> impl TypedValueParser<Value = T> {
    let schema = schema_for!(T).to_value();
    let about = |name: &str| -> Option<String> {
        let all = schema["oneOf"].as_array()?;
        let one = all.iter().find(|one| one["const"] == name)?;
        Some(one["description"].as_str()?.trim_end_matches('.').replace('\n', " "))
    };
    let values = names.into_iter().map(|name| match about(name) {
        Some(about) => PossibleValue::new(name).help(about),
        None => PossibleValue::new(name),
    });
    PossibleValuesParser::new(values.collect::<Vec<_>>()).try_map(|name| serde_json::from_value(name.into()))
}
