//! Every route without a credential: with and without `/api`.

use super::{Maker, Probe};
use crate::message::Request;
use lockproof_model::finding::Rule;

impl Maker<'_> {
    pub(super) fn routes(&self) -> Vec<Probe> {
        self.targets
            .iter()
            .map(|target| {
                let bare = target.route.strip_prefix("/api").filter(|rest| rest.starts_with('/'));
                // If the plain route is open too, the prefix does not matter.
                match bare.filter(|bare| self.targets.iter().any(|t| t.route == **bare)) {
                    None => {
                        Probe::plain(Rule::LockUnprotectedRoute, &target.route, target.plain.clone(), target.changes)
                    }
                    Some(_) => Probe {
                        control: Some(without_prefix(&target.plain)),
                        ..Probe::plain(Rule::LockUnprotectedPrefix, &target.route, target.plain.clone(), target.changes)
                    },
                }
            })
            .collect()
    }
}

fn without_prefix(request: &Request) -> Request {
    let mut bare = request.clone();
    bare.target = bare.target.strip_prefix("/api").unwrap_or(&bare.target).to_owned();
    bare
}
