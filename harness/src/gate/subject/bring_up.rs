//! Bringing a subject up with its lock, the first time and again.

use std::time::{Duration, Instant};

use super::{Gate, Installation, unlocked::Unlocked};
use crate::{
    deployment::{
        Deployment,
        ready::{Down, Readiness},
    },
    error::{Error, Result},
    install,
    keys::{self, Keys},
    layout,
    probe::{client::Client, message::Request},
    state_map::{Origin, StateMap},
    surface::{discover::discover, routes::Route},
};

/// The pause between two questions whether there is something behind a proxy.
const BEHIND: Duration = Duration::from_millis(200);
/// The grace of the restart that makes an installation take effect: it is no event, and a server
/// that ignores SIGTERM would only cost time.
const INSTALL_GRACE: Duration = Duration::ZERO;

/// What came of bringing a subject up.
pub(super) enum BroughtUp {
    Installed(Box<Installation>),
    /// No lock took hold: there is no token, and others get in.
    Unlocked(Box<Unlocked>),
    Down(Box<Deployment>, Down),
}

impl Gate<'_> {
    /// A proxy answers before ComfyUI does: waits until there is something behind it, or the time for
    /// that is over.
    pub(super) async fn await_upstream(&self, client: &Client, keys: &Keys) {
        let scheme = &self.subject.lock.scheme;
        if !scheme.in_front() {
            return;
        }
        let deadline = Instant::now() + self.subject.ready_timeout;
        let question = keys::authorised(Request::get("/system_stats"), scheme, keys.token());
        while Instant::now() < deadline {
            let answer = client.send(&question).await;
            if answer.is_ok_and(|answer| !matches!(answer.status.as_u16(), 502..=504)) {
                return;
            }
            tokio::time::sleep(BEHIND).await;
        }
    }

    /// Brings the subject up as it was installed first.
    pub(super) async fn put_back(&mut self) -> Result<Installation> {
        match self.bring_up().await? {
            BroughtUp::Installed(installation) => Ok(*installation),
            BroughtUp::Unlocked(unlocked) => {
                unlocked.deployment.take_down().await?;
                Err(unlocked.why)
            }
            BroughtUp::Down(deployment, down) => {
                deployment.take_down().await?;
                Err(not_again(&down))
            }
        }
    }

    /// Brings the subject up and installs its lock.
    pub(super) async fn bring_up(&mut self) -> Result<BroughtUp> {
        self.times_up += 1;
        let key = format!("s{}u{}", self.index, self.times_up);
        let name = &self.subject.name;
        self.listener.step(name, "bringing it up");
        let deployment = Deployment::bring_up(self.engine, self.run, &key, self.subject).await?;
        let (mut client, mut ready) = match deployment.wait_ready().await? {
            Readiness::Ready { client, after } => (client, after),
            Readiness::Down(down) => return Ok(BroughtUp::Down(Box::new(deployment), down)),
        };
        let layout = layout::detect(&deployment, &client).await?;
        let mut checks = Vec::new();
        if self.subject.lock.install.is_some() {
            self.listener.step(name, "installing the lock");
            if self.times_up == 1 {
                checks = install::check::check(&deployment, &layout).await?;
                // Should the installation fail, they say why.
                self.ledger.open().findings.extend(checks.iter().cloned());
            }
        }
        let installed = match install::install(&deployment, &layout).await {
            Err(why) if self.subject.lock.install.is_none() => {
                return self.unlocked_or(deployment, client, layout, ready, why).await;
            }
            done => done?,
        };
        if self.subject.lock.install.is_some() {
            self.engine.restart(&deployment.container_id(), INSTALL_GRACE).await?;
            (client, ready) = match deployment.wait_ready().await? {
                Readiness::Ready { client, after } => (client, after),
                Readiness::Down(down) => return Ok(BroughtUp::Down(Box::new(deployment), down)),
            };
        }
        self.listener.step(name, "minting a token");
        let had_token = keys::read(&deployment, &layout, &installed).await?.is_some();
        let keys = match keys::mint(&deployment, &client, &layout, &installed).await {
            Err(why) => return self.unlocked_or(deployment, client, layout, ready, why).await,
            Ok(keys) => keys,
        };
        if self.times_up == 1 && self.subject.lock.scheme.login.is_some() && keys.session().is_none() {
            tracing::info!(
                "{}: no session could be opened, so that tampered sessions were not probed{}",
                self.subject.name,
                if keys.password().is_some() { "" } else { ": credential: { password_env: … } gives the password" }
            );
        }
        self.await_upstream(&client, &keys).await;
        let origin = Origin { by_us: self.subject.lock.install.is_some(), minted: !had_token };
        let map = match &self.drawn {
            Some((drawn_for, map)) if *drawn_for == installed => map.renew(&deployment, &layout, &installed).await?,
            _ => StateMap::draw(&deployment, &layout, &installed, origin).await?,
        };
        self.drawn = Some((installed.clone(), map.clone()));
        let routes = self.routes(&client, &keys).await;
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

    /// The routes that are probed: the inventory, and what the server itself asks for beyond it.
    pub(super) async fn routes(&self, client: &Client, keys: &Keys) -> Vec<Route> {
        let discovered = discover(client, &self.subject.lock.scheme, keys).await;
        if self.times_up == 1 && !discovered.is_empty() {
            let listed = discovered.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            tracing::info!("{}: beyond the inventory, and probed as protected: {listed}", self.subject.name);
        }
        let given = self.plan.routes.iter().cloned();
        Route::all().iter().cloned().chain(given).chain(discovered.iter().map(Route::from)).collect()
    }
}

fn not_again(down: &Down) -> Error {
    Error::undecided("it came up once, and does not come up again").detail(&down.why).fix(down.fix.clone())
}
