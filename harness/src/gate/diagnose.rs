//! Converts observations to findings: each broken rule once, with evidence and a remedy.

use crate::state_map::StateMap;
use lockproof_deploy::{
    deployment::{Deployment, ready::Down},
    install::Installed,
    layout::Layout,
};
use lockproof_model::{
    event::Event,
    finding::{Finding, Rule, Severity},
    remedy,
    state::{Owner, State},
    state_map::StateEntry,
    verdict::Verdict,
};
use lockproof_probe::{
    claim::Claim,
    client::Client,
    keys::Keys,
    leak::{Leak, SeenBy},
    look::{Look, Seen, Works},
    matrix::{Found, evidence},
    message::in_words,
    surface::routes::Route,
    visitor::Step,
    watch::Exposure,
    wear::Worn,
};

/// The context of findings: subject and event.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The subject's name.
    pub subject: &'a str,
    /// The event.
    pub event: Event,
    /// The base URL for evidence, with the port in the container, because the published port
    /// changes.
    pub base: &'a str,
}

impl Scene<'_> {
    fn finding(&self, rule: Rule, message: impl Into<String>) -> Finding {
        Finding::new(rule, self.subject, Some(self.event), message)
    }
}

/// The server did not start.
pub fn down(scene: Scene<'_>, down: &Down) -> Finding {
    let mut finding = scene.finding(Rule::LockDown, "the server does not start").evidence(down.why.clone());
    finding.evidence.extend(down.log.iter().map(|line| format!("log: {line}")));
    finding.remedy(down.fix.clone())
}

/// The lock is open, or some sentinels are served.
pub fn sentinels(
    scene: Scene<'_>,
    look: &Look,
    map: Option<(&StateMap, &Layout, &Installed)>,
    lost: &[State],
    matrix: &[Finding],
) -> Vec<Finding> {
    let line = |seen: &&Seen| {
        let when = if seen.after_token { ", after the token was used for the same request" } else { "" };
        format!("{}  →  {}{when}", seen.request.curl(scene.base), in_words(&seen.anonymous))
    };
    let through = look.through();
    if look.all_through() {
        let mut finding = scene.finding(Rule::LockOpen, "anonymous requests get everything that the token gets");
        finding.evidence.extend(through.iter().map(line));
        if let Some((map, layout, installed)) = map {
            let remedies: Vec<String> = map
                .entries
                .iter()
                .filter(|entry| lost.contains(&entry.state) && matches!(entry.state, State::Plugin | State::Deps))
                .map(|entry| remedy::keep(entry, &layout.python, &installed.plugin_dir))
                .collect();
            if !remedies.is_empty() {
                finding.remedy = remedies.join("\n");
            }
        }
        return vec![finding];
    }
    if through.is_empty() {
        return Vec::new();
    }
    // The matrix has already reported it, under the rule of its cause.
    let told =
        |seen: &&Seen| matrix.iter().any(|f| f.rule.is_leak() && f.routes.iter().any(|r| r == seen.request.path()));
    if through.iter().all(told) {
        return Vec::new();
    }
    let mut finding = scene.finding(Rule::LockUnprotectedRoute, "some routes answer without a credential");
    finding.evidence.extend(through.iter().map(line));
    finding.routes = through.iter().map(|s| s.request.path().to_owned()).collect();
    vec![finding]
}

/// A visitor can obtain access.
pub fn claim(scene: Scene<'_>, claim: &Claim) -> Finding {
    let rule = if claim.empty_token { Rule::LockEmptyToken } else { Rule::LockClaimable };
    let mut finding = scene.finding(rule, claim.how.clone());
    finding.evidence = claim.steps.iter().map(|s| format!("{}  →  {}", s.request.curl(scene.base), s.got)).collect();
    if scene.event == Event::Wipe {
        // The credential was removed with the volumes, as requested.
        finding.severity = Severity::Warning;
    }
    finding
}

/// Any web page can use a user's session.
pub fn cross_site(scene: Scene<'_>, steps: &[Step]) -> Finding {
    let mut finding = scene.finding(Rule::LockCrossSite, Rule::LockCrossSite.facts().title.clone());
    finding.evidence = steps.iter().map(|s| format!("{}  →  {}", s.request.curl(scene.base), s.got)).collect();
    finding
}

