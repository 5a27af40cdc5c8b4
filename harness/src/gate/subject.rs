//! One subject through every event.
//!
//! After an event whose verdict or states changed, and after one that leaves the subject otherwise
//! than it was installed (another image, no network, another credential), it is put back: taken
//! down and brought up and installed anew, so that every event is judged on its own.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use super::{
    Listener, SharedLedger, diagnose,
    diagnose::Scene,
    examine::{self, Early, Examiner},
    expect, layout_report,
    replays::{Behind, Replays},
};
use crate::{
    canary::{self, Access, Canaries},
    config::plan::{Plan, Subject},
    deployment::{
        Deployment,
        lifecycle::Performed,
        ready::{Down, Readiness},
    },
    engine::{Engine, Run},
    error::{Error, ErrorKind, Result},
    event::Event,
    finding::{Finding, Rule},
    install::{self, Installed, check::is_within},
    keys::{self, Keys},
    layout::{self, Layout},
    notebook::Runner,
    probe::{
        claim::{Claim, empty_token, form_claim},
        client::Client,
        decide::{Kind, kind},
        leak,
        look::{Look, Reference, Seen, Works, look},
        matrix::Counts,
        message::{Request, URL},
        watch::{Exposure, Guarded, Watch, guarded},
        wear::wear_out,
    },
    replay,
    report::{EventReport, ProbeCounts, StateReport, Survival},
    scheme::Scheme,
    state::{Owner, State},
    state_map::{Origin, StateMap, upgrade_is_effective},
    surface::{discover::discover, routes::Route},
    verdict::Verdict,
};

/// How long the exposure watch goes on after the server is ready.
const AFTERWARDS: Duration = Duration::from_secs(2);
/// The pause between two questions whether there is something behind a proxy.
const BEHIND: Duration = Duration::from_millis(200);
/// How much of a log is searched for the token.
const LOG_LINES: usize = 5000;
/// The grace of the restart that makes an installation take effect: it is no event, and a server
/// that ignores SIGTERM would only cost time.
const INSTALL_GRACE: Duration = Duration::ZERO;

/// A subject with its lock installed.
struct Installation {
    deployment: Deployment,
    client: Client,
    layout: Layout,
    installed: Installed,
    keys: Keys,
    map: StateMap,
    ready: Duration,
    checks: Vec<Finding>,
    /// The routes that are probed: the inventory, and those that were discovered.
    routes: Vec<Route>,
    /// The last look, and after which event, as long as the lock was not worn out since.
    last: Option<(Look, Event)>,
    /// What was planted to see whether data lasts; `None` where that is still to be done.
    canaries: Option<Canaries>,
}

impl Installation {
    fn access<'s>(&'s self, scheme: &'s Scheme) -> Access<'s> {
        Access { client: &self.client, scheme, keys: &self.keys }
    }
}

/// What came of bringing a subject up.
enum BroughtUp {
    Installed(Box<Installation>),
    /// No lock took hold: there is no token, and others get in.
    Unlocked(Box<Unlocked>),
    Down(Box<Deployment>, Down),
}

/// A subject on which no lock took hold.
struct Unlocked {
    deployment: Deployment,
    client: Client,
    layout: Layout,
    ready: Duration,
    entry: Entry,
    why: Error,
}

/// How anybody gets into a server to which there is no token.
enum Entry {
    /// It is public.
    Open(Look),
    /// It gives access away.
    Claim(Claim),
}

impl Entry {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Open(_) => Verdict::Open,
            Self::Claim(_) => Verdict::Claimable,
        }
    }

    fn findings(&self, scene: Scene<'_>) -> Vec<Finding> {
        match self {
            Self::Open(look) => diagnose::sentinels(scene, look, None, &[], &[]),
            Self::Claim(claim) => vec![diagnose::claim(scene, claim)],
        }
    }
}

/// What the first look found, against which events are compared.
struct Baseline {
    verdict: Verdict,
    reference: Reference,
    session: Works,
    guarded: Vec<Guarded>,
}

