//! A minimal root file system from the machine's own apt sources.
//!
//! Where no image registry answers, the lab's base image is made here: `mmdebstrap` fetches the
//! machine's own release from the archives that the machine itself uses, and the caller imports
//! the tar. The machine is only read, but for `mmdebstrap` itself, which is installed where it is
//! missing and that is allowed.

mod sources;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;

use sources::{Release, Selection};

/// How many of a tool's last lines an error shows.
const TAIL: usize = 12;

/// Ends the work with the process that asked for it; its own first lines say how.
const SUPERVISOR: &str = include_str!("rootfs/supervise.sh");

/// Left out of every package, as in the slim images that the registries have.
const EXCLUDED: [&str; 7] = [
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/lintian/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-include=/usr/share/locale/locale.alias",
];

/// Run at the end, in the new root: what belongs to this machine (its mirrors, which may hold a
/// password, its proxy, its name) stays out of the image.
const FORGET: &str = r#"rm -f "$1"/etc/apt/apt.conf.d/99lockproof "$1"/etc/apt/sources.list \
"$1"/etc/apt/sources.list.d/* "$1"/etc/dpkg/dpkg.cfg.d/99lockproof "$1"/etc/resolv.conf "$1"/etc/hostname"#;

/// Run at the start: nobody needs a half-made root after a power cut, so dpkg need not sync.
const HURRY: &str =
    r#"mkdir -p "$1"/etc/dpkg/dpkg.cfg.d && echo force-unsafe-io >"$1"/etc/dpkg/dpkg.cfg.d/99lockproof"#;

/// Why there is no root file system. [`RootfsError::remedy`] tells what to do about it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootfsError {
    /// The machine's packages do not come from apt.
    #[error(
        "no base image can be made here: this machine runs `{name}` (/etc/os-release), and only Debian, Ubuntu and what derives from them have apt sources to make one from"
    )]
    NotDebian {
        /// `ID` of os-release(5).
        name: String,
    },
    /// None of the apt sources belongs to the release.
    #[error(
        "none of the {read} apt entries in /etc/apt/sources.list and /etc/apt/sources.list.d belongs to the release `{codename}` of `{name}`"
    )]
    NoSources {
        /// `ID` of os-release(5).
        name: String,
        /// The code names looked for.
        codename: String,
        /// How many entries were read.
        read: usize,
    },
    /// `mmdebstrap` is missing and may not be installed by this user.
    #[error("`mmdebstrap` is not installed, and only root may install it")]
    ToolMissing,
    /// `apt-get` could not install `mmdebstrap`.
    #[error("`{command}` ended with {status}:\n{tail}")]
    Install {
        /// The command as a person would type it.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// Its last lines.
        tail: String,
    },
    /// `mmdebstrap` ran and failed.
    #[error("mmdebstrap could not make `{codename}` from the machine's apt sources; it ended with {status}:\n{tail}")]
    Bootstrap {
        /// The release.
        codename: String,
        /// How it ended.
        status: ExitStatus,
        /// Its last lines.
        tail: String,
    },
    /// A file or a process on this machine could not be used.
    #[error("cannot {doing} `{}`: {source}", path.display())]
    Io {
        /// The verb.
        doing: &'static str,
        /// The file or the program.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl RootfsError {
    /// What a person can do about it.
    pub(crate) fn remedy(&self) -> String {
        match self {
            Self::NotDebian { .. } => "bring the base image from elsewhere: on a machine with an image registry `docker save debian:bookworm-slim >base.tar`, here `docker load <base.tar`".to_owned(),
            Self::NoSources { codename, .. } => format!("add the distribution's own entry for `{codename}` to /etc/apt/sources.list; `apt-get update` must work with it"),
            Self::ToolMissing => "run: sudo apt-get install -y mmdebstrap uidmap".to_owned(),
            Self::Install { command, .. } => format!("make `{command}` work as root, then run this again"),
            Self::Bootstrap { .. } => format!("the lines above name the cause; see whether `apt-get update` works on this machine, and whether {} has a gigabyte free (TMPDIR moves it)", std::env::temp_dir().display()),
            Self::Io { path, .. } => format!("see that `{}` is there and that this user may use it, and that the disk is not full", path.display()),
        }
    }
}

/// What to do with an I/O error that concerns `path`.
fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> RootfsError {
    let path = path.into();
    move |source| RootfsError::Io { doing, path, source }
}

/// Makes a minimal root file system with `packages` in it, as an uncompressed tar at `dest_tar`.
///
/// `dest_tar` appears complete or not at all. `progress` gets one short line for each step.
/// When the future is dropped, or this process dies, the work is stopped and what it made is
/// removed; an installation of `mmdebstrap` that has begun is finished all the same, because an
/// interrupted dpkg leaves the machine broken.
///
/// # Errors
/// When the machine is not Debian-like, has no usable apt sources, `mmdebstrap` cannot be had, or
/// fails.
pub(crate) async fn bootstrap(
    dest_tar: &Path,
    packages: &[&str],
    progress: &(dyn Fn(&str) + Sync),
) -> Result<(), RootfsError> {
    let selection = machine_sources(Path::new("/etc"))?;
    ensure_mmdebstrap(progress).await?;

    let scratch = tempfile::Builder::new()
        .prefix("lockproof-rootfs-")
        // Without root, mmdebstrap works as another user, which has to get in.
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempdir()
        .map_err(io("make a directory in", std::env::temp_dir()))?;
    let sources = scratch.path().join("machine.sources");
    write(&sources, &sources::render(&selection.entries)).await?;
    let settings = scratch.path().join("apt.conf");
    write(&settings, &transport_settings().await?).await?;
    // Made here, so that a bad place shows before the work does.
    let partial = partial(dest_tar);
    tokio::fs::File::create(&partial).await.map_err(io("write", &partial))?;

    progress(&format!("making {} from this machine's apt sources", selection.codename));
    let mut command = Command::new("sh");
    command.args(["-c", SUPERVISOR, "lockproof-rootfs"]).arg(scratch.path()).arg(&partial);
    command.args(["mmdebstrap", "--variant=minbase", "--format=tar"]);
    command.args(EXCLUDED.map(|option| format!("--dpkgopt={option}")));
    // An empty list is a usage error to mmdebstrap.
    command.args(packages.iter().map(|package| format!("--include={package}")));
    command.arg(format!("--setup-hook={HURRY}"));
    // Not --aptopt, which stays in the image.
    command.arg(format!("--setup-hook=upload '{}' /etc/apt/apt.conf.d/99lockproof", settings.display()));
    command.arg(format!("--customize-hook={FORGET}"));
    command.arg(&selection.codename).arg(&partial).arg(&sources);
    command.env("TMPDIR", scratch.path());

    let (status, tail) = supervised(command, progress, || {
        // From here on the supervisor removes the directory: not before its last user is gone.
        let _kept = scratch.keep();
    })
    .await?;
    if !status.success() {
        return Err(RootfsError::Bootstrap { codename: selection.codename, status, tail });
    }
    tokio::fs::rename(&partial, dest_tar).await.map_err(io("write", dest_tar))
}

/// Runs the supervisor to its end and passes the steps that mmdebstrap names on to `progress`.
async fn supervised(
    mut command: Command,
    progress: &(dyn Fn(&str) + Sync),
    started: impl FnOnce(),
) -> Result<(ExitStatus, String), RootfsError> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // Its own group: Ctrl-C is for this process, which then lets go of the life-line.
        .process_group(0)
        .spawn()
        .map_err(io("run", "sh"))?;
    started();
    let _life_line = child.stdin.take();
    let stderr = child.stderr.take();
    let tail = last_lines(stderr, |line| {
        // What takes time ends in dots; paths and signals concern nobody.
        let step = line.strip_prefix("I: ").and_then(|step| step.strip_suffix("..."));
        if let Some(step) = step.filter(|step| !step.contains(['/', ':'])) {
            progress(step);
        }
    })
    .await;
    let status = child.wait().await.map_err(io("wait for", "mmdebstrap"))?;
    Ok((status, tail))
}

/// Reads to the end and keeps the last lines, passwords in addresses blotted out.
async fn last_lines(pipe: Option<impl AsyncRead + Unpin>, mut seen: impl FnMut(&str)) -> String {
    let mut tail = VecDeque::new();
    if let Some(pipe) = pipe {
        let mut lines = BufReader::new(pipe).split(b'\n');
        // An error reading the pipe ends the tail; how the tool ended is told by its status.
        while let Ok(Some(line)) = lines.next_segment().await {
            let line = without_passwords(String::from_utf8_lossy(&line).trim_end());
            seen(&line);
            // mmdebstrap names each step and says "done" after it; what went wrong stands elsewhere.
            if line.is_empty() || line == "done" || line.starts_with("I: ") {
                continue;
            }
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(line);
        }
    }
    tail.into_iter().fold(String::new(), |mut text, line| {
        let _infallible = writeln!(text, "  {line}");
        text
    })
}

/// `scheme://user:password@host` → `scheme://…@host`.
fn without_passwords(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        shown.push_str(before);
        let authority = after.find(['/', ' ', '"', '\'']).unwrap_or(after.len());
        rest = match after[..authority].rfind('@') {
            Some(at) => {
                shown.push('…');
                &after[at..]
            }
            None => after,
        };
    }
    shown.push_str(rest);
    shown
}

/// The tar while it is being written, beside where it will be.
fn partial(dest_tar: &Path) -> PathBuf {
    let mut name = dest_tar.as_os_str().to_owned();
    name.push(format!(".{}.partial", std::process::id()));
    PathBuf::from(name)
}

/// Writes a file that only this user can read: an address may hold a password.
async fn write(path: &Path, text: &str) -> Result<(), RootfsError> {
    let mut options = tokio::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).await.map_err(io("write", path))?;
    tokio::io::AsyncWriteExt::write_all(&mut file, text.as_bytes()).await.map_err(io("write", path))?;
    tokio::io::AsyncWriteExt::flush(&mut file).await.map_err(io("write", path))
}

/// Reads what the machine's distribution is and where it gets its packages.
fn machine_sources(etc: &Path) -> Result<Selection, RootfsError> {
    let os_release = etc.join("os-release");
    let text = std::fs::read_to_string(&os_release).map_err(io("read", &os_release))?;
    let release = Release::parse(&text);
    if !release.is_debian_like() {
        return Err(RootfsError::NotDebian { name: release.name().to_owned() });
    }
    let mut entries = Vec::new();
    for file in source_files(&etc.join("apt"))? {
        let text = std::fs::read_to_string(&file).map_err(io("read", &file))?;
        entries.extend(match file.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => sources::parse_deb822(&text),
            _ => sources::parse_one_line(&text),
        });
    }
    sources::select(&entries, &release).ok_or_else(|| RootfsError::NoSources {
        name: release.name().to_owned(),
        codename: release.codenames.join("` or `"),
        read: entries.len(),
    })
}

/// The files that apt reads, in its order. None need be there.
fn source_files(apt: &Path) -> Result<Vec<PathBuf>, RootfsError> {
    let mut files = Vec::new();
    let main = apt.join("sources.list");
    if main.exists() {
        files.push(main);
    }
    let parts = apt.join("sources.list.d");
    if parts.is_dir() {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&parts).map_err(io("read", &parts))? {
            let path = entry.map_err(io("read", &parts))?.path();
            if path.extension().is_some_and(|extension| extension == "list" || extension == "sources") {
                found.push(path);
            }
        }
        found.sort();
        files.extend(found);
    }
    Ok(files)
}

/// How apt reaches the archives from here. The names of files in it (certificates, passwords)
/// stay valid: apt works from outside the new root.
async fn transport_settings() -> Result<String, RootfsError> {
    let dump = Command::new("apt-config")
        .arg("dump")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(io("run", "apt-config"))?;
    let mut settings = sources::transport_settings(&String::from_utf8_lossy(&dump.stdout));
    settings.push_str("Dir::Etc::netrc \"/etc/apt/auth.conf\";\nDir::Etc::netrcparts \"/etc/apt/auth.conf.d\";\n");
    Ok(settings)
}

/// Sees that `mmdebstrap` is there, and installs it where that is allowed.
async fn ensure_mmdebstrap(progress: &(dyn Fn(&str) + Sync)) -> Result<(), RootfsError> {
    let there = Command::new("mmdebstrap")
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await;
    match there {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(io("run", "mmdebstrap")(error)),
    }
    // Who owns /proc/self is who this process acts as.
    if !std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        return Err(RootfsError::ToolMissing);
    }
    progress("installing mmdebstrap with apt-get");
    apt_get(&["update"]).await?;
    apt_get(&["install", "-y", "--no-install-recommends", "mmdebstrap"]).await
}

/// Runs apt-get, which waits for its turn when another one is at work.
async fn apt_get(args: &[&str]) -> Result<(), RootfsError> {
    let mut child = Command::new("apt-get")
        .args(["-q", "-o", "DPkg::Lock::Timeout=120"])
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(io("run", "apt-get"))?;
    let tail = last_lines(child.stderr.take(), |_| {}).await;
    let status = child.wait().await.map_err(io("wait for", "apt-get"))?;
    if status.success() {
        return Ok(());
    }
    Err(RootfsError::Install { command: format!("apt-get {}", args.join(" ")), status, tail })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn etc_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let etc = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            let path = etc.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        etc
    }

    #[test]
    fn both_formats_are_read_from_the_places_that_apt_reads() {
        let etc = etc_with(&[
            ("os-release", "ID=debian\nVERSION_CODENAME=bookworm\n"),
            ("apt/sources.list", "deb http://mirror.example/debian bookworm main\n"),
            (
                "apt/sources.list.d/b.sources",
                "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm-updates\nComponents: main\n",
            ),
            (
                "apt/sources.list.d/c.sources.disabled",
                "Types: deb\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\n",
            ),
        ]);
        let selection = machine_sources(etc.path()).expect("a selection");
        assert_eq!(selection.codename, "bookworm");
        assert_eq!(selection.entries.len(), 2);
    }

    #[test]
    fn a_machine_without_apt_is_told_where_else_an_image_comes_from() {
        let etc = etc_with(&[("os-release", "ID=fedora\n")]);
        let error = machine_sources(etc.path()).expect_err("not Debian");
        assert!(error.to_string().contains("`fedora` (/etc/os-release)"), "{error}");
        assert!(error.remedy().contains("docker load"), "{}", error.remedy());
    }

    #[test]
    fn a_machine_without_its_own_archive_is_told_which_release_is_missing() {
        let etc = etc_with(&[
            ("os-release", "ID=debian\nVERSION_CODENAME=bookworm\n"),
            ("apt/sources.list", "deb https://browser.example/deb stable main\n"),
        ]);
        let error = machine_sources(etc.path()).expect_err("no release");
        assert!(error.to_string().contains("none of the 1 apt entries"), "{error}");
        assert!(error.remedy().contains("`bookworm`"), "{}", error.remedy());
    }

    #[test]
    fn passwords_in_addresses_are_never_shown() {
        assert_eq!(
            without_passwords("E: http://me:s3cret@mirror.example/debian and https://plain.example/a@b"),
            "E: http://…@mirror.example/debian and https://plain.example/a@b"
        );
    }

    #[tokio::test]
    async fn the_tail_keeps_the_last_lines_and_every_line_is_seen() {
        let text = (0..20).fold(String::new(), |text, line| format!("{text}line {line}\n"));
        let text = text + "done\n\n";
        let mut count = 0;
        let tail = last_lines(Some(text.as_bytes()), |_| count += 1).await;
        assert_eq!(count, 22);
        assert!(tail.starts_with("  line 8\n") && tail.ends_with("  line 19\n"), "{tail}");
    }

    /// Starts the supervisor on `script`, which finds its scratch directory in `$SCRATCH`.
    fn supervisor(scratch: &Path, partial: &Path, script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", SUPERVISOR, "lockproof-rootfs"]).arg(scratch).arg(partial);
        command.args(["sh", "-c", script]).env("SCRATCH", scratch).env("PARTIAL", partial);
        command
    }

    #[test]
    fn the_work_may_be_done_on_any_thread() {
        fn is_send(_: impl Send) {}
        is_send(bootstrap(Path::new("/nowhere/base.tar"), &["python3"], &|_| {}));
    }

    async fn gone(path: &Path) -> bool {
        for _ in 0..100 {
            if !path.exists() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    }

    #[tokio::test]
    async fn steps_are_reported_and_the_tail_of_a_failure_is_kept() {
        let scratch = tempfile::tempdir().expect("a directory").keep();
        let partial = scratch.with_extension("partial");
        let steps = std::sync::Mutex::new(Vec::new());
        let command = supervisor(
            &scratch,
            &partial,
            r#"echo half >"$PARTIAL"; echo "I: fetching..." >&2; echo "E: no such package" >&2; exit 7"#,
        );
        let (status, tail) =
            supervised(command, &|step| steps.lock().expect("unpoisoned").push(step.to_owned()), || {})
                .await
                .expect("it ran");
        assert_eq!(status.code(), Some(7));
        assert_eq!(*steps.lock().expect("unpoisoned"), ["fetching"]);
        assert!(tail.contains("E: no such package"), "{tail}");
        assert!(!scratch.exists() && !partial.exists());
    }

    #[tokio::test]
    async fn dropping_the_future_stops_the_work_and_removes_what_it_made() {
        let scratch = tempfile::tempdir().expect("a directory").keep();
        let partial = scratch.with_extension("partial");
        let command =
            supervisor(&scratch, &partial, r#"echo half >"$PARTIAL"; sleep 600 & echo "$!" >"$SCRATCH/pid"; wait"#);
        let work = supervised(command, &|_| {}, || {});
        let limited = tokio::time::timeout(Duration::from_millis(500), work).await;
        assert!(limited.is_err(), "it must still have been at work");
        assert!(gone(&scratch).await, "the scratch directory stayed");
        assert!(gone(&partial).await, "the half-written tar stayed");
    }
}
