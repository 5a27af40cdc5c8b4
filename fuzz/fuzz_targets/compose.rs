//! Whatever a compose file and its `.env` hold, they are read or refused: no panic, no hang, no
//! memory without end. The text before the first zero byte is the file, the rest is its `.env`.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use lockproof_audit as audit;
use lockproof_compose::{Environment, Project, dotenv, interpolate};
use lockproof_model::scheme::Scheme;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (file, env) = text.split_once('\0').unwrap_or((text, ""));
    let lookup = |name: &str| (name == "SET").then(|| "value".to_owned());
    let _either = interpolate::substitute(file, &lookup, &mut Vec::new());
    let variables = dotenv::parse(env, &lookup).unwrap_or_default();
    let variables = variables.into_iter().filter_map(|v| Some((v.name, v.value?)));
    let Ok(project) = Project::parse(file, Environment::of(variables)) else { return };
    let _data = project.to_json();
    let Ok(scheme) = Scheme::find(Scheme::DEFAULT, std::path::Path::new("")) else { return };
    let options = audit::Options { services: Vec::new(), scheme, images: BTreeMap::new() };
    if let Ok(audit) = audit::audit(&project, &options, "") {
        let _patched = audit::fix::fixes(&project, &audit);
    }
});
