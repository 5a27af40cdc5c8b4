//! What stands for the host's paths, and for volumes that are made elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::rewrite::{BoundTo, Source, bind_key, services};
use crate::{
    engine::{
        Engine, Run,
        container::Attachment,
        cow::{BindRequest, Maker},
    },
    subject::{ComposeSubject, Subject},
};
use lockproof_compose::{Mount, MountKind};
use lockproof_model::{error::Result, state::Owner};

/// What was made for the paths of the host.
pub(super) struct Binds {
    pub(super) by_path: BTreeMap<String, Vec<BoundTo>>,
    /// In the order in which they can be removed.
    pub(super) volumes: Vec<String>,
    pub(super) notes: Vec<String>,
}

/// Directories of the kernel: they are no files to copy, and what is written there reaches the machine.
const KERNEL: [&str; 3] = ["/dev", "/proc", "/sys"];

/// Makes a layer or a copy for each path of the host, once, however many services mount it.
pub(super) async fn make(
    engine: &Engine,
    run: &Run,
    key: &str,
    subject: &Subject,
    of: &ComposeSubject,
    image: &str,
) -> Result<Binds> {
    let mut binds = Binds { by_path: BTreeMap::new(), volumes: Vec::new(), notes: Vec::new() };
    // What is asked for, and by which names in the file, by real path.
    let mut wanted: BTreeMap<PathBuf, (bool, BTreeSet<String>)> = BTreeMap::new();
    let active = services(&of.project, &of.service);
    let mounts = active.iter().flat_map(|service| &service.mounts);
    for (mount, path) in mounts.filter_map(|m| Some((m, bind_key(m)?))) {
        match Path::new(path).canonicalize() {
            Ok(real) if real.is_dir() || real.is_file() => {
                if !KERNEL.iter().any(|kernel| real.starts_with(kernel)) {
                    let (read_only, names) = wanted.entry(real).or_insert((true, BTreeSet::new()));
                    *read_only &= mount.read_only;
                    names.insert(path.to_owned());
                }
            }
            // A socket or a device: what is done through it would reach this machine.
            Ok(_) => {}
            Err(_) if binds.by_path.contains_key(path) => {}
            // Compose makes an empty directory of what is not there.
            Err(_) => {
                let name = format!("{key}-missing-{}", binds.by_path.len());
                let real = engine.create_volume(run, &subject.name, &name).await?;
                binds.volumes.push(real.clone());
                binds.notes.push(format!("{path} is not there: it is taken for an empty directory"));
                binds
                    .by_path
                    .insert(path.to_owned(), vec![BoundTo { below: String::new(), source: Source::Volume(real) }]);
            }
        }
    }
    let requests = wanted.iter().enumerate().map(|(n, (real, (read_only, _)))| BindRequest {
        source: real.clone(),
        target: format!("/bind-{n}"),
        read_only: *read_only,
    });
    // A file that nobody writes is copied alone, whatever directory it lies in.
    let (alone, together): (Vec<_>, Vec<_>) = requests.partition(|r| r.read_only && r.source.is_file());
    let maker = Maker { engine, run, key, image };
    for requests in [alone, together] {
        let made = maker.bind(&requests).await?;
        binds.volumes.extend(made.volumes);
        for request in &requests {
            let (_, names) = &wanted[&request.source];
            if made.copied.contains(&request.target) {
                binds.notes.push(format!("{} is copied: it cannot be mounted copy-on-write", request.source.display()));
            }
            let parts: Vec<BoundTo> = made.attachments.iter().filter_map(|a| part(a, &request.target)).collect();
            binds.by_path.extend(names.iter().map(|name| (name.clone(), parts.clone())));
        }
    }
    Ok(binds)
}

/// What of an attachment belongs to the request with this target.
fn part(attachment: &Attachment, target: &str) -> Option<BoundTo> {
    let below = attachment.target().strip_prefix(target)?;
    if !below.is_empty() && !below.starts_with('/') {
        return None;
    }
    let source = match attachment {
        Attachment::Volume { name, .. } => Source::Volume(name.clone()),
        Attachment::Bind { source, .. } => Source::Path(source.clone()),
        Attachment::Tmpfs { .. } => return None,
    };
    Some(BoundTo { below: below.trim_start_matches('/').to_owned(), source })
}

/// The named volumes that outlast the project: external ones, and shares of other machines.
pub(super) fn made_elsewhere(of: &ComposeSubject) -> BTreeSet<String> {
    let active = services(&of.project, &of.service);
    let kept = |mount: &&Mount| {
        mount.outlasts_wipe && mount.owner() == Owner::Volume && matches!(mount.kind, MountKind::Volume(_))
    };
    active.iter().flat_map(|s| s.mounts.iter().filter(kept)).filter_map(|m| m.source.clone()).collect()
}