/// The findings of the matrix: one for each rule, with the smallest requests as evidence.
pub fn matrix(scene: Scene<'_>, found: &Found) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (rule, hits) in &found.hits {
        let mut hits: Vec<_> = hits.iter().collect();
        hits.sort_by_key(|hit| (hit.probe.changes, hit.probe.request.curl(scene.base).len()));
        let mut routes: Vec<String> =
            hits.iter().map(|hit| format!("{} {}", hit.probe.request.method, hit.probe.route)).collect();
        routes.sort();
        routes.dedup();
        let paths = hits.iter().map(|hit| hit.probe.route.clone()).collect::<std::collections::BTreeSet<_>>();
        let mut finding = scene.finding(*rule, rule.facts().title.clone());
        // The smallest of each kind: a read-only request, and one that changes something.
        let reading = hits.iter().find(|hit| !hit.probe.changes);
        let changing = hits.iter().find(|hit| hit.probe.changes);
        finding.evidence.extend([reading, changing].into_iter().flatten().map(|hit| evidence(hit, scene.base)));
        finding.evidence.push(format!("{} requests bypass the lock, on: {}", hits.len(), routes.join(", ")));
        findings.push(finding.routes(paths));
    }
    if let Some(first) = found.malformed.first() {
        findings.push(
            scene
                .finding(Rule::LockMalformedHeader, Rule::LockMalformedHeader.facts().title.clone())
                .evidence(evidence(first, scene.base))
                .evidence(format!(
                    "{} forged credentials cause a server error; none of them gives access",
                    found.malformed.len()
                )),
        );
    }
    findings
}

/// The maximum number of handlers in a finding.
const HANDLERS: usize = 3;

/// Adds the handlers of a finding's routes, if the server listed them.
pub fn name_handlers(finding: &mut Finding, routes: &[Route]) {
    let handlers: std::collections::BTreeSet<String> = finding
        .routes
        .iter()
        .flat_map(|path| routes.iter().filter(move |route| route.path == *path))
        .filter_map(|route| {
            Some(format!("{} {} is answered by {}", route.method(), route.path, route.handler.as_ref()?))
        })
        .collect();
    finding.evidence.extend(handlers.into_iter().take(HANDLERS));
}

/// The token in an answer.
pub fn leaks(scene: Scene<'_>, found: &Found, searched: &[Leak]) -> Vec<Finding> {
    let line = |leak: &Leak| format!("{}  →  {}, with the token in it", leak.request.curl(scene.base), leak.got);
    let mut findings = Vec::new();
    let mut public: Vec<String> = searched.iter().filter(|l| l.seen_by == SeenBy::Anybody).map(line).collect();
    public.extend(found.leaks.iter().map(|hit| format!("{}, with the token in it", evidence(hit, scene.base))));
    if !public.is_empty() {
        let count = public.len();
        let mut finding = scene.finding(Rule::LockTokenLeak, "the token is shown to anonymous requests");
        public.truncate(3);
        finding.evidence = public;
        finding.evidence.push(format!("{count} anonymous answers contain it"));
        findings.push(finding);
    }
    let holders: Vec<String> = searched.iter().filter(|l| l.seen_by == SeenBy::TokenHolders).map(line).collect();
    if !holders.is_empty() {
        let mut finding =
            scene.finding(Rule::LockTokenLeak, "the token is shown to token holders, in places that are often shared");
        finding.severity = Severity::Note;
        finding.evidence = holders;
        findings.push(finding);
    }
    findings
}

/// The token in the container's log.
pub fn logged(scene: Scene<'_>) -> Finding {
    let mut finding = scene
        .finding(Rule::LockTokenLeak, "the container's log contains the token")
        .evidence("docker logs CONTAINER | grep -F \"$COMFYUI_API_TOKEN\"");
    finding.severity = Severity::Note;
    finding
}

/// The lock behaves differently after many rejected requests.
pub fn worn(scene: Scene<'_>, worn: &Worn) -> Finding {
    scene.finding(Rule::LockWearsOut, worn.how).evidence(format!("{}  →  {}", worn.request.curl(scene.base), worn.got))
}

/// The token of record is rejected: the credential has changed, or there is no other way in.
///
/// `tried`: whether a visitor tried to get in, without success.
pub fn token(scene: Scene<'_>, look: &Look, changed: bool, tried: bool) -> Option<Finding> {
    if look.token != Works::No {
        return None;
    }
    let shown = look
        .sentinels
        .first()
        .map(|seen| format!("{} with the token  →  {}", seen.request.target, in_words(&seen.token)));
    let finding = if changed {
        scene
            .finding(Rule::LockTokenChanged, "the token of record is rejected: the credential has changed")
            .evidence("the token in the credential file works")
    } else {
        let others = if tried { "there is no other way in" } else { "other ways in were not tested" };
        scene.finding(Rule::LockLockedOut, format!("the token of record is rejected, and {others}"))
    };
    Some(shown.into_iter().fold(finding, Finding::evidence))
}

/// Browser sessions are lost.
pub fn session(scene: Scene<'_>, before: Works, look: &Look) -> Option<Finding> {
    let dead = before == Works::Yes && look.session == Works::No && scene.event != Event::Rotate;
    dead.then(|| {
        scene
            .finding(Rule::LockSessionLost, "all browser sessions are lost: users must log in again")
            .evidence("the session cookie from before the event is rejected")
    })
}

