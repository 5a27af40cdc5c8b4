//! The lock under everything that happens to a container: what `cargo nextest run` runs.
//!
//! Tests that start containers share one engine and its disk, so nextest runs two of them at a
//! time (`.config/nextest.toml`). What they run on is a [suite](suite); what they say is put
//! together by [`gate::Gate`] (in this process) and [`command::Lockproof`] (the command line).

// A dependency that nothing uses fails `make check`.
#![warn(unused_crate_dependencies)]

// Its own empty library, which cargo wants.
use e2e as _;

mod command;
mod contract;
mod derived;
mod gate;
mod left;
mod suite;

mod bad_input;
mod canary;
mod compose;
mod detection;
mod inventory;
mod mutants;
mod notebook;
mod original_bug;
mod persistence;
mod probe;
mod proxy;
mod replay;
mod safety;
mod scripts;
mod started_flaws;
mod states;
mod token;
