//! The surface of a ComfyUI server: its routes, and the corpus of bypasses.

pub mod corpus;
pub mod discover;
pub mod routes;
