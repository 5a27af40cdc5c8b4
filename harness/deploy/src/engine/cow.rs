//! Copy-on-write binds: the host's directory is the lower layer and is never written.
//!
//! On Linux, the engine's local volume driver mounts an overlay:
//!
//! | volume | content |
//! |---|---|
//! | `…-layer` | `upper` and `work`, inside the volume's own mount point, so that they can be removed through the engine without root |
//! | `…-bind` | `type=overlay,lowerdir=<host>,upperdir=<layer>/upper,workdir=<layer>/work` |
//! | `…-copy` | instead of both: a copy, of which a path is bound |
//!
//! It is always mounted with `NoCopy`: otherwise an empty volume would be filled from the image,
//! and show files that the real bind hides. These are copied instead: single files, binds that
//! share files at two mount points (two overlays would not see each other's writes), and binds that
//! cannot be mounted as an overlay (on another operating system, or an unsupported file system). A
//! mount inside a bind is not visible through an overlay, and gets its own layer.

use std::{
    collections::HashMap,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use super::{
    Engine, Run,
    archive::{Owners, Ownership, Tarball, unreadable},
    container::{Attachment, ContainerSpec},
};
use lockproof_model::error::{Error, Result};

/// The size limit of a copy, if copy-on-write is not available.
const LARGEST_COPY: u64 = 2 * 1024 * 1024 * 1024;
/// Options that avoid copies on chown and rename; not every kernel supports them.
const SPARING: &str = ",metacopy=on,redirect_dir=on";

/// A requested bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindRequest {
    /// The host path.
    pub source: PathBuf,
    /// The path in the container.
    pub target: String,
    /// Whether it is read-only.
    pub read_only: bool,
}

/// Binds that the container can write without changing the host.
#[derive(Clone, Debug, Default)]
pub struct CowBinds {
    /// The mounts for the container.
    pub attachments: Vec<Attachment>,
    /// Their volumes, in the order in which they can be removed.
    pub volumes: Vec<String>,
    /// The targets of directories that had to be copied.
    pub copied: Vec<String>,
}

/// Creates binds for one subject.
#[derive(Clone, Copy, Debug)]
pub struct Maker<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// The run.
    pub run: &'a Run,
    /// The subject's label, and the prefix of all names.
    pub key: &'a str,
    /// Any local image: files are copied through a container of it that is never started.
    pub image: &'a str,
}

