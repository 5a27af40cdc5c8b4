//! The credentials of a lock: its token of record, the password of its login form, and a session.

use base64::Engine as _;
use http::Method;

use crate::{
    config::plan::Lock,
    deployment::Deployment,
    engine::archive::{Ownership, Tarball, normalise},
    error::{Error, Result},
    install::Installed,
    layout::Layout,
    probe::{
        client::Client,
        message::{Answer, Request, in_words},
    },
    scheme::{LoginFacts, Presentation, Rotation, Scheme},
    secret,
};

/// The lowest bcrypt cost: these passwords are random and only used for minutes.
const BCRYPT_COST: u32 = 4;

/// Replaces the password in evidence.
const PASSWORD: &str = "$LOCKPROOF_PASSWORD";

/// The credentials of a lock. They are secrets: never print them unredacted.
#[derive(Clone)]
pub struct Keys {
    token: String,
    password: Option<String>,
    session: Option<String>,
    forms: Vec<String>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("password", &self.password.is_some())
            .field("session", &self.session.is_some())
            .finish_non_exhaustive()
    }
}

impl Keys {
    /// Credentials from known values.
    pub fn new(token: String, password: Option<String>, session: Option<String>) -> Self {
        hide(&token);
        password.as_deref().inspect(|p| secret::register_as(p, PASSWORD));
        if let Some(session) = &session {
            for pair in session.split("; ") {
                secret::register_as(pair.split_once('=').map_or(pair, |(_, value)| value), "<the session cookie>");
            }
        }
        let forms = forms(&token, password.as_deref());
        Self { token, password, session, forms }
    }

    /// The encodings in which the token and the password may appear.
    pub(crate) fn forms(&self) -> &[String] {
        &self.forms
    }

    /// The token of record.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Its password, if known.
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The cookies of a browser session, if one could be opened.
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }
}

/// Redacts the token in all output, in Base64 too.
pub(crate) fn hide(token: &str) {
    secret::register(token);
    hide_encoded(token, "$COMFYUI_API_TOKEN");
}

/// The encodings by which a token and its password are found in foreign text.
pub(crate) fn forms(token: &str, password: Option<&str>) -> Vec<String> {
    let mut forms = secret::spellings(token);
    // Some JSON writers escape the slash.
    forms.push(token.replace('/', "\\/"));
    // Without padding, which some encoders omit.
    let url_safe = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token);
    forms.extend([base64(token).trim_end_matches('=').to_owned(), url_safe]);
    forms.extend(password.map(str::to_owned));
    // Shorter values could match ordinary words.
    forms.retain(|form| form.len() >= 8);
    forms.sort();
    forms.dedup();
    forms
}

/// A header value with `token` inserted, plain or encoded for HTTP Basic authentication (RFC 7617).
pub(crate) fn filled(pattern: &str, token: &str) -> String {
    pattern.replace("{token}", token).replace("{basic}", &base64(token))
}

fn base64(token: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(token)
}

/// Redacts the encoded form of `token` in all output, because it can be decoded. `shown` is the
/// shell expression for the token.
pub(crate) fn hide_basic(token: &str, shown: &str) {
    if token.contains(':') {
        hide_encoded(token, shown);
    }
}

/// The same for any token.
fn hide_encoded(token: &str, shown: &str) {
    secret::register_as(&base64(token), &format!("$(printf %s \"{shown}\" | base64 -w0)"));
}

/// Adds `token` to a request, as defined by `how`.
pub fn present(request: Request, how: &Presentation, token: &str) -> Request {
    match how {
        Presentation::Header { header, value } => request.header(header, filled(value, token)),
        Presentation::Query { query } => request.query(query, token),
    }
}

/// Adds `token` to a request in the scheme's preferred way.
pub fn authorised(request: Request, scheme: &Scheme, token: &str) -> Request {
    match scheme.present.first() {
        Some(how) => present(request, how, token),
        None => request,
    }
}

/// Obtains the credentials: those of the deployment, or new ones through the first-run form.
///
/// # Errors
/// An undecided error with what was tried, if there is no token.
pub async fn mint(deployment: &Deployment, client: &Client, layout: &Layout, installed: &Installed) -> Result<Keys> {
    let lock = &deployment.subject.lock;
    let password = password(lock)?;
    if let Some(password) = &password {
        secret::register_as(password, PASSWORD);
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
    secret::register_as(&password, PASSWORD);
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

/// The password in the configured environment variable; `None` if none is configured.
///
/// # Errors
/// A usage error if the variable is not set.
pub fn password(lock: &Lock) -> Result<Option<String>> {
    let Some(name) = &lock.password_env else { return Ok(None) };
    std::env::var(name).map(Some).map_err(|_| {
        let fix = if lock.scheme.is_basic() {
            format!("export {name}=…")
        } else {
            format!("export {name}=…, or remove `password_env` to use a random password")
        };
        Error::usage(format!("the environment variable {name}, which must contain the password, is not set"))
            .at("scheme.credential.password_env")
            .fix(fix)
    })
}

/// The configured token of the deployment.
async fn given(deployment: &Deployment) -> Result<Option<String>> {
    let lock = &deployment.subject.lock;
    if let Some(name) = &lock.token_env {
        let here = std::env::var(name).ok().filter(|v| !v.is_empty());
        let token = here.or_else(|| deployment.env(name).map(str::to_owned));
        return token.map(Some).ok_or_else(|| {
            Error::usage(format!(
                "the environment variable {name}, which must contain the token, is not set here or in the container"
            ))
            .at("scheme.credential.token_env")
            .fix(format!("export {name}=…, or set it in the subject's `env:`"))
        });
    }
    let Some(path) = &lock.token_file else { return Ok(None) };
    let bytes = if path.is_file() {
        Some(std::fs::read(path).map_err(|e| Error::usage(format!("cannot read {}", path.display())).detail(e))?)
    } else {
        deployment.read_file(&path.display().to_string()).await?
    };
    let text = bytes.map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    match text.lines().map(str::trim).find(|line| !line.is_empty()) {
        Some(token) => Ok(Some(token.to_owned())),
        None => Err(Error::usage(format!("no token in {}, here or in the container", path.display()))
            .at("scheme.credential.token_file")
            .fix("write the token on the file's first line")),
    }
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

/// The default user name for the login form.
pub const USERNAME: &str = "lockproof";

/// Logs in through the form; `None` without a form, a password or success.
pub async fn open_session(
    client: &Client,
    login: Option<&LoginFacts>,
    username: &str,
    password: Option<&str>,
) -> Option<String> {
    let answer = client.send(&form(login?, username, password?)).await.ok()?;
    // Whether the cookie works is only known when it is used; a wrong password may set one too.
    answer.cookies()
}

/// A request that submits the login form.
pub fn form(login: &LoginFacts, username: &str, password: &str) -> Request {
    let body = format!(
        "{}={}&{}={}",
        login.username,
        secret::percent_encode(username),
        login.password,
        secret::percent_encode(password)
    );
    Request::new(Method::POST, login.path.clone())
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(body)
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
