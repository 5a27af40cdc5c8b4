//! Replaces host paths and external volumes.

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

/// The replacements of host paths.
pub(super) struct Binds {
    pub(super) by_path: BTreeMap<String, Vec<BoundTo>>,
    /// In the order in which they can be removed.
    pub(super) volumes: Vec<String>,
    pub(super) notes: Vec<String>,
}

/// Kernel directories: they cannot be copied, and writes to them would affect this machine.
const KERNEL: [&str; 3] = ["/dev", "/proc", "/sys"];

/// Creates a copy-on-write layer or a copy for each host path, once for all services that mount it.
pub(super) async fn make(
    engine: &Engine,
    run: &Run,
    key: &str,
    subject: &Subject,
    of: &ComposeSubject,
    image: &str,
) -> Result<Binds> {
    let mut binds = Binds { by_path: BTreeMap::new(), volumes: Vec::new(), notes: Vec::new() };
    // The requested paths with their names in the file, by real path.
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
            // A socket or a device: access through it would reach this machine.
            Ok(_) => {}
            Err(_) if binds.by_path.contains_key(path) => {}
            // Compose creates an empty directory for a missing path.
            Err(_) => {
                let name = format!("{key}-missing-{}", binds.by_path.len());
                let real = engine.create_volume(run, &subject.name, &name).await?;
                binds.volumes.push(real.clone());
                binds.notes.push(format!("{path} does not exist: using an empty directory"));
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
    // A read-only file is copied alone, not with its directory.
    let (alone, together): (Vec<_>, Vec<_>) = requests.partition(|r| r.read_only && r.source.is_file());
    let maker = Maker { engine, run, key, image };
    for requests in [alone, together] {
        let made = maker.bind(&requests).await?;
        binds.volumes.extend(made.volumes);
        for request in &requests {
            let (_, names) = &wanted[&request.source];
            if made.copied.contains(&request.target) {
                binds.notes.push(format!(
                    "{} is copied, because it cannot be mounted copy-on-write",
                    request.source.display()
                ));
            }
            let parts: Vec<BoundTo> = made.attachments.iter().filter_map(|a| part(a, &request.target)).collect();
            binds.by_path.extend(names.iter().map(|name| (name.clone(), parts.clone())));
        }
    }
    Ok(binds)
}

/// The part of an attachment that belongs to the request with this target.
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

/// The named volumes that exist outside the project: external ones, and network shares.
pub(super) fn made_elsewhere(of: &ComposeSubject) -> BTreeSet<String> {
    let active = services(&of.project, &of.service);
    let kept = |mount: &&Mount| {
        mount.outlasts_wipe && mount.owner() == Owner::Volume && matches!(mount.kind, MountKind::Volume(_))
    };
    active.iter().flat_map(|s| s.mounts.iter().filter(kept)).filter_map(|m| m.source.clone()).collect()
}
