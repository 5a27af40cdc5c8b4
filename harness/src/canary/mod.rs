//! Canaries: things planted through the server's own API before the events, one of each kind that
//! people keep there, and looked for after each event.
//!
//! | kind | planted by | looked for by |
//! |---|---|---|
//! | input | `POST /upload/image` | `GET /view` |
//! | output | `POST /upload/image` with `type=output` | `GET /view` |
//! | workflow | `POST /userdata/…` | `GET /userdata/…` |
//! | setting | `POST /settings/…` | `GET /settings` |
//! | user, where there are several | `POST /users` | `GET /users` |
//!
//! Where the API cannot be asked, because the lock lets nobody in, the files are looked at. The
//! history of runs lives in memory only, and is no canary.

mod api;
mod place;
pub mod state;

use std::collections::BTreeMap;

use serde_json::Value;

pub use api::Access;
use api::Api;
use lockproof_deploy::{deployment::Deployment, layout::Layout, subject::Subject};
use lockproof_model::{error::Result, secret, state::Owner, state_map::Mounted};

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
    name: String,
    /// What it holds.
    content: Vec<u8>,
    /// The file in which it lies, where that was found.
    pub path: Option<String>,
    /// What owns that place.
    pub owner: Option<Owner>,
    /// The mount on which it lies.
    pub mount: Option<Mounted>,
}

/// A canary that is not what it was.
#[derive(Clone, Debug)]
pub struct Loss {
    /// Which.
    pub canary: Canary,
    /// What became of it.
    pub what: String,
}

/// What became of all canaries.
#[derive(Clone, Debug, Default)]
pub struct Losses {
    /// Those that are not what they were.
    pub losses: Vec<Loss>,
    /// How many could not be looked at.
    pub unseen: usize,
}

impl Losses {
    /// Whether the data lasted; `None` where that was not seen.
    pub fn lasted(&self) -> Option<bool> {
        match (self.losses.is_empty(), self.unseen) {
            (false, _) => Some(false),
            (true, 0) => Some(true),
            (true, _) => None,
        }
    }
}

/// All that were planted in one installation.
#[derive(Clone, Debug, Default)]
pub struct Canaries {
    planted: Vec<Canary>,
    /// The user for whom they are, where there are several.
    user: Option<String>,
}

impl Canaries {
    /// Plants one of each kind. What the server does not take is left out, and told in the log.
    ///
    /// # Errors
    /// An environment error when the container cannot be read.
    pub async fn plant(access: Access<'_>, deployment: &Deployment, layout: &Layout) -> Result<Self> {
        // Behind a proxy, the data lies in another container than the lock.
        if deployment.subject.lock.scheme.in_front() {
            return Ok(Self::default());
        }
        let nonce = secret::random(10);
        let mut api = Api { access, user: None };
        let mut planted = Vec::new();
        match api.add_user(&format!("lockproof-{nonce}")).await {
            Ok(None) => {}
            Ok(Some(id)) => planted.push(Canary::new(Kind::User, &id, id.as_bytes())),
            Err(why) => tracing::debug!("{}: no second user could be added: {why}", deployment.subject.name),
        }
        let picture = picture(&nonce);
        let workflow = format!("{{\"lockproof\": \"{nonce}\"}}").into_bytes();
        let wanted = [
            (Kind::Input, format!("lockproof-{nonce}-input.png"), picture.clone()),
            (Kind::Output, format!("lockproof-{nonce}-output.png"), picture),
            (Kind::Workflow, format!("lockproof-{nonce}.json"), workflow),
            (Kind::Setting, format!("lockproof.{nonce}"), nonce.clone().into_bytes()),
        ];
        for (kind, name, content) in wanted {
            match api.put(kind, &name, &content).await {
                Ok(name) => planted.push(Canary::new(kind, &name, &content)),
                Err(why) => tracing::info!(
                    "{}: {} cannot be kept there, so whether it lasts is not looked at: {why}",
                    deployment.subject.name,
                    kind.words()
                ),
            }
        }
        place::find(deployment, layout, &nonce, &mut planted).await?;
        Ok(Self { planted, user: api.user })
    }

    /// Those that are not what they were.
    ///
    /// # Errors
    /// An environment error when the container cannot be read.
    pub async fn losses(&self, access: Access<'_>, deployment: &Deployment) -> Result<Losses> {
        let api = Api { access, user: self.user.clone() };
        let (mut losses, mut unseen) = (Vec::new(), 0);
        for canary in &self.planted {
            let found = match api.get(canary.kind, &canary.name).await {
                Some(found) => found,
                // Nobody is let in: the file itself tells.
                None => match &canary.path {
                    Some(path) => canary.in_file(deployment.read_file(path).await?),
                    None => {
                        unseen += 1;
                        continue;
                    }
                },
            };
            let what = match found {
                Some(content) if content == canary.content => continue,
                Some(_) => "is another one now",
                None => "is gone",
            };
            losses.push(Loss { canary: canary.clone(), what: what.to_owned() });
        }
        Ok(Losses { losses, unseen })
    }

