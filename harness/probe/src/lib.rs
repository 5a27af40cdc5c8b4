//! Sends requests, decides what their answers mean, and watches the server while an event happens.

// A dependency that nothing uses fails `make check`.
#![cfg_attr(not(test), warn(unused_crate_dependencies))]

mod attribute;
pub mod claim;
pub mod client;
mod connection;
pub mod decide;
mod doubt;
pub mod judge;
pub mod keys;
pub mod leak;
pub mod look;
pub mod matrix;
pub mod message;
mod pulse;
pub mod sentinel;
pub mod server;
pub mod surface;
mod tidy;
pub mod watch;
pub mod wear;
