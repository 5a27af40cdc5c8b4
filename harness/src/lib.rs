//! lockproof proves that the lock on a ComfyUI server holds: that it rejects anonymous requests and
//! accepts valid tokens not only on the day it is installed, but after every restart, crash,
//! re-creation and upgrade of the container.
//!
//! The command `lockproof` is a thin layer over this library; the engine of the run,
//! [`gate::run`], knows nothing of the command line.

// A dependency that nothing uses fails `make check`.
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