/// Gates one subject, writing into its ledger as it goes.
///
/// # Errors
/// What kept it from going on; what was found until then is in the ledger.
pub async fn gate(
    engine: &Engine,
    run: &Run,
    plan: &Plan,
    index: usize,
    subject: &Subject,
    ledger: &SharedLedger,
    listener: &dyn Listener,
) -> Result<()> {
    let replays = Replays::read(&plan.replays, Some(PathBuf::from(replay::DIFFERENCES)))?;
    let mut gate = Gate { engine, run, plan, index, subject, ledger, listener, times_up: 0, drawn: None, replays };
    gate.run().await
}

/// Brings one subject up with its lock, for those who only want to use it; the run's sweep takes it
/// down.
///
/// # Errors
/// What kept it from coming up locked.
pub async fn lend(
    engine: &Engine,
    run: &Run,
    plan: &Plan,
    subject: &Subject,
    listener: &dyn Listener,
) -> Result<(Deployment, Client, Keys)> {
    let (ledger, replays) = (SharedLedger::default(), Replays::default());
    let mut gate =
        Gate { engine, run, plan, index: 0, subject, ledger: &ledger, listener, times_up: 0, drawn: None, replays };
    let lent = gate.put_back().await?;
    Ok((lent.deployment, lent.client, lent.keys))
}

struct Gate<'a> {
    engine: &'a Engine,
    run: &'a Run,
    plan: &'a Plan,
    index: usize,
    subject: &'a Subject,
    ledger: &'a SharedLedger,
    listener: &'a dyn Listener,
    times_up: u32,
    /// The state map of the first installation, and what it was drawn for.
    drawn: Option<(Installed, StateMap)>,
    replays: Replays,
}

