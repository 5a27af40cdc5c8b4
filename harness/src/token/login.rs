//! A user name and password.

use lockproof_model::{
    error::{Error, Result},
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
