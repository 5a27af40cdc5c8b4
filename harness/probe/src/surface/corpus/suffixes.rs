//! Targets that end like a static file, which locks let through for the login page.

use super::{Maker, Probe};
use lockproof_model::finding::Rule;

/// Suffixes of static files.
const SUFFIXES: [&str; 26] = [
    ".js",
    ".css",
    ".ico",
    ".css.map",
    ".js.map",
    ".png",
    ".jpg",
    ".jpeg",
    ".gif",
    ".svg",
    ".webp",
    ".html",
    ".htm",
    ".map",
    ".woff",
    ".woff2",
    ".ttf",
    ".json",
    ".txt",
    ".xml",
    ".webmanifest",
    ".mjs",
    ".JS",
    ".CSS",
    ".Ico",
    ".lockproof",
];
/// Endings of a query, for locks that check the whole target.
const QUERIES: [&str; 6] = ["lockproof=.js", "lockproof=.css", "lockproof=.ico", "lockproof=a.png", ".js", "v=1.css"];

impl Maker<'_> {
    pub(super) fn suffixes(&self) -> Vec<Probe> {
        let mut probes = Vec::new();
        for target in self.targets.iter().filter(|t| t.free_ending) {
            for suffix in SUFFIXES {
                let mut request = target.plain.clone();
                request.target.push_str(suffix);
                probes.push(Probe::trick(
                    Rule::LockStaticSuffix,
                    &target.route,
                    &target.plain,
                    request,
                    target.changes,
                ));
            }
            // A suffix in the middle of the last segment.
            for middle in [".js.", ".css-", ".ico_"] {
                let mut request = target.plain.clone();
                request.target.push_str(&format!("{middle}x"));
                probes.push(Probe::trick(
                    Rule::LockStaticSuffix,
                    &target.route,
                    &target.plain,
                    request,
                    target.changes,
                ));
            }
        }
        for target in self.reading() {
            for query in QUERIES {
                let mut request = target.plain.clone();
                let separator = if request.target.contains('?') { '&' } else { '?' };
                request.target.push_str(&format!("{separator}{query}"));
                probes.push(Probe::trick(Rule::LockStaticSuffix, &target.route, &target.plain, request, false));
            }
        }
        probes
    }
}
