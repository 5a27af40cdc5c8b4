//! Tokens: what each reader of a `.env` makes of a line, and the way of a token from a server into
//! one, compared, replaced, and put back when that fails.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use lockproof_compose::env_file::{self as dotenv, Spelling, TOKEN};
use lockproof_deploy::engine::Engine;
use lockproof_probe::{client::Client, keys::Keys, message::Request};
use lockproof_testcontainers::{ComfyUi, RunningComfyUi};
use rstest::rstest;

use crate::{
    command::{Lockproof, Ran},
    gate::block_on,
    suite::{Suite, patience},
};

/// A bcrypt token of the usual shape. Nobody's.
const BCRYPT: &str = "$2b$12$abcdefghijklmnopqrstuuC1B2./DEFGHIJKLMNOPQRSTUVWXYZ1a";

/// A program that reads `.env` files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    PythonDotenv,
    ComposeV1Interpolation,
    ComposeV1EnvFile,
    ComposeV2Interpolation,
    ComposeV2EnvFile,
    Shell,
    DockerRun,
}

/// How a token may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Single,
    Bare,
    Double,
    DoubleEscaped,
}

impl Written {
    fn line(self) -> String {
        match self {
            Self::Single => format!("{TOKEN}='{BCRYPT}'\n"),
            Self::Bare => format!("{TOKEN}={BCRYPT}\n"),
            Self::Double => format!("{TOKEN}=\"{BCRYPT}\"\n"),
            Self::DoubleEscaped => format!("{TOKEN}=\"{}\"\n", BCRYPT.replace('$', "\\$")),
        }
    }
}

/// The table of docs/tokens.md: whether a reader reads the token's own bytes.
fn is_read_right(written: Written, reader: Reader) -> bool {
    use Reader::{
        ComposeV1EnvFile, ComposeV1Interpolation, ComposeV2EnvFile, ComposeV2Interpolation, DockerRun, PythonDotenv,
        Shell,
    };
    match reader {
        PythonDotenv | ComposeV1Interpolation | ComposeV1EnvFile => written != Written::DoubleEscaped,
        ComposeV2Interpolation | ComposeV2EnvFile | Shell => {
            matches!(written, Written::Single | Written::DoubleEscaped)
        }
        DockerRun => written == Written::Bare,
    }
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command of a Compose of that major version, if there is one on this machine.
fn compose(major: &str) -> Option<Vec<String>> {
    let named = std::env::var("LOCKPROOF_COMPOSE_V2").ok().filter(|_| major == "2").map(|path| vec![path]);
    let usual = [vec!["docker".to_owned(), "compose".to_owned()], vec!["docker-compose".to_owned()]];
    named.into_iter().chain(usual).find(|words| {
        let version = output(Command::new(&words[0]).args(&words[1..]).args(["version", "--short"]));
        version.is_some_and(|version| version.trim().trim_start_matches('v').starts_with(major))
    })
}

impl Reader {
    /// What it reads as the token from the `.env` in a directory; `None` where the program is not on
    /// this machine.
    fn read(self, directory: &Path, file: &str) -> Option<String> {
        match self {
            Self::PythonDotenv => {
                let program = "import dotenv, sys; sys.stdout.write(dotenv.dotenv_values(sys.argv[1])[sys.argv[2]])";
                output(Command::new("python3").current_dir(directory).args(["-c", program, file, TOKEN]))
            }
            Self::Shell => {
                let script = format!(". ./{file}; printf %s \"${TOKEN}\"");
                output(Command::new("sh").current_dir(directory).args(["-c", &script]))
            }
            Self::ComposeV1Interpolation => by_compose("1", directory, "interpolated"),
            Self::ComposeV1EnvFile => by_compose("1", directory, "listed"),
            Self::ComposeV2Interpolation => by_compose("2", directory, "interpolated"),
            Self::ComposeV2EnvFile => by_compose("2", directory, "listed"),
            Self::DockerRun => {
                output(Command::new("docker").arg("version"))?;
                let image = block_on(async {
                    let engine = lockproof_deploy::engine::Engine::connect().await.expect("an engine");
                    lockproof_deploy::lab::require(&engine, lockproof_model::names::LAB_REPOSITORY)
                        .await
                        .expect("the lab")
                });
                let text = output(
                    Command::new("docker")
                        .current_dir(directory)
                        .args(["run", "--rm", "--network", "none", "--env-file", file, "--entrypoint", "printenv"])
                        .args([&image.name, TOKEN]),
                );
                Some(text.expect("docker run").trim_end_matches('\n').to_owned())
            }
        }
    }
}

/// What a service gets, by `${…}` from the `.env` beside the Compose file or by `env_file:`.
fn by_compose(major: &str, directory: &Path, service: &str) -> Option<String> {
    let words = compose(major)?;
    let file = format!(
        "version: '3.3'\nservices:\n  interpolated:\n    image: x\n    environment: {{ {TOKEN}: '${{{TOKEN}}}' }}\n  \
         listed:\n    image: x\n    env_file: .env\n"
    );
    std::fs::write(directory.join("docker-compose.yml"), file).expect("written");
    let text = output(Command::new(&words[0]).args(&words[1..]).arg("config").env_remove(TOKEN).current_dir(directory));
    let config: serde_json::Value = serde_yaml::from_str(&text.expect("compose reads it")).expect("it is YAML");
    let value = config["services"][service]["environment"][TOKEN].as_str().expect("it is set");
    // `config` prints a file for Compose, in which `$` is written `$$`.
    Some(value.replace("$$", "$"))
}

fn env_file(text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join(".env"), text).expect("written");
    dir
}

