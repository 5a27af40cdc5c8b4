//! Expected verdicts, accepted findings and the baseline.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;

use crate::config::accept::Accept;
use lockproof_deploy::subject::Subject;
use lockproof_model::{
    event::Event,
    finding::{Finding, Rule, Severity},
    report::Report,
    scheme::Scheme,
    state::State,
    verdict::Verdict,
};

/// The expected verdict of an event. An expected `leaky` at `installed` also applies to events
/// without an `expect`, if they have no further leaks.
pub fn expected(subject: &Subject, event: Event, verdict: Option<Verdict>) -> Verdict {
    if let Some(explicit) = subject.expect.get(&event) {
        return *explicit;
    }
    let leaky = subject.expect.get(&Event::Installed) == Some(&Verdict::Leaky);
    if leaky && verdict == Some(Verdict::Leaky) { Verdict::Leaky } else { Verdict::Locked }
}

/// The states that each event removed, for [`mark_expected`].
#[derive(Clone, Debug, Default)]
pub struct Losses(pub BTreeMap<Event, BTreeSet<State>>);

/// The rules that belong to a verdict itself.
fn own_rules(verdict: Verdict) -> &'static [Rule] {
    match verdict {
        Verdict::Open => &[Rule::LockOpen],
        Verdict::Claimable => &[Rule::LockClaimable, Rule::LockEmptyToken, Rule::LockTokenLeak],
        Verdict::LockedOut => &[Rule::LockLockedOut, Rule::LockTokenChanged],
        Verdict::Down => &[Rule::LockDown],
        Verdict::Leaky | Verdict::Locked => &[],
    }
}

/// The state that a finding is about.
fn state_of(finding: &Finding) -> Option<State> {
    Some(match finding.rule {
        Rule::PersistPlugin => State::Plugin,
        Rule::PersistDeps => State::Deps,
        Rule::PersistCredential => State::Credential,
        Rule::PersistSessionKey | Rule::LockSessionLost => State::SessionKey,
        Rule::PersistData => State::Data,
        _ => return None,
    })
}

/// Marks the findings that an expectation explains.
///
/// A finding is expected if the event's verdict equals an explicit `expect`, and it belongs to that
/// verdict, or it is about a state whose loss, alone or with another lost state, explains the
/// verdict. Leaks are expected if they were found at an `installed` that was expected to be leaky.
pub fn mark_expected(
    findings: &mut [Finding],
    subject: &Subject,
    verdicts: &BTreeMap<Event, Verdict>,
    losses: &Losses,
) {
    let scheme = &subject.lock.scheme;
    let leaks_at_installed: BTreeSet<(Rule, Vec<String>)> = findings
        .iter()
        .filter(|f| f.event == Some(Event::Installed) && f.rule.is_leak())
        .map(|f| (f.rule, f.routes.clone()))
        .collect();
    let leaky = subject.expect.get(&Event::Installed) == Some(&Verdict::Leaky)
        && verdicts.get(&Event::Installed) == Some(&Verdict::Leaky);
    for finding in findings.iter_mut() {
        let Some(event) = finding.event else { continue };
        if finding.rule.is_leak() {
            finding.expected = leaky
                && leaks_at_installed
                    .iter()
                    .any(|(rule, routes)| *rule == finding.rule && finding.routes.iter().all(|r| routes.contains(r)));
            continue;
        }
        let Some(verdict) = verdicts.get(&event) else { continue };
        if subject.expect.get(&event) != Some(verdict) {
            continue;
        }
        let lost = losses.0.get(&event).cloned().unwrap_or_default();
        finding.expected = own_rules(*verdict).contains(&finding.rule)
            || state_of(finding).is_some_and(|state| explains(scheme, *verdict, &lost, state))
            // Without the credential or the plugin, no session opens anything.
            || matches!(finding.rule, Rule::PersistAnonymousVolume | Rule::PersistTmpfs | Rule::LockSessionLost)
                && lost.iter().any(|state| scheme.verdict_without(*state) == Some(*verdict));
    }
}

/// Whether the loss of `state` explains `verdict`: alone, or together with a state that does, if it
/// would not be worse alone.
fn explains(scheme: &Scheme, verdict: Verdict, lost: &BTreeSet<State>, state: State) -> bool {
    let reason = lost.iter().any(|s| scheme.verdict_without(*s) == Some(verdict));
    let no_worse = scheme.verdict_without(state).is_none_or(|alone| alone >= verdict);
    reason && lost.contains(&state) && no_worse
}

/// Marks the findings that `accept:` currently accepts, and returns the entries that matched.
pub fn mark_accepted(findings: &mut [Finding], accept: &[Accept], today: Date) -> BTreeSet<usize> {
    let mut used = BTreeSet::new();
    for finding in findings {
        for (index, entry) in accept.iter().enumerate() {
            if !entry.matches(finding.rule, &finding.subject, finding.event, &finding.routes) {
                continue;
            }
            used.insert(index);
            if entry.expired(today) {
                let until = entry.until.map(|d| d.to_string()).unwrap_or_default();
                let line = format!("accepted until {until} ({}); it counts again", entry.reason);
                if !finding.evidence.contains(&line) {
                    finding.evidence.push(line);
                }
            } else {
                finding.accepted = true;
            }
        }
    }
    used
}

/// The notes about entries of `accept:` that matched nothing.
pub fn unused(accept: &[Accept], used: &BTreeSet<usize>) -> Vec<Finding> {
    accept
        .iter()
        .enumerate()
        .filter(|(index, _)| !used.contains(index))
        .map(|(_, entry)| {
            let mut note = Finding::new(
                entry.rule,
                entry.subject.as_deref().unwrap_or(""),
                entry.event,
                "an entry of `accept:` matches no finding",
            )
            .evidence(format!("accept: rule: {}, reason: {}", entry.rule, entry.reason))
            .remedy("remove the entry: its finding no longer exists");
            note.severity = Severity::Note;
            note
        })
        .collect()
}

/// Marks the findings that are in an earlier report.
pub fn mark_baseline(findings: &mut [Finding], baseline: &Report) {
    for finding in findings {
        finding.baseline = baseline.findings.iter().any(|known| known.identity() == finding.identity());
    }
}
