//! lockproof's data model: events, verdicts, states and their locations, findings, schemes, errors and exit
//! codes, secrets, the structure of `lockproof.yaml`, and the report. Nothing here talks to a server or an
//! engine.

// An unused dependency fails `make check`.
#![cfg_attr(not(test), warn(unused_crate_dependencies))]

pub mod config;
pub mod duration;
pub mod error;
pub mod event;
pub mod exit;
pub mod finding;
pub mod names;
pub mod parse;
pub mod path;
pub mod read;
pub mod remedy;
pub mod report;
pub mod restart;
pub mod scheme;
pub mod secret;
pub mod state;
pub mod state_map;
pub mod summary;
pub mod verdict;
