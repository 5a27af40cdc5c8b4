//! A summary of replays: the number of each result, and why some were skipped.

use std::collections::BTreeMap;

use super::text::one_line;
use lockproof_model::report::{ReplayOutcome, SubjectReport};

/// The lines for one subject, each with its head and its text; empty without replays.
///
/// ```text
/// replays of production: 15 same, 5 skipped
///   skipped qwen-text-to-image.json: the server lacks the model vae/qwen_image_vae.safetensors
/// ```
pub(super) fn lines(subject: &SubjectReport) -> Vec<(String, String)> {
    let count = |outcome| subject.replays.iter().filter(|replay| replay.outcome == outcome).count();
    let counted: Vec<String> =
        [ReplayOutcome::Same, ReplayOutcome::Changed, ReplayOutcome::Failed, ReplayOutcome::Skipped]
            .into_iter()
            .map(|outcome| (outcome, count(outcome)))
            .filter(|(_, count)| *count > 0)
            .map(|(outcome, count)| format!("{count} {}", outcome.name()))
            .collect();
    if counted.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![(format!("replays of {}: ", one_line(&subject.name)), counted.join(", "))];
    // Changed and failed replays are findings; only skipped ones are listed here, each reason once.
    let mut skipped: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for replay in subject.replays.iter().filter(|replay| replay.outcome == ReplayOutcome::Skipped) {
        let names = skipped.entry(replay.why.as_deref().unwrap_or_default()).or_default();
        if !names.contains(&replay.name.as_str()) {
            names.push(&replay.name);
        }
    }
    lines.extend(
        skipped
            .into_iter()
            .map(|(why, names)| (format!("skipped {}: ", one_line(&names.join(", "))), one_line(why).to_string())),
    );
    lines
}
