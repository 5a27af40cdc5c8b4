//! Creates, reads and replaces the token of record in the container.

use crate::{
    deployment::Deployment,
    engine::archive::{Ownership, Tarball},
    given,
    install::Installed,
    layout::Layout,
};
use lockproof_model::{
    error::{Error, Result},
    path::normalise,
    scheme::Rotation,
    secret,
};
use lockproof_probe::{
    client::Client,
    keys::{Keys, form, hide_password, open_session},
    message::{Answer, in_words},
};

/// The lowest bcrypt cost: these passwords are random and only used for minutes.
const BCRYPT_COST: u32 = 4;

/// Obtains the credentials: those of the deployment, or new ones through the first-run form.
///
/// # Errors
/// An undecided error with what was tried, if there is no token.
pub async fn mint(deployment: &Deployment, client: &Client, layout: &Layout, installed: &Installed) -> Result<Keys> {
    let lock = &deployment.subject.lock;
    let password = given::password(lock)?;
    if let Some(password) = &password {
        hide_password(password);
    }
    if let Some(token) = given(deployment).await? {
        let session = open_session(client, lock.scheme.login.as_ref(), &lock.username, password.as_deref()).await;
        return Ok(Keys::new(token, password, session));
    }
    if lock.scheme.is_basic() {
        return match password {
            Some(password) => Ok(Keys::new(format!("{}:{password}", lock.username), Some(password), None)),
            None => Err(Error::undecided("no user name and password for the test")
                .at(format!("subject `{}`", deployment.subject.name))
                .fix("set them: credential: { username: gate, password_env: LOCKPROOF_PASSWORD }")),
        };
    }
    let path = lock.scheme.credential.as_ref().map(|c| installed.fill(&c.file, layout));
    if let Some(token) = read(deployment, layout, installed).await? {
        // The deployment has its own credential; without its password, no session can be opened.
        let session = open_session(client, lock.scheme.login.as_ref(), &lock.username, password.as_deref()).await;
        return Ok(Keys::new(token, password, session));
    }
    let Some(login) = &lock.scheme.login else {
        return Err(Error::undecided("no token for the test")
            .at(format!("subject `{}`", deployment.subject.name))
            .fix("set the deployment's token: credential: { token_file: … } or { token_env: … }"));
    };
    let password = password.unwrap_or_else(|| secret::random(24));
    hide_password(&password);
    let answer = client.send(&form(login, &lock.username, &password)).await;
    let session = answer.as_ref().ok().and_then(Answer::cookies);
    match read(deployment, layout, installed).await? {
        Some(token) => Ok(Keys::new(token, Some(password), session)),
        None => Err(Error::undecided("the login form did not create a token")
            .at(format!("subject `{}`", deployment.subject.name))
            .detail(format!("POST {} returned {}", login.path, in_words(&answer)))
            .detail(format!("there is no token in {}", path.unwrap_or_default()))
            .fix(
                "if the lock already has a credential, set its path: credential: { token_file: … };\nelse \
                check the container's log",
            )),
    }
}

/// The token that the file says the deployment has.
async fn given(deployment: &Deployment) -> Result<Option<String>> {
    let lock = &deployment.subject.lock;
    if let Some(token) = given::token_of_variable(lock, |name| deployment.env(name))? {
        return Ok(Some(token));
    }
    let Some(path) = &lock.token_file else { return Ok(None) };
    if let Some(token) = given::token_of_file(lock)? {
        return Ok(Some(token));
    }
    let bytes = deployment.read_file(&path.display().to_string()).await?;
    given::first_line(&bytes.unwrap_or_default(), path).map(Some)
}

/// The token in the credential file now; `None` if the file is missing or empty.
///
/// # Errors
/// An environment error if the container cannot be read.
pub async fn read(deployment: &Deployment, layout: &Layout, installed: &Installed) -> Result<Option<String>> {
    let Some(facts) = &deployment.subject.lock.scheme.credential else { return Ok(None) };
    let path = installed.fill(&facts.file, layout);
    if path.is_empty() {
        return Ok(None);
    }
    let bytes = deployment.read_file(&path).await?;
    Ok(bytes.and_then(|b| facts.token.of(&String::from_utf8_lossy(&b))))
}

/// Replaces the credential file; this takes effect at the next start. The new keys keep the old
/// session, to check that it is rejected.
///
/// # Errors
/// An undecided error if the scheme does not define how, or if there is no credential to replace.
pub async fn rotate(deployment: &Deployment, layout: &Layout, installed: &Installed) -> Result<Keys> {
    let lock = &deployment.subject.lock;
    let impossible = |why: &str| {
        Error::undecided(format!("cannot change the credential: {why}"))
            .at(format!("subject `{}`", deployment.subject.name))
            .fix("remove `rotate` from the events")
    };
    if lock.token_env.is_some() {
        return Err(impossible("the deployment reads its token from its environment"));
    }
    let Some((facts, Rotation::Bcrypt)) = lock.scheme.credential.as_ref().and_then(|c| Some((c, c.rotate?))) else {
        return Err(impossible("the scheme does not define how"));
    };
    let path = normalise(&installed.fill(&facts.file, layout));
    let Some(old) = deployment.read_file(&path).await? else {
        return Err(impossible(&format!("{path} does not exist")));
    };
    let password = secret::random(24);
    let hash = bcrypt::hash(&password, BCRYPT_COST).map_err(|e| impossible(&e.to_string()))?;
    let old = String::from_utf8_lossy(&old).into_owned();
    let rest = old.split_once('\n').map_or(String::new(), |(_, rest)| format!("\n{rest}"));
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", &path));
    let mut tarball = Tarball::new();
    let owner = Ownership { uid: layout.ids.0, gid: layout.ids.1 };
    let archive = tarball
        .file(name, format!("{hash}{rest}").as_bytes(), 0o644, owner)
        .and_then(|()| tarball.finish())
        .map_err(|e| impossible(&e.to_string()))?;
    deployment.upload(if directory.is_empty() { "/" } else { directory }, archive).await?;
    Ok(Keys::new(hash, Some(password), None))
}