impl Maker<'_> {
    /// Creates copy-on-write binds.
    ///
    /// # Errors
    /// An environment error if neither an overlay nor a copy can be created; a usage error for
    /// sockets and devices, which cannot be copied.
    pub async fn bind(&self, requests: &[BindRequest]) -> Result<CowBinds> {
        let mut made = CowBinds::default();
        for group in overlapping(resolve(requests)?) {
            match group.as_slice() {
                [alone] => self.bind_one(alone, &mut made).await?,
                together => self.copy(together, &mut made).await?,
            }
        }
        Ok(made)
    }

    async fn bind_one(&self, request: &BindRequest, made: &mut CowBinds) -> Result<()> {
        if !request.source.is_dir() {
            return self.copy(std::slice::from_ref(request), made).await;
        }
        if self.overlay(request, SPARING, made).await.is_err() && self.overlay(request, "", made).await.is_err() {
            return self.copy(std::slice::from_ref(request), made).await;
        }
        for mount in mounts_below(&request.source) {
            let rest = mount.strip_prefix(&request.source).unwrap_or(&mount).display().to_string();
            let inner = BindRequest {
                target: format!("{}/{rest}", request.target),
                source: mount,
                read_only: request.read_only,
            };
            Box::pin(self.bind_one(&inner, made)).await?;
        }
        Ok(())
    }

    async fn overlay(&self, request: &BindRequest, sparing: &str, made: &mut CowBinds) -> Result<()> {
        let BindRequest { source, target, read_only } = request;
        let id = format!("{}{target}", self.key);
        let meta = std::fs::metadata(source).map_err(|e| unreadable(source, &e))?;
        let mut tarball = Tarball::new();
        // The root of an overlay has the owner and mode of its upper directory.
        let archive = tarball
            .directory("upper", meta.mode() & 0o7777, Ownership::of(&meta))
            .and_then(|()| tarball.directory("work", 0o755, Ownership::ROOT))
            .and_then(|()| tarball.finish())
            .map_err(|e| unreadable(source, &e))?;
        let layer = self.engine.create_volume(self.run, self.key, &format!("{id}-layer")).await?;
        self.fill(&layer, &format!("{id}-fill"), archive).await?;

        let point = self.engine.volume_mountpoint(&layer).await?;
        let options = format!(
            "lowerdir={},upperdir={point}/upper,workdir={point}/work{sparing}",
            escape(&source.display().to_string())
        );
        let driver = HashMap::from([
            ("type".to_owned(), "overlay".to_owned()),
            ("device".to_owned(), "overlay".to_owned()),
            ("o".to_owned(), options),
        ]);
        let volume = self.engine.create_volume_with(self.run, self.key, &format!("{id}-bind"), driver).await?;
        let attachment =
            Attachment::Volume { name: volume.clone(), target: target.clone(), read_only: *read_only, no_copy: true };
        // Reading through a container that is never started makes the engine try the mount.
        if let Err(e) = self.probe_mount(&attachment, &format!("{id}-try")).await {
            self.engine.remove_volume(&volume).await?;
            self.engine.remove_volume(&layer).await?;
            return Err(e);
        }
        made.attachments.push(attachment);
        made.volumes.extend([volume, layer]);
        Ok(())
    }

    /// Copies the source of the first request, and binds the other requests to parts of that copy.
    async fn copy(&self, requests: &[BindRequest], made: &mut CowBinds) -> Result<()> {
        let Some(root) = requests.first() else { return Ok(()) };
        let meta = std::fs::metadata(&root.source).map_err(|e| unreadable(&root.source, &e))?;
        if !meta.is_dir() && !meta.is_file() {
            let kind = if meta.file_type().is_socket() { "a socket" } else { "a device or a pipe" };
            return Err(Error::usage(format!("{} is {kind}", root.source.display()))
                .at(format!("mount `{}`", root.target))
                .fix("remove this mount from the subject: access through it would reach this machine"));
        }
        if size_of(&root.source, LARGEST_COPY) > LARGEST_COPY {
            let why = if requests.len() > 1 {
                "two mounts share the same host files"
            } else {
                "this engine cannot mount it copy-on-write"
            };
            return Err(Error::environment(format!("{} is too large to copy, and {why}", root.source.display()))
                .at(format!("mount `{}`", root.target))
                .fix("bind only the directories that the lock needs, each of them once"));
        }
        let id = format!("{}{}", self.key, root.target);
        let mut tarball = Tarball::new();
        let archive = if meta.is_dir() {
            tarball.tree(&root.source, "content", Owners::Their, &|_| false)
        } else {
            std::fs::read(&root.source)
                .and_then(|bytes| tarball.file("content", &bytes, meta.mode() & 0o7777, Ownership::of(&meta)))
        }
        .and_then(|()| tarball.finish())
        .map_err(|e| unreadable(&root.source, &e))?;
        let volume = self.engine.create_volume(self.run, self.key, &format!("{id}-copy")).await?;
        made.volumes.push(volume.clone());
        self.fill(&volume, &format!("{id}-fill"), archive).await?;
        let content = format!("{}/content", self.engine.volume_mountpoint(&volume).await?);
        for request in requests {
            let rest = request.source.strip_prefix(&root.source).unwrap_or(Path::new("")).display().to_string();
            made.attachments.push(Attachment::Bind {
                source: format!("{content}/{rest}").trim_end_matches('/').to_owned(),
                target: request.target.clone(),
                read_only: request.read_only,
            });
            if request.source.is_dir() {
                made.copied.push(request.target.clone());
            }
        }
        Ok(())
    }

    /// Extracts an archive into a volume, through a container that is never started.
    async fn fill(&self, volume: &str, name: &str, archive: bytes::Bytes) -> Result<()> {
        let spec = ContainerSpec {
            name: self.run.name(name),
            image: self.image.to_owned(),
            labels: self.run.labels(self.key),
            entrypoint: Some(vec!["true".to_owned()]),
            mounts: vec![Attachment::Volume {
                name: volume.to_owned(),
                target: "/lockproof-volume".to_owned(),
                read_only: false,
                no_copy: true,
            }],
            ..Default::default()
        };
        let id = self.engine.create(&spec).await?;
        let filled = self.engine.upload(&id, "/lockproof-volume", archive).await;
        self.engine.remove(&id).await?;
        filled
    }

    async fn probe_mount(&self, attachment: &Attachment, name: &str) -> Result<()> {
        let spec = ContainerSpec {
            name: self.run.name(name),
            image: self.image.to_owned(),
            labels: self.run.labels(self.key),
            entrypoint: Some(vec!["true".to_owned()]),
            mounts: vec![attachment.clone()],
            ..Default::default()
        };
        let id = self.engine.create(&spec).await?;
        let seen = self.engine.exists(&id, attachment.target()).await;
        self.engine.remove(&id).await?;
        match seen? {
            true => Ok(()),
            false => Err(Error::environment("the engine did not mount the overlay")),
        }
    }
}

