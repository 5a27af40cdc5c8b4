//! Whether a `.env`, an environment and a server agree on the token, without showing it.

use std::{os::unix::fs::PermissionsExt, path::Path};

use super::{Gatekeeper, Takes};
use lockproof_compose::env_file::{self as dotenv, TOKEN, WRONG_NAME};
use lockproof_model::{
    error::{Error, Result},
    secret,
};

/// Where a token was looked for, and what was found.
#[derive(Clone, Debug)]
pub struct Source {
    /// What a person calls it: a path, `environment`, a place.
    pub name: String,
    /// The token; `None` when there is none.
    token: Option<String>,
    /// What is to be said of it beside agreement.
    pub remarks: Vec<Remark>,
}

/// Something about a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// What it is.
    pub text: String,
    /// Whether it keeps the check from being passed.
    pub wrong: bool,
}

/// What a check showed.
#[derive(Clone, Debug)]
pub struct Check {
    /// A line for each thing that was looked at: what, and how it is.
    pub lines: Vec<(String, String)>,
    /// What is wrong; empty when all agree.
    pub wrong: Vec<String>,
    /// What could not be found out.
    pub unknown: Vec<String>,
}

impl Source {
    /// The token that a place or a log gave.
    pub fn of(name: impl Into<String>, token: Option<String>) -> Self {
        token.as_deref().inspect(|token| secret::register(token));
        Self { name: name.into(), token, remarks: Vec::new() }
    }

    /// The `.env` at `path`, which may be missing.
    ///
    /// # Errors
    /// An environment error when it is there and cannot be read.
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
                source.remark(true, format!("line {} is not read alike everywhere: {why}", assignment.number));
            }
            let mode = std::fs::metadata(path).map_or(0o600, |meta| meta.permissions().mode() & 0o777);
            if mode & 0o077 != 0 {
                source.remark(
                    true,
                    format!("its mode is {mode:04o}, so other users of this machine may read it; chmod 600"),
                );
            }
        }
        for other in dotenv::assignments(&text).iter().filter(|a| a.name == WRONG_NAME) {
            source.remark(true, format!("line {} sets {WRONG_NAME}; the name is {TOKEN}", other.number));
        }
        Ok(source)
    }

    /// The environment of this process.
    pub fn environment() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let mut source = Self::of("environment", set(TOKEN));
        if set(WRONG_NAME).is_some() {
            source.remark(true, format!("{WRONG_NAME} is set; the name is {TOKEN}"));
        }
        source
    }

    fn remark(&mut self, wrong: bool, text: String) {
        self.remarks.push(Remark { text, wrong });
    }
}

/// Compares the sources with one another and with the server, if there is one to ask.
pub async fn check(sources: &[Source], server: Option<&Gatekeeper>) -> Check {
    let mut check = Check { lines: Vec::new(), wrong: Vec::new(), unknown: Vec::new() };
    let first = sources.iter().find(|s| s.token.is_some());
    for source in sources {
        let mut how = match (&source.token, first) {
            (None, _) => format!("{TOKEN} is not set"),
            (Some(_), Some(first)) if first.name == source.name => format!("{TOKEN} is set"),
            (Some(token), Some(first)) if first.token.as_ref() == Some(token) => {
                format!("the same as in {}", first.name)
            }
            (Some(_), Some(first)) => {
                check.wrong.push(format!("{} has another token than {}", source.name, first.name));
                format!("another one than in {}", first.name)
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
        check.wrong.push(format!("{TOKEN} is set nowhere"));
    }
    if let Some(server) = server {
        ask(server, sources, &mut check).await;
    }
    check
}

async fn ask(server: &Gatekeeper, sources: &[Source], check: &mut Check) {
    let mut said = Vec::new();
    match server.takes(None).await {
        Takes::No => said.push("refuses a request without a token".to_owned()),
        Takes::Yes => {
            said.push("serves requests without a token".to_owned());
            check.wrong.push(format!("{} is open: it serves requests without a token", server.base()));
        }
        Takes::Unknown(why) => {
            check.unknown.push(format!("{} does not say: {why}", server.base()));
            said.push(format!("does not say: {why}"));
        }
    }
    let mut asked: Vec<&str> = Vec::new();
    for source in sources {
        let Some(token) = source.token.as_deref().filter(|token| !asked.contains(token)) else { continue };
        asked.push(token);
        match server.takes(Some(token)).await {
            Takes::Yes => said.push(format!("takes the token of {}", source.name)),
            Takes::No => {
                said.push(format!("refuses the token of {}", source.name));
                check.wrong.push(format!("{} refuses the token of {}", server.base(), source.name));
            }
            Takes::Unknown(why) => {
                said.push(format!("does not say whether it takes the token of {}: {why}", source.name));
                check.unknown.push(format!("{} does not say: {why}", server.base()));
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
    async fn what_is_wrong_is_named_and_the_token_is_not() {
        let (_kept, file) = env_file(&format!("COMFYUI_API_KEY=x\nCOMFYUI_API_TOKEN=\"{TOKEN_VALUE}\"\n"), 0o644);
        let other = Source::of("environment", Some("another-token".to_owned()));
        let check = check(&[file, other], None).await;
        let text = format!("{check:#?}");
        assert!(!text.contains(TOKEN_VALUE) && !text.contains("another-token"), "{text}");
        insta::assert_snapshot!(check.wrong.join("\n"), @"
        .env: line 2 is not read alike everywhere: between double quotes, Compose v2 and a shell replace `$…`, and python-dotenv keeps a backslash
        .env: its mode is 0644, so other users of this machine may read it; chmod 600
        .env: line 1 sets COMFYUI_API_KEY; the name is COMFYUI_API_TOKEN
        environment has another token than .env
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
                "the same as in .env",
            ),
        ]
        "#);
    }
}
