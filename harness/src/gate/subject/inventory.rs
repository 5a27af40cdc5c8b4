//! The server's own list of its routes, from a separate start that is not judged.
//!
//! The temporary deployment has the subject's image, command, mounts (new volumes, copy-on-write binds)
//! and lock, and starts after the subject. Subjects with the same routes share one.

use std::sync::Arc;

use super::{
    bring_up,
    work::{Gate, Installation, Work},
};
use crate::gate::shared::Listed;
use lockproof_deploy::{
    deployment::{Deployment, ready::Readiness},
    install,
    inventory::{self, Inventory, ServerRoute},
    layout,
    subject::{MountSource, Subject},
};
use lockproof_model::{
    error::{Error, Result},
    report::RouteReport,
    scheme::Scheme,
};
use lockproof_probe::surface::routes::Route;

/// Reads the routes of the subject's server.
pub(super) async fn list(work: Work<'_>) -> Listed {
    if work.subject.lock.scheme.in_front() {
        return Err("the gated service is a proxy, which has no list of the server's routes".to_owned());
    }
    let cell = work.shared.inventory(&key(work.subject));
    let make = || async { Box::pin(make(work)).await.map(Arc::new).map_err(|e| e.one_line()) };
    Box::pin(cell.get_or_init(make)).await.clone()
}

impl Gate<'_> {
    /// Adds the server's routes to the probed ones, and reports the sources of all routes.
    pub(super) fn take_in(&mut self, installation: &mut Installation, listed: Listed) {
        let name = &self.work.subject.name;
        let mut report =
            RouteReport { built_in: Route::all().len(), given: self.work.plan.routes.len(), ..Default::default() };
        match listed {
            Ok(inventory) => {
                self.listed = beyond(&inventory, &self.work.subject.lock.scheme);
                if !self.listed.is_empty() {
                    let paths: Vec<_> = self.listed.iter().map(|r| format!("{} {}", r.method(), r.path)).collect();
                    tracing::info!(
                        "{name}: additional routes of the server, probed as protected: {}",
                        paths.join(", ")
                    );
                }
                report.registered = Some(inventory.routes.len());
                report.middlewares = inventory.middlewares.iter().map(ToString::to_string).collect();
            }
            Err(why) => {
                tracing::info!("{name}: cannot read the server's own list of routes: {why}");
                report.not_listed = Some(why);
            }
        }
        report.beyond = self.listed.iter().map(|route| format!("{} {}", route.method(), route.path)).collect();
        report.linked = installation.routes.len().saturating_sub(report.built_in + report.given);
        bring_up::add(&mut installation.routes, &self.listed);
        self.work.ledger.open().report.routes = Some(report);
    }
}

/// The key of subjects whose servers register the same routes. Without named volumes, which are empty or
/// filled from the image.
fn key(subject: &Subject) -> String {
    let binds = subject.mounts.iter().filter(|mount| matches!(mount.source, MountSource::Bind(_)));
    let image = (&subject.image, &subject.command, &subject.entrypoint, &subject.env, &subject.working_dir);
    let project = subject.compose.as_ref().map(|c| (&c.service, &c.project.sources));
    format!("{image:?} {:?} {:?} {:?} {project:?}", subject.user, binds.collect::<Vec<_>>(), subject.lock)
}

async fn make(work: Work<'_>) -> Result<Inventory> {
    let key = format!("s{}inventory", work.index);
    let mut deployment = Box::pin(Deployment::create(work.engine, work.run, &key, work.subject)).await?;
    deployment.share(&work.shared.places);
    let listed = Box::pin(listed_by(&mut deployment, work)).await;
    deployment.admission().leave();
    let down = Box::pin(deployment.take_down()).await;
    listed.and_then(|inventory| down.map(|()| inventory))
}

async fn listed_by(deployment: &mut Deployment, work: Work<'_>) -> Result<Inventory> {
    let timeout = work.subject.ready_timeout;
    if let Some(layout) = Box::pin(ahead(deployment, work)).await? {
        inventory::put_helper(deployment, &layout).await?;
        deployment.start().await?;
        return inventory::read(deployment, timeout).await;
    }
    deployment.start().await?;
    let Readiness::Ready { client, .. } = deployment.wait_ready().await? else {
        return Err(Error::undecided("the server does not start"));
    };
    let layout = layout::detect(deployment, &client).await?;
    if work.subject.lock.install.is_some() {
        Box::pin(install::install(deployment, &layout)).await?;
    }
    inventory::put_helper(deployment, &layout).await?;
    deployment.restart_at_once().await?;
    inventory::read(deployment, timeout).await
}