/// The requests with the real paths of their sources.
fn resolve(requests: &[BindRequest]) -> Result<Vec<BindRequest>> {
    requests
        .iter()
        .map(|request| {
            let source = request.source.canonicalize().map_err(|e| unreadable(&request.source, &e))?;
            Ok(BindRequest { source, ..request.clone() })
        })
        .collect()
}

/// Groups binds that share files, the broadest first. Read-only binds stay separate.
fn overlapping(mut requests: Vec<BindRequest>) -> Vec<Vec<BindRequest>> {
    requests.sort_by_key(|request| request.source.components().count());
    let mut groups: Vec<Vec<BindRequest>> = Vec::new();
    for request in requests {
        match groups.iter_mut().find(|group| request.source.starts_with(&group[0].source)) {
            Some(group) => group.push(request),
            None => groups.push(vec![request]),
        }
    }
    groups
        .into_iter()
        .flat_map(|group| {
            if group.iter().all(|request| request.read_only) {
                group.into_iter().map(|request| vec![request]).collect()
            } else {
                vec![group]
            }
        })
        .collect()
}

/// The file systems mounted directly below `directory`, without the kernel's own.
fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found = mounts_in(&table, directory);
    let all = found.clone();
    found.retain(|mount| !all.iter().any(|outer| outer != mount && mount.starts_with(outer)));
    found
}

/// Parses proc_pid_mountinfo(5): the fifth field is the mount point, with octal escapes; the file
/// system type comes after the field `-`.
fn mounts_in(table: &str, directory: &Path) -> Vec<PathBuf> {
    const KERNEL: [&str; 17] = [
        "autofs",
        "binfmt_misc",
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "devpts",
        "devtmpfs",
        "fusectl",
        "hugetlbfs",
        "mqueue",
        "nsfs",
        "proc",
        "pstore",
        "securityfs",
        "sysfs",
    ];
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let point = PathBuf::from(unescape(fields.nth(4)?));
            let kind = fields.skip_while(|field| *field != "-").nth(1)?;
            (point.starts_with(directory) && point != directory && !KERNEL.contains(&kind)).then_some(point)
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

/// `\040` is a space: the kernel escapes characters that would break its table.
fn unescape(field: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = field.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\');
        let code = code.and_then(|c| std::str::from_utf8(c).ok()).and_then(|c| u8::from_str_radix(c, 8).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Escapes `:` and `,`, which separate lower directories and options of an overlay.
fn escape(path: &str) -> String {
    path.replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,")
}

/// The number of bytes below `path`; stops counting above `enough`.
fn size_of(path: &Path, enough: u64) -> u64 {
    if let Ok(meta) = std::fs::symlink_metadata(path)
        && !meta.is_dir()
    {
        return meta.len();
    }
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let mut total = 0;
    for entry in entries.flatten() {
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => total += size_of(&entry.path(), enough),
            Ok(meta) => total += meta.len(),
            Err(_) => {}
        }
        if total > enough {
            break;
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_of_overlay_are_escaped() {
        assert_eq!(escape("/a:b,c\\d"), "/a\\:b\\,c\\\\d");
    }

    fn request(source: &str, read_only: bool) -> BindRequest {
        BindRequest { source: source.into(), target: format!("/in{source}"), read_only }
    }

    #[test]
    fn binds_that_show_the_same_files_are_made_together() {
        let groups = |requests: &[(&str, bool)]| -> Vec<Vec<String>> {
            overlapping(requests.iter().map(|(s, ro)| request(s, *ro)).collect())
                .into_iter()
                .map(|group| group.into_iter().map(|r| r.source.display().to_string()).collect())
                .collect()
        };
        assert_eq!(groups(&[("/ws/nodes", false), ("/ws", false)]), [["/ws", "/ws/nodes"]]);
        assert_eq!(groups(&[("/ws", true), ("/ws/nodes", false)]), [["/ws", "/ws/nodes"]]);
        assert_eq!(groups(&[("/ws", true), ("/ws", true)]), [["/ws"], ["/ws"]]);
        assert_eq!(groups(&[("/ws", false), ("/ws2", false)]), [["/ws"], ["/ws2"]]);
    }

    #[test]
    fn a_mount_inside_a_bind_is_found() {
        let table = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 0:30 / /data/a\\040b rw - tmpfs tmpfs rw
41 22 0:31 / /data/proc rw shared:2 - proc proc rw
42 22 0:32 / /data2 rw - ext4 /dev/vdb rw
43 40 0:33 /x /data/a\\040b/c rw - ext4 /dev/vdb rw";
        assert_eq!(mounts_in(table, Path::new("/data")), [PathBuf::from("/data/a b"), PathBuf::from("/data/a b/c")]);
    }
}
