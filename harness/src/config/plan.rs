//! The plan of a run: the configuration with all defaults filled in and fully validated.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{accept::Accept, compose};
use lockproof_deploy::subject::Subject;
use lockproof_model::{
    config::{ConfigFile, SchemeEntry, SubjectEntry},
    error::{Error, Result},
    event::Event,
    scheme::Scheme,
};
use lockproof_probe::surface::routes::Route;

/// The plan of a run: its subjects, events and accepted findings.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The deployments under test.
    pub subjects: Vec<Subject>,
    /// The events, in order; without `installed`.
    pub events: Vec<Event>,
    /// The accepted findings.
    pub accept: Vec<Accept>,
    /// The number of subjects gated in parallel.
    pub jobs: usize,
    /// The number of further subjects to start in advance: one, unless `jobs` was given.
    pub ahead: usize,
    /// Workflows and notebooks to replay, in file order.
    pub replays: Vec<PathBuf>,
    /// Additional routes to probe, besides the known and the discovered ones.
    pub routes: Vec<Route>,
}

impl Plan {
    /// Fills in the defaults of `file`, whose relative paths are relative to `base`.
    ///
    /// # Errors
    /// A usage error for any invalid value.
    pub fn new(file: &ConfigFile, base: &Path) -> Result<Self> {
        if file.subjects.is_empty() {
            return Err(Error::usage("no subjects")
                .at("subjects")
                .fix("add at least one: subjects: [{ name: comfyui, image: … }]"));
        }
        let mut seen = BTreeSet::new();
        for subject in &file.subjects {
            if !seen.insert(&subject.name) {
                return Err(Error::usage(format!("two subjects are named `{}`", subject.name))
                    .at("subjects")
                    .fix("give each subject a unique name"));
            }
        }
        let accept = file.accept.iter().map(Accept::check).collect::<Result<Vec<_>>>()?;
        for entry in &accept {
            if let Some(subject) = &entry.subject
                && !seen.contains(subject)
            {
                return Err(Error::usage(format!("`accept` names the subject `{subject}`, which does not exist"))
                    .at(format!("accept: rule `{}`", entry.rule))
                    .fix(format!("available subjects: {}", list(file.subjects.iter().map(|s| &s.name)))));
            }
        }
        if file.jobs == Some(0) {
            return Err(Error::usage("`jobs` must be at least 1").at("jobs").fix("write 1 or more, or remove it"));
        }
        let subjects = file
            .subjects
            .iter()
            .map(|s| subject(s, &file.scheme, base).map_err(|e| e.or_at(format!("subject `{}`", s.name))))
            .collect::<Result<Vec<_>>>()?;
        let plan = Self {
            subjects,
            events: order(file.events.as_deref().unwrap_or(&Event::DEFAULT)),
            accept,
            jobs: file.jobs.unwrap_or_else(cores),
            ahead: usize::from(file.jobs.is_none()),
            replays: super::replays::find(&file.replays, base)?,
            routes: Vec::new(),
        };
        plan.check_events()?;
        Ok(plan)
    }

    /// Replaces the events of the file.
    ///
    /// # Errors
    /// A usage error if `upgrade` is requested and a subject has no `upgrade_to`.
    pub fn set_events(&mut self, events: &[Event]) -> Result<()> {
        self.events = order(events);
        self.check_events()
    }

    fn check_events(&self) -> Result<()> {
        if !self.events.contains(&Event::Upgrade) {
            return Ok(());
        }
        match self.subjects.iter().find(|s| s.upgrade_to.is_none()) {
            None => Ok(()),
            Some(subject) => Err(Error::usage(format!(
                "the event `upgrade` needs the image to upgrade to, but the subject `{}` has no `upgrade_to`",
                subject.name
            ))
            .at(format!("subject `{}`", subject.name))
            .fix("add upgrade_to: IMAGE to the subject, or remove `upgrade` from the events")),
        }
    }
}

/// A subject, an image or a service of a compose project.
fn subject(entry: &SubjectEntry, shared: &SchemeEntry, base: &Path) -> Result<Subject> {
    match (&entry.image, &entry.compose) {
        (None, Some(files)) if !entry.name.trim().is_empty() => {
            let scheme = entry.scheme.as_ref().unwrap_or(shared).use_.as_deref().unwrap_or(Scheme::DEFAULT);
            let in_front = Scheme::find(scheme, base)?.in_front();
            Subject::of_compose(entry, compose::read(entry, files, base, in_front)?, shared, base)
        }
        _ => Subject::new(entry, shared, base),
    }
}

/// Each event once, in order of increasing loss; `installed` is always first.
fn order(events: &[Event]) -> Vec<Event> {
    let ordered: BTreeSet<Event> = events.iter().copied().filter(|e| *e != Event::Installed).collect();
    ordered.into_iter().collect()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn list<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::load::parse;

    fn plan(text: &str) -> Result<Plan> {
        Plan::new(&parse(text, "lockproof.yaml")?, Path::new("."))
    }

    fn error(text: &str) -> String {
        plan(text).expect_err("it is wrong").to_string()
    }

    #[test]
    fn defaults_are_the_contract_s() {
        let plan = plan("subjects: [{ name: a, image: b }]").expect("it is right");
        let subject = &plan.subjects[0];
        assert_eq!(plan.events, Event::DEFAULT);
        assert_eq!((subject.port, subject.network), (8188, true));
        assert_eq!(subject.ready_timeout, Duration::from_secs(120));
        assert_eq!(subject.stop_timeout, Duration::from_secs(10));
        assert_eq!(subject.lock.scheme.name, "comfyui-login");
    }

    #[test]
    fn events_are_performed_in_the_order_of_what_they_lose() {
        let plan = plan("subjects: [{ name: a, image: b }]\nevents: [wipe, down-up, installed, restart, down-up]")
            .expect("it is right");
        assert_eq!(plan.events, [Event::Restart, Event::DownUp, Event::Wipe]);
    }

    #[test]
    fn a_mount_has_exactly_one_source() {
        insta::assert_snapshot!(error("subjects: [{ name: a, image: b, mounts: [{ target: /x, tmpfs: true, volume: y }] }]"), @r"
        a mount needs exactly one of volume, bind, anonymous, tmpfs; this one has 2
          --> subject `a`, mount `/x`
          = help: write for example { volume: nodes, target: /opt/ComfyUI/custom_nodes }
        ");
    }

    #[test]
    fn what_cannot_be_accepted_is_refused() {
        let text = error("subjects: [{ name: a, image: b }]\naccept: [{ rule: lock/open, reason: why not }]");
        assert!(text.contains("`lock/open` cannot be accepted"), "{text}");
    }

    #[test]
    fn upgrade_needs_to_know_what_to_upgrade_to() {
        let text = error("subjects: [{ name: a, image: b }]\nevents: [upgrade]");
        assert!(text.contains("upgrade_to: IMAGE"), "{text}");
    }

    #[test]
    fn a_plugin_directory_without_init_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let text =
            format!("subjects: [{{ name: a, image: b }}]\nscheme: {{ install: {{ from: {} }} }}", dir.path().display());
        assert!(error(&text).contains("has no __init__.py, so ComfyUI would not load it"));
    }
}