#[rstest]
fn every_reader_that_is_here_reads_what_the_table_says(
    #[values(
        Reader::PythonDotenv,
        Reader::ComposeV1Interpolation,
        Reader::ComposeV1EnvFile,
        Reader::ComposeV2Interpolation,
        Reader::ComposeV2EnvFile,
        Reader::Shell,
        Reader::DockerRun
    )]
    reader: Reader,
) {
    for written in [Written::Single, Written::Bare, Written::Double, Written::DoubleEscaped] {
        let dir = env_file(&written.line());
        let Some(read) = reader.read(dir.path(), ".env") else {
            // A shell is everywhere, and the set-up installs the others for CI; Compose v2 has no Debian package.
            let installed = !matches!(reader, Reader::ComposeV2Interpolation | Reader::ComposeV2EnvFile);
            assert!(
                reader != Reader::Shell && !(installed && std::env::var_os("CI").is_some()),
                "{reader:?} is missing"
            );
            eprintln!("{reader:?} is not on this machine");
            return;
        };
        assert_eq!(read == BCRYPT, is_read_right(written, reader), "{reader:?} reads {written:?} as {read}");
    }
}

/// What is written is read back, whatever stood in the file: by each reader from the file that is
/// for it.
#[rstest]
#[case::new(None)]
#[case::among_others(Some("# ours\nexport OTHER=\"a b\"\nCOMFYUI_API_TOKEN=old # note\nLAST=1"))]
#[case::crlf(Some("OTHER=1\r\nCOMFYUI_API_TOKEN=old\r\nLAST=1\r\n"))]
fn what_the_command_writes_is_read_back_by_every_reader(#[case] before: Option<&str>) {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("PASSWORD"), format!("{BCRYPT}\nme")).expect("written");
    if let Some(text) = before {
        std::fs::write(at(".env"), text).expect("written");
    }
    let path = |name: &str| at(name).display().to_string();
    let ran = Lockproof::new(["token", "extract", "--credential-file", &path("PASSWORD")])
        .args(["--env-file", &path(".env"), "--docker-env-file", &path(".env.docker")])
        .begin()
        .wait();
    ran.ends_with(0);
    no_token_in(&ran, &[BCRYPT]);
    let mut read: BTreeMap<String, bool> = BTreeMap::new();
    for reader in [
        Reader::PythonDotenv,
        Reader::ComposeV1Interpolation,
        Reader::ComposeV1EnvFile,
        Reader::ComposeV2Interpolation,
        Reader::ComposeV2EnvFile,
        Reader::Shell,
        Reader::DockerRun,
    ] {
        let file = if reader == Reader::DockerRun { ".env.docker" } else { ".env" };
        if let Some(value) = reader.read(dir.path(), file) {
            read.insert(format!("{reader:?}"), value == BCRYPT);
        }
    }
    assert!(read.values().all(|right| *right) && read.len() > 1, "{read:?}");
    for name in [".env", ".env.docker"] {
        let mode = std::fs::metadata(at(name)).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    if let Some(text) = before {
        let others = |text: &str| text.lines().filter(|l| !l.starts_with(TOKEN)).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(others(text), others(&std::fs::read_to_string(at(".env")).expect("read")));
    }
}

#[track_caller]
fn no_token_in(ran: &Ran, tokens: &[&str]) {
    for token in tokens {
        assert!(!ran.stdout.contains(token) && !ran.stderr.contains(token), "the token is shown");
    }
}

/// A locked lab, and the keys to it where it has them.
struct Scene {
    comfyui: RunningComfyUi,
    keys: Option<Keys>,
    url: String,
    directory: tempfile::TempDir,
}

impl Scene {
    fn begin(minted: bool) -> Self {
        let suite = Suite::of_this_run();
        block_on(async {
            // The credential on a volume, as a deployment that keeps its lock has it.
            let login = format!("{}/login", suite.code_dir);
            let image = ComfyUi::image(&suite.image).with_cmd(suite.command).with_volume("login", login);
            let image = image.with_startup_timeout(patience(180)).with_stop_timeout(Duration::from_secs(1));
            let mut comfyui = image.start().await.unwrap_or_else(|e| panic!("{e}"));
            comfyui.install_plugin(&suite.plugin, Some(&suite.wheels)).await.unwrap_or_else(|e| panic!("{e}"));
            let keys = if minted { Some(comfyui.mint().await.expect("a token")) } else { None };
            let url = comfyui.base_url().await.expect("an address");
            Self { comfyui, keys, url, directory: tempfile::tempdir().expect("a directory") }
        })
    }

    fn env_path(&self) -> PathBuf {
        self.directory.path().join(".env")
    }

    fn token(&self) -> &str {
        self.keys.as_ref().expect("it was minted").token()
    }

    /// `lockproof token …` with the `.env` of this scene.
    fn command(&self, arguments: &[&str]) -> Lockproof {
        let env_file = self.env_path().display().to_string();
        Lockproof::new(["token"]).args(arguments.iter().copied()).args(["--env-file", &env_file])
    }

    fn in_env_file(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.env_path()).ok()?;
        dotenv::get(&text, TOKEN).map(|a| a.text)
    }

    /// The status that a token gets now, or `None` while nobody answers. The engine maps another port
    /// at each start, and it was not this test that started it.
    fn status(&self, token: &str) -> Option<u16> {
        block_on(async {
            let engine = Engine::connect().await.expect("an engine");
            let address = engine.published(&self.comfyui.id()).await.expect("the engine says")?;
            let client = Client::new(address, patience(5));
            let request = Request::get("/queue").header("Authorization", format!("Bearer {token}"));
            client.send(&request).await.ok().map(|answer| answer.status.as_u16())
        })
    }

    fn end(self) {
        block_on(self.comfyui.remove()).expect("it is removed");
    }
}

