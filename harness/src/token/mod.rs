//! Tokens of a server that is somebody's: minted, read back, compared, replaced.
//!
//! A token is taken from, and put into, a [`Place`] on this machine or in its engine; a
//! [`Gatekeeper`] is the running server that is asked whether it takes one.

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

/// Writes the first credential into a place that has none, and gives the token.
///
/// # Errors
/// A usage error when there is one already, an environment error when it cannot be written.
pub async fn mint(place: &Place, scheme: &Scheme, login: &Login) -> Result<String> {
    if let Some(old) = place.read(scheme).await?
        && old.token(scheme).is_some()
    {
        return Err(Error::usage("there is a credential already")
            .at(&old.path)
            .fix("`lockproof token extract` reads its token, `lockproof token rotate` replaces it"));
    }
    let token = login.hash()?;
    place.create(scheme, &format!("{token}\n{}", login.username)).await?;
    Ok(token)
}

/// The token that a place holds.
///
/// # Errors
/// A usage error that says where was looked, when there is none.
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
    Err(Error::usage("there is no token").at(looked).fix(
        "say where the credential file lies with --path; a server that has none yet gets one by `lockproof token mint`",
    ))
}
