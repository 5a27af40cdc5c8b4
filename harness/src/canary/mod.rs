//! Canaries: test data that is stored through the server's API before the events, one of each kind,
//! and checked after each event.
//!
//! | kind | stored with | read with |
//! |---|---|---|
//! | input | `POST /upload/image` | `GET /view` |
//! | output | `POST /upload/image` with `type=output` | `GET /view` |
//! | workflow | `POST /userdata/…` | `GET /userdata/…` |
//! | setting | `POST /settings/…` | `GET /settings` |
//! | user, on a multi-user server | `POST /users` | `GET /users` |
//!
//! If the lock lets nobody in, the files are read instead. The history of runs is only in memory,
//! so it has no canary.

mod api;
mod kind;
mod place;
pub mod state;

use std::collections::BTreeMap;

pub use api::Access;
use api::Api;
pub use kind::{Canary, Kind};
use lockproof_deploy::{deployment::Deployment, layout::Layout, subject::Subject};
use lockproof_model::{error::Result, secret, state::Owner, state_map::Mounted};

/// A canary that is missing or changed.
#[derive(Clone, Debug)]
pub struct Loss {
    /// The canary.
    pub canary: Canary,
    /// What happened to it, for messages.
    pub what: String,
}

/// The state of all canaries.
#[derive(Clone, Debug, Default)]
pub struct Losses {
    /// The changed canaries.
    pub losses: Vec<Loss>,
    /// The number of canaries that could not be checked.
    pub unseen: usize,
}

impl Losses {
    /// Whether the data persisted; `None` if unknown.
    pub fn lasted(&self) -> Option<bool> {
        match (self.losses.is_empty(), self.unseen) {
            (false, _) => Some(false),
            (true, 0) => Some(true),
            (true, _) => None,
        }
    }
}

/// All canaries of one installation.
#[derive(Clone, Debug, Default)]
pub struct Canaries {
    planted: Vec<Canary>,
    /// Their user, on a multi-user server.
    user: Option<String>,
}

impl Canaries {
    /// Creates one canary of each kind. A kind that the server does not accept is left out and
    /// logged.
    ///
    /// # Errors
    /// An environment error if the container cannot be read.
    pub async fn plant(access: Access<'_>, deployment: &Deployment, layout: &Layout) -> Result<Self> {
        // Behind a proxy, the data is in another container than the lock.
        if deployment.subject.lock.scheme.in_front() {
            return Ok(Self::default());
        }
        let nonce = secret::random(10);
        let mut api = Api { access, user: None };
        let mut planted = Vec::new();
        match api.add_user(&format!("lockproof-{nonce}")).await {
            Ok(None) => {}
            Ok(Some(id)) => planted.push(Canary::new(Kind::User, &id, id.as_bytes())),
            Err(why) => tracing::debug!("{}: cannot create a second user: {why}", deployment.subject.name),
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
                    "{}: cannot store {} on this server, so its persistence is not checked: {why}",
                    deployment.subject.name,
                    kind.words()
                ),
            }
        }
        place::find(deployment, layout, &nonce, &mut planted).await?;
        Ok(Self { planted, user: api.user })
    }

    /// The canaries that are missing or changed.
    ///
    /// # Errors
    /// An environment error when the container cannot be read.
    pub async fn losses(&self, access: Access<'_>, deployment: &Deployment) -> Result<Losses> {
        let api = Api { access, user: self.user.clone() };
        let (mut losses, mut unseen) = (Vec::new(), 0);
        for canary in &self.planted {
            let found = match api.get(canary.kind, &canary.name).await {
                Some(found) => found,
                // The lock lets nobody in: read the file.
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
                Some(_) => "has changed",
                None => "is gone",
            };
            losses.push(Loss { canary: canary.clone(), what: what.to_owned() });
        }
        Ok(Losses { losses, unseen })
    }

    /// Whether no canary could be created.
    pub fn is_empty(&self) -> bool {
        self.planted.is_empty()
    }

    /// The directories of the canaries, with their owners.
    pub fn places(&self) -> BTreeMap<String, (Owner, Option<Mounted>)> {
        let placed = self.planted.iter().filter_map(|canary| {
            let directory = canary.directory()?;
            Some((directory, (canary.owner?, canary.mount.clone())))
        });
        placed.collect()
    }
}

/// A small picture, unique to this run.
fn picture(nonce: &str) -> Vec<u8> {
    let bytes = nonce.as_bytes();
    let pixel = |x: u32, y: u32| {
        let at = |i: u32| bytes[usize::try_from(i).unwrap_or(0) % bytes.len()];
        image::Rgb([at(x), at(y), at(x + y)])
    };
    let mut out = std::io::Cursor::new(Vec::new());
    // Writing to memory cannot fail; an empty upload would be rejected and logged.
    let _written = image::RgbImage::from_fn(8, 8, pixel).write_to(&mut out, image::ImageFormat::Png);
    out.into_inner()
}

/// The path of a lost canary, for evidence.
pub fn in_words(loss: &Loss, subject: &Subject) -> String {
    let canary = &loss.canary;
    let place = match (&canary.path, canary.owner) {
        (Some(path), Some(owner)) => format!("its path was {path}, in {}", owner.words()),
        (Some(path), None) => format!("its path was {path}"),
        (None, _) => format!("the path where `{}` stores it was not found", subject.name),
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
    fn per_user_data_needs_one_directory(#[case] kind: Kind, #[case] path: &str, #[case] directory: &str) {
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
