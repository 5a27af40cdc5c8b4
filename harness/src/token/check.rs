//! Checks whether a `.env`, an environment and a server agree on the token, without showing it.

use std::{os::unix::fs::PermissionsExt, path::Path};

use super::{Gatekeeper, Takes};
use lockproof_compose::env_file::{self as dotenv, TOKEN, WRONG_NAME};
use lockproof_model::{
    error::{Error, Result},
    secret,
};

/// A place where a token was searched for, with the result.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name: a path, `environment`, or a location.
    pub name: String,
    /// The token; `None` if there is none.
    token: Option<String>,
    /// Further remarks.
    pub remarks: Vec<Remark>,
}

/// A remark about a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// Its text.
    pub text: String,
    /// Whether it fails the check.
    pub wrong: bool,
}

/// The result of a check.
#[derive(Clone, Debug)]
pub struct Check {
    /// One line per source: its name and its state.
    pub lines: Vec<(String, String)>,
    /// The errors; empty if all sources agree.
    pub wrong: Vec<String>,
    /// What could not be determined.
    pub unknown: Vec<String>,
}

impl Source {
    /// The token from a location or a log.
    pub fn of(name: impl Into<String>, token: Option<String>) -> Self {
        token.as_deref().inspect(|token| secret::register(token));
        Self { name: name.into(), token, remarks: Vec::new() }
    }

    /// The `.env` at `path`, which may be missing.
    ///
    /// # Errors
    /// An environment error if it exists but cannot be read.
    pub fn env_file(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let text = match lockproof_model::read::bytes(path, lockproof_model::read::SHORT) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::of(name, None)),
            Err(e) => return Err(Error::environment(format!("cannot read {name}")).detail(e)),
        };
        let found = dotenv::get(&text, TOKEN).filter(|a| !a.text.is_empty());
        let mut source = Self::of(name, found.as_ref().map(|a| a.text.clone()));
        if let Some(assignment) = &found {
            if let Some(why) = dotenv::disagreement(assignment) {
                source.remark(true, format!("line {} is read in different ways: {why}", assignment.number));
            }
            let mode = std::fs::metadata(path).map_or(0o600, |meta| meta.permissions().mode() & 0o777);
            if mode & 0o077 != 0 {
                source.remark(
                    true,
                    format!("its mode is {mode:04o}, so other users of this machine can read it; run chmod 600"),
                );
            }
        }
        for other in dotenv::assignments(&text).iter().filter(|a| a.name == WRONG_NAME) {
            source.remark(true, format!("line {} sets {WRONG_NAME}; the correct name is {TOKEN}", other.number));
        }
        Ok(source)
    }

    /// The environment of this process.
    pub fn environment() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let mut source = Self::of("environment", set(TOKEN));
        if set(WRONG_NAME).is_some() {
            source.remark(true, format!("{WRONG_NAME} is set; the correct name is {TOKEN}"));
        }
        source
    }

    fn remark(&mut self, wrong: bool, text: String) {
        self.remarks.push(Remark { text, wrong });
    }
}

/// Compares the sources with each other and, if given, with the server.
pub async fn check(sources: &[Source], server: Option<&Gatekeeper>) -> Check {
    let mut check = Check { lines: Vec::new(), wrong: Vec::new(), unknown: Vec::new() };
    let first = sources.iter().find(|s| s.token.is_some());
    for source in sources {
        let mut how = match (&source.token, first) {
            (None, _) => format!("{TOKEN} is not set"),
            (Some(_), Some(first)) if first.name == source.name => format!("{TOKEN} is set"),
            (Some(token), Some(first)) if first.token.as_ref() == Some(token) => {
                format!("same as in {}", first.name)
            }
            (Some(_), Some(first)) => {
                check.wrong.push(format!("{} and {} have different tokens", source.name, first.name));
                format!("different from {}", first.name)
            }
            (Some(_), None) => String::new(),
        };
        for remark in &source.remarks {
            how.push_str(&format!("; {}", remark.text));
            if remark.wrong {
                check.wrong.push(format!("{}: {}", source.name, remark.text));
            }
        }
        check.lines.push((source.name.clone(), how));
    }
    if first.is_none() {
        check.wrong.push(format!("{TOKEN} is not set anywhere"));
    }
    if let Some(server) = server {
        ask(server, sources, &mut check).await;
    }
    check
}

async fn ask(server: &Gatekeeper, sources: &[Source], check: &mut Check) {
    let mut said = Vec::new();
    match server.takes(None).await {
        Takes::No => said.push("rejects requests without a token".to_owned()),
        Takes::Yes => {
            said.push("serves requests without a token".to_owned());
            check.wrong.push(format!("{} is open: it serves requests without a token", server.base()));
        }
        Takes::Unknown(why) => {
            check.unknown.push(format!("cannot tell whether {} has a lock: {why}", server.base()));
            said.push(format!("gives no clear answer: {why}"));
        }
    }
    let mut asked: Vec<&str> = Vec::new();
    for source in sources {
        let Some(token) = source.token.as_deref().filter(|token| !asked.contains(token)) else { continue };
        asked.push(token);
        match server.takes(Some(token)).await {
            Takes::Yes => said.push(format!("accepts the token of {}", source.name)),
            Takes::No => {
                said.push(format!("rejects the token of {}", source.name));
                check.wrong.push(format!("{} rejects the token of {}", server.base(), source.name));
            }
            Takes::Unknown(why) => {
                said.push(format!("gives no clear answer to the token of {}: {why}", source.name));
                check.unknown.push(format!("{} gives no clear answer: {why}", server.base()));
            }
        }
    }
    check.lines.push((server.base(), said.join("; ")));
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN_VALUE: &str = "$2b$12$abcdefghijklmnopqrstuuC1B2./DEFGHIJKLMNOPQRSTUVWXYZ1a";

    fn env_file(text: &str, mode: u32) -> (tempfile::TempDir, Source) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(".env");
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("changed");
        let mut source = Source::env_file(&path).expect("read");
        source.name = ".env".to_owned();
        (dir, source)
    }

    #[tokio::test]
    async fn errors_are_named_without_showing_the_token() {
        let (_kept, file) = env_file(&format!("COMFYUI_API_KEY=x\nCOMFYUI_API_TOKEN=\"{TOKEN_VALUE}\"\n"), 0o644);
        let other = Source::of("environment", Some("another-token".to_owned()));
        let check = check(&[file, other], None).await;
        let text = format!("{check:#?}");
        assert!(!text.contains(TOKEN_VALUE) && !text.contains("another-token"), "{text}");
        insta::assert_snapshot!(check.wrong.join("\n"), @"
        .env: line 2 is read in different ways: in double quotes, Compose v2 and a shell expand `$…`, and python-dotenv keeps backslashes
        .env: its mode is 0644, so other users of this machine can read it; run chmod 600
        .env: line 1 sets COMFYUI_API_KEY; the correct name is COMFYUI_API_TOKEN
        environment and .env have different tokens
        ");
    }

    #[tokio::test]
    async fn agreement_is_agreement() {
        let (_kept, file) = env_file(&format!("COMFYUI_API_TOKEN='{TOKEN_VALUE}'\n"), 0o600);
        let same = Source::of("environment", Some(TOKEN_VALUE.to_owned()));
        let check = check(&[file, same], None).await;
        assert_eq!(check.wrong, Vec::<String>::new());
        insta::assert_debug_snapshot!(check.lines, @r#"
        [
            (
                ".env",
                "COMFYUI_API_TOKEN is set",
            ),
            (
                "environment",
                "same as in .env",
            ),
        ]
        "#);
    }
}
