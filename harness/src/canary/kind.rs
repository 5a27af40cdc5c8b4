//! What is planted: one thing of each kind.

use serde_json::Value;

use lockproof_model::{state::Owner, state_map::Mounted};

/// What is kept at the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An uploaded picture.
    Input,
    /// A picture that was made.
    Output,
    /// A workflow that a person saved.
    Workflow,
    /// A setting of the editor.
    Setting,
    /// A second user.
    User,
}

impl Kind {
    /// In words.
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

/// One planted thing.
#[derive(Clone, Debug)]
pub struct Canary {
    /// What it is.
    pub kind: Kind,
    /// What it is called.
    pub(super) name: String,
    /// What it holds.
    pub(super) content: Vec<u8>,
    /// The file in which it lies, where that was found.
    pub path: Option<String>,
    /// What owns that place.
    pub owner: Option<Owner>,
    /// The mount on which it lies.
    pub mount: Option<Mounted>,
}

impl Canary {
    pub(super) fn new(kind: Kind, name: &str, content: &[u8]) -> Self {
        Self { kind, name: name.to_owned(), content: content.to_vec(), path: None, owner: None, mount: None }
    }

    /// What a file that holds it says of it.
    pub(super) fn in_file(&self, bytes: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let bytes = bytes?;
        let json = || serde_json::from_slice::<Value>(&bytes).ok();
        match self.kind {
            Kind::Setting => Some(json()?.get(&self.name)?.as_str()?.as_bytes().to_vec()),
            Kind::User => json()?.get(&self.name).map(|_| self.content.clone()),
            Kind::Input | Kind::Output | Kind::Workflow => Some(bytes),
        }
    }

    /// The directory that a mount would have to hold: what is kept for users goes together.
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