    /// Whether nothing could be planted.
    pub fn is_empty(&self) -> bool {
        self.planted.is_empty()
    }

    /// The directories in which they lie, with who owns each.
    pub fn places(&self) -> BTreeMap<String, (Owner, Option<Mounted>)> {
        let placed = self.planted.iter().filter_map(|canary| {
            let directory = canary.directory()?;
            Some((directory, (canary.owner?, canary.mount.clone())))
        });
        placed.collect()
    }
}

impl Canary {
    fn new(kind: Kind, name: &str, content: &[u8]) -> Self {
        Self { kind, name: name.to_owned(), content: content.to_vec(), path: None, owner: None, mount: None }
    }

    /// What a file that holds it says of it.
    fn in_file(&self, bytes: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let bytes = bytes?;
        let json = || serde_json::from_slice::<Value>(&bytes).ok();
        match self.kind {
            Kind::Setting => Some(json()?.get(&self.name)?.as_str()?.as_bytes().to_vec()),
            Kind::User => json()?.get(&self.name).map(|_| self.content.clone()),
            Kind::Input | Kind::Output | Kind::Workflow => Some(bytes),
        }
    }

    /// The directory that a mount would have to hold: what is kept for users goes together.
    fn directory(&self) -> Option<String> {
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

/// A small picture that no other run makes.
fn picture(nonce: &str) -> Vec<u8> {
    let bytes = nonce.as_bytes();
    let pixel = |x: u32, y: u32| {
        let at = |i: u32| bytes[usize::try_from(i).unwrap_or(0) % bytes.len()];
        image::Rgb([at(x), at(y), at(x + y)])
    };
    let mut out = std::io::Cursor::new(Vec::new());
    // Writing into memory does not fail; an empty upload would be refused, and told.
    let _written = image::RgbImage::from_fn(8, 8, pixel).write_to(&mut out, image::ImageFormat::Png);
    out.into_inner()
}

/// Where a loss lay, for evidence.
pub fn in_words(loss: &Loss, subject: &Subject) -> String {
    let canary = &loss.canary;
    let place = match (&canary.path, canary.owner) {
        (Some(path), Some(owner)) => format!("it lay in {path}, on {}", owner.words()),
        (Some(path), None) => format!("it lay in {path}"),
        (None, _) => format!("where `{}` keeps it was not found", subject.name),
    };
    format!("{} {}: {place}", canary.kind.words(), loss.what)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Kind::Input, "/srv/input/a.png", "/srv/input")]
    #[case(Kind::Workflow, "/srv/user/default/workflows/a.json", "/srv/user")]
    #[case(Kind::Setting, "/srv/user/default/comfy.settings.json", "/srv/user")]
    #[case(Kind::User, "/srv/user/users.json", "/srv/user")]
    #[case(Kind::Setting, "/a", "/")]
    fn what_is_kept_for_users_goes_together(#[case] kind: Kind, #[case] path: &str, #[case] directory: &str) {
        let canary = Canary { path: Some(path.to_owned()), ..Canary::new(kind, "a", b"") };
        assert_eq!(canary.directory().as_deref(), Some(directory));
    }

    #[test]
    fn data_that_nobody_could_look_at_is_not_kept() {
        let lost = Loss { canary: Canary::new(Kind::Input, "a", b""), what: "is gone".to_owned() };
        let lasted = |losses: &[Loss], unseen| Losses { losses: losses.to_vec(), unseen }.lasted();
        assert_eq!(lasted(&[], 0), Some(true));
        assert_eq!(lasted(&[], 1), None);
        assert_eq!(lasted(std::slice::from_ref(&lost), 1), Some(false));
        assert_eq!(lasted(&[lost], 0), Some(false));
    }

    #[test]
    fn a_setting_is_one_among_others_in_its_file() {
        let canary = Canary::new(Kind::Setting, "lockproof.x", b"x");
        let found = |text: &str| canary.in_file(Some(text.as_bytes().to_vec()));
        assert_eq!(found(r#"{ "Comfy.A": 1, "lockproof.x": "x" }"#).as_deref(), Some(&b"x"[..]));
        assert_eq!(found(r#"{ "Comfy.A": 1 }"#), None);
        assert_eq!(found("{"), None);
    }

    #[test]
    fn no_two_runs_plant_the_same_picture() {
        assert_ne!(picture("abcdefghij"), picture("abcdefghik"));
        assert!(image::load_from_memory(&picture("abcdefghij")).is_ok());
    }
}
