//! Sends requests, classifies their answers, and watches the server during events.

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
