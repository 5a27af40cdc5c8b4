//! Whatever a workflow or a picture holds, it is read, converted and checked, or refused: no panic, no hang.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use lockproof_replay::{
    convert::convert,
    info::ObjectInfo,
    source::{Kind, Source},
    validate::validate,
};

fuzz_target!(|data: &[u8]| {
    static INFO: OnceLock<ObjectInfo> = OnceLock::new();
    let info = INFO.get_or_init(|| {
        ObjectInfo::parse(include_str!("../../fixtures/contract/object_info.json")).unwrap_or_default()
    });
    let _info = std::str::from_utf8(data).map(ObjectInfo::parse);
    let Ok(workflow) = Source::parse(data, "fuzz.json") else { return };
    let prompt = match &workflow {
        Kind::Api(prompt) => prompt.clone(),
        Kind::Editor(workflow, _) => convert(workflow, info).prompt,
    };
    let _problems = validate(&prompt, info);
});
