//! Sends requests, decides what their answers mean, and watches the server while an event happens.

mod attribute;
pub mod claim;
pub mod client;
mod connection;
pub mod decide;
mod doubt;
pub mod leak;
pub mod look;
pub mod matrix;
pub mod message;
mod pulse;
pub mod sentinel;
pub mod server;
pub mod watch;
pub mod wear;
