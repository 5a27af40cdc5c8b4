//! The state map as data: where each state of a lock is stored, and which events it survives; and the
//! prediction from it, which the audit and the gate share.

use std::collections::BTreeMap;

use crate::{
    event::Event,
    scheme::Scheme,
    state::{Owner, State},
    verdict::Verdict,
};

/// A mount of the container with its owner, declared by the configuration or the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// The path in the container.
    pub target: String,
    /// The owner of the content.
    pub owner: Owner,
    /// Whether it is read-only.
    pub read_only: bool,
    /// The host path of a bind mount, or the name of a volume in the file.
    pub source: Option<String>,
}

/// One state of one subject.
#[derive(Clone, Debug)]
pub struct StateEntry {
    /// The state.
    pub state: State,
    /// Its paths in the container, with links resolved.
    pub paths: Vec<String>,
    /// The owner of the path that persists least; `None` if there is no path.
    pub owner: Option<Owner>,
    /// The mount of that path.
    pub mount: Option<Mounted>,
    /// The prediction for each event; `None`: unknown.
    pub predicted: BTreeMap<Event, Option<bool>>,
}

impl StateEntry {
    /// An entry with only a path and an owner, for a remedy.
    pub fn at(state: State, path: String, owner: Owner, mount: Option<Mounted>) -> Self {
        Self { state, paths: vec![path], owner: Some(owner), mount, predicted: BTreeMap::new() }
    }
}

/// The predicted verdict: the worst of the installed verdict and of `on_loss` for each lost state. `None`
/// if an unknown state could make it worse.
pub fn predict(
    scheme: &Scheme,
    installed: Verdict,
    survivals: impl IntoIterator<Item = (State, Option<bool>)>,
) -> Option<Verdict> {
    let mut worst = installed;
    let mut possible = installed;
    for (state, survives) in survivals {
        let Some(loss) = scheme.verdict_without(state) else { continue };
        match survives {
            Some(true) => {}
            Some(false) => worst = worst.min(loss),
            None => possible = possible.min(loss),
        }
    }
    (worst <= possible).then_some(worst)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_prediction_is_the_worst_of_what_is_lost() {
        let scheme = Scheme::find(Scheme::DEFAULT, Path::new(".")).expect("built in");
        let predict = |states: &[(State, Option<bool>)], installed| predict(&scheme, installed, states.iter().copied());
        let all = [(State::Plugin, Some(true)), (State::Credential, Some(true)), (State::SessionKey, Some(false))];
        assert_eq!(predict(&all, Verdict::Locked), Some(Verdict::Locked));
        assert_eq!(predict(&all, Verdict::Leaky), Some(Verdict::Leaky));
        let credential = [(State::Plugin, Some(true)), (State::Credential, Some(false))];
        assert_eq!(predict(&credential, Verdict::Leaky), Some(Verdict::Claimable));
        let plugin = [(State::Plugin, Some(false)), (State::Credential, None)];
        assert_eq!(predict(&plugin, Verdict::Locked), Some(Verdict::Open));
        let unknown = [(State::Plugin, None), (State::Credential, Some(false))];
        assert_eq!(predict(&unknown, Verdict::Locked), None);
    }
}
