//! The verdict of one event.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::Event;

/// A verdict. The worst comes first, so that the worst of several is their minimum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every sentinel gets what the token would get.
    Open,
    /// Not open, but a visitor can obtain access from the server itself.
    Claimable,
    /// Neither, but a protected route or a forged credential is served.
    Leaky,
    /// No way in, and the token of record is rejected.
    LockedOut,
    /// The server exits, or does not answer within `ready_timeout`.
    Down,
    /// Every sentinel and forgery is rejected, and the token of record works.
    Locked,
}

impl Verdict {
    /// All verdicts, worst first.
    pub const ALL: [Self; 6] = [Self::Open, Self::Claimable, Self::Leaky, Self::LockedOut, Self::Down, Self::Locked];

    /// The name in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Claimable => "claimable",
            Self::Leaky => "leaky",
            Self::LockedOut => "locked-out",
            Self::Down => "down",
            Self::Locked => "locked",
        }
    }

    /// Whether this verdict is acceptable after `event` although another one was expected: after the removal
    /// of all volumes, a lock may be claimable or locked out.
    pub fn is_as_it_must_be(self, event: Event, expected: Self) -> bool {
        let wiped =
            event == Event::Wipe && expected == Self::Locked && matches!(self, Self::Claimable | Self::LockedOut);
        self == expected || wiped
    }

    /// An explanation in one sentence.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Open => "anonymous requests get everything, as if there were no lock",
            Self::Claimable => "a visitor can obtain access from the server itself",
            Self::Leaky => "the lock works, but some requests bypass it",
            Self::LockedOut => "nobody gets in, not even with the owner's token",
            Self::Down => "the server does not start",
            Self::Locked => "anonymous requests are rejected and the token works",
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
