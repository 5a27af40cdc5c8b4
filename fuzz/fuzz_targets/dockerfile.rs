//! Whatever a Dockerfile holds, it is read: no panic, no hang, no memory without end. The text before the first
//! zero byte is the file, the rest the stage that is built.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lockproof_audit::images::dockerfile::Dockerfile;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (file, target) = text.split_once('\0').map_or((text, None), |(file, target)| (file, Some(target)));
    let arguments = [("SET".to_owned(), Some("value".to_owned())), ("UNSET".to_owned(), None)];
    let _read = Dockerfile::read(file, &arguments, target);
});
