//! Sends requests, classifies their answers, and watches the server during events.

// An unused dependency fails `make check`.
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
mod oracle;
mod pulse;
pub mod sentinel;
pub mod server;
mod service;
#[cfg(test)]
mod stand_in;
pub mod surface;
pub mod visitor;
pub mod watch;
pub mod wear;
