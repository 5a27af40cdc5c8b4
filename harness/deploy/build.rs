//! The fixtures are built into the binary; without this, cargo would not notice their changes.

fn main() {
    println!("cargo::rerun-if-changed=../../fixtures");
}
