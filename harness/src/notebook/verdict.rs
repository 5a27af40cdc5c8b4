//! Derives the result of a replay from its cells and requests.

use super::{Cell, CellEnding, Ending, Outcome, Request, execute::Execution};
use lockproof_model::finding::{Finding, Rule};

/// The result of a replay and its reason: the first failed cell, starting with the injected one,
/// else the cells that differ.
pub(super) fn of(injected: Option<&CellEnding>, cells: &[Cell], execution: &Execution) -> (Ending, String) {
    let failed = |ending: &CellEnding| match ending {
        CellEnding::Raised(what) | CellEnding::TimedOut(what) => Some(what.clone()),
        CellEnding::KernelDied => Some("the kernel died".to_owned()),
        CellEnding::Same | CellEnding::Changed(_) | CellEnding::NotReached => None,
    };
    if let Some(how) = injected.and_then(failed) {
        return (Ending::Failed, format!("the cell with the injected parameters: {how}"));
    }
    if let Some((cell, how)) = cells.iter().find_map(|cell| Some((cell, failed(&cell.ending)?))) {
        return (Ending::Failed, format!("{}: {how}", place(cell)));
    }
    if let Some(broken) = &execution.broken {
        return (Ending::Failed, broken.clone());
    }
    if let Some(cell) = cells.iter().find(|cell| cell.ending == CellEnding::NotReached) {
        return (Ending::Failed, format!("{} was not reached", place(cell)));
    }
    let changed: Vec<(&Cell, &String)> = cells
        .iter()
        .filter_map(|cell| match &cell.ending {
            CellEnding::Changed(how) => Some((cell, how)),
            _ => None,
        })
        .collect();
    match changed.as_slice() {
        [] => (Ending::Same, String::new()),
        [(cell, how)] => (Ending::Changed, format!("{}: {how}", place(cell))),
        [(cell, how), rest @ ..] => (Ending::Changed, format!("{}: {how} (and {} more)", place(cell), rest.len())),
    }
}

fn place(cell: &Cell) -> String {
    format!("cell {} (`{}`)", cell.number, cell.title)
}

/// The `replay/*` findings of a replay.
pub(super) fn findings(request: &Request, outcome: &Outcome) -> Vec<Finding> {
    let finding = |rule, message: String| {
        let mut finding = Finding::new(rule, &request.subject, request.event, message);
        finding.file = Some(request.path.display().to_string());
        finding
    };
    let mut findings = Vec::new();
    match outcome.ending {
        Ending::Changed => {
            let mut changed =
                finding(Rule::ReplayChanged, format!("{} has a different result than before", outcome.name));
            for cell in &outcome.cells {
                if let CellEnding::Changed(how) = &cell.ending {
                    changed = changed.evidence(format!("{}: {how}", place(cell)));
                }
            }
            findings.push(changed);
        }
        Ending::Failed => {
            let message = format!("{} did not finish", outcome.name);
            findings.push(finding(Rule::ReplayFailed, message).evidence(outcome.why.clone()));
        }
        Ending::Same | Ending::Skipped => {}
    }
    findings.extend(token_unused(request, outcome).map(|(message, evidence)| {
        evidence.into_iter().fold(finding(Rule::ReplayTokenUnused, message), Finding::evidence)
    }));
    findings
}

/// Whether the notebook did not use its token.
fn token_unused(request: &Request, outcome: &Outcome) -> Option<(String, Vec<String>)> {
    request.token.as_ref()?;
    let traffic = &outcome.traffic;
    let without = traffic.anonymous + traffic.in_query + traffic.with_another;
    if without == 0 {
        // A failed notebook may not have reached its requests.
        let silent = traffic.with_token == 0 && outcome.ending != Ending::Failed;
        let message = format!("{} sent no request to the server in COMFYUI_URL", outcome.name);
        return silent.then(|| (message, vec!["no request arrived through COMFYUI_URL".to_owned()]));
    }
    let mut evidence = vec![format!(
        "requests: {} with the bearer token, {} without a credential, {} with the token in the query, {} \
        with another credential",
        traffic.with_token, traffic.anonymous, traffic.in_query, traffic.with_another
    )];
    evidence.extend(traffic.first_without.iter().map(|first| format!("first request without it: {first}")));
    let message = format!(
        "{} sent {without} of {} requests without the bearer token",
        outcome.name,
        without + traffic.with_token
    );
    Some((message, evidence))
}
