//! Restart policies.

use crate::error::{Error, Result};

/// A restart policy of the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Nothing.
    #[default]
    No,
    /// Always.
    Always,
    /// Always, unless it was stopped by hand.
    UnlessStopped,
    /// After a failure, at most this many times; `None`: without limit.
    OnFailure(Option<u32>),
}

impl std::str::FromStr for RestartPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "no" | "false" | "" => Self::No,
            "always" => Self::Always,
            "unless-stopped" => Self::UnlessStopped,
            "on-failure" => Self::OnFailure(None),
            other => match other.strip_prefix("on-failure:").and_then(|n| n.parse().ok()) {
                Some(times) => Self::OnFailure(Some(times)),
                None => {
                    return Err(Error::usage(format!("`restart: {other}` is not a restart policy"))
                        .fix("write no, always, unless-stopped, on-failure or on-failure:N"));
                }
            },
        })
    }
}
