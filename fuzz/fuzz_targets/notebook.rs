//! Whatever a notebook holds, it is read, given parameters and its outputs, or refused: no panic, no hang.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lockproof::notebook;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _either = notebook::check_text(text);
});
