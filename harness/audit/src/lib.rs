//! `lockproof audit`: predicts from compose files whether the lock survives.
//!
//! ```text
//! Project ──► facts (command, catalogue, Dockerfile, mounts) ──► find: which service is ComfyUI
//!                 │
//!                 └──► states: where each state is stored ──► predictions ──► persist, deploy: findings
//! ```
//!
//! A prediction assumes that the lock works when it is installed. It is the worst `on_loss` of the
//! scheme among the states that an event removes. What cannot be known is `None`, never a finding.

// An unused dependency fails `make check`.
#![cfg_attr(not(test), warn(unused_crate_dependencies))]

mod accept;
mod deploy;
pub mod facts;
mod find;
pub mod fix;
mod health;
pub mod images;
mod inside;
mod names;
mod persist;
mod proxy;
pub mod remedy;
mod scene;
pub mod states;
mod subject;
pub mod tokens;
pub mod workspace;

use std::collections::BTreeMap;

pub use self::subject::{Audit, Placed, Subject};
use self::{
    facts::Facts,
    scene::{Found, Scene},
};
use crate::images::dockerfile::Dockerfile;
use lockproof_compose::{Project, Service};
use lockproof_model::{
    error::{Error, Result},
    finding::Finding,
    scheme::Scheme,
};

/// The input of an audit.
#[derive(Clone, Debug)]
pub struct Options {
    /// The services to audit; empty: detect the ComfyUI services.
    pub services: Vec<String>,
    /// The login scheme.
    pub scheme: Scheme,
    /// Image metadata from the engine, by image reference.
    pub images: BTreeMap<String, Dockerfile>,
}

/// The service that runs ComfyUI: the named one, or the detected one.
///
/// # Errors
/// A usage error that lists the candidates, if there is none or more than one.
pub fn one_service<'a>(project: &'a Project, name: Option<&str>) -> Result<&'a Service> {
    let found = subjects(project, name)?;
    // Services with inactive profiles do not count.
    let active: Vec<&str> = found
        .iter()
        .filter_map(|s| project.service(&s.service))
        .filter(|s| name.is_some() || project.is_active(s))
        .map(|s| s.name.as_str())
        .collect();
    let names: Vec<&str> = if active.is_empty() { found.iter().map(|s| s.service.as_str()).collect() } else { active };
    let file = project.sources.all().first().map(|s| s.name.clone()).unwrap_or_default();
    match names.as_slice() {
        [only] => project.service(only).ok_or_else(|| Error::usage(format!("no such service: `{only}`")).at(&file)),
        [] => {
            let all: Vec<&str> = project.services.iter().map(|s| s.name.as_str()).collect();
            Err(Error::usage("no ComfyUI service found")
                .at(file)
                .fix(format!("choose one with --service: {}", all.join(", "))))
        }
        several => Err(Error::usage(format!("{} services run ComfyUI", several.len()))
            .at(file)
            .fix(format!("choose one with --service: {}", several.join(", ")))),
    }
}

/// The names of the detected ComfyUI services.
///
/// # Errors
/// As [`audit`].
pub fn comfyui_services(project: &Project) -> Result<Vec<&str>> {
    let found = subjects(project, None)?;
    Ok(found.iter().filter_map(|s| project.service(&s.service)).map(|s| s.name.as_str()).collect())
}

fn subjects(project: &Project, name: Option<&str>) -> Result<Vec<Subject>> {
    let options = Options {
        services: name.map(str::to_owned).into_iter().collect(),
        scheme: lockproof_model::scheme::Scheme::find(
            lockproof_model::scheme::Scheme::DEFAULT,
            std::path::Path::new(""),
        )?,
        images: Default::default(),
    };
    Ok(audit(project, &options, "")?.subjects)
}

