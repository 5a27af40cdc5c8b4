//! The fixtures are built into the binary; without this, cargo would not notice their changes.

use std::path::Path;

fn main() {
    // In the repository they are links, which cargo does not follow; in a published crate, they are files.
    let linked = "../../fixtures";
    let path = if Path::new(linked).is_dir() { linked } else { "fixtures" };
    println!("cargo::rerun-if-changed={path}");
}
