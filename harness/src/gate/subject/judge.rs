//! Examines a subject and derives its verdict.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::work::{Baseline, Gate, Installation};
use crate::gate::{
    clock::today,
    diagnose,
    examine::{self, Early, Examiner, Judged, Known},
    expect,
};
use lockproof_deploy::mint;
use lockproof_model::{
    error::Result,
    event::Event,
    finding::Finding,
    report::{Phase, ProbeCounts},
    state::State,
    verdict::Verdict,
};
use lockproof_probe::{
    client::Client,
    keys::Keys,
    leak,
    look::{Look, Reference, Works},
    matrix::Counts,
    wear::wear_out,
};

/// The number of log lines that are searched for the token.
const LOG_LINES: usize = 5000;

/// How long a lock may take to take effect before it counts as open: locks that wait for a key or a
/// database need seconds.
const SETTLES: Duration = Duration::from_secs(6);
/// The pause between two checks during that time.
const SETTLING: Duration = Duration::from_millis(500);

/// The result of a full examination.
pub(super) struct Examined {
    pub(super) look: Look,
    pub(super) counts: Counts,
    pub(super) findings: Vec<Finding>,
    pub(super) verdict: Result<Verdict, String>,
    pub(super) as_it_must_be: bool,
    pub(super) lost: Vec<State>,
    /// Whether probing changed the subject.
    pub(super) disturbed: bool,
}

impl Examined {
    pub(super) fn counts(&self, client: &Client) -> ProbeCounts {
        let mut all = self.counts;
        for seen in &self.look.sentinels {
            all.add(seen.decision);
        }
        all.planned += self.look.sentinels.len() as u64;
        examine::probe_counts(&all, client.sent())
    }
}

impl Gate<'_> {
    /// The full examination of the installed state.
    pub(super) async fn examine(
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
        // No exposure watch is active during this start.
        let look = self.clock.measure(Phase::Probe, self.settled(current, event, &none.reference)).await;
        let replayed = self.clock.measure(Phase::Replay, self.replay(current, event, &look)).await?;
        let early = self.clock.measure(Phase::Probe, self.examiner(current, event).after(look)).await;
        let finishing = Instant::now();
        let mut seen = self.finish(current, event, early, thorough, before).await?;
        self.clock.add(Phase::Probe, finishing.elapsed());
        seen.findings.extend(replayed);
        Ok(seen)
    }

    /// Waits until the lock has settled: it may take effect later than the server.
    pub(super) async fn settled(&self, current: &Installation, event: Event, known: &Reference) -> Look {
        let deadline = Instant::now() + SETTLES;
        loop {
            let look = self.examiner(current, event).look(known).await;
            if !look.all_through() || Instant::now() >= deadline {
                return look;
            }
            tokio::time::sleep(SETTLING).await;
        }
    }

    /// Checks sentinels, token and session; then the matrix, unless the lock is open.
    pub(super) async fn look_and_matrix(&self, current: &Installation, event: Event, baseline: &Baseline) -> Early {
        self.examiner(current, event).early(&baseline.reference).await
    }

    pub(super) fn examiner<'s>(&'s self, current: &'s Installation, event: Event) -> Examiner<'s> {
        Examiner {
            client: &current.client,
            scheme: &self.work.subject.lock.scheme,
            keys: Some(&current.keys),
            routes: &current.routes,
            mutating: true,
            scene: self.scene(event),
            progress: &|_, _| {},
        }
    }

    /// The last steps: states, claim, and the verdict.
    pub(super) async fn finish(
        &self,
        current: &mut Installation,
        event: Event,
        early: Early,
        thorough: bool,
        before: Option<(&Baseline, &Keys)>,
    ) -> Result<Examined> {
        let scheme = &self.work.subject.lock.scheme;
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
        let disturbed = claimed.disturbed || early.worn.is_some();
        let mut further = Vec::new();
        if thorough && self.log_holds_token(current).await? {
            further.push(diagnose::logged(scene));
        }
        if let Some((baseline, _)) = before {
            further.extend(diagnose::session(scene, baseline.session, &seen));
        }
        let map = Some((&current.map, &current.layout, &current.installed));
        let known = Known { old, map, lost: &lost, further, changed_token };
        let Judged { mut findings, verdict } = examine::judged(scene, &early, &claimed, known, |findings| {
            expect::mark_accepted(findings, &self.work.plan.accept, today());
        });
        self.examiner(current, event).assess(verdict.as_ref().ok().copied(), &claimed, &mut findings).await;
        let holds = matches!(verdict, Ok(Verdict::Locked | Verdict::Leaky)) && !disturbed;
        current.last = holds.then(|| (seen.clone(), event));
        let as_it_must_be = verdict.as_ref().is_ok_and(|verdict| {
            verdict.is_as_it_must_be(event, expect::expected(self.work.subject, event, Some(*verdict)))
        });
        // `wipe` removes the volumes as requested.
        if event != Event::Wipe || !as_it_must_be {
            findings.extend(diagnose::losses(scene, &current.map, &lost, &current.layout, &current.installed));
        }
        Ok(Examined { look: seen, counts, findings, verdict, as_it_must_be, lost, disturbed })
    }

    /// Sends hundreds of refused requests, once for each container that is about to be removed.
    /// Returns whether this changed the lock.
    pub(super) async fn wear(&self, current: &mut Installation) -> bool {
        let Some((before, event)) = current.last.take() else { return false };
        self.work.listener.step(&self.work.subject.name, "sending hundreds of refused requests");
        let scheme = &self.work.subject.lock.scheme;
        let known = before.reference();
        let Some(worn) = wear_out(&current.client, scheme, &current.keys, &before, &known).await else { return false };
        let mut findings = vec![diagnose::worn(self.scene(event), &worn)];
        expect::mark_accepted(&mut findings, &self.work.plan.accept, today());
        let mut ledger = self.work.ledger.open();
        // The lock wears out in the same way after every event: report it once.
        if !ledger.findings.iter().any(|f| f.rule == findings[0].rule && f.message == findings[0].message) {
            ledger.findings.append(&mut findings);
        }
        true
    }

    /// Whether the container's log contains the token.
    pub(super) async fn log_holds_token(&self, current: &Installation) -> Result<bool> {
        let lines = self.work.engine.last_lines(&current.deployment.container_id(), LOG_LINES).await?;
        Ok(leak::holds_text(&lines.join("\n"), &current.keys))
    }

    /// Whether the credential file contains a new token that works.
    pub(super) async fn credential_changed(&self, current: &Installation) -> Result<bool> {
        let scheme = &self.work.subject.lock.scheme;
        let now = mint::read(&current.deployment, &current.layout, &current.installed).await?;
        let Some(token) = now.filter(|token| token != current.keys.token()) else { return Ok(false) };
        let keys = Keys::new(token, None, None);
        let again = lockproof_probe::look::look(&current.client, scheme, Some(&keys), &Reference::default()).await;
        Ok(again.token == Works::Yes)
    }

    /// Compares the states with the installed state, records the result, and returns the lost
    /// states.
    pub(super) async fn observe(&self, current: &Installation, event: Event) -> Result<Vec<State>> {
        let kept: BTreeMap<State, bool> =
            current.map.observe(&current.deployment, &current.layout, &current.installed).await?;
        let mut ledger = self.work.ledger.open();
        let mut lost = Vec::new();
        for (state, kept) in kept {
            // A rotation changes the credential: this is not a loss.
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
}