/// Audits a project. `prefix` is prepended to subject names if several projects are audited.
///
/// # Errors
/// A usage error if a given service does not exist, or if a comment accepts a rule that cannot be
/// accepted.
pub fn audit(project: &Project, options: &Options, prefix: &str) -> Result<Audit> {
    if options.scheme.in_front() {
        return Err(Error::usage(format!(
            "the scheme `{}` is for a proxy, which cannot be audited from files",
            options.scheme.name
        ))
        .fix(format!("gate it instead: lockproof gate --compose FILE --scheme {}", options.scheme.name)));
    }
    let facts: Vec<(&Service, Facts)> = project
        .services
        .iter()
        .map(|service| {
            let image = service.image.as_ref().and_then(|i| options.images.get(&i.text));
            (service, facts::of(service, image))
        })
        .collect();
    let chosen = if options.services.is_empty() {
        find::services(project, &facts)
    } else {
        options.services.iter().map(|name| index(project, name)).collect::<Result<_>>()?
    };
    let mut audit = Audit { subjects: Vec::new(), findings: Vec::new(), notes: Vec::new(), unread: Vec::new() };
    let surroundings = names::Surroundings::of(project);
    for n in chosen {
        let (service, facts) = &facts[n];
        let subject = subject(service, facts.clone(), options, prefix);
        let scene = Scene { project, service, facts, subject: &subject, scheme: &options.scheme };
        let mut found = persist::findings(&scene);
        found.extend(deploy::findings(&scene));
        found.extend(health::findings(&scene));
        found.extend(tokens::findings(&scene));
        found.extend(proxy::findings(&scene));
        found.extend(names::findings(&scene, &surroundings));
        audit.notes.extend(proxy::note(&scene));
        audit.notes.extend(proxy::unread(&scene).iter().map(|text| format!("{}: {text}", service.name)));
        audit.notes.extend(facts.unread.iter().map(|text| format!("{}: {text}", service.name)));
        for found in found {
            let (finding, placed) = finish(found, project, &subject);
            audit.findings.push((finding, placed));
        }
        audit.subjects.push(subject);
    }
    for remark in &project.remarks {
        audit.notes.push(format!("{}: {}", project.sources.place(remark.at), remark.text));
    }
    for remark in &project.unread {
        audit.unread.push(format!("{}: {}", project.sources.place(remark.at), remark.text));
    }
    accept::apply(project, &mut audit)?;
    Ok(audit)
}

fn index(project: &Project, name: &str) -> Result<usize> {
    project.services.iter().position(|s| s.name == *name).ok_or_else(|| {
        let known: Vec<&str> = project.services.iter().map(|s| s.name.as_str()).collect();
        let file = project.sources.all().first().map(|s| s.name.clone()).unwrap_or_default();
        Error::usage(format!("no such service: `{name}`"))
            .at(file)
            .fix(format!("available services: {}", known.join(", ")))
    })
}

fn subject(service: &Service, facts: Facts, options: &Options, prefix: &str) -> Subject {
    let readings = states::read(service, &facts, &options.scheme);
    let predicted =
        states::EVENTS.iter().map(|&event| (event, states::predict(&readings, &options.scheme, event))).collect();
    let image = match (&service.image, &service.build) {
        (Some(image), _) => image.text.clone(),
        (None, Some(build)) => format!("built from {}", facts::from_here(&build.context)),
        (None, None) => String::new(),
    };
    Subject {
        name: format!("{prefix}{}", service.name),
        service: service.name.clone(),
        image,
        facts,
        readings,
        predicted,
    }
}

fn finish(found: Found, project: &Project, subject: &Subject) -> (Finding, Placed) {
    let mut finding = Finding::new(found.rule, &subject.name, found.event, found.message);
    finding.evidence = found.evidence;
    if let Some(remedy) = found.remedy {
        finding.remedy = remedy;
    }
    match &found.at {
        Placed::At(span) => {
            let place = project.sources.place(*span);
            finding.file = Some(place.file);
            finding.line = Some(place.line);
            finding.column = Some(place.column);
        }
        Placed::Elsewhere(file, line) => {
            finding.file = Some(file.clone());
            finding.line = Some(*line);
        }
    }
    (finding, found.at)
}
