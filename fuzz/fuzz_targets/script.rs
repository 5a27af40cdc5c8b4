//! Whatever a start script holds, it is walked to an end: no panic, no hang, no memory without end. The text
//! before the first zero byte is the command, the rest is the script that it may call.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lockproof_audit::images::script::{Environment, read};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (command, other) = text.split_once('\0').unwrap_or((text, ""));
    let variable = |name: &str| (name == "SET").then(|| "/value".to_owned());
    let file = |path: &str| path.ends_with(".sh").then(|| ("entry.sh".to_owned(), other.to_owned()));
    let _script = read(command, Some("/srv"), &Environment { variable: &variable, complete: true, file: &file });
});
