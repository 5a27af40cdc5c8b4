//! The source of the plugin: a directory of this machine, or a git repository.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{engine::archive::unreadable, subject::PluginSource};
use lockproof_model::{
    error::{Error, Result},
    scheme::Scheme,
};

/// A plugin on this machine.
#[derive(Debug)]
pub struct Fetched {
    /// Its directory.
    pub path: PathBuf,
    /// The name of its directory below custom_nodes.
    pub name: String,
    /// Removes the clone when dropped.
    _clone: Option<tempfile::TempDir>,
}

/// The name of a plugin's directory below custom_nodes.
pub fn name(source: &PluginSource) -> String {
    match source {
        PluginSource::Directory(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        PluginSource::Git { url, .. } => {
            let last = url.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            last.trim_end_matches(".git").to_owned()
        }
    }
}

/// Clones the plugin to this machine if needed.
///
/// # Errors
/// An environment error if git fails; a usage error if the repository is not a plugin.
pub async fn fetch(source: &PluginSource, scheme: &Scheme) -> Result<Fetched> {
    let (url, rev) = match source {
        PluginSource::Directory(path) => {
            return Ok(Fetched { path: path.clone(), name: name(source), _clone: None });
        }
        PluginSource::Git { url, rev } => (url, rev),
    };
    let clone = tempfile::Builder::new()
        .prefix("lockproof-plugin-")
        .tempdir()
        .map_err(|e| Error::environment("cannot create a temporary directory").detail(e))?;
    let path = clone.path().join(name(source));
    let target = path.display().to_string();
    git(&["clone", "--quiet", url, &target]).await?;
    if let Some(rev) = rev {
        git(&["-C", &target, "checkout", "--quiet", "--detach", rev]).await?;
    }
    if !path.join(&scheme.plugin.entry).is_file() {
        return Err(Error::usage(format!("{url} has no {}, so ComfyUI would not load it", scheme.plugin.entry))
            .at("scheme.install.from")
            .fix("use the repository of the plugin itself"));
    }
    Ok(Fetched { path, name: name(source), _clone: Some(clone) })
}

/// The plugin's files that list Python dependencies, by name, with their content.
///
/// # Errors
/// An environment error if one cannot be read.
pub(super) fn requirements_of(plugin: &Fetched, scheme: &Scheme) -> Result<BTreeMap<String, String>> {
    let present = scheme.plugin.requirements.iter().map(|name| (name, plugin.path.join(name)));
    present
        .filter(|(_, path)| path.is_file())
        .map(|(name, path)| {
            let text =
                lockproof_model::read::text(&path, lockproof_model::read::SHORT).map_err(|e| unreadable(&path, &e))?;
            Ok((name.clone(), text))
        })
        .collect()
}

async fn git(arguments: &[&str]) -> Result<()> {
    let output = tokio::process::Command::new("git")
        .args(arguments)
        // Never prompt for a password.
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|e| {
            Error::environment("cannot run git").detail(e).fix("install git, or use a directory in `from:`")
        })?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::environment(format!("git {} failed", arguments.first().unwrap_or(&"")))
        .detail(String::from_utf8_lossy(&output.stderr).trim())
        .fix("check the URL and the revision in `from: git+…@rev`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_gives_the_plugin_its_name() {
        let source = PluginSource::Git { url: "https://host.example/a/ComfyUI-Login.git".into(), rev: None };
        assert_eq!(name(&source), "ComfyUI-Login");
    }
}