#[test]
fn a_token_is_minted_by_the_form_and_found_wherever_it_lies() {
    let scene = Scene::begin(false);
    let (id, url) = (scene.comfyui.id(), scene.url.clone());
    let minted = scene
        .command(&["mint", "--url", &url, "--container", &id, "--password-env", "PW"])
        .env("PW", "a-password-of-the-test")
        .begin()
        .wait();
    minted.ends_with(0);
    let token = scene.in_env_file().expect("it was written");
    no_token_in(&minted, &[&token, "a-password-of-the-test"]);
    assert_eq!((scene.status(&token), scene.status("another-token")), (Some(200), Some(401)));

    // The same token from every place.
    let volumes =
        output(Command::new("docker").args(["inspect", "--format", "{{range .Mounts}}{{.Name}} {{end}}", &id]));
    let volume = volumes.expect("docker").split_whitespace().next().map(str::to_owned).expect("it has one");
    for place in [["--container", id.as_str()], ["--volume", volume.as_str()]] {
        std::fs::remove_file(scene.env_path()).expect("removed");
        let ran = scene.command(&["extract", "--url", &url]).args(place).begin().wait();
        ran.ends_with(0).left_nothing();
        assert_eq!(scene.in_env_file().as_deref(), Some(token.as_str()), "{place:?}");
    }
    // A second password is none: there is a credential.
    let again = scene.command(&["mint", "--container", &id]).begin().wait();
    again.ends_with(2);
    assert!(again.stderr.contains("the credential already exists"), "{}", again.stderr);
    let wrong = scene
        .command(&["mint", "--url", &url, "--container", &id, "--password-env", "PW"])
        .env("PW", "another-password")
        .begin()
        .wait();
    wrong.ends_with(2);
    assert!(wrong.stderr.contains("rejected the user name and password"), "{}", wrong.stderr);
    scene.end();
}

