//! Starts a subject and installs its lock, the first time and again.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::work::{BroughtUp, Gate, Installation, Work};
use crate::state_map::{Origin, StateMap};
use lockproof_deploy::{
    deployment::{
        Deployment,
        ready::{Down, Readiness},
    },
    install::{self, Installed},
    layout::{self, Layout},
    mint,
    subject::{PluginSource, Subject},
};
use lockproof_model::{
    error::{Error, Result},
    finding::Finding,
    report::Phase,
};
use lockproof_probe::{
    client::Client,
    keys::{self, Keys},
    message::Request,
    surface::{discover::discover, routes::Route},
};

/// The pause between two checks whether the server behind a proxy is up.
const BEHIND: Duration = Duration::from_millis(200);
/// A subject with its lock installed and in effect.
struct Up {
    deployment: Deployment,
    client: Client,
    ready: Duration,
    layout: Layout,
    installed: Installed,
    checks: Vec<Finding>,
}

impl Gate<'_> {
    /// Waits until the server behind a proxy is up, or the time limit has passed: the proxy answers
    /// earlier.
    pub(super) async fn await_upstream(&self, client: &Client, keys: &Keys) {
        let scheme = &self.work.subject.lock.scheme;
        if !scheme.in_front() {
            return;
        }
        let deadline = Instant::now() + self.work.subject.ready_timeout;
        let question = keys::authorised(Request::get("/system_stats"), scheme, keys.token());
        while Instant::now() < deadline {
            let answer = client.send(&question).await;
            if answer.is_ok_and(|answer| !matches!(answer.status.as_u16(), 502..=504)) {
                return;
            }
            tokio::time::sleep(BEHIND).await;
        }
    }

    /// Restores the subject as it was first installed.
    pub(super) async fn put_back(&mut self) -> Result<Installation> {
        match Box::pin(self.bring_up()).await? {
            BroughtUp::Installed(installation) => Ok(*installation),
            BroughtUp::Unlocked(unlocked) => {
                self.take_down(unlocked.deployment).await?;
                Err(unlocked.why)
            }
            BroughtUp::Down(deployment, down) => {
                self.take_down(*deployment).await?;
                Err(not_again(&down))
            }
        }
    }

    /// Starts the subject and installs its lock: before the first start if the result is the same,
    /// else in the running container, which is then restarted.
    pub(super) async fn bring_up(&mut self) -> Result<BroughtUp> {
        if self.ahead && self.work.subject.lock.install.is_some() {
            match Box::pin(self.bring_up_ahead()).await? {
                Some(brought) => return Ok(brought),
                // The reason against an early installation will remain.
                None => self.ahead = false,
            }
        }
        let (mut deployment, layout_known) = (self.create().await?, self.layout.clone());
        let begun = Instant::now();
        deployment.start().await?;
        let (mut client, mut ready) = match self.wait_ready(&deployment, begun).await? {
            Readiness::Ready { client, after } => (client, after),
            Readiness::Down(down) => return Ok(BroughtUp::Down(Box::new(deployment), down)),
        };
        let installing = Instant::now();
        let layout = layout::detect(&deployment, &client).await?;
        self.layout = layout_known.or_else(|| Some(layout.clone()));
        let name = &self.work.subject.name;
        let mut checks = Vec::new();
        if self.work.subject.lock.install.is_some() {
            self.work.listener.step(name, "installing the lock");
            checks = self.check(&deployment, &layout).await?;
        }
        let installed = match Box::pin(install::install(&deployment, &layout)).await {
            Err(why) if self.work.subject.lock.install.is_none() => {
                return self.unlocked_or(deployment, client, layout, ready, why).await;
            }
            done => done?,
        };
        self.clock.add(Phase::Install, installing.elapsed());
        if self.work.subject.lock.install.is_some() {
            let begun = Instant::now();
            deployment.restart_at_once().await?;
            (client, ready) = match self.wait_ready(&deployment, begun).await? {
                Readiness::Ready { client, after } => (client, after),
                Readiness::Down(down) => return Ok(BroughtUp::Down(Box::new(deployment), down)),
            };
        }
        let up = Up { deployment, client, ready, layout, installed, checks };
        match self.mint(&up).await {
            Err(why) => self.unlocked_or(up.deployment, up.client, up.layout, up.ready, why).await,
            Ok((keys, minted)) => self.enter_installed(up, keys, minted).await,
        }
    }

    /// Installs the lock before the first start. Returns `None`, and leaves nothing behind, if this
    /// is not possible or the result may differ from a normal installation.
    async fn bring_up_ahead(&mut self) -> Result<Option<BroughtUp>> {
        if source_ahead(self.work.subject).is_none() {
            return Ok(None);
        }
        let mut deployment = self.create().await?;
        let installing = Instant::now();
        self.work.listener.step(&self.work.subject.name, "installing the lock");
        let ahead = install_ahead(self.work, &deployment, self.layout.as_ref()).await;
        self.clock.add(Phase::Install, installing.elapsed());
        let (layout, installed) = match ahead {
            Ok(Some(ahead)) => ahead,
            Ok(None) => {
                return self.not_ahead(deployment, "the plugin must be installed in the running container").await;
            }
            // The normal way either fails too, with the reason, or works.
            Err(e) => return self.not_ahead(deployment, &e.one_line()).await,
        };
        let begun = Instant::now();
        deployment.start().await?;
        let Readiness::Ready { client, after: ready } = self.wait_ready(&deployment, begun).await? else {
            return self.not_ahead(deployment, "the server does not start").await;
        };
        let mapping = Instant::now();
        let seen = layout::detect(&deployment, &client).await.ok();
        if !seen.is_some_and(|seen| seen.installs_alike(&layout)) {
            return self.not_ahead(deployment, "the running server has a different layout").await;
        }
        let checks = self.check(&deployment, &layout).await?;
        self.clock.add(Phase::Install, mapping.elapsed());
        self.layout = Some(layout.clone());
        let up = Up { deployment, client, ready, layout, installed, checks };
        match self.mint(&up).await {
            Err(why) => self.not_ahead(up.deployment, &why.one_line()).await,
            Ok((keys, minted)) => self.enter_installed(up, keys, minted).await.map(Some),
        }
    }

    async fn not_ahead(&self, deployment: Deployment, why: &str) -> Result<Option<BroughtUp>> {
        tracing::debug!("{}: not installed before the first start: {why}", self.work.subject.name);
        self.take_down(deployment).await?;
        Ok(None)
    }

    /// Creates the subject's container and everything that it needs.
    async fn create(&mut self) -> Result<Deployment> {
        self.times_up += 1;
        let key = format!("s{}u{}", self.work.index, self.times_up);
        self.work.listener.step(&self.work.subject.name, "starting");
        let created = Deployment::create(self.work.engine, self.work.run, &key, self.work.subject);
        let mut deployment = self.clock.measure(Phase::Create, created).await?;
        deployment.share(&self.work.shared.places);
        Ok(deployment)
    }

    /// Waits for the first answer; `begun` is when the start was requested.
    async fn wait_ready(&self, deployment: &Deployment, begun: Instant) -> Result<Readiness> {
        self.work.listener.step(&self.work.subject.name, "waiting for the server");
        let readiness = deployment.wait_ready().await;
        self.clock.add(Phase::Start, begun.elapsed().saturating_sub(deployment.admission().waited()));
        readiness
    }

    /// Checks the mounts, once.
    async fn check(&self, deployment: &Deployment, layout: &Layout) -> Result<Vec<Finding>> {
        if self.checked.swap(true, Ordering::Relaxed) {
            return Ok(Vec::new());
        }
        let checks = install::check::check(deployment, layout).await?;
        // If the installation fails, they explain why.
        self.work.ledger.open().findings.extend(checks.iter().cloned());
        Ok(checks)
    }

    /// The credentials, and whether they were just created.
    async fn mint(&self, up: &Up) -> Result<(Keys, bool)> {
        self.work.listener.step(&self.work.subject.name, "minting a token");
        let had_token = mint::read(&up.deployment, &up.layout, &up.installed).await?.is_some();
        Ok((mint::mint(&up.deployment, &up.client, &up.layout, &up.installed).await?, !had_token))
    }

    /// The subject with its lock: states and routes.
    async fn enter_installed(&mut self, up: Up, keys: Keys, minted: bool) -> Result<BroughtUp> {
        let Up { deployment, client, ready, layout, installed, checks } = up;
        let mapping = Instant::now();
        let first = self.drawn.is_none();
        if first && self.work.subject.lock.scheme.login.is_some() && keys.session().is_none() {
            tracing::info!(
                "{}: could not open a session, so tampered sessions are not probed{}",
                self.work.subject.name,
                if keys.password().is_some() {
                    ""
                } else {
                    "; set the password with credential: { password_env: … }"
                }
            );
        }
        self.await_upstream(&client, &keys).await;
        let origin = Origin { by_us: self.work.subject.lock.install.is_some(), minted };
        let map = match &self.drawn {
            Some((drawn_for, map)) if *drawn_for == installed => map.renew(&deployment, &layout, &installed).await?,
            _ => Box::pin(StateMap::draw(&deployment, &layout, &installed, origin)).await?,
        };
        self.drawn = Some((installed.clone(), map.clone()));
        self.clock.add(Phase::Install, mapping.elapsed());
        let routes = self.clock.measure(Phase::Probe, self.routes(&client, &keys, first)).await?;
        Ok(BroughtUp::Installed(Box::new(Installation {
            deployment,
            client,
            layout,
            installed,
            keys,
            map,
            ready,
            checks,
            routes,
            last: None,
            canaries: None,
        })))
    }

    /// The routes to probe: the known ones, and those that the server's pages request.
    pub(super) async fn routes(&self, client: &Client, keys: &Keys, first: bool) -> Result<Vec<Route>> {
        let discovered = discover(client, &self.work.subject.lock.scheme, keys).await?;
        if first && !discovered.is_empty() {
            let listed = discovered.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            tracing::info!(
                "{}: also probed, as protected routes outside the known inventory: {listed}",
                self.work.subject.name
            );
        }
        let given = self.work.plan.routes.iter().cloned();
        let mut routes: Vec<Route> =
            Route::all().iter().cloned().chain(given).chain(discovered.iter().map(Route::from)).collect();
        add(&mut routes, &self.listed);
        Ok(routes)
    }
}