impl Gate<'_> {
    async fn run(&mut self) -> Result<()> {
        let begun = Instant::now();
        let mut current = match self.bring_up().await? {
            BroughtUp::Installed(installation) => *installation,
            BroughtUp::Unlocked(unlocked) => return self.run_unlocked(*unlocked, begun).await,
            BroughtUp::Down(deployment, down) => {
                self.record_down(Event::Installed, &down, None, begun, None);
                return deployment.take_down().await;
            }
        };
        self.enter(&current);
        let (baseline, mut dirty) = match self.first_look(&mut current, begun).await {
            Ok(Some(found)) => found,
            // Undecided at `installed`: there is nothing to compare with.
            Ok(None) => {
                self.undecide_rest("the installed state could not be judged");
                return current.deployment.take_down().await;
            }
            Err(e) => return Err(e),
        };
        for (position, event) in self.plan.events.iter().copied().enumerate() {
            if dirty || (event.new_container() && self.wear(&mut current).await) {
                self.listener.step(&self.subject.name, "putting it back");
                current.deployment.take_down().await?;
                current = self.put_back().await?;
            }
            dirty = self.event(&mut current, &baseline, event).await?;
            dirty &= position + 1 < self.plan.events.len();
        }
        self.wear(&mut current).await;
        self.listener.step(&self.subject.name, "taking it down");
        current.deployment.take_down().await
    }

    /// A proxy answers before ComfyUI does: waits until there is something behind it, or the time for
    /// that is over.
    async fn await_upstream(&self, client: &Client, keys: &Keys) {
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
    async fn put_back(&mut self) -> Result<Installation> {
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
    async fn bring_up(&mut self) -> Result<BroughtUp> {
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
    async fn routes(&self, client: &Client, keys: &Keys) -> Vec<Route> {
        let discovered = discover(client, &self.subject.lock.scheme, keys).await;
        if self.times_up == 1 && !discovered.is_empty() {
            let listed = discovered.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            tracing::info!("{}: beyond the inventory, and probed as protected: {listed}", self.subject.name);
        }
        Route::all().iter().cloned().chain(discovered.iter().map(Route::from)).collect()
    }

    /// Wears the lock out, once for each container, when it is about to be thrown away; gives
    /// whether that has changed it.
    async fn wear(&self, current: &mut Installation) -> bool {
        let Some((before, event)) = current.last.take() else { return false };
        self.listener.step(&self.subject.name, "wearing it out");
        let scheme = &self.subject.lock.scheme;
        let known = before.reference();
        let Some(worn) = wear_out(&current.client, scheme, &current.keys, &before, &known).await else { return false };
        let mut findings = vec![diagnose::worn(self.scene(event), &worn)];
        expect::mark_accepted(&mut findings, &self.plan.accept, super::today());
        let mut ledger = self.ledger.open();
        // The same lock wears out in the same way after every event: it is said once.
        if !ledger.findings.iter().any(|f| f.rule == findings[0].rule && f.message == findings[0].message) {
            ledger.findings.append(&mut findings);
        }
        true
    }

    /// A lock to which there is no token may have failed to take hold, which shows: others get in.
    /// Else `why` is the last word.
    async fn unlocked_or(
        &self,
        deployment: Deployment,
        client: Client,
        layout: Layout,
        ready: Duration,
        why: Error,
    ) -> Result<BroughtUp> {
        if why.kind() == ErrorKind::Undecided
            && let Some(entry) = way_in(&client, &self.subject.lock.scheme).await
        {
            return Ok(BroughtUp::Unlocked(Box::new(Unlocked { deployment, client, layout, ready, entry, why })));
        }
        Err(why)
    }

    /// The events of a subject on which no lock took hold: there is no key to it, but whether it is
    /// public shows without one.
    async fn run_unlocked(&mut self, mut current: Unlocked, begun: Instant) -> Result<()> {
        self.ledger.open().report.layout = layout_report(&current.layout);
        let mut report = EventReport::new(Event::Installed, Verdict::Locked);
        report.ready_ms = Some(millis(current.ready));
        let predicted = current.entry.verdict();
        let mut findings = current.entry.findings(self.scene(Event::Installed));
        let log = self.engine.last_lines(&current.deployment.container_id(), 400).await.unwrap_or_default();
        for finding in &mut findings {
            finding.evidence.push(current.why.one_line());
            let failed = log.iter().filter(|line| line.contains("IMPORT FAILED") || line.contains("Cannot import"));
            finding.evidence.extend(failed.take(4).map(|line| format!("log: {}", line.trim())));
        }
        findings.extend(self.forgotten_at_once(&current));
        self.record(report, Ok(predicted), findings, begun);
        for event in self.plan.events.iter().copied() {
            let begun = Instant::now();
            self.listener.step(&self.subject.name, event.name());
            let mut report = EventReport::new(event, Verdict::Locked);
            // What the events take of a lock that was never seen whole cannot be known.
            let predicted = Some(predicted).filter(|p| *p == Verdict::Open);
            report.predicted = predicted;
            if event == Event::Rotate {
                self.record(report, Err("there is no credential to change".to_owned()), Vec::new(), begun);
                continue;
            }
            match current.deployment.perform(event).await {
                Ok(Performed::Done) => {}
                Ok(Performed::Skipped(why)) => {
                    report.expected = expect::expected(self.subject, event, None);
                    report.skipped = Some(why);
                    self.push(report);
                    continue;
                }
                Err(e) if e.kind() == ErrorKind::Undecided => {
                    self.record_undecided(event, &e, predicted, begun);
                    continue;
                }
                Err(e) => return Err(e),
            }
            match current.deployment.wait_ready().await? {
                Readiness::Down(down) => self.record_down(event, &down, predicted, begun, None),
                Readiness::Ready { client, after } => {
                    report.ready_ms = Some(millis(after));
                    current.client = client;
                    match way_in(&current.client, &self.subject.lock.scheme).await {
                        Some(entry) => {
                            let findings = entry.findings(self.scene(event));
                            self.record(report, Ok(entry.verdict()), findings, begun);
                        }
                        None => {
                            let why = format!("nobody gets in any more, and there is no token: {}", current.why.what());
                            self.record(report, Err(why), Vec::new(), begun);
                        }
                    }
                }
            }
        }
        self.listener.step(&self.subject.name, "taking it down");
        current.deployment.take_down().await
    }

    /// What is installed on a tmpfs is gone at the restart by which it would take effect.
    fn forgotten_at_once(&self, current: &Unlocked) -> Option<Finding> {
        let directory = current.layout.custom_nodes_dir();
        let nearest = current.deployment.mounted().into_iter().filter(|m| is_within(directory, &m.target));
        let mount = nearest.max_by_key(|m| m.target.len()).filter(|m| m.owner == Owner::Tmpfs)?;
        let message = format!("{} is a tmpfs: a lock that is installed there never takes effect", mount.target);
        Some(
            Finding::new(Rule::PersistTmpfs, &self.subject.name, Some(Event::Installed), message)
                .evidence(format!("ComfyUI loads custom nodes from {directory}"))
                .remedy(format!(
                    "mount a named volume instead of the tmpfs:\n  mounts:\n    - {{ volume: custom-nodes, target: {} }}",
                    mount.target
                )),
        )
    }

    /// Writes down what is known once the lock is installed.
    fn enter(&self, current: &Installation) {
        let mut ledger = self.ledger.open();
        ledger.report.layout = layout_report(&current.layout);
        ledger.report.image = current.deployment.subject.image.clone();
        ledger.report.states = current
            .map
            .entries
            .iter()
            .map(|entry| StateReport {
                state: entry.state,
                paths: entry.paths.clone(),
                owner: entry.owner,
                survives: self
                    .plan
                    .events
                    .iter()
                    .map(|event| {
                        let predicted = entry.predicted.get(event).copied().flatten();
                        (*event, Survival { predicted, observed: None })
                    })
                    .collect(),
            })
            .collect();
        for path in current.deployment.copied_binds() {
            tracing::warn!("{}: copied, because it cannot be mounted copy-on-write here", path.display());
        }
        for check in &current.checks {
            tracing::debug!("{}: {}", self.subject.name, check.message);
        }
    }

    /// Judges the installed state. Gives what events are compared with, and whether the subject has
    /// to be put back.
    async fn first_look(&mut self, current: &mut Installation, begun: Instant) -> Result<Option<(Baseline, bool)>> {
        let event = Event::Installed;
        self.listener.step(&self.subject.name, "probing the installed lock");
        let seen = self.examine(current, event, &Reference::default(), true, None).await?;
        let mut report = EventReport::new(event, Verdict::Locked);
        report.ready_ms = Some(millis(current.ready));
        report.probes = seen.counts(&current.client);
        let verdict = seen.verdict.clone();
        self.record(report, seen.verdict, seen.findings, begun);
        let Ok(verdict) = verdict else { return Ok(None) };
        let baseline = Baseline {
            verdict,
            reference: seen.look.reference(),
            session: seen.look.session,
            guarded: guarded(&seen.look),
        };
        Ok(Some((baseline, seen.disturbed)))
    }

    /// One event: perform, watch, wait, probe, judge. Gives whether the subject has to be put back.
    async fn event(&mut self, current: &mut Installation, baseline: &Baseline, event: Event) -> Result<bool> {
        self.plant(current).await?;
        let begun = Instant::now();
        self.listener.step(&self.subject.name, event.name());
        let predicted = current.map.predict(&self.subject.lock.scheme, baseline.verdict, event);
        let old_keys = current.keys.clone();
        if event == Event::Rotate {
            match keys::rotate(&current.deployment, &current.layout, &current.installed).await {
                Ok(keys) => current.keys = keys,
                Err(e) if e.kind() == ErrorKind::Undecided => {
                    self.record_undecided(event, &e, predicted, begun);
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
        }
        let watch =
            Watch::begin(self.engine.clone(), current.deployment.follow(), self.subject.port, baseline.guarded.clone());
        match current.deployment.perform(event).await {
            Ok(Performed::Done) => {}
            Ok(Performed::Skipped(why)) => {
                watch.end().await;
                let mut report = EventReport::new(event, expect::expected(self.subject, event, None));
                report.predicted = predicted;
                report.skipped = Some(why);
                report.duration_ms = millis(begun.elapsed());
                self.push(report);
                return Ok(false);
            }
            Err(e) if e.kind() == ErrorKind::Undecided => {
                watch.end().await;
                self.record_undecided(event, &e, predicted, begun);
                return Ok(true);
            }
            Err(e) => return Err(e),
        }
        let ready = match current.deployment.wait_ready().await? {
            Readiness::Ready { client, after } => {
                current.client = client;
                after
            }
            Readiness::Down(down) => {
                let exposure = watch.end().await;
                let lost = self.observe(current, event).await.unwrap_or_default();
                self.record_down(event, &down, predicted, begun, Some((current, &lost, &exposure)));
                return Ok(true);
            }
        };
        self.await_upstream(&current.client, &current.keys).await;
        let settled = Instant::now() + AFTERWARDS;
        // What probing does to the server must not be taken for what the event did.
        let look = self.examiner(current, event).look(&baseline.reference).await;
        let data = self.data(current, event).await?;
        let replayed = self.replay(current, event, &look).await?;
        // The lock may move while it starts; what is judged is what it settles to.
        let mut early = self.examiner(current, event).after(look).await;
        tokio::time::sleep_until(settled.into()).await;
        let exposure = watch.end().await;
        if exposure.served > 0 {
            early = self.look_and_matrix(current, event, baseline).await;
        }
        let seen = self.finish(current, event, early, false, Some((baseline, &old_keys))).await?;
        let mut report = EventReport::new(event, Verdict::Locked);
        report.predicted = predicted;
        report.ready_ms = Some(millis(ready));
        report.exposure_ms = (baseline.verdict != Verdict::Open).then(|| millis(exposure.total));
        report.probes = seen.counts(&current.client);
        let mut findings = seen.findings;
        findings.extend(replayed);
        if event != Event::Wipe || !seen.as_it_must_be {
            findings.extend(data);
        }
        let scene = self.scene(event);
        if let Ok(verdict) = &seen.verdict {
            findings.extend(diagnose::exposure(scene, &exposure, *verdict));
            // What a rotation leaves alive is the lock's own doing, of which the mounts promise nothing.
            if !findings.iter().any(|f| f.rule == Rule::LockOldTokenAlive) {
                findings.extend(diagnose::prediction(scene, predicted, *verdict));
            }
        }
        if event == Event::Upgrade && !upgrade_is_effective(&current.deployment, &current.layout).await? {
            report.effective = false;
            findings.push(diagnose::masked(scene, &current.deployment, &current.layout));
        }
        let changed = seen.verdict.as_ref() != Ok(&baseline.verdict) || !seen.lost.is_empty() || seen.disturbed;
        let leaves_traces = matches!(event, Event::Offline | Event::Upgrade | Event::Wipe | Event::Rotate);
        self.record(report, seen.verdict, findings, begun);
        Ok(changed || leaves_traces)
    }

    fn scene(&self, event: Event) -> Scene<'_> {
        Scene { subject: &self.subject.name, event, base: URL }
    }

    /// Everything at once, for the installed state.
    async fn examine(
        &self,
        current: &mut Installation,
        event: Event,
        reference: &Reference,
        thorough: bool,
        before: Option<(&Baseline, &Keys)>,
    ) -> Result<Examined> {
        let none = Baseline {
            verdict: Verdict::Locked,
            reference: reference.clone(),
            session: Works::Absent,
            guarded: Vec::new(),
        };
        let mut look = self.examiner(current, event).look(&none.reference).await;
        if look.all_through() {
            // A lock may come into force a little later than the server: nothing watches this start.
            tokio::time::sleep(AFTERWARDS).await;
            look = self.examiner(current, event).look(&none.reference).await;
        }
        let replayed = self.replay(current, event, &look).await?;
        let early = self.examiner(current, event).after(look).await;
        let mut seen = self.finish(current, event, early, thorough, before).await?;
        seen.findings.extend(replayed);
        Ok(seen)
    }

    /// Plants what shows whether data lasts, once for each installation.
    async fn plant(&self, current: &mut Installation) -> Result<()> {
        if current.canaries.is_some() {
            return Ok(());
        }
        let access = current.access(&self.subject.lock.scheme);
        let canaries = Canaries::plant(access, &current.deployment, &current.layout).await?;
        let mut ledger = self.ledger.open();
        if !canaries.is_empty() && !ledger.report.states.iter().any(|s| s.state == State::Data) {
            ledger.report.states.push(canary::state::report(&canaries, &self.plan.events));
        }
        current.canaries = Some(canaries);
        Ok(())
    }

    /// What became of the data: written down, and told where some is lost.
    async fn data(&self, current: &mut Installation, event: Event) -> Result<Option<Finding>> {
        let Some(canaries) = current.canaries.as_ref().filter(|canaries| !canaries.is_empty()) else { return Ok(None) };
        let losses = canaries.losses(current.access(&self.subject.lock.scheme), &current.deployment).await?;
        let mut ledger = self.ledger.open();
        if let Some(state) = ledger.report.states.iter_mut().find(|s| s.state == State::Data) {
            state.survives.entry(event).or_default().observed = Some(losses.is_empty());
        }
        let found = canary::state::finding(&losses, self.subject, event, &current.layout, &current.installed);
        if found.is_some() {
            // They are planted again, which puts this state back.
            current.canaries = None;
        }
        Ok(found)
    }

    /// Runs the workflows and notebooks again, on the token of record.
    async fn replay(&self, current: &Installation, event: Event, look: &Look) -> Result<Vec<Finding>> {
        let network = Some(current.deployment.network().to_owned());
        let behind = Behind {
            client: &current.client,
            scheme: &self.subject.lock.scheme,
            keys: &current.keys,
            runner: &Runner::Container { engine: self.engine.clone(), run: self.run.clone(), network },
            lets_in: look.all_through() || look.token != Works::No,
        };
        let step = |step: &str| self.listener.step(&self.subject.name, step);
        let mut replayed = self.replays.run(self.scene(event), behind, &step).await?;
        self.ledger.open().report.replays.append(&mut replayed.reports);
        Ok(replayed.findings)
    }

    /// Sentinels, token, session; then the matrix, unless it is open anyway.
    async fn look_and_matrix(&self, current: &Installation, event: Event, baseline: &Baseline) -> Early {
        self.examiner(current, event).early(&baseline.reference).await
    }

    fn examiner<'s>(&'s self, current: &'s Installation, event: Event) -> Examiner<'s> {
        Examiner {
            client: &current.client,
            scheme: &self.subject.lock.scheme,
            keys: Some(&current.keys),
            routes: &current.routes,
            mutating: true,
            scene: self.scene(event),
            progress: &|_, _| {},
        }
    }

    /// What comes last: states, claim, and the verdict.
    async fn finish(
        &self,
        current: &mut Installation,
        event: Event,
        early: Early,
        thorough: bool,
        before: Option<(&Baseline, &Keys)>,
    ) -> Result<Examined> {
        let scheme = &self.subject.lock.scheme;
        let (seen, counts) = (early.look.clone(), early.counts);
        let lost = if event == Event::Installed { Vec::new() } else { self.observe(current, event).await? };
        let scene = self.scene(event);
        let suspicious = thorough || event.new_container() || seen.token != Works::Yes || !lost.is_empty();
        let mut changed_token = false;
        if !seen.all_through() && seen.token == Works::No {
            changed_token = self.credential_changed(current).await?;
        }
        let mut old = None;
        if let Some((_, keys)) = before.filter(|_| event == Event::Rotate && !seen.all_through()) {
            old = diagnose::old_keys(scene, &current.client, scheme, keys, &seen).await;
        }
        let claimed = self.examiner(current, event).claim(&early, suspicious).await;
        let mut findings = examine::merge(scene, &early, &claimed);
        findings.extend(old);
        let map = Some((&current.map, &current.layout, &current.installed));
        findings.extend(diagnose::sentinels(scene, &seen, map, &lost, &early.findings));
        let disturbed = claimed.disturbed || early.worn.is_some();
        if thorough && self.log_holds_token(current).await? {
            findings.push(diagnose::logged(scene));
        }
        if let Some((baseline, _)) = before {
            findings.extend(diagnose::session(scene, baseline.session, &seen));
        }
        expect::mark_accepted(&mut findings, &self.plan.accept, super::today());
        let verdict = examine::verdict(&early, &claimed, &findings);
        let holds = matches!(verdict, Ok(Verdict::Locked | Verdict::Leaky)) && !disturbed;
        current.last = holds.then(|| (seen.clone(), event));
        if matches!(verdict, Ok(Verdict::LockedOut | Verdict::Leaky)) {
            findings.extend(diagnose::token(scene, &seen, changed_token));
        }
        let as_it_must_be = verdict.as_ref().is_ok_and(|v| {
            let mut report = EventReport::new(event, expect::expected(self.subject, event, Some(*v)));
            report.verdict = Some(*v);
            report.as_it_must_be() == Some(true)
        });
        // `wipe` takes the volumes because it was asked to.
        if event != Event::Wipe || !as_it_must_be {
            findings.extend(diagnose::losses(scene, &current.map, &lost, &current.layout, &current.installed));
        }
        Ok(Examined { look: seen, counts, findings, verdict, as_it_must_be, lost, disturbed })
    }

    /// Whether the container's log shows the token.
    async fn log_holds_token(&self, current: &Installation) -> Result<bool> {
        let lines = self.engine.last_lines(&current.deployment.container_id(), LOG_LINES).await?;
        Ok(leak::holds_text(&lines.join("\n"), &current.keys))
    }

    /// Whether the credential holds another token now, and that one works.
    async fn credential_changed(&self, current: &Installation) -> Result<bool> {
        let scheme = &self.subject.lock.scheme;
        let now = keys::read(&current.deployment, &current.layout, &current.installed).await?;
        let Some(token) = now.filter(|token| token != current.keys.token()) else { return Ok(false) };
        let keys = Keys::new(token, None, None);
        let again = crate::probe::look::look(&current.client, scheme, Some(&keys), &Reference::default()).await;
        Ok(again.token == Works::Yes)
    }

    /// Compares the states with what they were; writes it down, and gives what is lost.
    async fn observe(&self, current: &Installation, event: Event) -> Result<Vec<State>> {
        let kept: BTreeMap<State, bool> =
            current.map.observe(&current.deployment, &current.layout, &current.installed).await?;
        let mut ledger = self.ledger.open();
        let mut lost = Vec::new();
        for (state, kept) in kept {
            // A rotation changes the credential: that is no loss.
            let kept = kept || (event == Event::Rotate && state == State::Credential);
            if let Some(report) = ledger.report.states.iter_mut().find(|s| s.state == state) {
                report.survives.entry(event).or_default().observed = Some(kept);
            }
            if !kept {
                lost.push(state);
            }
        }
        ledger.losses.0.insert(event, lost.iter().copied().collect());
        let data = ledger.report.states.iter().find(|s| s.state == State::Data);
        if data.and_then(|data| data.survives.get(&event)?.observed) == Some(false) {
            ledger.losses.0.entry(event).or_default().insert(State::Data);
        }
        Ok(lost)
    }

    fn record(
        &self,
        mut report: EventReport,
        verdict: Result<Verdict, String>,
        findings: Vec<Finding>,
        begun: Instant,
    ) {
        match verdict {
            Ok(verdict) => {
                report.expected = expect::expected(self.subject, report.event, Some(verdict));
                report.verdict = Some(verdict);
                if report.event == Event::Installed {
                    report.predicted = None;
                }
            }
            Err(why) => {
                report.expected = expect::expected(self.subject, report.event, None);
                report.undecided = Some(why);
            }
        }
        report.duration_ms = millis(begun.elapsed());
        self.ledger.open().findings.extend(findings);
        self.push(report);
    }

    fn record_down(
        &self,
        event: Event,
        down: &Down,
        predicted: Option<Verdict>,
        begun: Instant,
        known: Option<(&Installation, &[State], &Exposure)>,
    ) {
        let scene = self.scene(event);
        let mut report = EventReport::new(event, expect::expected(self.subject, event, Some(Verdict::Down)));
        report.verdict = Some(Verdict::Down);
        report.predicted = predicted;
        report.duration_ms = millis(begun.elapsed());
        let mut findings = vec![diagnose::down(scene, down)];
        if let Some((current, lost, exposure)) = known {
            report.exposure_ms = Some(millis(exposure.total));
            findings.extend(diagnose::exposure(scene, exposure, Verdict::Down));
            findings.extend(diagnose::losses(scene, &current.map, lost, &current.layout, &current.installed));
        }
        self.ledger.open().findings.extend(findings);
        self.push(report);
    }

    fn record_undecided(&self, event: Event, error: &Error, predicted: Option<Verdict>, begun: Instant) {
        let mut report = EventReport::new(event, expect::expected(self.subject, event, None));
        report.predicted = predicted;
        report.undecided = Some(error.one_line());
        report.duration_ms = millis(begun.elapsed());
        self.push(report);
    }

    fn undecide_rest(&self, why: &str) {
        for event in self.plan.events.clone() {
            let mut report = EventReport::new(event, expect::expected(self.subject, event, None));
            report.undecided = Some(why.to_owned());
            self.push(report);
        }
    }

    fn push(&self, report: EventReport) {
        self.listener.event(&self.subject.name, &report);
        self.ledger.open().report.events.push(report);
    }
}

fn not_again(down: &Down) -> Error {
    Error::undecided("it came up once, and does not come up again").detail(&down.why).fix(down.fix.clone())
}

/// How anybody gets into a server to which there is no token; `None` when that cannot be said.
///
/// It is public for sure when every sentinel is let through and answered with data.
async fn way_in(client: &Client, scheme: &Scheme) -> Option<Entry> {
    let seen = look(client, scheme, None, &Reference::default()).await;
    // A login page that comes with 200 is no data.
    let data = |s: &Seen| s.anonymous.as_ref().is_ok_and(|a| matches!(kind(a), Kind::Object(_) | Kind::Array));
    if seen.all_through() && seen.sentinels.iter().all(data) {
        return Some(Entry::Open(seen));
    }
    if seen.undecided().is_some() {
        return None;
    }
    match empty_token(client, scheme, &seen).await {
        Some(claim) => Some(Entry::Claim(claim)),
        None => form_claim(client, scheme, &seen).await.map(Entry::Claim),
    }
}

/// A whole examination.
struct Examined {
    look: Look,
    counts: Counts,
    findings: Vec<Finding>,
    verdict: Result<Verdict, String>,
    as_it_must_be: bool,
    lost: Vec<State>,
    /// Whether probing itself has changed the subject.
    disturbed: bool,
}

impl Examined {
    fn counts(&self, client: &Client) -> ProbeCounts {
        let mut all = self.counts;
        for seen in &self.look.sentinels {
            all.add(seen.decision);
        }
        ProbeCounts {
            sent: client.sent(),
            rejected: all.rejected,
            served: all.served,
            passed: all.passed,
            indeterminate: all.indeterminate,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
