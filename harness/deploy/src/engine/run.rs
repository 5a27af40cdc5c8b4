//! The id and labels of a run, by which all its objects are found.

use std::collections::HashMap;

use lockproof_model::secret;

/// The label on every object: the id of its run.
pub const LABEL_RUN: &str = "lockproof.run";
/// The label with the owning process, so that a later run knows whether it is still running.
pub const LABEL_OWNER: &str = "lockproof.owner";
/// The label with the subject.
pub const LABEL_SUBJECT: &str = "lockproof.subject";

/// The id of one run of lockproof.
#[derive(Clone, Debug)]
pub struct Run {
    id: String,
    owner: Owner,
}

/// The process that owns an object, with enough data to tell whether it is still running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    boot: String,
    namespace: String,
    pid: u32,
    started: String,
}

impl Run {
    /// A new run of this process.
    pub fn new() -> Self {
        Self { id: secret::random(10), owner: Owner::this_process() }
    }

    /// The id, as in the label `lockproof.run`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The name of an object of this run.
    pub fn name(&self, what: &str) -> String {
        let tidy: String = what.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }).collect();
        format!("lockproof-{}-{tidy}", self.id)
    }

    /// The labels of an object of this run.
    pub fn labels(&self, subject: &str) -> HashMap<String, String> {
        HashMap::from([
            (LABEL_RUN.to_owned(), self.id.clone()),
            (LABEL_OWNER.to_owned(), self.owner.to_string()),
            (LABEL_SUBJECT.to_owned(), subject.to_owned()),
        ])
    }
}

impl Default for Run {
    fn default() -> Self {
        Self::new()
    }
}

impl Owner {
    fn this_process() -> Self {
        let pid = std::process::id();
        Self {
            boot: read("/proc/sys/kernel/random/boot_id"),
            namespace: link("/proc/self/ns/pid"),
            pid,
            started: start_time(pid).unwrap_or_default(),
        }
    }

    /// Parses the label.
    pub fn parse(label: &str) -> Option<Self> {
        let mut parts = label.split('/');
        let owner = Self {
            boot: parts.next()?.to_owned(),
            namespace: parts.next()?.to_owned(),
            pid: parts.next()?.parse().ok()?,
            started: parts.next()?.to_owned(),
        };
        parts.next().is_none().then_some(owner)
    }

    /// Whether the process is known to be gone: the machine was rebooted, or the process no longer
    /// exists. A process in another PID namespace or on another machine cannot be checked, and
    /// counts as running.
    pub fn is_gone(&self) -> bool {
        let here = Self::this_process();
        if self.boot != here.boot || here.boot.is_empty() {
            // Another boot id means a reboot of this machine, or another machine with the same
            // engine. Only after a reboot is the process surely gone, and the two cases look the
            // same.
            return false;
        }
        self.namespace == here.namespace && start_time(self.pid).as_ref() != Some(&self.started)
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}/{}", self.boot, self.namespace, self.pid, self.started)
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).map(|s| s.trim().to_owned()).unwrap_or_default()
}

fn link(path: &str) -> String {
    std::fs::read_link(path).map(|p| p.display().to_string()).unwrap_or_default()
}

/// The start time of a process, in clock ticks since boot (proc(5), field 22 of `stat`). It
/// distinguishes processes that reuse an id.
fn start_time(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses, which may contain any character.
    let rest = &stat[stat.rfind(')')? + 1..];
    let mut fields = rest.split_whitespace();
    // A zombie keeps its process id, but is no longer running.
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_its_label_can_be_read_back() {
        let owner = Owner::this_process();
        assert!(!owner.is_gone());
        assert_eq!(Owner::parse(&owner.to_string()), Some(owner));
    }

    #[test]
    fn a_process_that_ended_is_gone() {
        let mut child = std::process::Command::new("true").spawn().expect("true exists");
        let mut owner = Owner::this_process();
        owner.pid = child.id();
        owner.started = "1".to_owned();
        child.wait().expect("it ends");
        assert!(owner.is_gone());
    }

    #[test]
    fn a_process_that_cannot_be_seen_is_taken_to_live() {
        let mut owner = Owner::this_process();
        owner.namespace = "pid:[1]".to_owned();
        owner.pid = u32::MAX;
        assert!(!owner.is_gone());
    }
}
