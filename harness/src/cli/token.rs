//! `lockproof token`: mint, extract, check, rotate.

use std::{
    future::Future,
    io::IsTerminal,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use super::{output::print, progress::Talk};
use crate::token::{self, DEFAULT_COST, Gatekeeper, Login, Place, Restart, Rotation, Source, Takes};
use lockproof_compose::env_file::{self as dotenv, Spelling, TOKEN};
use lockproof_deploy::engine::{Engine, Run};
use lockproof_model::{
    duration::Span,
    error::{Error, ErrorKind, Result},
    exit, read,
    scheme::Scheme,
    secret,
};
use lockproof_probe::server::Trust;

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
The token is written as COMFYUI_API_TOKEN in single quotes, which python-dotenv, Compose v1 and v2
and a shell all read in the same way. `docker run --env-file` keeps the quotes: for it, write a
second file with --docker-env-file, or source the .env and pass --env COMFYUI_API_TOKEN (see
docs/tokens.md).";

#[derive(Debug, Subcommand)]
enum Command {
    /// Create the first credential of a server, and write its token.
    ///
    /// With --url, submits the login form: this sets the password of a server that has none, or
    /// logs in. The token is then read from the server's log, or from the credential location if
    /// one is given. Without --url, writes the credential file.
    Mint(Mint),
    /// Read a server's token, and write it.
    Extract(Extract),
    /// Check whether a .env file, the environment and the server agree, without showing the token.
    Check(CheckArguments),
    /// Replace the credential. The old token must be rejected and the new one accepted, else the
    /// change is undone.
    Rotate(Rotate),
}

#[derive(Debug, Args)]
struct Server {
    /// The base URL of the server, such as http://127.0.0.1:8188.
    #[arg(long, value_name = "URL", env = "COMFYUI_URL")]
    url: Option<String>,
    /// Do not verify the server's certificate.
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
    /// Also trust the certificates in this PEM file.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The login scheme: a built-in name, or a path to a scheme file.
    #[arg(long, value_name = "SCHEME", default_value = Scheme::DEFAULT, env = "LOCKPROOF_SCHEME")]
    scheme: String,
}

#[derive(Debug, Args)]
struct PlaceArguments {
    /// The credential file (for ComfyUI-Login: login/PASSWORD beside ComfyUI's code).
    #[arg(long, value_name = "FILE", group = "place")]
    credential_file: Option<PathBuf>,
    /// A directory that contains the credential file: ComfyUI's code, or its login directory.
    #[arg(long, value_name = "DIR", group = "place")]
    directory: Option<PathBuf>,
    /// A container with the credential file, by name or id.
    #[arg(long, value_name = "NAME", group = "place")]
    container: Option<String>,
    /// A volume with the credential file, by name.
    #[arg(long, value_name = "NAME", group = "place")]
    volume: Option<String>,
    /// The path of the credential file in the container or volume. Default: detected.
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
}

#[derive(Debug, Args)]
struct Who {
    /// The user name.
    #[arg(long, value_name = "NAME", default_value = "lockproof")]
    username: String,
    /// The environment variable that contains the password.
    #[arg(long, value_name = "NAME", conflicts_with = "password_file")]
    password_env: Option<String>,
    /// The file whose first line is the password.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The bcrypt cost of the password hash.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_COST, value_parser = clap::value_parser!(u32).range(4..=20))]
    cost: u32,
}

#[derive(Debug, Args)]
struct Output {
    /// The .env file to write the token to.
    #[arg(long, value_name = "FILE", default_value = ".env")]
    env_file: PathBuf,
    /// A second file, for `docker run --env-file`, which reads values literally.
    #[arg(long, value_name = "FILE")]
    docker_env_file: Option<PathBuf>,
    /// Print the token to standard output instead of writing a .env file.
    #[arg(long)]
    print: bool,
}

#[derive(Debug, Args)]
struct Mint {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    place: PlaceArguments,
    #[command(flatten)]
    who: Who,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
struct Extract {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    place: PlaceArguments,
    /// A file with the server's log, or `-` for standard input.
    #[arg(long, value_name = "FILE", group = "place")]
    log: Option<PathBuf>,
    #[command(flatten)]
    who: Who,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
struct CheckArguments {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    place: PlaceArguments,
    /// The .env file to check.
    #[arg(long, value_name = "FILE", default_value = ".env")]
    env_file: PathBuf,
}

#[derive(Debug, Args)]
struct Rotate {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    place: PlaceArguments,
    #[command(flatten)]
    who: Who,
    #[command(flatten)]
    output: Output,
    /// The container to restart so that the server reads the new credential. Default: the one given
    /// with --container.
    #[arg(long, value_name = "NAME", conflicts_with = "restart_command")]
    restart: Option<String>,
    /// A shell command that restarts the server.
    #[arg(long, value_name = "COMMAND")]
    restart_command: Option<String>,
    /// Do not restart anything: the server reloads the credential by itself.
    #[arg(long, conflicts_with_all = ["restart", "restart_command"])]
    no_restart: bool,
    /// How long to wait for the server after the restart.
    #[arg(long, value_name = "DURATION", default_value = "120s")]
    ready_timeout: Span,
    /// How long the container may take to stop before it is killed.
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    stop_timeout: Span,
}

pub(super) async fn run(arguments: Arguments, talk: &Talk) -> Result<u8> {
    let run = Run::new();
    match arguments.command {
        Command::Mint(arguments) => mint(arguments, &run, talk).await,
        Command::Extract(arguments) => extract(arguments, &run, talk).await,
        Command::Check(arguments) => check(arguments, &run).await,
        Command::Rotate(arguments) => rotate(arguments, &run, talk).await,
    }
}

async fn mint(arguments: Mint, run: &Run, talk: &Talk) -> Result<u8> {
    let scheme = arguments.server.scheme()?;
    let server = arguments.server.open(&scheme)?;
    let place = arguments.place.find(run).await?;
    let token = match (&server, &place) {
        (None, None) => {
            return Err(Error::usage("no server or credential location given")
                .fix("add --url, or one of --credential-file, --directory, --container, --volume"));
        }
        (Some(server), place) => by_form(server, place.as_ref(), &scheme, &arguments.who).await?,
        (None, Some(place)) => {
            let login = arguments.who.login(talk)?;
            tidy(run, place, token::mint(place, &scheme, &login)).await?
        }
    };
    arguments.output.write(&token, talk)?;
    Ok(exit::OK)
}

async fn extract(arguments: Extract, run: &Run, talk: &Talk) -> Result<u8> {
    let scheme = arguments.server.scheme()?;
    let server = arguments.server.open(&scheme)?;
    let token = match (&arguments.log, arguments.place.find(run).await?) {
        (Some(log), _) => in_log(log)?,
        (None, Some(place)) => tidy(run, &place, token::extract(&place, &scheme)).await?,
        (None, None) => match &server {
            Some(server) => by_form(server, None, &scheme, &arguments.who).await?,
            None => {
                return Err(Error::usage("no token source given").fix(
                    "add one of --container, --volume, --directory, --credential-file, --log; or --url with \
                    the server's password",
                ));
            }
        },
    };
    if let Some(server) = &server {
        confirm(server, &token).await?;
    }
    arguments.output.write(&token, talk)?;
    Ok(exit::OK)
}

async fn check(arguments: CheckArguments, run: &Run) -> Result<u8> {
    let scheme = arguments.server.scheme()?;
    let server = arguments.server.open(&scheme)?;
    let mut sources = vec![Source::env_file(&arguments.env_file)?, Source::environment()];
    if let Some(place) = arguments.place.find(run).await? {
        let token = tidy(run, &place, token::extract(&place, &scheme)).await?;
        sources.push(Source::of(place.to_string(), Some(token)));
    }
    let check = token::check(&sources, server.as_ref()).await;
    let width = check.lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, how) in &check.lines {
        print(&format!("{}\n", secret::redact(&format!("{name:<width$}  {how}"))))?;
    }
    let (told, code) = match (check.wrong.is_empty(), check.unknown.is_empty()) {
        (false, _) => (&check.wrong, exit::FAILED),
        (true, false) => (&check.unknown, exit::UNDECIDED),
        (true, true) => (&check.wrong, exit::OK),
    };
    for line in told {
        print(&format!("wrong: {}\n", secret::redact(line)))?;
    }
    Ok(code)
}

async fn rotate(arguments: Rotate, run: &Run, talk: &Talk) -> Result<u8> {
    let scheme = arguments.server.scheme()?;
    let place = arguments.place.find(run).await?.ok_or_else(|| {
        Error::usage("no credential location given")
            .fix("add one of --container, --volume, --directory, --credential-file")
    })?;
    let container = arguments.restart.clone().or_else(|| arguments.place.container.clone());
    let restart = match (&arguments.restart_command, container) {
        _ if arguments.no_restart => Restart::No,
        (Some(command), _) => Restart::Command(command.clone()),
        (None, Some(name)) => {
            Restart::Container { engine: Engine::connect().await?, name, grace: arguments.stop_timeout.0 }
        }
        (None, None) => Restart::No,
    };
    let rotation = Rotation {
        login: arguments.who.login(talk)?,
        url: arguments.server.url.clone(),
        ca: arguments.server.ca.clone(),
        insecure: arguments.server.insecure,
        restart,
        ready_timeout: arguments.ready_timeout.0,
        env_files: arguments.output.files(),
        place,
        scheme,
    };
    let interrupted = interrupted()?;
    let token = tidy(run, &rotation.place, token::rotate(&rotation, interrupted)).await?;
    talk.line("the server accepts the new token and rejects the old one");
    talk.line(
        "existing browser sessions may stay valid: ComfyUI-Login keeps them until its .secret-key.txt is deleted",
    );
    arguments.output.told(&token, talk)?;
    Ok(exit::OK)
}

/// Removes the helper container that read the volume, if `work` failed.
async fn tidy<T>(run: &Run, place: &Place, work: impl Future<Output = Result<T>>) -> Result<T> {
    let done = work.await;
    if let Place::Volume { engine, .. } = place
        && done.is_err()
    {
        engine.sweep_run(run.id()).await?;
    }
    done
}

/// Resolves to an error on the first SIGINT or SIGTERM. From the call on, neither signal ends the
/// process, so that the change can be undone.
fn interrupted() -> Result<impl Future<Output = Error>> {
    let no_signals = |e: std::io::Error| Error::environment("cannot install signal handlers").detail(e);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => Error::new(ErrorKind::Interrupted, "interrupted"),
            _ = terminate.recv() => Error::new(ErrorKind::Terminated, "terminated"),
        }
    })
}

