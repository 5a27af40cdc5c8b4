//! Whatever a configuration, a scheme or a list of routes holds, it is read or refused with a place: no panic,
//! no hang, no memory without end.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use lockproof::config::{load, plan::Plan};
use lockproof_model::{parse::parse_as, scheme::Scheme};
use lockproof_probe::surface::routes::Route;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(file) = load::parse(text, "lockproof.yaml") {
        let _plan = Plan::new(&file, Path::new("nowhere"));
    }
    if let Ok(scheme) = Scheme::parse(text, "scheme.yaml") {
        let _public = scheme.is_public("GET", "/queue");
    }
    let _routes = parse_as::<Vec<Route>>(text, "routes.yaml");
});
