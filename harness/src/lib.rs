//! lockproof proves that the lock on a ComfyUI server works: that the server rejects anonymous
//! requests and accepts valid tokens, not only after the installation, but after every restart,
//! crash, re-creation and upgrade of the container.
//!
//! The command `lockproof` is a thin layer over this library. The gate, [`gate::run`], does not
//! depend on the command line.

// An unused dependency fails `make check`.
#![cfg_attr(not(test), warn(unused_crate_dependencies))]

pub mod audit;
pub mod canary;
pub mod cli;
pub mod compose;
pub mod config;
pub mod deployment;
pub mod dotenv;
pub mod engine;
pub mod error;
pub mod event;
pub mod exit;
pub mod finding;
pub mod gate;
pub mod images;
pub mod install;
pub mod keys;
pub mod lab;
pub mod layout;
pub mod notebook;
pub mod probe;
pub mod replay;
pub mod report;
pub mod scheme;
pub mod secret;
pub mod state;
pub mod state_map;
pub mod surface;
pub mod token;
pub mod verdict;
