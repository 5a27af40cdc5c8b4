//! The kinds of canaries.

use serde_json::Value;

use lockproof_model::{state::Owner, state_map::Mounted};

/// The kind of a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An uploaded picture.
    Input,
    /// A generated picture.
    Output,
    /// A workflow saved by a user.
    Workflow,
    /// A setting of the editor.
    Setting,
    /// A second user.
    User,
}

impl Kind {
    /// The kind with an article, for messages.
    pub fn words(self) -> &'static str {
        match self {
            Self::Input => "an input image",
            Self::Output => "an output",
            Self::Workflow => "a saved workflow",
            Self::Setting => "a setting",
            Self::User => "a user",
        }
    }
}

/// A canary.
#[derive(Clone, Debug)]
pub struct Canary {
    /// Its kind.
    pub kind: Kind,
    /// The name under which it is stored.
    pub(super) name: String,
    /// Its content.
    pub(super) content: Vec<u8>,
    /// The path of its file, if found.
    pub path: Option<String>,
    /// The owner of that path.
    pub owner: Option<Owner>,
    /// The mount that contains it.
    pub mount: Option<Mounted>,
}

impl Canary {
    pub(super) fn new(kind: Kind, name: &str, content: &[u8]) -> Self {
        Self { kind, name: name.to_owned(), content: content.to_vec(), path: None, owner: None, mount: None }
    }

    /// The canary's content as found in its file.
    pub(super) fn in_file(&self, bytes: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let bytes = bytes?;
        let json = || serde_json::from_slice::<Value>(&bytes).ok();
        match self.kind {
            Kind::Setting => Some(json()?.get(&self.name)?.as_str()?.as_bytes().to_vec()),
            Kind::User => json()?.get(&self.name).map(|_| self.content.clone()),
            Kind::Input | Kind::Output | Kind::Workflow => Some(bytes),
        }
    }

    /// The directory that a mount would have to cover. Per-user data is kept together.
    pub(super) fn directory(&self) -> Option<String> {
        let path = self.path.as_deref()?;
        let up = match self.kind {
            Kind::Input | Kind::Output | Kind::User => 1,
            // Below the user's own directory.
            Kind::Setting => 2,
            Kind::Workflow => 3,
        };
        Some(path.rsplitn(up + 1, '/').nth(up).unwrap_or("/").to_owned())
    }
}