/// Installs the lock before the first start. `None`: it must be installed in the running container.
async fn ahead(deployment: &Deployment, work: Work<'_>) -> Result<Option<layout::Layout>> {
    if work.subject.lock.install.is_some() {
        let installed = Box::pin(bring_up::install_ahead(work, deployment, None)).await?;
        return Ok(installed.map(|(layout, _)| layout));
    }
    if work.subject.compose.is_some() {
        return Ok(None);
    }
    let Some(layout) = layout::foresee(deployment).await? else { return Ok(None) };
    let there = match layout.custom_nodes.first() {
        Some(custom_nodes) => deployment.exists(custom_nodes).await?,
        None => false,
    };
    Ok(there.then_some(layout))
}

/// The listed routes that are neither built in nor public in the scheme.
pub(super) fn beyond(inventory: &Inventory, scheme: &Scheme) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    for route in &inventory.routes {
        let Some(path) = asked(route) else { continue };
        // A handler for all methods is probed with one that reads and one that writes; HEAD follows GET.
        let methods: &[&str] = match route.method.as_str() {
            "*" => &["GET", "POST"],
            "HEAD" | "OPTIONS" => continue,
            method => &[method],
        };
        for method in methods {
            let known = |routes: &[Route]| routes.iter().any(|known| known.is(method, &path));
            if !known(Route::all()) && !known(&routes) && !scheme.is_public(method, &path) {
                routes.push(Route::listed(method, &path, route.handler.to_string()));
            }
        }
    }
    routes
}

/// The path to request. For a static directory, a file in it; `None` for the public files of the frontend
/// and the extensions.
fn asked(route: &ServerRoute) -> Option<String> {
    let Some(directory) = &route.directory else {
        return Some(route.path.clone()).filter(|path| path.starts_with('/'));
    };
    let packaged = ["/site-packages/", "/dist-packages/"].iter().any(|part| directory.contains(part));
    if packaged || route.path.is_empty() || route.path.starts_with("/extensions/") {
        return None;
    }
    let sample = route.sample.as_ref()?;
    Some(format!("{}/{sample}", route.path.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use lockproof_deploy::inventory::Handler;

    use super::*;

    fn route(method: &str, path: &str, files: Option<(&str, &str)>) -> ServerRoute {
        ServerRoute {
            method: method.to_owned(),
            path: path.to_owned(),
            handler: Handler { name: "f".to_owned(), module: None, file: Some("/n.py".to_owned()) },
            directory: files.map(|(directory, _)| directory.to_owned()),
            sample: files.map(|(_, sample)| sample.to_owned()),
        }
    }

    #[test]
    fn what_nobody_links_to_is_probed_and_nothing_twice() {
        let routes = vec![
            route("GET", "/system_stats", None),
            route("GET", "/api/system_stats", None),
            route("HEAD", "/gallery", None),
            route("GET", "/gallery", None),
            route("GET", "/gallery/{id}", None),
            route("GET", "/gallery/{name}", None),
            route("*", "/hook", None),
            route("PUT", "/system_stats", None),
            route("GET", "/login", None),
            route("GET", "", Some(("/opt/venv/lib/python3/site-packages/frontend", "a.html"))),
            route("GET", "/extensions/x", Some(("/opt/ComfyUI/custom_nodes/x/web", "a.html"))),
            route("GET", "/pictures", Some(("/opt/ComfyUI/output", "a.png"))),
        ];
        let scheme = Scheme::find("comfyui-login", std::path::Path::new("")).expect("it is built in");
        let inventory = Inventory { routes, middlewares: Vec::new() };
        let seen: Vec<_> = beyond(&inventory, &scheme).iter().map(|r| format!("{} {}", r.method(), r.path)).collect();
        assert_eq!(
            seen,
            [
                "GET /gallery",
                "GET /gallery/{id}",
                "GET /hook",
                "POST /hook",
                "PUT /system_stats",
                "GET /pictures/a.png"
            ]
        );
    }
}