/// Submits the login form, and reads the token from the credential location or the server's log.
async fn by_form(server: &Gatekeeper, place: Option<&Place>, scheme: &Scheme, who: &Who) -> Result<String> {
    let password = who.password()?.ok_or_else(|| {
        Error::usage("no password given for the login form")
            .fix("use --password-env NAME or --password-file FILE, or enter it on a terminal")
    })?;
    let login = Login { username: who.username.clone(), password, cost: who.cost };
    let cookies = server.log_in(&login).await?;
    let token = match place {
        Some(place) => token::extract(place, scheme).await?,
        None => server.token_from_log(&cookies).await?.ok_or_else(|| {
            Error::undecided("the login succeeded, but the server's log does not contain the token")
                .at(server.base())
                .fix(
                    "read it from the credential file: lockproof token extract --container NAME (or \
                    --volume, --directory)",
                )
        })?,
    };
    confirm(server, &token).await?;
    Ok(token)
}

/// Checks the token with the server before it is written anywhere.
async fn confirm(server: &Gatekeeper, token: &str) -> Result<()> {
    match server.takes(Some(token)).await {
        Takes::Yes => Ok(()),
        Takes::No => Err(Error::undecided(format!("{} rejects the token", server.base()))
            .fix("it may belong to an earlier password or another server; no file was written")),
        Takes::Unknown(why) => {
            Err(Error::undecided(format!("cannot tell whether {} accepts the token: {why}", server.base()))
                .fix("check that the server is running; no file was written"))
        }
    }
}

