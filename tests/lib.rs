//! Empty on purpose: cargo wants a library beside a package's tests. They begin in `main.rs`.
