//! The gate run: runs every event on every subject.

mod clock;
pub mod diagnose;
pub mod examine;
pub mod expect;
mod ledger;
mod listener;
pub mod replays;
pub mod shared;
pub mod subject;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use jiff::Timestamp;

use crate::config::plan::Plan;
use clock::today;
pub use ledger::{Ledger, SharedLedger};
pub use listener::{Listener, Silent};
use lockproof_deploy::{
    deployment::stack,
    engine::{Engine, Run, sweep::Whose},
    given,
    subject::Subject,
};
use lockproof_model::{
    error::{Error, ErrorKind, Result},
    event::Event,
    finding::{Finding, Severity},
    report::{EventReport, Report, SubjectReport},
    summary::Summary,
    verdict::Verdict,
};
use shared::Shared;

/// The options of a run besides the plan.
#[derive(Clone, Debug)]
pub struct Options {
    /// The lowest severity that counts.
    pub fail_on: Severity,
    /// The time limit of the whole run.
    pub timeout: Option<Duration>,
    /// An earlier report, whose findings do not count.
    pub baseline: Option<Report>,
    /// The name of the configuration file, for reports.
    pub config: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { fail_on: Severity::Warning, timeout: None, baseline: None, config: None }
    }
}

/// Runs a plan on an engine. Removes all its objects, except after SIGKILL. First removes the
/// objects of earlier killed runs.
///
/// # Errors
/// An environment error if the engine cannot be used at all. Errors of one subject are in the
/// report.
pub async fn run(
    engine: &Engine,
    run: &Run,
    plan: &Plan,
    options: &Options,
    listener: &dyn Listener,
) -> Result<Report> {
    let started = Timestamp::now();
    let begun = Instant::now();
    tidy_up_after_others(engine).await;
    preflight(engine, run, plan).await?;
    let ledgers: Vec<(&Subject, SharedLedger)> =
        plan.subjects.iter().map(|subject| (subject, SharedLedger::default())).collect();
    let shared = Shared::new(plan.jobs);
    let share = &shared;
    let work = stream::iter(ledgers.iter().enumerate())
        .map(|(index, (subject, ledger))| {
            // Boxed, because the unoptimised future would not fit on the stack of a test thread.
            Box::pin(subject_to_end(subject::Work {
                engine,
                run,
                plan,
                index,
                subject,
                ledger,
                listener,
                shared: share,
            }))
        })
        .buffer_unordered(plan.jobs + plan.ahead)
        .collect::<()>();
    match options.timeout {
        None => work.await,
        Some(limit) => {
            if tokio::time::timeout(limit.saturating_sub(begun.elapsed()), work).await.is_err() {
                for (subject, ledger) in &ledgers {
                    cut_short(plan, subject, &mut ledger.open(), limit);
                }
            }
        }
    }
    // The findings stay valid, even if the engine has failed.
    let unswept = engine.sweep_run(run.id()).await.err();
    if let Some(e) = &unswept {
        tracing::error!("{e}");
    }
    Ok(add_up(plan, options, ledgers, unswept, started, begun.elapsed()))
}

/// Checks before any work that the images are available and that the engine is on this machine.
async fn preflight(engine: &Engine, run: &Run, plan: &Plan) -> Result<()> {
    let mut checked = false;
    for subject in &plan.subjects {
        let image = match &subject.compose {
            None => lockproof_deploy::lab::require(engine, &subject.image).await,
            Some(compose) => stack::images(engine, run, subject).await.and_then(|mut images| {
                images.remove(&compose.service).ok_or_else(|| Error::usage("the service has no image"))
            }),
        };
        let image = image.map_err(|e| e.or_at(format!("subject `{}`", subject.name)))?;
        given::check_with_image(subject, &image.facts)?;
        if !checked {
            engine.check_shares_this_machine(run, &image.name).await?;
            checked = true;
        }
        if let Some(next) = subject.upgrade_to.as_ref().filter(|_| plan.events.contains(&Event::Upgrade)) {
            lockproof_deploy::lab::require(engine, next)
                .await
                .map_err(|e| e.or_at(format!("subject `{}`, upgrade_to", subject.name)))?;
        }
    }
    Ok(())
}

