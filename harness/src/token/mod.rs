//! Creates, reads, checks and rotates the token of a server.
//!
//! A token is read from and written to a [`Place`] on this machine or in its engine; a
//! [`Gatekeeper`] is the running server that accepts or rejects it.

mod check;
mod gatekeeper;
mod log;
mod place;
mod rotate;

pub use check::{Check, Remark, Source, check};
pub use gatekeeper::{Gatekeeper, Takes};
pub use log::token_in_log;
pub use place::{Credential, Place};
pub use rotate::{Restart, Rotation, rotate};

use crate::{
    error::{Error, Result},
    scheme::Scheme,
    secret,
};

/// The default bcrypt cost, as in ComfyUI-Login.
pub const DEFAULT_COST: u32 = 12;

/// A user name and password, with the cost of its hash.
#[derive(Clone, Debug)]
pub struct Login {
    /// The user name, for the login form and the second line of the credential file.
    pub username: String,
    /// The password.
    pub password: String,
    /// The base-2 logarithm of bcrypt's rounds, from 4 to 31.
    pub cost: u32,
}

impl Login {
    /// The hash of the password, which is the token of ComfyUI-Login.
    ///
    /// # Errors
    /// A usage error for an invalid cost.
    pub fn hash(&self) -> Result<String> {
        secret::register(&self.password);
        let hash = bcrypt::hash(&self.password, self.cost).map_err(|e| {
            Error::usage("cannot hash the password").detail(e).fix("use a cost from 4 to 31; the default is 12")
        })?;
        secret::register(&hash);
        Ok(hash)
    }
}

/// Writes the first credential, and returns its token.
///
/// # Errors
/// A usage error if a credential exists already; an environment error if it cannot be written.
pub async fn mint(place: &Place, scheme: &Scheme, login: &Login) -> Result<String> {
    if let Some(old) = place.read(scheme).await?
        && old.token(scheme).is_some()
    {
        return Err(Error::usage("the credential already exists")
            .at(&old.path)
            .fix("use `lockproof token extract` to read its token, or `lockproof token rotate` to replace it"));
    }
    let token = login.hash()?;
    place.create(scheme, &format!("{token}\n{}", login.username)).await?;
    Ok(token)
}

/// The token of a credential location.
///
/// # Errors
/// A usage error with the searched path, if there is none.
pub async fn extract(place: &Place, scheme: &Scheme) -> Result<String> {
    let found = place.read(scheme).await?;
    let looked = found.as_ref().map_or_else(|| place.to_string(), |c| c.path.clone());
    if let Some(token) = found.and_then(|c| c.token(scheme)) {
        secret::register(&token);
        return Ok(token);
    }
    if let Some(token) = place.log().await?.as_deref().and_then(token_in_log) {
        secret::register(&token);
        return Ok(token);
    }
    Err(Error::usage("no token found").at(looked).fix(
        "give the path of the credential file with --path; create the first credential with `lockproof token mint`",
    ))
}
