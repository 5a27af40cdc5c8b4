//! A ComfyUI server brought up on a container engine: images, containers and compose projects, the
//! events that happen to them, the lock's installation, and the lab. It knows nothing of the command
//! line, of a gate, or of the audit of compose files.

// An unused dependency fails `make check`.
#![cfg_attr(not(test), warn(unused_crate_dependencies))]

pub mod deployment;
pub mod engine;
pub mod install;
pub mod inventory;
pub mod lab;
pub mod layout;
pub mod mint;
pub mod pip;
pub mod subject;