fn in_log(path: &Path) -> Result<String> {
    let text = if path.as_os_str() == "-" {
        read::from(std::io::stdin().lock(), read::LONG)
    } else {
        read::bytes(path, read::LONG)
    };
    let text = text
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .map_err(|e| Error::usage(format!("cannot read {}", path.display())).at("--log").detail(e))?;
    let token = token::token_in_log(&text).ok_or_else(|| {
        Error::usage("no token found in the log")
            .at(path.display())
            .fix("ComfyUI-Login prints it at each start: use `docker logs NAME`, including the last start")
    })?;
    secret::register(&token);
    Ok(token)
}

impl Server {
    fn scheme(&self) -> Result<Scheme> {
        Scheme::find(&self.scheme, Path::new(""))
    }

    fn open(&self, scheme: &Scheme) -> Result<Option<Gatekeeper>> {
        let trust = Trust { ca: self.ca.as_deref(), insecure: self.insecure };
        self.url.as_deref().map(|url| Gatekeeper::named(url, &trust, scheme)).transpose()
    }
}

impl PlaceArguments {
    async fn find(&self, run: &Run) -> Result<Option<Place>> {
        if let Some(path) = &self.credential_file {
            return Ok(Some(Place::File(path.clone())));
        }
        if let Some(path) = &self.directory {
            return Ok(Some(Place::Directory(path.clone())));
        }
        let path = self.path.clone();
        if let Some(name) = self.container.clone() {
            return Ok(Some(Place::Container { engine: Engine::connect().await?, name, path }));
        }
        if let Some(name) = self.volume.clone() {
            let engine = Engine::connect().await?;
            return Ok(Some(Place::Volume { engine, run: run.clone(), name, path }));
        }
        Ok(None)
    }
}

