//! The things that a lock needs in order to last, who owns the paths on which they lie, and which
//! events such a path survives.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::Event;

/// One of the things that a lock needs in order to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The plugin's own code.
    Plugin,
    /// What the plugin imports, installed into the subject's Python.
    Deps,
    /// What the token is compared with.
    Credential,
    /// The key that signs browser sessions.
    SessionKey,
    /// Inputs, outputs, user files, settings.
    Data,
}

impl State {
    /// The name in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plugin => "plugin",
            Self::Deps => "deps",
            Self::Credential => "credential",
            Self::SessionKey => "session-key",
            Self::Data => "data",
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// On what a path lies. Ordered by how little it survives: the first of several decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// In memory: gone with the process's container, at every stop.
    Tmpfs,
    /// The container's own writable layer.
    ContainerLayer,
    /// A volume that nobody named: it goes with `down`.
    AnonymousVolume,
    /// A named volume.
    Volume,
    /// The image itself, unchanged since.
    Image,
    /// A directory or file of the host.
    Bind,
}

impl Owner {
    /// The name in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tmpfs => "tmpfs",
            Self::ContainerLayer => "container-layer",
            Self::AnonymousVolume => "anonymous-volume",
            Self::Volume => "volume",
            Self::Image => "image",
            Self::Bind => "bind",
        }
    }

    /// The owner in words, for messages.
    pub fn words(self) -> &'static str {
        match self {
            Self::Tmpfs => "a tmpfs",
            Self::ContainerLayer => "the container's own layer",
            Self::AnonymousVolume => "an anonymous volume",
            Self::Volume => "a named volume",
            Self::Image => "the image",
            Self::Bind => "a bind mount",
        }
    }

    /// What stands before [`words`](Self::words) of a place: in a layer, on a mount.
    pub fn preposition(self) -> &'static str {
        match self {
            Self::ContainerLayer | Self::Image => "in",
            Self::Tmpfs | Self::AnonymousVolume | Self::Volume | Self::Bind => "on",
        }
    }

    /// Whether what lies there survives `event`; `None` where only the other image can tell.
    ///
    /// | owner | stops | recreate | down-up, offline | upgrade | wipe |
    /// |---|---|---|---|---|---|
    /// | tmpfs | no | no | no | no | no |
    /// | container-layer | yes | no | no | no | no |
    /// | anonymous-volume | yes | yes | no | no | no |
    /// | volume | yes | yes | yes | yes | no |
    /// | image | yes | yes | yes | ? | yes |
    /// | bind | yes | yes | yes | yes | yes |
    pub fn survives(self, event: Event) -> Option<bool> {
        use Event::{DownUp, Installed, Offline, Recreate, Upgrade, Wipe};
        match self {
            Self::Bind => Some(true),
            Self::Image => (event != Upgrade).then_some(true),
            Self::Volume => Some(event != Wipe),
            Self::AnonymousVolume => Some(!matches!(event, DownUp | Offline | Upgrade | Wipe)),
            Self::ContainerLayer => Some(!matches!(event, Recreate | DownUp | Offline | Upgrade | Wipe)),
            Self::Tmpfs => Some(event == Installed),
        }
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table above, to the letter.
    #[test]
    fn what_an_owner_survives_is_the_table() {
        let mut rows = Vec::new();
        for owner in
            [Owner::Tmpfs, Owner::ContainerLayer, Owner::AnonymousVolume, Owner::Volume, Owner::Image, Owner::Bind]
        {
            let row: String = Event::ALL
                .iter()
                .map(|&e| match owner.survives(e) {
                    Some(true) => 'y',
                    Some(false) => 'n',
                    None => '?',
                })
                .collect();
            rows.push(format!("{:<17}{row}", owner.name()));
        }
        // installed restart stop-start kill crash rotate recreate down-up offline upgrade wipe
        assert_eq!(
            rows,
            [
                "tmpfs            ynnnnnnnnnn",
                "container-layer  yyyyyynnnnn",
                "anonymous-volume yyyyyyynnnn",
                "volume           yyyyyyyyyyn",
                "image            yyyyyyyyy?y",
                "bind             yyyyyyyyyyy",
            ]
        );
    }
}
