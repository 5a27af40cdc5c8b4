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
//! | a log wait matches lines of an earlier start, an HTTP wait does not notice that the container exited, `start()` after `stop()` does not wait | every start waits for the first complete HTTP answer of a running container, and fails at once with the last log lines if it exits |
//! | a mapped port is outdated after a restart | [`RunningComfyUi::base_url`] queries the engine each time |
//! | no re-creation: a request cannot be cloned | [`ComfyUi`] is a specification that builds a request for each container |
//! | named volumes outlive the test | volumes and the network are created for the test and removed after it |
//! | objects of a killed test stay | everything is labelled, and `lockproof clean` removes it |
//!
//! `TESTCONTAINERS_COMMAND=keep` keeps what is dropped, for inspection; `lockproof clean` removes
//! it later. [`RunningComfyUi::remove`] removes it in any case.

// An unused dependency fails `make check`.
#![cfg_attr(not(test), warn(unused_crate_dependencies))]

mod belongings;
mod image;
mod running;

/// The matching version of testcontainers, for the result of [`RunningComfyUi::container`].
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
