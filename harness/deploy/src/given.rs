//! The deployment's credential as configured: a token in a file or a variable, a password in a variable.
//! Errors are reported before any work.

use std::{io::ErrorKind, path::Path};

use crate::{
    engine::image::ImageFacts,
    subject::{Lock, Subject},
};
use lockproof_model::{
    error::{Error, Result},
    read,
};

/// Checks the password's variable, and a token file on this machine.
///
/// # Errors
/// A usage error that names the key of the configuration.
pub fn check(subject: &Subject) -> Result<()> {
    let place = |e: Error| e.or_at(format!("subject `{}`", subject.name));
    password(&subject.lock).map_err(place)?;
    token_of_file(&subject.lock).map_err(place)?;
    Ok(())
}

/// Checks the token's variable, which may also be set in the image.
///
/// # Errors
/// A usage error if the variable is not set here, in the subject or in the image.
pub fn check_with_image(subject: &Subject, image: &ImageFacts) -> Result<()> {
    let inside = |name: &str| subject.env.get(name).map(String::as_str).or_else(|| image.env(name));
    token_of_variable(&subject.lock, inside).map_err(|e| e.or_at(format!("subject `{}`", subject.name)))?;
    Ok(())
}

/// The password from the configured variable; `None` if none is configured.
///
/// # Errors
/// A usage error if the variable is not set.
pub fn password(lock: &Lock) -> Result<Option<String>> {
    let Some(name) = &lock.password_env else { return Ok(None) };
    std::env::var(name).ok().filter(|password| !password.is_empty()).map(Some).ok_or_else(|| {
        let fix = if lock.scheme.is_basic() {
            format!("export {name}=…")
        } else {
            format!("export {name}=…, or remove `password_env` to use a random password")
        };
        Error::usage(format!("the password's variable {name} is not set")).at("scheme.credential.password_env").fix(fix)
    })
}

/// The token from the configured variable, here or `inside` the container; `None` if none is configured.
pub(crate) fn token_of_variable<'a>(
    lock: &Lock,
    inside: impl FnOnce(&str) -> Option<&'a str>,
) -> Result<Option<String>> {
    let Some(name) = &lock.token_env else { return Ok(None) };
    let here = std::env::var(name).ok().filter(|v| !v.is_empty());
    let token = here.or_else(|| inside(name).filter(|v| !v.is_empty()).map(str::to_owned));
    token.map(Some).ok_or_else(|| {
        Error::usage(format!("the token's variable {name} is set neither here nor in the container"))
            .at("scheme.credential.token_env")
            .fix(format!("export {name}=…, or set it in the subject's `env:`"))
    })
}

/// The token from the configured file on this machine; `None` if the file may be in the container.
pub(crate) fn token_of_file(lock: &Lock) -> Result<Option<String>> {
    let Some(path) = &lock.token_file else { return Ok(None) };
    match read::bytes(path, read::SHORT) {
        Ok(bytes) => first_line(&bytes, path).map(Some),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::usage(format!("cannot read {}", path.display()))
            .at("scheme.credential.token_file")
            .detail(e)
            .fix("the token is the first line of the file")),
    }
}

/// The token in the text of a token file.
pub(crate) fn first_line(bytes: &[u8], path: &Path) -> Result<String> {
    let text = String::from_utf8_lossy(bytes);
    text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned).ok_or_else(|| {
        Error::usage(format!("there is no token in {}, here or in the container", path.display()))
            .at("scheme.credential.token_file")
            .fix("the token is the first line of the file")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockproof_model::{
        config::{CredentialEntry, SchemeEntry, SubjectEntry},
        error::ErrorKind as Kind,
    };

    fn subject(credential: CredentialEntry, base: &Path) -> Result<Subject> {
        let scheme = SchemeEntry { credential: Some(credential), ..SchemeEntry::default() };
        let entry = SubjectEntry { name: "a".to_owned(), image: Some("b".to_owned()), ..SubjectEntry::default() };
        let mut subject = Subject::new(&entry, &scheme, base)?;
        subject.env = [("INSIDE".to_owned(), "t".to_owned()), ("EMPTY".to_owned(), String::new())].into();
        Ok(subject)
    }

    fn of_file(path: &str, base: &Path) -> Result<Subject> {
        subject(CredentialEntry { token_file: Some(path.into()), ..CredentialEntry::default() }, base)
    }

    fn said(result: Result<()>) -> String {
        let error = result.expect_err("it is wrong");
        assert_eq!(error.kind(), Kind::Usage);
        error.to_string()
    }

    #[test]
    fn a_token_file_that_cannot_be_read_is_found_before_any_work() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("directory")).expect("made");
        std::fs::write(dir.path().join("empty"), "\n \n").expect("written");
        std::fs::write(dir.path().join("token"), "\n t0ken \n").expect("written");
        let checked = |path: &str| check(&of_file(path, dir.path()).expect("it is there"));
        assert!(said(checked("directory")).contains("cannot read"));
        assert!(said(checked("empty")).contains("there is no token in"));
        assert!(said(checked("/dev/zero")).contains("larger than"));
        checked("token").expect("it holds a token");
        // An absolute path may be one of the container.
        checked("/only/in/the/container").expect("nobody knows yet");
        let missing = of_file("missing", dir.path()).expect_err("a relative path is one of this machine");
        assert_eq!(missing.kind(), Kind::Usage);
    }

    #[test]
    fn a_variable_that_is_set_nowhere_is_found_before_any_work() {
        let image = ImageFacts::default();
        let checked = |name: &str| {
            let credential = CredentialEntry { token_env: Some(name.to_owned()), ..CredentialEntry::default() };
            check_with_image(&subject(credential, Path::new(".")).expect("it is right"), &image)
        };
        let text = said(checked("LOCKPROOF_TEST_SET_NOWHERE"));
        assert!(text.contains("subject `a`") && text.contains("set neither here nor in the container"), "{text}");
        assert!(said(checked("EMPTY")).contains("set neither here nor in the container"));
        checked("INSIDE").expect("the subject sets it");
        checked("PATH").expect("it is set here");
    }
}
