//! What happens to the container.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An event, in the order in which a gate performs them: those that lose most come last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The state right after the installation took effect; the first of every subject.
    Installed,
    /// The engine restarts the container.
    Restart,
    /// The container is stopped and started.
    StopStart,
    /// The engine kills the container with SIGKILL; it is started again.
    Kill,
    /// The main process is killed from outside and the restart policy brings it back.
    Crash,
    /// The credential is changed, then the container is restarted.
    Rotate,
    /// A new container with the same named and anonymous volumes (`compose up --force-recreate`).
    Recreate,
    /// The container and its anonymous volumes go; a new one comes (`compose down`, `compose up`).
    DownUp,
    /// `down-up`, started with no route out.
    Offline,
    /// `down-up` onto another image.
    Upgrade,
    /// `compose down --volumes`, `up`: all volumes go, binds stay.
    Wipe,
}

impl Event {
    /// Every event, in the order in which they are performed.
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

    /// What a gate performs when nothing else was asked for.
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

    /// What it takes away, in words for a remedy.
    pub fn takes(self) -> &'static str {
        match self {
            Self::Installed => "nothing",
            Self::Restart | Self::StopStart | Self::Kill | Self::Crash => "the process and what is on tmpfs",
            Self::Rotate => "the old token and the old sessions",
            Self::Recreate => "the container's own layer",
            Self::DownUp => "the container's own layer and anonymous volumes",
            Self::Offline => "the container's own layer, anonymous volumes and the network",
            Self::Upgrade => "the container's own layer, anonymous volumes and the old image",
            Self::Wipe => "the container's own layer and all volumes",
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