/// Removes the objects of killed runs. A failure does not stop this run.
async fn tidy_up_after_others(engine: &Engine) {
    match engine.leftovers(Whose::Gone).await {
        Ok(found) => {
            for (run, leftovers) in found {
                tracing::info!("removing {} leftovers of the killed run {run}", leftovers.count());
                if let Err(e) = engine.sweep(&leftovers).await {
                    tracing::warn!("{e}");
                }
            }
        }
        Err(e) => tracing::warn!("{e}"),
    }
}

async fn subject_to_end(work: subject::Work<'_>) {
    let subject::Work { subject, ledger, listener, .. } = work;
    {
        let mut open = ledger.open();
        open.report.name.clone_from(&subject.name);
        open.report.image.clone_from(&subject.image);
    }
    if let Err(error) = subject::gate(work).await {
        // The report contains one sentence of the error; log it in full.
        tracing::error!("{}: {error}", subject.name);
        let mut open = ledger.open();
        open.report.error = Some(error.one_line());
        // The exit code 3 of an earlier error goes before 4.
        if open.error.as_ref().is_none_or(|earlier| earlier.kind() != ErrorKind::Environment) {
            open.error = Some(error);
        }
    }
    listener.done(&subject.name);
}

/// The run timed out: unfinished events are undecided.
fn cut_short(plan: &Plan, subject: &Subject, ledger: &mut Ledger, limit: Duration) {
    let missing: Vec<Event> = std::iter::once(Event::Installed)
        .chain(plan.events.iter().copied())
        .filter(|event| !ledger.report.events.iter().any(|e| e.event == *event))
        .collect();
    if missing.is_empty() {
        return;
    }
    subject.name.clone_into(&mut ledger.report.name);
    subject.image.clone_into(&mut ledger.report.image);
    for event in missing {
        let mut report = EventReport::new(event, expect::expected(subject, event, None));
        report.undecided = Some(format!("the run timed out after {} s", limit.as_secs()));
        ledger.report.events.push(report);
    }
}

/// Combines the ledgers: expectations, accepted findings, the baseline, and the exit code.
fn add_up(
    plan: &Plan,
    options: &Options,
    ledgers: Vec<(&Subject, SharedLedger)>,
    unswept: Option<Error>,
    started: Timestamp,
    duration: Duration,
) -> Report {
    let mut subjects = Vec::new();
    let mut findings = Vec::new();
    let mut errors: Vec<Error> = unswept.into_iter().collect();
    for (subject, ledger) in ledgers {
        let mut ledger = ledger.open();
        let verdicts: BTreeMap<Event, Verdict> =
            ledger.report.events.iter().filter_map(|e| Some((e.event, e.verdict?))).collect();
        let losses = std::mem::take(&mut ledger.losses);
        expect::mark_expected(&mut ledger.findings, subject, &verdicts, &losses);
        findings.append(&mut ledger.findings);
        errors.extend(ledger.error.take());
        subjects.push(std::mem::take(&mut ledger.report));
    }
    let used = expect::mark_accepted(&mut findings, &plan.accept, today());
    findings.extend(expect::unused(&plan.accept, &used));
    if let Some(baseline) = &options.baseline {
        expect::mark_baseline(&mut findings, baseline);
    }
    let code = exit_code(&subjects, &findings, &errors, options.fail_on);
    let mut report = Report::new(started, duration, code, subjects, findings);
    report.fail_on = options.fail_on;
    report.config.clone_from(&options.config);
    report
}

