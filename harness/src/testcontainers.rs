//! ComfyUI as a [testcontainers](::testcontainers) image, for Rust tests of your own.
