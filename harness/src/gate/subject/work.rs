//! What the gate of one subject works on, and what it comes to on the way.

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
    /// The routes that are probed: the inventory, and those that were discovered.
    pub(super) routes: Vec<Route>,
    /// The last look, and after which event, as long as the lock was not worn out since.
    pub(super) last: Option<(Look, Event)>,
    /// What was planted to see whether data lasts; `None` where that is still to be done.
    pub(super) canaries: Option<Canaries>,
}

impl Installation {
    pub(super) fn access<'s>(&'s self, scheme: &'s Scheme) -> Access<'s> {
        Access { client: &self.client, scheme, keys: &self.keys }
    }
}

/// What the first look found, against which events are compared.
pub(super) struct Baseline {
    pub(super) verdict: Verdict,
    pub(super) reference: Reference,
    pub(super) session: Works,
    pub(super) guarded: Vec<Guarded>,
}

/// The gate of one subject: what it works on, and whom it tells.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// The run.
    pub run: &'a Run,
    /// The whole plan.
    pub plan: &'a Plan,
    /// The place of the subject in the plan.
    pub index: usize,
    /// The subject.
    pub subject: &'a Subject,
    /// What it writes into.
    pub ledger: &'a SharedLedger,
    /// Who is told.
    pub listener: &'a dyn Listener,
    /// What it shares with the other subjects.
    pub shared: &'a Shared,
}

/// What came of bringing a subject up.
pub(super) enum BroughtUp {
    Installed(Box<Installation>),
    /// No lock took hold: there is no token, and others get in.
    Unlocked(Box<Unlocked>),
    Down(Box<Deployment>, Down),
}

/// A subject on which no lock took hold.
pub(super) struct Unlocked {
    pub(super) deployment: Deployment,
    pub(super) client: Client,
    pub(super) layout: Layout,
    pub(super) ready: Duration,
    pub(super) entry: Entry,
    pub(super) why: Error,
}

/// How anybody gets into a server to which there is no token.
pub(super) enum Entry {
    /// It is public.
    Open(Look),
    /// It gives access away.
    Claim(Claim),
}

/// One subject's gate, and what it has learnt so far.
pub(super) struct Gate<'a> {
    pub(super) engine: &'a Engine,
    pub(super) run: &'a Run,
    pub(super) plan: &'a Plan,
    pub(super) index: usize,
    pub(super) subject: &'a Subject,
    pub(super) ledger: &'a SharedLedger,
    pub(super) listener: &'a dyn Listener,
    pub(super) times_up: u32,
    pub(super) shared: &'a Shared,
    pub(super) clock: Clock,
    /// The state map of the first installation, and what it was drawn for.
    pub(super) drawn: Option<(Installed, StateMap)>,
    /// The layout of the first time that it was up.
    pub(super) layout: Option<Layout>,
    /// Whether the lock may go in before the first start, as far as is known.
    pub(super) ahead: bool,
    /// The routes that the server itself lists beyond the built-in inventory.
    pub(super) listed: Vec<Route>,
    /// Whether the mounts were checked.
    pub(super) checked: AtomicBool,
    pub(super) replays: Replays,
}

impl<'a> Gate<'a> {
    pub(super) fn new(work: Work<'a>, replays: Replays) -> Self {
        let Work { engine, run, plan, index, subject, ledger, listener, shared } = work;
        Self {
            engine,
            run,
            plan,
            index,
            subject,
            ledger,
            listener,
            times_up: 0,
            shared,
            clock: Clock::default(),
            drawn: None,
            layout: None,
            ahead: true,
            listed: Vec::new(),
            checked: AtomicBool::new(false),
            replays,
        }
    }

    pub(super) fn work(&self) -> Work<'a> {
        let Self { engine, run, plan, index, subject, ledger, listener, shared, .. } = *self;
        Work { engine, run, plan, index, subject, ledger, listener, shared }
    }

    /// Takes a deployment down; what it started is counted.
    pub(super) async fn take_down(&self, deployment: Deployment) -> Result<()> {
        self.clock.close(&deployment);
        self.clock.add(Phase::Queue, deployment.admission().waited());
        self.clock.measure(Phase::CleanUp, deployment.take_down()).await
    }
}

/// The layout as a report shows it.
pub(super) fn layout_report(layout: &Layout) -> LayoutReport {
    LayoutReport {
        code_dir: Some(layout.code_dir.clone()),
        custom_nodes: Some(layout.custom_nodes_dir().to_owned()),
        python: Some(layout.python.clone()),
    }
}
