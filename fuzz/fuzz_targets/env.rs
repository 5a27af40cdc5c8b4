//! Whatever a `.env` holds, it is read, and a variable that is set in it is read back: no panic, no hang.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lockproof_compose::{
    dotenv,
    env_file::{Spelling, get, set},
};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lookup = |name: &str| (name == "SET").then(|| "value".to_owned());
    let _either = dotenv::parse(text, &lookup);
    let (file, value) = text.split_once('\0').unwrap_or((text, "$2b$12$a.b/c"));
    if let Ok(written) = set(file, "COMFYUI_API_TOKEN", value, Spelling::Quoted) {
        let back = get(&written, "COMFYUI_API_TOKEN").map(|assignment| assignment.text);
        assert_eq!(back.as_deref(), Some(value), "{written:?}");
    }
});