/// The plugin, if it can be installed before the first start: by a copy, and not in a Compose project, whose
/// container exists only once it runs.
fn source_ahead(subject: &Subject) -> Option<&PluginSource> {
    let install = subject.lock.install.as_ref().filter(|install| install.script.is_none())?;
    install.from.as_ref().filter(|_| subject.compose.is_none())
}

/// Installs the lock in a container that was not started. `None`: it must be installed in the running one.
pub(super) async fn install_ahead(
    work: Work<'_>,
    deployment: &Deployment,
    known: Option<&Layout>,
) -> Result<Option<(Layout, Installed)>> {
    let Some(from) = source_ahead(work.subject) else { return Ok(None) };
    let layout = match known {
        Some(layout) => Some(layout.clone()),
        None => layout::foresee(deployment).await?,
    };
    let Some(layout) = layout else { return Ok(None) };
    let plugin = work.shared.plugin(from, &work.subject.lock.scheme).await?;
    let installed = install::ahead::install(deployment, &layout, &work.shared.carrier, &plugin).await?;
    Ok(installed.map(|installed| (layout, installed)))
}

/// Adds missing routes.
pub(super) fn add(routes: &mut Vec<Route>, more: &[Route]) {
    for route in more {
        match routes.iter_mut().find(|known| known.is(route.method().as_str(), &route.path)) {
            Some(known) => known.handler = known.handler.take().or_else(|| route.handler.clone()),
            None => routes.push(route.clone()),
        }
    }
}

fn not_again(down: &Down) -> Error {
    Error::undecided("the server started once, but does not start again").detail(&down.why).fix(down.fix.clone())
}
