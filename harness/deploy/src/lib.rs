//! Deploys ComfyUI servers on a container engine: images, containers and compose projects, their events,
//! the lock's installation, and the lab. Independent of the command line, the gate and the audit.

// An unused dependency fails `make check`.
#![cfg_attr(not(test), warn(unused_crate_dependencies))]

pub mod deployment;
pub mod engine;
pub mod given;
pub mod install;
pub mod inventory;
pub mod lab;
pub mod layout;
pub mod mint;
pub mod pip;
pub mod subject;