#[test]
fn a_check_says_who_disagrees_without_showing_the_token() {
    let scene = Scene::begin(true);
    let url = scene.url.clone();
    let token = scene.token().to_owned();
    let check = || scene.command(&["check", "--url", &url]);
    let said = |ran: &Ran| {
        no_token_in(ran, &[&token, "another-token"]);
        ran.stdout.replace(&url, "URL").replace(&scene.env_path().display().to_string(), ".env")
    };
    let nothing = check().begin().wait();
    nothing.ends_with(1);
    dotenv::store(&scene.env_path(), TOKEN, &token, Spelling::Quoted).expect("written");
    let agreed = check().env(TOKEN, &token).begin().wait();
    agreed.ends_with(0);
    let disagreed = check().env(TOKEN, "another-token").env("COMFYUI_API_KEY", &token).begin().wait();
    disagreed.ends_with(1);
    let all = [said(&nothing), said(&agreed), said(&disagreed)].join("\n");
    let tidy = regex_lite::Regex::new(" +  ").expect("a pattern").replace_all(&all, "  ").into_owned();
    insta::assert_snapshot!(tidy);
    scene.end();
}

#[test]
fn a_rotation_kills_the_old_token_and_brings_the_new_one() {
    let scene = Scene::begin(true);
    let (id, old) = (scene.comfyui.id(), scene.token().to_owned());
    let ran = scene.command(&["rotate", "--container", &id, "--stop-timeout", "1s", "--cost", "4"]).begin().wait();
    ran.ends_with(0);
    let new = scene.in_env_file().expect("it was written");
    no_token_in(&ran, &[&old, &new]);
    assert_ne!(old, new);
    assert_eq!((scene.status(&new), scene.status(&old)), (Some(200), Some(401)));
    scene.end();
}

/// Whatever keeps a rotation from its end, the old token is in force afterwards.
#[rstest]
#[case::the_restart_fails(&["--restart-command", "exit 3"], 3, None)]
#[case::it_never_comes_back(&["--restart-command", "docker stop --time 0 ID", "--ready-timeout", "3s"], 4, None)]
#[case::the_env_file_cannot_be_written(&["--docker-env-file", "/proc/none/env"], 3, None)]
#[case::interrupted(&["--restart-command", "sleep 5"], 130, Some("INT"))]
#[case::terminated(&["--restart-command", "sleep 5"], 143, Some("TERM"))]
fn a_rotation_that_fails_puts_the_old_token_back(
    #[case] how: &[&str],
    #[case] code: i32,
    #[case] signal: Option<&str>,
) {
    let scene = Scene::begin(true);
    let (id, old) = (scene.comfyui.id(), scene.token().to_owned());
    dotenv::store(&scene.env_path(), TOKEN, &old, Spelling::Quoted).expect("written");
    let arguments: Vec<String> = how.iter().map(|word| word.replace("ID", &id)).collect();
    let command = scene.command(&["rotate", "--container", &id, "--cost", "4", "--stop-timeout", "1s"]).args(arguments);
    // With a command that restarts nothing the port stays; where the container is restarted, it does not.
    let command = if how[0] == "--restart-command" { command.args(["--url", &scene.url]) } else { command };
    let running = command.begin();
    if let Some(signal) = signal {
        wait_until(|| {
            let now = block_on(scene.comfyui.exec(["head", "-n", "1", "/opt/ComfyUI/login/PASSWORD"])).expect("exec");
            now.stdout.trim() != old
        });
        running.signal(signal);
    }
    let ran = running.wait();
    ran.ends_with(code);
    assert_eq!(scene.in_env_file().as_deref(), Some(old.as_str()));
    no_token_in(&ran, &[&old]);
    // Where the restart left it stopped, a start is all that it needs.
    output(Command::new("docker").args(["start", &id])).expect("docker");
    wait_until(|| scene.status(&old) == Some(200));
    let stored = block_on(scene.comfyui.exec(["head", "-n", "1", "/opt/ComfyUI/login/PASSWORD"])).expect("exec");
    assert_eq!(stored.stdout.trim(), old);
    scene.end();
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let end = Instant::now() + patience(30);
    while !done() {
        assert!(Instant::now() < end, "it did not happen");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_rotation_of_another_server_s_credential_changes_nothing() {
    let scene = Scene::begin(true);
    let file = scene.directory.path().join("PASSWORD");
    std::fs::write(&file, format!("{BCRYPT}\nme")).expect("written");
    let path = file.display().to_string();
    let ran = scene.command(&["rotate", "--credential-file", &path, "--url", &scene.url]).begin().wait();
    ran.ends_with(4);
    assert!(ran.stderr.contains("does not accept the token that is to be replaced"), "{}", ran.stderr);
    assert_eq!(std::fs::read_to_string(&file).expect("read"), format!("{BCRYPT}\nme"));
    assert!(scene.in_env_file().is_none());
    scene.end();
}
