//! Builds a minimal root file system from the machine's own apt sources.
//!
//! If no image registry is available, the lab's base image is built here: `mmdebstrap` fetches the
//! machine's release from its own package archives, and the caller imports the tar file. Nothing on
//! the machine is changed, except that `mmdebstrap` is installed if it is missing and this user may
//! install it.

mod sources;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;

use sources::{Release, Selection};

/// The number of output lines of a tool in an error.
const TAIL: usize = 12;

/// Ends the work when the parent process ends; see its first lines.
const SUPERVISOR: &str = include_str!("rootfs/supervise.sh");

/// Excluded from every package, as in the slim images of registries.
const EXCLUDED: [&str; 7] = [
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/lintian/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-include=/usr/share/locale/locale.alias",
];

/// Run at the end, in the new root: removes this machine's settings (mirrors, which may contain a
/// password, proxy, host name).
const FORGET: &str = r#"rm -f "$1"/etc/apt/apt.conf.d/99lockproof "$1"/etc/apt/sources.list \
"$1"/etc/apt/sources.list.d/* "$1"/etc/dpkg/dpkg.cfg.d/99lockproof "$1"/etc/resolv.conf "$1"/etc/hostname"#;

/// Run at the start: dpkg need not sync, because an incomplete root is discarded.
const HURRY: &str =
    r#"mkdir -p "$1"/etc/dpkg/dpkg.cfg.d && echo force-unsafe-io >"$1"/etc/dpkg/dpkg.cfg.d/99lockproof"#;

/// The errors of building a root file system, with instructions in [`RootfsError::remedy`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootfsError {
    /// The machine does not use apt.
    #[error(
        "cannot build a base image on this machine: it runs `{name}` (/etc/os-release), but only Debian, \
        Ubuntu and their derivatives have the apt sources for it"
    )]
    NotDebian {
        /// `ID` of os-release(5).
        name: String,
    },
    /// None of the apt sources is for the release.
    #[error(
        "none of the {read} apt entries in /etc/apt/sources.list and /etc/apt/sources.list.d is for the \
        release `{codename}` of `{name}`"
    )]
    NoSources {
        /// `ID` of os-release(5).
        name: String,
        /// The code names searched for.
        codename: String,
        /// The number of entries read.
        read: usize,
    },
    /// `mmdebstrap` is missing, and this user cannot install it.
    #[error("`mmdebstrap` is not installed, and only root can install it")]
    ToolMissing,
    /// `apt-get` could not install `mmdebstrap`.
    #[error("`{command}` exited with {status}:\n{tail}")]
    Install {
        /// The command line.
        command: String,
        /// Its exit status.
        status: ExitStatus,
        /// Its last output lines.
        tail: String,
    },
    /// `mmdebstrap` failed.
    #[error("mmdebstrap failed to build `{codename}` from the machine's apt sources; it exited with {status}:\n{tail}")]
    Bootstrap {
        /// The release.
        codename: String,
        /// Its exit status.
        status: ExitStatus,
        /// Its last output lines.
        tail: String,
    },
    /// A file or a process on this machine could not be used.
    #[error("cannot {doing} `{}`: {source}", path.display())]
    Io {
        /// The verb.
        doing: &'static str,
        /// The file or program.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

impl RootfsError {
    /// Instructions to fix it.
    pub(crate) fn remedy(&self) -> String {
        match self {
            Self::NotDebian { .. } => "copy the base image from a machine with access to an image registry: \
                there `docker save debian:bookworm-slim >base.tar`, here `docker load <base.tar`"
                .to_owned(),
            Self::NoSources { codename, .. } => format!(
                "add the distribution's entry for `{codename}` to \
                /etc/apt/sources.list and check that `apt-get update` works"
            ),
            Self::ToolMissing => "run: sudo apt-get install -y mmdebstrap uidmap".to_owned(),
            Self::Install { command, .. } => format!("run `{command}` as root, then try again"),
            Self::Bootstrap { .. } => format!(
                "see the lines above; check that `apt-get update` works on \
                this machine and that {} has 1 GB of free space (set TMPDIR to use another directory)",
                std::env::temp_dir().display()
            ),
            Self::Io { path, .. } => format!(
                "check that `{}` exists, that this user can access it, and that the disk is not full",
                path.display()
            ),
        }
    }
}

/// Converts an I/O error about `path`.
fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> RootfsError {
    let path = path.into();
    move |source| RootfsError::Io { doing, path, source }
}

/// Builds a minimal root file system with `packages`, as an uncompressed tar file at `dest_tar`.
///
/// `dest_tar` is written atomically. `progress` gets one short line for each step. If the future is
/// dropped or this process ends, the work is stopped and its files are removed; a started
/// installation of `mmdebstrap` is completed, because an interrupted dpkg would break the machine.
///
/// # Errors
/// If the machine is not Debian-like or has no usable apt sources, or if `mmdebstrap` is not
/// available or fails.
pub(crate) async fn bootstrap(
    dest_tar: &Path,
    packages: &[&str],
    progress: &(dyn Fn(&str) + Sync),
) -> Result<(), RootfsError> {
    let selection = machine_sources(Path::new("/etc"))?;
    ensure_mmdebstrap(progress).await?;

    let scratch = tempfile::Builder::new()
        .prefix("lockproof-rootfs-")
        // Without root, mmdebstrap runs as another user, which needs access.
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempdir()
        .map_err(io("create a directory in", std::env::temp_dir()))?;
    let sources = scratch.path().join("machine.sources");
    write(&sources, &sources::render(&selection.entries)).await?;
    let settings = scratch.path().join("apt.conf");
    write(&settings, &transport_settings().await?).await?;
    // Created first, so that an invalid path is reported before the work.
    let partial = partial(dest_tar);
    tokio::fs::File::create(&partial).await.map_err(io("write", &partial))?;

    progress(&format!("building {} from this machine's apt sources", selection.codename));
    let mut command = Command::new("sh");
    command.args(["-c", SUPERVISOR, "lockproof-rootfs"]).arg(scratch.path()).arg(&partial);
    command.args(["mmdebstrap", "--variant=minbase", "--format=tar"]);
    command.args(EXCLUDED.map(|option| format!("--dpkgopt={option}")));
    // mmdebstrap does not accept an empty list.
    command.args(packages.iter().map(|package| format!("--include={package}")));
    command.arg(format!("--setup-hook={HURRY}"));
    // Not `--aptopt`, which would stay in the image.
    command.arg(format!("--setup-hook=upload '{}' /etc/apt/apt.conf.d/99lockproof", settings.display()));
    command.arg(format!("--customize-hook={FORGET}"));
    command.arg(&selection.codename).arg(&partial).arg(&sources);
    command.env("TMPDIR", scratch.path());

    let (status, tail) = supervised(command, progress, || {
        // From here on, the supervisor removes the directory, after its last user has exited.
        let _kept = scratch.keep();
    })
    .await?;
    if !status.success() {
        return Err(RootfsError::Bootstrap { codename: selection.codename, status, tail });
    }
    tokio::fs::rename(&partial, dest_tar).await.map_err(io("write", dest_tar))
}

/// Runs the supervisor, and passes mmdebstrap's steps to `progress`.
async fn supervised(
    mut command: Command,
    progress: &(dyn Fn(&str) + Sync),
    started: impl FnOnce(),
) -> Result<(ExitStatus, String), RootfsError> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // A separate process group: Ctrl-C is handled by this process, which then closes the pipe.
        .process_group(0)
        .spawn()
        .map_err(io("run", "sh"))?;
    started();
    let _life_line = child.stdin.take();
    let stderr = child.stderr.take();
    let tail = last_lines(stderr, |line| {
        // Steps that take time end in dots; paths and signals are not shown.
        let step = line.strip_prefix("I: ").and_then(|step| step.strip_suffix("..."));
        if let Some(step) = step.filter(|step| !step.contains(['/', ':'])) {
            progress(step);
        }
    })
    .await;
    let status = child.wait().await.map_err(io("wait for", "mmdebstrap"))?;
    Ok((status, tail))
}

/// Reads to the end and keeps the last lines, with passwords in URLs removed.
async fn last_lines(pipe: Option<impl AsyncRead + Unpin>, mut seen: impl FnMut(&str)) -> String {
    let mut tail = VecDeque::new();
    if let Some(pipe) = pipe {
        let mut lines = BufReader::new(pipe).split(b'\n');
        // A read error ends the output; the exit status tells how the tool ended.
        while let Ok(Some(line)) = lines.next_segment().await {
            let line = without_passwords(String::from_utf8_lossy(&line).trim_end());
            seen(&line);
            // mmdebstrap prints each step and then "done"; errors are on other lines.
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

/// The temporary file beside `dest_tar`.
fn partial(dest_tar: &Path) -> PathBuf {
    let mut name = dest_tar.as_os_str().to_owned();
    name.push(format!(".{}.partial", std::process::id()));
    PathBuf::from(name)
}

/// Writes a file that only this user can read: a URL may contain a password.
async fn write(path: &Path, text: &str) -> Result<(), RootfsError> {
    let mut options = tokio::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).await.map_err(io("write", path))?;
    tokio::io::AsyncWriteExt::write_all(&mut file, text.as_bytes()).await.map_err(io("write", path))?;
    tokio::io::AsyncWriteExt::flush(&mut file).await.map_err(io("write", path))
}

/// Reads the machine's distribution and its package sources.
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

/// The files that apt reads, in order. Any of them may be missing.
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

/// The settings by which apt reaches its archives. Paths in it (certificates, passwords) stay
/// valid, because apt runs outside the new root.
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

/// Checks for `mmdebstrap`, and installs it if this user may.
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
    // The owner of /proc/self is the effective user.
    if !std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        return Err(RootfsError::ToolMissing);
    }
    progress("installing mmdebstrap with apt-get");
    apt_get(&["update"]).await?;
    apt_get(&["install", "-y", "--no-install-recommends", "mmdebstrap"]).await
}

/// Runs apt-get, which waits for another running apt-get.
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
    fn without_apt_the_error_says_how_to_get_an_image() {
        let etc = etc_with(&[("os-release", "ID=fedora\n")]);
        let error = machine_sources(etc.path()).expect_err("not Debian");
        assert!(error.to_string().contains("`fedora` (/etc/os-release)"), "{error}");
        assert!(error.remedy().contains("docker load"), "{}", error.remedy());
    }

    #[test]
    fn without_a_matching_source_the_error_names_the_release() {
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