/// After a rotation, the old token and sessions must be rejected.
pub async fn old_keys(
    scene: Scene<'_>,
    client: &Client,
    scheme: &lockproof_model::scheme::Scheme,
    old: &Keys,
    look: &Look,
) -> Option<Finding> {
    let request = lockproof_probe::sentinel::sentinels(scheme).into_iter().find(|r| r.method == http::Method::GET)?;
    let mut alive = Vec::new();
    let with_token = lockproof_probe::keys::authorised(request.clone(), scheme, old.token());
    let outcome = client.send(&with_token).await;
    let reference = look.sentinels.iter().find(|s| s.request == request).and_then(|s| s.token.as_ref().ok());
    if lockproof_probe::decide::decide(&outcome, reference).let_through() {
        alive.push(format!("the old token: {}  →  {}", with_token.curl(scene.base), in_words(&outcome)));
    }
    if let Some(cookie) = old.session()
        && lockproof_probe::look::session_works(client, scheme, cookie, &look.sentinels).await == Works::Yes
    {
        alive.push("a browser session from before the rotation is still served".to_owned());
    }
    if alive.is_empty() {
        return None;
    }
    let mut finding = scene.finding(Rule::LockOldTokenAlive, "old credentials still work after the rotation");
    finding.evidence = alive;
    finding.routes = vec![request.path().to_owned()];
    Some(finding)
}

/// The API was public for a while before the lock took effect.
pub fn exposure(scene: Scene<'_>, exposure: &Exposure, verdict: Verdict) -> Option<Finding> {
    if verdict == Verdict::Open || exposure.served == 0 {
        return None;
    }
    let first = exposure.first.clone().unwrap_or_default();
    Some(
        scene
            .finding(Rule::LockBootWindow, "the API is public for a while before the lock takes effect")
            .evidence(format!("for {} ms; first public answer: {first}", exposure.total.as_millis())),
    )
}

/// The states that an event removed.
pub fn losses(
    scene: Scene<'_>,
    map: &StateMap,
    lost: &[State],
    layout: &Layout,
    installed: &Installed,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for entry in map.entries.iter().filter(|entry| lost.contains(&entry.state)) {
        let Some(owner) = entry.owner else { continue };
        let rule = match entry.state {
            State::Plugin => Rule::PersistPlugin,
            State::Deps => Rule::PersistDeps,
            State::Credential => Rule::PersistCredential,
            State::SessionKey => Rule::PersistSessionKey,
            State::Data => Rule::PersistData,
        };
        let remedy = remedy::keep(entry, &layout.python, &installed.plugin_dir);
        findings.push(
            scene
                .finding(
                    rule,
                    format!("{} is {} {} and does not persist", words(entry.state), owner.preposition(), owner.words()),
                )
                .evidence(lost_paths(entry))
                .evidence(format!("{} removes {}", scene.event, scene.event.takes()))
                .remedy(remedy.clone()),
        );
        let by_mount = match owner {
            Owner::AnonymousVolume => Some(Rule::PersistAnonymousVolume),
            Owner::Tmpfs => Some(Rule::PersistTmpfs),
            _ => None,
        };
        if let (Some(rule), Some(mount)) = (by_mount, &entry.mount)
            && !findings.iter().any(|f| f.rule == rule && f.message.contains(&mount.target))
        {
            findings.push(
                scene
                    .finding(rule, format!("{} is {}, and it holds state of the lock", mount.target, owner.words()))
                    .evidence(lost_paths(entry))
                    .remedy(remedy),
            );
        }
    }
    findings
}

fn lost_paths(entry: &StateEntry) -> String {
    let shown: Vec<&str> = entry.paths.iter().take(4).map(String::as_str).collect();
    let more = entry.paths.len().saturating_sub(shown.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("lost: {}{more}", shown.join(", "))
}

fn words(state: State) -> &'static str {
    match state {
        State::Plugin => "the lock's plugin",
        State::Deps => "the Python code that the lock imports",
        State::Credential => "the lock's credential",
        State::SessionKey => "the session signing key",
        State::Data => "user data",
    }
}

/// The verdict differs from the prediction.
pub fn prediction(scene: Scene<'_>, predicted: Option<Verdict>, verdict: Verdict) -> Option<Finding> {
    let predicted = predicted.filter(|p| *p != verdict)?;
    Some(
        scene
            .finding(Rule::PersistPrediction, "the verdict differs from the prediction")
            .evidence(format!("predicted {predicted}, observed {verdict}"))
            .remedy("trust the observed verdict; `--report json` shows the assumptions of the state map"),
    )
}

/// An upgrade without effect.
pub fn masked(scene: Scene<'_>, deployment: &Deployment, layout: &Layout) -> Finding {
    scene
        .finding(
            Rule::PersistMasksImage,
            format!("the volume at {} keeps the old code: the upgrade had no effect", layout.code_dir),
        )
        .evidence(format!(
            "{} in the new image differs from the code that runs in {}",
            deployment.image(),
            layout.code_dir
        ))
}
