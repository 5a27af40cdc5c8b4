//! Other spellings of a route, which the lock and the router may parse differently.

use super::{Maker, Probe, Target};
use crate::message::Request;
use lockproof_model::finding::Rule;

/// Query parameters that may disable a lock.
const PARAMETERS: [&str; 8] =
    ["public=1", "debug=1", "public=true", "debug=true", "test=1", "preview=1", "internal=1", "noauth=1"];

/// Paths that locks usually leave public, used as a disguise.
const PUBLIC: [&str; 6] = ["/login", "/assets", "/static", "/favicon.ico", "/public", "/health"];

/// Routes with a free last segment, for tricks that depend only on the lock.
const ANY_NAME: [&str; 3] = ["/history/{prompt_id}", "/api/history/{prompt_id}", "/userdata/{file}"];

impl Maker<'_> {
    pub(super) fn paths(&self) -> Vec<Probe> {
        let mut probes = Vec::new();
        let samples: Vec<&str> = self.samples().iter().map(|t| t.route.as_str()).collect();
        for target in self.reading() {
            let (path, query) = split(&target.plain.target);
            // The effect of a spelling hardly depends on the route; the most common ones are tried
            // on every route.
            let sample = samples.contains(&target.route.as_str());
            for spelling in spellings(path).into_iter().filter(|s| sample || is_common(path, s)) {
                probes.push(confused(target, &format!("{spelling}{query}")));
            }
            for disguise in self.disguises().into_iter().take(if sample { usize::MAX } else { 1 }) {
                let separator = if query.is_empty() { "?" } else { "&" };
                probes.push(confused(target, &format!("{path}{query}{separator}lockproof={disguise}")));
            }
        }
        self.near_public_paths(&mut probes);
        self.up_to_public_paths(&mut probes);
        self.public_names(&mut probes);
        probes
    }

    /// A public path before or after the real one, in every spelling that a server may normalise.
    fn near_public_paths(&self, probes: &mut Vec<Probe>) {
        for target in self.samples() {
            let (path, query) = split(&target.plain.target);
            for disguise in self.disguises() {
                for spelling in [
                    format!("{disguise}/..{path}"),
                    format!("{disguise}/%2e%2e{path}"),
                    format!("{disguise}/..%2f{}", path.trim_start_matches('/')),
                    format!("{disguise}/..;{path}"),
                    format!("{disguise};/..{path}"),
                    format!("{disguise}{path}"),
                    format!("{disguise}/{path}"),
                    format!("{path}{disguise}"),
                    format!("{path};{disguise}"),
                    format!("{path}/..{disguise}/..{path}"),
                ] {
                    probes.push(confused(target, &format!("{spelling}{query}")));
                }
            }
            let separator = if query.is_empty() { "?" } else { "&" };
            for parameter in PARAMETERS {
                probes.push(confused(target, &format!("{path}{query}{separator}{parameter}")));
            }
            // The absolute form, as sent to a proxy.
            for host in ["localhost", "127.0.0.1"] {
                probes.push(confused(target, &format!("http://{host}{path}{query}")));
            }
        }
    }

    /// A lock that decodes before it normalises sees the public path; the router does not.
    fn up_to_public_paths(&self, probes: &mut Vec<Probe>) {
        for target in self.reading().filter(|t| ANY_NAME.contains(&t.route.as_str())) {
            let (parent, _) = target.plain.target.rsplit_once('/').unwrap_or_default();
            let up = "..%2f".repeat(parent.matches('/').count());
            for disguise in self.disguises() {
                let spelled = format!("{parent}/{up}{}", disguise.trim_start_matches('/'));
                probes.push(confused(target, &spelled));
            }
        }
    }

    /// A free segment that contains, or ends in, the name of a public path.
    fn public_names(&self, probes: &mut Vec<Probe>) {
        for target in self.targets.iter().filter(|t| t.free_ending) {
            for disguise in self.disguises() {
                let name = disguise.trim_start_matches('/');
                let whole = &target.plain.target;
                let parent = whole.rsplit_once('/').map_or("", |(parent, _)| parent);
                for ending in [format!("%2f{name}"), format!("/../{name}"), format!("-{name}"), format!("{name}%2f")] {
                    probes.push(confused(target, &format!("{whole}{ending}")));
                }
                probes.push(confused(target, &format!("{parent}/{name}")));
                probes.push(confused(target, &format!("{parent}/{name}%2flockproof")));
            }
        }
    }

    /// The scheme's own public paths first: its lock lets these through.
    fn disguises(&self) -> Vec<String> {
        let own =
            self.scheme.public.iter().map(|route| route.path.trim_end_matches('*').trim_end_matches('/').to_owned());
        let mut all: Vec<String> = own.chain(PUBLIC.map(str::to_owned)).filter(|p| p.len() > 1).collect();
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|path| seen.insert(path.clone()));
        all
    }
}

