//! lockproof proves that the lock on a ComfyUI server works: that the server rejects anonymous
//! requests and accepts valid tokens, not only after the installation, but after every restart,
//! crash, re-creation and upgrade of the container.
//!
//! The command `lockproof` is a thin layer over this library. The gate, [`gate::run`], does not
//! depend on the command line.

// An unused dependency fails `make check`.
#![cfg_attr(not(test), warn(unused_crate_dependencies))]

pub mod canary;
pub mod cli;
pub mod config;
pub mod gate;
pub mod notebook;
pub mod piece;
pub mod report;
pub mod state_map;
pub mod token;
