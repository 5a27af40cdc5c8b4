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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use jiff::{Timestamp, civil::date};
    use rstest::rstest;

    use super::*;
    use lockproof_model::config::{AcceptEntry, SchemeEntry, SubjectEntry};

    fn subject(expect: &[(Event, Verdict)]) -> Subject {
        let entry = SubjectEntry { name: "a".to_owned(), image: Some("b".to_owned()), ..SubjectEntry::default() };
        let mut subject = Subject::new(&entry, &SchemeEntry::default(), Path::new(".")).expect("it is right");
        subject.expect = expect.iter().copied().collect();
        subject
    }

    fn finding(rule: Rule, event: Event, routes: &[&str]) -> Finding {
        Finding::new(rule, "a", Some(event), "m").routes(routes.iter().map(|r| (*r).to_owned()))
    }

    /// Whether a finding after `event` is expected, where that is expected to be and is `verdict`, and took `lost`.
    fn expected_of(rule: Rule, verdict: Verdict, lost: &[State]) -> bool {
        let event = Event::DownUp;
        let mut findings = [finding(rule, event, &[])];
        let losses = Losses([(event, lost.iter().copied().collect())].into());
        mark_expected(&mut findings, &subject(&[(event, verdict)]), &[(event, verdict)].into(), &losses);
        findings[0].expected
    }

    #[test]
    fn a_verdict_is_locked_unless_said_otherwise() {
        let open = subject(&[(Event::DownUp, Verdict::Open)]);
        assert_eq!(expected(&open, Event::DownUp, Some(Verdict::Locked)), Verdict::Open);
        assert_eq!(expected(&open, Event::Kill, Some(Verdict::Open)), Verdict::Locked);
        let leaky = subject(&[(Event::Installed, Verdict::Leaky), (Event::Wipe, Verdict::Locked)]);
        assert_eq!(expected(&leaky, Event::Kill, Some(Verdict::Leaky)), Verdict::Leaky);
        assert_eq!(expected(&leaky, Event::Kill, Some(Verdict::Open)), Verdict::Locked);
        assert_eq!(expected(&leaky, Event::Kill, None), Verdict::Locked);
        assert_eq!(expected(&leaky, Event::Wipe, Some(Verdict::Leaky)), Verdict::Locked);
        assert_eq!(expected(&open, Event::Kill, Some(Verdict::Leaky)), Verdict::Locked);
    }

    #[rstest]
    #[case(Rule::LockOpen, Verdict::Open, true)]
    #[case(Rule::LockOpen, Verdict::Claimable, false)]
    #[case(Rule::LockClaimable, Verdict::Claimable, true)]
    #[case(Rule::LockEmptyToken, Verdict::Claimable, true)]
    #[case(Rule::LockTokenLeak, Verdict::Claimable, true)]
    #[case(Rule::LockTokenLeak, Verdict::Open, false)]
    #[case(Rule::LockLockedOut, Verdict::LockedOut, true)]
    #[case(Rule::LockTokenChanged, Verdict::LockedOut, true)]
    #[case(Rule::LockDown, Verdict::Down, true)]
    #[case(Rule::LockDown, Verdict::LockedOut, false)]
    #[case(Rule::LockTokenLeak, Verdict::Locked, false)]
    #[case(Rule::LockBootWindow, Verdict::Open, false)]
    fn a_verdict_excuses_its_own_rules(#[case] rule: Rule, #[case] verdict: Verdict, #[case] excused: bool) {
        assert_eq!(expected_of(rule, verdict, &[]), excused);
    }

    #[rstest]
    #[case::the_cause(Rule::PersistPlugin, Verdict::Open, &[State::Plugin], true)]
    #[case::another_cause(Rule::PersistDeps, Verdict::Open, &[State::Deps], true)]
    #[case::lost_with_the_cause(Rule::PersistCredential, Verdict::Open, &[State::Plugin, State::Credential], true)]
    #[case::no_cause(Rule::PersistCredential, Verdict::Open, &[State::Credential], false)]
    #[case::not_lost(Rule::PersistCredential, Verdict::Open, &[State::Plugin], false)]
    #[case::worse_by_itself(Rule::PersistPlugin, Verdict::Claimable, &[State::Plugin, State::Credential], false)]
    #[case::claimable(Rule::PersistCredential, Verdict::Claimable, &[State::Credential], true)]
    #[case::of_no_verdict(Rule::PersistSessionKey, Verdict::Claimable, &[State::Credential, State::SessionKey], true)]
    #[case::data(Rule::PersistData, Verdict::Open, &[State::Plugin, State::Data], true)]
    #[case::data_alone(Rule::PersistData, Verdict::Open, &[State::Data], false)]
    #[case::a_session(Rule::LockSessionLost, Verdict::Open, &[State::Plugin], true)]
    #[case::a_session_alone(Rule::LockSessionLost, Verdict::Open, &[State::SessionKey], false)]
    #[case::a_volume(Rule::PersistAnonymousVolume, Verdict::Open, &[State::Plugin], true)]
    #[case::a_tmpfs(Rule::PersistTmpfs, Verdict::Claimable, &[State::Credential], true)]
    #[case::a_tmpfs_alone(Rule::PersistTmpfs, Verdict::Open, &[], false)]
    #[case::another_rule(Rule::PersistReadOnly, Verdict::Open, &[State::Plugin], false)]
    fn a_verdict_excuses_the_losses_that_explain_it(
        #[case] rule: Rule,
        #[case] verdict: Verdict,
        #[case] lost: &[State],
        #[case] excused: bool,
    ) {
        assert_eq!(expected_of(rule, verdict, lost), excused);
    }

    #[test]
    fn nothing_is_expected_of_an_event_with_another_verdict_or_none() {
        let marked = |expect: &[(Event, Verdict)], verdicts: &[(Event, Verdict)]| {
            let mut findings =
                [finding(Rule::LockOpen, Event::Kill, &[]), Finding::new(Rule::LockOpen, "a", None, "m")];
            mark_expected(&mut findings, &subject(expect), &verdicts.iter().copied().collect(), &Losses::default());
            assert!(!findings[1].expected, "it is of no event");
            findings[0].expected
        };
        let open = (Event::Kill, Verdict::Open);
        assert!(marked(&[open], &[open]));
        assert!(!marked(&[], &[open]));
        assert!(!marked(&[open], &[]));
        assert!(!marked(&[open], &[(Event::Kill, Verdict::Claimable)]));
        assert!(!marked(&[(Event::Restart, Verdict::Open)], &[open]));
    }

    #[test]
    fn only_the_leaks_that_installed_had_are_expected_later() {
        let leak = Rule::LockStaticSuffix;
        let marked = |expect: Verdict, verdict: Verdict| {
            let mut findings = [
                finding(leak, Event::Installed, &["/a", "/b"]),
                finding(leak, Event::Kill, &["/a"]),
                finding(leak, Event::Kill, &["/a", "/c"]),
                finding(Rule::LockWebsocket, Event::Kill, &["/a"]),
                finding(Rule::LockWebsocket, Event::Kill, &[]),
                finding(Rule::LockOpen, Event::Installed, &[]),
            ];
            let verdicts = [(Event::Installed, verdict), (Event::Kill, Verdict::Leaky)].into();
            mark_expected(&mut findings, &subject(&[(Event::Installed, expect)]), &verdicts, &Losses::default());
            findings.map(|finding| finding.expected)
        };
        assert_eq!(marked(Verdict::Leaky, Verdict::Leaky), [true, true, false, false, false, false]);
        assert_eq!(marked(Verdict::Leaky, Verdict::Locked), [false; 6]);
        assert_eq!(marked(Verdict::Locked, Verdict::Leaky), [false; 6]);
        assert_eq!(marked(Verdict::Open, Verdict::Open), [false, false, false, false, false, true]);
    }

    fn accept(entry: AcceptEntry) -> Accept {
        Accept::check(&AcceptEntry { reason: "known".to_owned(), ..entry }).expect("it is right")
    }

    fn of_rule(rule: Rule) -> AcceptEntry {
        AcceptEntry { rule: rule.id().to_owned(), ..AcceptEntry::default() }
    }

    #[test]
    fn an_entry_narrows_by_subject_event_and_route() {
        let rule = Rule::LockStaticSuffix;
        let matches = |entry: AcceptEntry, routes: &[&str]| {
            let routes: Vec<String> = routes.iter().map(|r| (*r).to_owned()).collect();
            accept(entry).matches(rule, "a", Some(Event::Kill), &routes)
        };
        let of = |subject: Option<&str>, event, route: Option<&str>| AcceptEntry {
            subject: subject.map(str::to_owned),
            event,
            route: route.map(str::to_owned),
            ..of_rule(rule)
        };
        assert!(matches(of(None, None, None), &[]));
        assert!(matches(of(Some("a"), Some(Event::Kill), Some("/userdata/*")), &["/userdata/x"]));
        assert!(!matches(of(Some("b"), None, None), &[]));
        assert!(!matches(of(None, Some(Event::Restart), None), &[]));
        assert!(!matches(of(None, None, Some("/userdata/*")), &["/userdata/x", "/view"]));
        assert!(!matches(of(None, None, Some("/userdata/*")), &[]));
        assert!(!matches(of_rule(Rule::LockWebsocket), &[]));
    }

    #[rstest]
    #[case::before(date(2026, 1, 1), true)]
    #[case::on_the_last_day(date(2026, 1, 2), true)]
    #[case::after(date(2026, 1, 3), false)]
    fn an_entry_holds_until_the_end_of_its_last_day(#[case] today: Date, #[case] accepted: bool) {
        let entries = [
            accept(AcceptEntry { until: Some("2026-01-02".to_owned()), ..of_rule(Rule::LockStaticSuffix) }),
            accept(of_rule(Rule::LockWebsocket)),
        ];
        let mut findings =
            [finding(Rule::LockStaticSuffix, Event::Kill, &[]), finding(Rule::LockBootWindow, Event::Kill, &[])];
        for _ in 0..2 {
            assert_eq!(mark_accepted(&mut findings, &entries, today), BTreeSet::from([0]));
        }
        assert_eq!((findings[0].accepted, findings[1].accepted), (accepted, false));
        let said = "accepted until 2026-01-02 (known); it counts again".to_owned();
        let evidence = if accepted { Vec::new() } else { vec![said] };
        assert_eq!(findings[0].evidence, evidence, "it is said once");
        let notes = unused(&entries, &BTreeSet::from([0]));
        assert_eq!(notes.len(), 1);
        assert_eq!((notes[0].rule, notes[0].severity), (Rule::LockWebsocket, Severity::Note));
    }

    #[test]
    fn a_baseline_excuses_what_it_holds_and_nothing_else() {
        let known = finding(Rule::PersistPlugin, Event::Kill, &["/a"]);
        let baseline =
            Report::new(Timestamp::UNIX_EPOCH, std::time::Duration::ZERO, 1, Vec::new(), vec![known.clone()]);
        let mut findings = [
            Finding { message: "said otherwise".to_owned(), ..known.clone() },
            Finding { rule: Rule::PersistDeps, ..known.clone() },
            Finding { subject: "b".to_owned(), ..known.clone() },
            Finding { event: Some(Event::Restart), ..known.clone() },
            Finding { routes: vec!["/b".to_owned()], ..known },
        ];
        mark_baseline(&mut findings, &baseline);
        assert_eq!(findings.map(|finding| finding.baseline), [true, false, false, false, false]);
    }
}