fn confused(target: &Target, spelled: &str) -> Probe {
    let request = Request { target: spelled.to_owned(), ..target.plain.clone() };
    Probe::trick(Rule::LockPathConfusion, &target.route, &target.plain, request, target.changes)
}

fn split(target: &str) -> (&str, &str) {
    target.find('?').map_or((target, ""), |at| target.split_at(at))
}

/// Other spellings of a path. The root has none that a lock would see as another route.
fn spellings(path: &str) -> Vec<String> {
    let rest = path.trim_start_matches('/');
    let Some(first) = rest.chars().next() else { return Vec::new() };
    let (head, last) = path.rsplit_once('/').unwrap_or(("", rest));
    let escaped_first = format!("/%{:02X}{}", u32::from(first), &rest[first.len_utf8()..]);
    let escaped_lower = format!("/%{:02x}{}", u32::from(first), &rest[first.len_utf8()..]);
    let escaped_twice = format!("/%25{:02x}{}", u32::from(first), &rest[first.len_utf8()..]);
    let escaped_all: String = last.bytes().map(|b| format!("%{b:02x}")).collect();
    let mut spelled = vec![
        format!("/{path}"),
        format!("//{path}"),
        format!("/.{path}"),
        format!("/x/..{path}"),
        format!("/%2e{path}"),
        format!("/x/%2e%2e{path}"),
        format!("/%2f{rest}"),
        format!("{path}/"),
        format!("{path}//"),
        format!("{path}/."),
        format!("{path}/x/.."),
        format!("{path};"),
        format!("{path};x=y"),
        format!("{path}%20"),
        format!("{path}%09"),
        format!("{path}%00"),
        format!("{path}%3f"),
        format!("{path}%23"),
        format!("{path}%2f"),
        format!("{path}?"),
        format!("{path}#x"),
        escaped_first,
        escaped_lower,
        escaped_twice,
        format!("{head}/{escaped_all}"),
        path.to_uppercase(),
        capitalised(path),
        format!("{head}%2f{last}"),
        format!("{head}//{last}"),
        format!("{head}/./{last}"),
        format!("{head}/%2e/{last}"),
        format!("{head}\\{last}"),
        format!("{head}%5c{last}"),
    ];
    // Servers cut off the fragment, so this probe would be another one.
    spelled.retain(|s| !s.contains('#') && s != path && s.starts_with('/'));
    spelled.sort();
    spelled.dedup();
    spelled
}

/// The spellings for every route: one of each kind.
fn is_common(path: &str, spelled: &str) -> bool {
    [format!("/{path}"), format!("/.{path}"), format!("{path}/"), format!("{path};"), path.to_uppercase()]
        .iter()
        .any(|s| s == spelled)
        || spelled.len() == path.len() + 2 && spelled.starts_with("/%") && spelled[1..].matches('%').count() == 1
}

fn capitalised(path: &str) -> String {
    let mut up = true;
    path.chars()
        .map(|c| {
            let out = if up { c.to_ascii_uppercase() } else { c };
            up = c == '/';
            out
        })
        .collect()
}
