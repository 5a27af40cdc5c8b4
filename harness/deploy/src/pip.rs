//! The settings of this machine that pip needs in a container: the index, the proxies, and the CA
//! bundle if a proxy intercepts TLS.

use std::path::PathBuf;

use bytes::Bytes;

use crate::engine::archive::{Ownership, Tarball, unreadable};
use lockproof_model::error::Result;

/// Variables that are valid in a container as well.
const PASSED: [&str; 11] = [
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_RETRIES",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];
/// Variables with the CA bundle of this machine, in order of precedence.
const BUNDLES: [&str; 4] = ["PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"];
/// The bundle's directory in the container.
const DIRECTORY: &str = "/tmp";
const FILE: &str = "lockproof-ca.pem";

/// The settings for pip.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    variables: Vec<(String, String)>,
    bundle: Option<PathBuf>,
}

impl Settings {
    /// The settings of this machine.
    pub fn of_this_machine() -> Self {
        let set = |name: &&str| std::env::var(name).ok().filter(|v| !v.is_empty());
        Self {
            variables: PASSED.iter().filter_map(|name| Some(((*name).to_owned(), set(name)?))).collect(),
            bundle: BUNDLES.iter().filter_map(set).map(PathBuf::from).find(|path| path.is_file()),
        }
    }

    /// `NAME=value`, for a container or a command.
    pub fn environment(&self) -> Vec<String> {
        self.pairs().into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// The variables as pairs.
    pub fn pairs(&self) -> Vec<(String, String)> {
        let mut pairs = self.variables.clone();
        if self.bundle.is_some() {
            pairs.push(("PIP_CERT".to_owned(), self.bundle_in_container()));
        }
        pairs
    }

    /// The path of the bundle in the container.
    pub fn bundle_in_container(&self) -> String {
        format!("{DIRECTORY}/{FILE}")
    }

    /// The bundle as an archive, and its target directory; `None` if there is none.
    ///
    /// # Errors
    /// An environment error if the bundle cannot be read.
    pub fn certificates(&self) -> Result<Option<(&'static str, Bytes)>> {
        let Some(path) = &self.bundle else { return Ok(None) };
        let bytes = std::fs::read(path).map_err(|e| unreadable(path, &e))?;
        let mut tarball = Tarball::new();
        let archive = tarball
            .file(FILE, &bytes, 0o644, Ownership::ROOT)
            .and_then(|()| tarball.finish())
            .map_err(|e| unreadable(path, &e))?;
        Ok(Some((DIRECTORY, archive)))
    }
}
