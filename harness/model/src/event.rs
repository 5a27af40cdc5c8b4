//! The events of a container.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An event. The order is that of a gate run: events that lose most come last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The state right after the installation; the first event of every subject.
    Installed,
    /// Restart the container with the engine.
    Restart,
    /// Stop and start the container.
    StopStart,
    /// Kill the container with SIGKILL, then start it.
    Kill,
    /// Kill the main process from outside; the restart policy restarts it.
    Crash,
    /// Change the credential, then restart the container.
    Rotate,
    /// Create a new container with the same named and anonymous volumes (`compose up
    /// --force-recreate`).
    Recreate,
    /// Remove the container and its anonymous volumes, and create new ones (`compose down`,
    /// `compose up`).
    DownUp,
    /// `down-up`, started without network access.
    Offline,
    /// `down-up` with another image.
    Upgrade,
    /// `compose down --volumes`, `up`: remove all volumes; keep bind mounts.
    Wipe,
}

impl Event {
    /// All events, in the order of a gate run.
    pub const ALL: [Self; 11] = [
        Self::Installed,
        Self::Restart,
        Self::StopStart,
        Self::Kill,
        Self::Crash,
        Self::Rotate,
        Self::Recreate,
        Self::DownUp,
        Self::Offline,
        Self::Upgrade,
        Self::Wipe,
    ];

    /// The default events of a gate run.
    pub const DEFAULT: [Self; 4] = [Self::Restart, Self::Kill, Self::Recreate, Self::DownUp];

    /// The name in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Restart => "restart",
            Self::StopStart => "stop-start",
            Self::Kill => "kill",
            Self::Crash => "crash",
            Self::Rotate => "rotate",
            Self::Recreate => "recreate",
            Self::DownUp => "down-up",
            Self::Offline => "offline",
            Self::Upgrade => "upgrade",
            Self::Wipe => "wipe",
        }
    }

    /// What it removes, for evidence.
    pub fn takes(self) -> &'static str {
        match self {
            Self::Installed => "nothing",
            Self::Restart | Self::StopStart | Self::Kill | Self::Crash => "the process and all tmpfs mounts",
            Self::Rotate => "the old token and the old sessions",
            Self::Recreate => "the container's writable layer",
            Self::DownUp => "the container's writable layer and anonymous volumes",
            Self::Offline => "the container's writable layer, anonymous volumes and the network",
            Self::Upgrade => "the container's writable layer, anonymous volumes and the old image",
            Self::Wipe => "the container's writable layer and all volumes",
        }
    }

    /// Whether the container is replaced by a new one.
    pub fn new_container(self) -> bool {
        matches!(self, Self::Recreate | Self::DownUp | Self::Offline | Self::Upgrade | Self::Wipe)
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_events_replace_the_container() {
        let replaced: Vec<Event> = Event::ALL.into_iter().filter(|event| event.new_container()).collect();
        assert_eq!(replaced, [Event::Recreate, Event::DownUp, Event::Offline, Event::Upgrade, Event::Wipe]);
    }
}
