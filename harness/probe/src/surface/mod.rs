//! The surface of a ComfyUI server: its routes and what each needs, and the corpus of ways around a
//! lock.

pub mod corpus;
pub mod discover;
pub mod routes;
