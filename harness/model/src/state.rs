//! The states of a lock, the owners of their paths, and which events an owner survives.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::Event;

/// A state that the lock needs in order to persist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The plugin's code.
    Plugin,
    /// The Python packages that the plugin imports.
    Deps,
    /// The credential that the token is compared with.
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

/// The owner of a path: a mount, the image or the writable layer. In order of persistence: of
/// several owners, the first one decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// A tmpfs: lost at every stop.
    Tmpfs,
    /// The container's writable layer.
    ContainerLayer,
    /// An anonymous volume: lost at `down`.
    AnonymousVolume,
    /// A named volume.
    Volume,
    /// The image itself, unchanged.
    Image,
    /// A directory or file of the host (bind mount).
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

    /// The owner with an article, for messages.
    pub fn words(self) -> &'static str {
        match self {
            Self::Tmpfs => "a tmpfs",
            Self::ContainerLayer => "the container's writable layer",
            Self::AnonymousVolume => "an anonymous volume",
            Self::Volume => "a named volume",
            Self::Image => "the image",
            Self::Bind => "a bind mount",
        }
    }

    /// The preposition before [`words`](Self::words): in a layer, on a mount.
    pub fn preposition(self) -> &'static str {
        match self {
            Self::ContainerLayer | Self::Image => "in",
            Self::Tmpfs | Self::AnonymousVolume | Self::Volume | Self::Bind => "on",
        }
    }

    /// Whether the content survives `event`; `None` if it depends on the new image.
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
