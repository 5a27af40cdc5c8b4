//! Creates, reads, checks and rotates the token of a server.
//!
//! A token is read from and written to a [`Place`] on this machine or in its engine; a
//! [`Gatekeeper`] is the running server that accepts or rejects it.

mod check;
mod gatekeeper;
mod log;
mod login;
mod place;
mod rotate;

pub use check::{Check, Remark, Source, check};
pub use gatekeeper::{Gatekeeper, Takes};
pub use log::token_in_log;
pub use login::{DEFAULT_COST, Login};
pub use place::{Credential, Place};
pub use rotate::{Restart, Rotation, rotate};

use lockproof_model::{
    error::{Error, Result},
    scheme::Scheme,
    secret,
};

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
