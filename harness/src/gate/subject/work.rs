//! The input and intermediate results of one subject's gate.

use std::{sync::atomic::AtomicBool, time::Duration};

use crate::{
    canary::{Access, Canaries},
    config::plan::Plan,
    gate::{clock::Clock, ledger::SharedLedger, listener::Listener, replays::Replays, shared::Shared},
    state_map::StateMap,
};
use lockproof_deploy::{
    deployment::{Deployment, ready::Down},
    engine::{Engine, Run},
    install::Installed,
    layout::Layout,
    subject::Subject,
};
use lockproof_model::{
    error::{Error, Result},
    event::Event,
    finding::Finding,
    report::{LayoutReport, Phase},
    scheme::Scheme,
    verdict::Verdict,
};
use lockproof_probe::{
    claim::Claim,
    client::Client,
    keys::Keys,
    look::{Look, Reference, Works},
    surface::routes::Route,
    watch::Guarded,
};

/// A subject with its lock installed.
pub(super) struct Installation {
    pub(super) deployment: Deployment,
    pub(super) client: Client,
    pub(super) layout: Layout,
    pub(super) installed: Installed,
    pub(super) keys: Keys,
    pub(super) map: StateMap,
    pub(super) ready: Duration,
    pub(super) checks: Vec<Finding>,
    /// The routes to probe: the known and the discovered ones.
    pub(super) routes: Vec<Route>,
    /// The last look and its event, unless many requests were refused since.
    pub(super) last: Option<(Look, Event)>,
    /// The canaries; `None` if they are not created yet.
    pub(super) canaries: Option<Canaries>,
}

impl Installation {
    pub(super) fn access<'s>(&'s self, scheme: &'s Scheme) -> Access<'s> {
        Access { client: &self.client, scheme, keys: &self.keys }
    }
}

/// The results of the first look, with which events are compared.
pub(super) struct Baseline {
    pub(super) verdict: Verdict,
    pub(super) reference: Reference,
    pub(super) session: Works,
    pub(super) guarded: Vec<Guarded>,
}

/// The input of the gate for one subject.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// The run.
    pub run: &'a Run,
    /// The whole plan.
    pub plan: &'a Plan,
    /// The index of the subject in the plan.
    pub index: usize,
    /// The subject.
    pub subject: &'a Subject,
    /// The ledger to write to.
    pub ledger: &'a SharedLedger,
    /// Receives the progress.
    pub listener: &'a dyn Listener,
    /// Shared with the other subjects.
    pub shared: &'a Shared,
}

/// The result of starting a subject.
pub(super) enum BroughtUp {
    Installed(Box<Installation>),
    /// The lock did not take effect: there is no token, and visitors get in.
    Unlocked(Box<Unlocked>),
    Down(Box<Deployment>, Down),
}

/// A subject whose lock did not take effect.
pub(super) struct Unlocked {
    pub(super) deployment: Deployment,
    pub(super) client: Client,
    pub(super) layout: Layout,
    pub(super) ready: Duration,
    pub(super) entry: Entry,
    pub(super) why: Error,
}

/// How visitors get into a server without a token.
pub(super) enum Entry {
    /// It is public.
    Open(Look),
    /// It is claimable.
    Claim(Claim),
}

/// The gate of one subject, with its results so far.
pub(super) struct Gate<'a> {
    pub(super) work: Work<'a>,
    pub(super) times_up: u32,
    pub(super) clock: Clock,
    /// The state map of the first installation.
    pub(super) drawn: Option<(Installed, StateMap)>,
    /// The layout of the first start.
    pub(super) layout: Option<Layout>,
    /// Whether the lock can be installed before the first start, as far as known.
    pub(super) ahead: bool,
    /// The server's own routes that are not built in.
    pub(super) listed: Vec<Route>,
    /// Whether the mounts were checked.
    pub(super) checked: AtomicBool,
    pub(super) replays: Replays,
}

impl<'a> Gate<'a> {
    pub(super) fn new(work: Work<'a>, replays: Replays) -> Self {
        Self {
            work,
            times_up: 0,
            clock: Clock::default(),
            drawn: None,
            layout: None,
            ahead: true,
            listed: Vec::new(),
            checked: AtomicBool::new(false),
            replays,
        }
    }

    /// Removes a deployment and counts its starts.
    pub(super) async fn take_down(&self, deployment: Deployment) -> Result<()> {
        self.clock.close(&deployment);
        self.clock.add(Phase::Queue, deployment.admission().waited());
        self.clock.measure(Phase::CleanUp, deployment.take_down()).await
    }
}

/// The layout for reports.
pub(super) fn layout_report(layout: &Layout) -> LayoutReport {
    LayoutReport {
        code_dir: Some(layout.code_dir.clone()),
        custom_nodes: Some(layout.custom_nodes_dir().to_owned()),
        python: Some(layout.python.clone()),
    }
}