/// The result of the run, without usage errors from before the run.
fn exit_code(subjects: &[SubjectReport], findings: &[Finding], errors: &[Error], fail_on: Severity) -> u8 {
    let events = || subjects.iter().flat_map(|s| &s.events);
    let unplayed = subjects.iter().any(SubjectReport::has_replayed_nothing);
    Summary {
        failed: events().any(|e| e.as_it_must_be() == Some(false)) || findings.iter().any(|f| f.counts(fail_on)),
        errors: errors.iter().map(Error::kind).collect(),
        undecided: unplayed || events().any(|e| e.undecided.is_some()),
    }
    .exit_code()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockproof_model::exit;
    use lockproof_model::{
        finding::Rule,
        report::{ReplayOutcome, ReplayReport},
    };

    fn subject(verdict: Option<Verdict>, undecided: bool) -> SubjectReport {
        let mut event = EventReport::new(Event::Restart, Verdict::Locked);
        event.verdict = verdict;
        event.undecided = undecided.then(|| "because".to_owned());
        SubjectReport { events: vec![event], ..Default::default() }
    }

    #[test]
    fn what_failed_goes_before_what_could_not_be_done() {
        let code = |subjects: &[SubjectReport], findings: &[Finding], errors: &[Error]| {
            exit_code(subjects, findings, errors, Severity::Warning)
        };
        let locked = subject(Some(Verdict::Locked), false);
        let open = subject(Some(Verdict::Open), false);
        let undecided = subject(None, true);
        let environment = Error::environment("no engine");
        let warning = Finding::new(Rule::PersistPlugin, "a", None, "m");
        let note = Finding::new(Rule::LockMalformedHeader, "a", None, "m");
        assert_eq!(code(std::slice::from_ref(&locked), &[note], &[]), exit::OK);
        assert_eq!(code(&[locked.clone(), undecided.clone()], &[], &[]), exit::UNDECIDED);
        assert_eq!(code(&[locked.clone(), undecided], &[], std::slice::from_ref(&environment)), exit::ENVIRONMENT);
        assert_eq!(code(&[locked.clone(), open], &[], &[environment]), exit::FAILED);
        assert_eq!(code(&[locked], &[warning], &[]), exit::FAILED);
    }

    #[test]
    fn errors_count_in_the_order_of_the_contract() {
        let code = |errors: &[Error]| exit_code(&[], &[], errors, Severity::Warning);
        let (usage, environment) = (Error::usage("u"), Error::environment("e"));
        let (undecided, interrupted) = (Error::undecided("d"), Error::new(ErrorKind::Interrupted, "i"));
        assert_eq!(code(&[]), exit::OK);
        assert_eq!(code(&[undecided.clone(), environment.clone(), usage]), exit::USAGE);
        assert_eq!(code(&[undecided.clone(), environment]), exit::ENVIRONMENT);
        assert_eq!(code(std::slice::from_ref(&undecided)), exit::UNDECIDED);
        assert_eq!(code(&[interrupted]), exit::UNDECIDED);
        let open = subject(Some(Verdict::Open), false);
        assert_eq!(exit_code(&[open], &[], &[Error::usage("u")], Severity::Warning), exit::FAILED);
    }

    #[test]
    fn only_findings_at_or_above_the_threshold_fail() {
        let finding = |rule| Finding::new(rule, "a", None, "m");
        let code = |finding: Finding, fail_on| exit_code(&[], &[finding], &[], fail_on);
        assert_eq!(code(finding(Rule::PersistPlugin), Severity::Error), exit::OK);
        assert_eq!(code(finding(Rule::PersistPlugin), Severity::Warning), exit::FAILED);
        assert_eq!(code(finding(Rule::LockMalformedHeader), Severity::Note), exit::FAILED);
        for excused in [
            Finding { accepted: true, ..finding(Rule::LockOpen) },
            Finding { expected: true, ..finding(Rule::LockOpen) },
            Finding { baseline: true, ..finding(Rule::LockOpen) },
        ] {
            assert_eq!(code(excused, Severity::Note), exit::OK);
        }
    }

    fn plan() -> Plan {
        let text = "subjects: [{ name: a, image: b }]\nevents: [restart, wipe]\n\
                    accept: [{ rule: lock/static-suffix, reason: known }]\n";
        let file = crate::config::load::parse(text, "c.yaml").expect("YAML");
        Plan::new(&file, std::path::Path::new(".")).expect("it is right")
    }

    /// The whole way from what subjects wrote down to the exit code.
    #[test]
    fn ledgers_are_added_up() {
        let plan = plan();
        let add = |errors: Option<Error>, findings: Vec<Finding>, baseline: Option<Report>, unswept| {
            let ledger = SharedLedger::default();
            {
                let mut open = ledger.open();
                open.report = subject(Some(Verdict::Locked), false);
                (open.error, open.findings) = (errors, findings);
            }
            let options = Options { baseline, config: Some("c.yaml".to_owned()), ..Options::default() };
            let ledgers = vec![(&plan.subjects[0], ledger)];
            add_up(&plan, &options, ledgers, unswept, Timestamp::UNIX_EPOCH, Duration::from_millis(7))
        };
        let leak = || Finding::new(Rule::LockStaticSuffix, "a", Some(Event::Restart), "m");
        let lost = || Finding::new(Rule::PersistPlugin, "a", Some(Event::Restart), "m");
        let clean = add(None, vec![leak()], None, None);
        assert_eq!((clean.exit_code, clean.subjects.len(), clean.findings.len()), (exit::OK, 1, 1));
        assert!(clean.findings[0].accepted && clean.duration_ms == 7);
        assert_eq!((clean.config.as_deref(), clean.fail_on), (Some("c.yaml"), Severity::Warning));
        // The entry that matched nothing is a note.
        let unused = add(None, Vec::new(), None, None);
        assert_eq!((unused.exit_code, unused.findings.len()), (exit::OK, 1));
        let failed = add(None, vec![lost()], None, None);
        assert_eq!(failed.exit_code, exit::FAILED);
        assert_eq!(add(None, vec![lost()], Some(failed), None).exit_code, exit::OK);
        assert_eq!(add(Some(Error::undecided("x")), Vec::new(), None, None).exit_code, exit::UNDECIDED);
        let unswept = Some(Error::environment("left"));
        assert_eq!(add(Some(Error::undecided("x")), Vec::new(), None, unswept).exit_code, exit::ENVIRONMENT);
    }

    #[test]
    fn what_was_not_done_in_time_is_undecided() {
        let plan = plan();
        let mut ledger = Ledger::default();
        ledger.report.events.push(EventReport::new(Event::Installed, Verdict::Locked));
        cut_short(&plan, &plan.subjects[0], &mut ledger, Duration::from_secs(60));
        let told: Vec<_> = ledger.report.events.iter().map(|e| (e.event, e.undecided.as_deref())).collect();
        let over = Some("the run timed out after 60 s");
        assert_eq!(told, [(Event::Installed, None), (Event::Restart, over), (Event::Wipe, over)]);
        assert_eq!((ledger.report.name.as_str(), ledger.report.image.as_str()), ("a", "b"));
        let mut done = Ledger::default();
        for event in [Event::Installed, Event::Restart, Event::Wipe] {
            done.report.events.push(EventReport::new(event, Verdict::Locked));
        }
        cut_short(&plan, &plan.subjects[0], &mut done, Duration::from_secs(60));
        assert_eq!((done.report.events.len(), done.report.name.as_str()), (3, ""));
    }

    #[test]
    fn replays_of_which_none_ran_are_undecided() {
        let replayed = |outcomes: &[ReplayOutcome]| {
            let replays = outcomes.iter().map(|outcome| ReplayReport {
                name: "a.json".to_owned(),
                event: Event::Installed,
                outcome: *outcome,
                why: None,
            });
            let subject = SubjectReport { replays: replays.collect(), ..subject(Some(Verdict::Locked), false) };
            exit_code(&[subject], &[], &[], Severity::Warning)
        };
        assert_eq!(replayed(&[ReplayOutcome::Skipped, ReplayOutcome::Skipped]), exit::UNDECIDED);
        assert_eq!(replayed(&[ReplayOutcome::Skipped, ReplayOutcome::Same]), exit::OK);
        assert_eq!(replayed(&[]), exit::OK);
    }
}
