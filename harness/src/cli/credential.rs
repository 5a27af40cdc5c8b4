//! The token of a running server, from the options.

use std::path::PathBuf;

use clap::Args;

use super::progress::Talk;
use lockproof_model::{
    error::{Error, Result},
    read,
};

/// The options that give the token.
#[derive(Debug, Args)]
pub(super) struct TokenArguments {
    /// The environment variable that contains the token.
    #[arg(long, value_name = "NAME", conflicts_with = "token_file")]
    token_env: Option<String>,
    /// The file whose first line is the token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The token. Other users of this machine can see it in the process list: prefer --token-env or
    /// --token-file.
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["token_env", "token_file"], hide = true)]
    token: Option<String>,
}

impl TokenArguments {
    /// Whether any of the options is given.
    pub(super) fn is_given(&self) -> bool {
        self.token_env.is_some() || self.token_file.is_some() || self.token.is_some()
    }

    /// The token; `None` if no option is given.
    pub(super) fn token(&self, talk: &Talk) -> Result<Option<String>> {
        let empty = |place: &str, fix: &str| Error::usage("the token is empty").at(place).fix(fix);
        if let Some(name) = &self.token_env {
            let token = std::env::var(name).unwrap_or_default();
            return match token.trim() {
                "" => Err(empty(&format!("--token-env {name}"), &format!("export {name}=…"))),
                token => Ok(Some(token.to_owned())),
            };
        }
        if let Some(path) = &self.token_file {
            let text = read::text(path, read::SHORT)
                .map_err(|e| Error::usage(format!("cannot read {}", path.display())).at("--token-file").detail(e))?;
            return match text.lines().map(str::trim).find(|line| !line.is_empty()) {
                Some(token) => Ok(Some(token.to_owned())),
                None => Err(empty(&format!("--token-file {}", path.display()), "write the token on its first line")),
            };
        }
        if self.token.is_some() {
            talk.line(
                "warning: other users of this machine can see --token in the process list; use \
                --token-env or --token-file",
            );
        }
        Ok(self.token.clone().filter(|token| !token.trim().is_empty()))
    }
}
