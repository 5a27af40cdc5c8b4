//! Sends requests, classifies their answers, and watches the server during events.

// An unused dependency fails `make check`.
#![cfg_attr(not(test), warn(unused_crate_dependencies))]

mod attribute;
pub mod claim;
pub mod client;
mod connection;
pub mod cross_site;
pub mod decide;
mod doubt;
pub mod impact;
pub mod judge;
pub mod keys;
pub mod leak;
pub mod look;
pub mod matrix;
pub mod message;
mod oracle;
mod pulse;
pub mod seen;
pub mod sentinel;
pub mod server;
mod service;
#[cfg(test)]
mod stand_in;
pub mod step;
pub mod surface;
mod tidy;
pub mod visitor;
pub mod watch;
pub mod wear;