impl Who {
    /// The password from the options or typed on the terminal; `None` if there is neither.
    fn password(&self) -> Result<Option<String>> {
        let given = if let Some(name) = &self.password_env {
            let password = std::env::var(name).unwrap_or_default();
            if password.is_empty() {
                return Err(Error::usage(format!("the environment variable {name} is not set"))
                    .at("--password-env")
                    .fix(format!("export {name}=…")));
            }
            Some(password)
        } else if let Some(path) = &self.password_file {
            let text = read::text(path, read::SHORT)
                .map_err(|e| Error::usage(format!("cannot read {}", path.display())).at("--password-file").detail(e))?;
            match text.lines().next().filter(|line| !line.is_empty()) {
                Some(line) => Some(line.to_owned()),
                None => {
                    return Err(Error::usage("the password file is empty")
                        .at(path.display())
                        .fix("write the password on its first line"));
                }
            }
        } else if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
            let term = console::Term::stderr();
            let ask = || -> std::io::Result<String> {
                term.write_str(&format!("password for {}: ", self.username))?;
                term.read_secure_line()
            };
            Some(ask().map_err(|e| Error::environment("cannot read from the terminal").detail(e))?)
        } else {
            None
        };
        given.as_deref().inspect(|password| secret::register(password));
        Ok(given.filter(|password| !password.is_empty()))
    }

    /// The login to write to a credential file. The password is random if none is given: clients
    /// that use only the token do not need it.
    fn login(&self, talk: &Talk) -> Result<Login> {
        let password = self.password()?.unwrap_or_else(|| {
            talk.line("no password given: using a random one that is not stored, so only the token gives access");
            secret::random(32)
        });
        Ok(Login { username: self.username.clone(), password, cost: self.cost })
    }
}

impl Output {
    fn files(&self) -> Vec<(PathBuf, Spelling)> {
        let quoted = (!self.print).then(|| (self.env_file.clone(), Spelling::Quoted));
        let literal = self.docker_env_file.clone().map(|path| (path, Spelling::Literal));
        quoted.into_iter().chain(literal).collect()
    }

    /// Writes the token to its files and reports it.
    fn write(&self, token: &str, talk: &Talk) -> Result<()> {
        for (path, spelling) in self.files() {
            dotenv::store(&path, TOKEN, token, spelling)?;
        }
        self.told(token, talk)
    }

    /// Reports where the token was written, or prints it.
    fn told(&self, token: &str, talk: &Talk) -> Result<()> {
        for (path, spelling) in self.files() {
            let who = match spelling {
                Spelling::Literal => "for `docker run --env-file` only, which reads values literally",
                Spelling::Quoted if token.contains('$') => {
                    "read in the same way by python-dotenv, Compose v1 and v2 and a shell; not by `docker \
                    run --env-file`, which keeps the quotes (write a file for it with --docker-env-file \
                    FILE)"
                }
                Spelling::Quoted => {
                    "read in the same way by python-dotenv, Compose v1 and v2, a shell and `docker run --env-file`"
                }
            };
            talk.line(&format!("wrote {TOKEN} to {} (mode 0600): {who}", path.display()));
            for other in wrong_names(&path) {
                talk.line(&format!("warning: {other}"));
            }
        }
        if self.print {
            print(&format!("{token}\n"))?;
        }
        Ok(())
    }
}

/// Warnings about lines of a `.env` that set the token under the old variable name.
fn wrong_names(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let wrong = dotenv::assignments(&text).into_iter().filter(|a| a.name == dotenv::WRONG_NAME);
    wrong
        .map(|a| format!("{} line {} sets {}; the correct name is {TOKEN}", path.display(), a.number, a.name))
        .collect()
}
