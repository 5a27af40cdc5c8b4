//! A user's name and password.

use lockproof_model::{
    error::{Error, Result},
    secret,
};

/// bcrypt's own default, which ComfyUI-Login uses as well.
pub const DEFAULT_COST: u32 = 12;

/// A user's name and password, and what the hash of it may cost.
#[derive(Clone, Debug)]
pub struct Login {
    /// The name, for the login form and the second line of the credential file.
    pub username: String,
    /// The password.
    pub password: String,
    /// The logarithm of bcrypt's rounds, from 4 to 31.
    pub cost: u32,
}

impl Login {
    /// The hash of the password, which is the token of ComfyUI-Login.
    ///
    /// # Errors
    /// A usage error for a cost that bcrypt does not know.
    pub fn hash(&self) -> Result<String> {
        secret::register(&self.password);
        let hash = bcrypt::hash(&self.password, self.cost).map_err(|e| {
            Error::usage("the password cannot be hashed").detail(e).fix("the cost goes from 4 to 31; 12 is usual")
        })?;
        secret::register(&hash);
        Ok(hash)
    }
}
