//! ComfyUI as a [testcontainers] image, for Rust tests of your own.
//!
//! ```toml
//! [dev-dependencies]
//! lockproof-testcontainers = { git = "…" }    # or path = "…/harness/testing"
//! tokio = { version = "1", features = ["full"] }
//! ```
//!
#![doc = concat!("```no_run\n", include_str!("../examples/testcontainers.rs"), "```")]
//!
//! # What it adds to testcontainers
//!
//! | testcontainers | here |
//! |---|---|
//! | publishes on every interface | on 127.0.0.1 only |
//! | a log wait sees the lines of the last life, an HTTP wait does not notice that the container died, `start()` after `stop()` does not wait | every start waits for the first complete HTTP answer of a container that still runs, and fails at once with its last log lines when it does not |
//! | a port that was asked for once is stale after a restart | [`RunningComfyUi::base_url`] asks the engine each time |
//! | no re-creation: a request cannot be cloned | [`ComfyUi`] is a specification that builds a request for each container |
//! | named volumes outlive the test | volumes and the network are made for the test and removed after it |
//! | what a killed test left stays | everything is labelled, and `lockproof clean` removes it |
//!
//! `TESTCONTAINERS_COMMAND=keep` keeps what is dropped, to look at it; `lockproof clean` removes it
//! later. [`RunningComfyUi::remove`] removes it all the same.

// A dependency that nothing uses fails `make check`.
#![cfg_attr(not(test), warn(unused_crate_dependencies))]

mod belongings;
mod image;
mod running;

/// The testcontainers of this version, for what [`RunningComfyUi::container`] is asked.
pub use ::testcontainers;
pub use lockproof_deploy::{
    engine::exec::Output,
    layout::Layout,
    subject::{Install, PluginSource},
};
pub use lockproof_model::{
    error::{Error, Result},
    verdict::Verdict,
};
pub use lockproof_probe::{
    keys::Keys,
    message::{Answer, Request},
};

pub use image::ComfyUi;
pub use running::RunningComfyUi;
