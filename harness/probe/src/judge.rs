//! Derives the verdict of one event from its probes.

use crate::look::{Look, Works};
use lockproof_model::verdict::Verdict;

/// The observations that decide the verdict.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The results of sentinels, token and session.
    pub look: &'a Look,
    /// Whether a visitor can obtain access from the server itself.
    pub claimed: bool,
    /// Whether there is a bypass that is not accepted.
    pub leaks: bool,
}

/// Judges a case; the first matching row decides.
///
/// | observation | verdict |
/// |---|---|
/// | every sentinel gets what the token would get | open |
/// | no sentinel: the scheme declares all of them public | undecided |
/// | a sentinel is indeterminate | undecided |
/// | a visitor can claim access | claimable |
/// | a sentinel or another probe is served | leaky |
/// | the token of record cannot be told from a fault | undecided |
/// | the token of record is rejected | locked-out |
/// | none of these | locked |
///
/// # Errors
/// The reason why no verdict could be reached.
pub fn judge(case: Case<'_>) -> Result<Verdict, String> {
    if case.look.all_through() {
        return Ok(Verdict::Open);
    }
    if case.look.sentinels.is_empty() {
        return Err("the scheme declares every sentinel public, so no request can test the lock".to_owned());
    }
    if let Some(why) = case.look.undecided() {
        return Err(format!("{why}, so nothing is known about the lock"));
    }
    if case.claimed {
        return Ok(Verdict::Claimable);
    }
    if case.leaks {
        return Ok(Verdict::Leaky);
    }
    match case.look.token {
        Works::No => Ok(Verdict::LockedOut),
        Works::Unknown => Err("the answers to the token do not show whether it works".to_owned()),
        Works::Yes | Works::Absent => Ok(Verdict::Locked),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        decide::Decision,
        look::Seen,
        message::{Fault, Request},
    };

    fn look(decisions: &[Decision], token: Works) -> Look {
        let sentinels = decisions
            .iter()
            .map(|decision| Seen {
                request: Request::get("/queue"),
                anonymous: Err(Fault::Timeout),
                token: Err(Fault::Timeout),
                decision: *decision,
                after_token: false,
            })
            .collect();
        Look { sentinels, token, session: Works::Absent }
    }

    /// Row by row: each case holds what the rows below it would decide by.
    #[test]
    fn the_first_row_that_applies_decides() {
        use Decision::{Indeterminate, Rejected, Served};
        let judged = |decisions: &[Decision], token, claimed, leaks| {
            judge(Case { look: &look(decisions, token), claimed, leaks }).map_err(|why| !why.contains("every sentinel"))
        };
        assert_eq!(judged(&[Served, Served], Works::No, true, true), Ok(Verdict::Open));
        assert_eq!(judged(&[], Works::Yes, true, true), Err(false));
        assert_eq!(judged(&[], Works::Absent, false, false), Err(false));
        assert_eq!(judged(&[Served, Indeterminate], Works::No, true, true), Err(true));
        assert_eq!(judged(&[Served, Rejected], Works::No, true, true), Ok(Verdict::Claimable));
        assert_eq!(judged(&[Rejected], Works::No, false, true), Ok(Verdict::Leaky));
        assert_eq!(judged(&[Rejected], Works::Unknown, false, false), Err(true));
        assert_eq!(judged(&[Rejected], Works::No, false, false), Ok(Verdict::LockedOut));
        assert_eq!(judged(&[Rejected], Works::Yes, false, false), Ok(Verdict::Locked));
        assert_eq!(judged(&[Rejected], Works::Absent, false, false), Ok(Verdict::Locked));
    }

    fn any_decision() -> impl Strategy<Value = Decision> {
        prop_oneof![
            Just(Decision::Rejected),
            Just(Decision::Served),
            Just(Decision::Passed),
            Just(Decision::Indeterminate)
        ]
    }

    fn any_works() -> impl Strategy<Value = Works> {
        prop_oneof![Just(Works::Yes), Just(Works::No), Just(Works::Unknown), Just(Works::Absent)]
    }

    proptest! {
        #[test]
        fn locked_means_that_everything_held(
            decisions in proptest::collection::vec(any_decision(), 1..5),
            token in any_works(),
            claimed: bool,
            leaks: bool,
        ) {
            let look = look(&decisions, token);
            let verdict = judge(Case { look: &look, claimed, leaks });
            let all_rejected = decisions.iter().all(|d| *d == Decision::Rejected);
            if verdict == Ok(Verdict::Locked) {
                prop_assert!(!claimed && !leaks && token != Works::No && token != Works::Unknown);
                prop_assert!(!decisions.contains(&Decision::Indeterminate));
            }
            // However the probes are ordered, the verdict is the same.
            let mut turned = decisions.clone();
            turned.reverse();
            let reversed = judge(Case { look: &self::look(&turned, token), claimed, leaks });
            prop_assert_eq!(verdict.is_ok(), reversed.is_ok());
            if let (Ok(one), Ok(other)) = (verdict, reversed) {
                prop_assert_eq!(one, other);
                prop_assert_eq!(one == Verdict::Open, decisions.iter().all(|d| d.let_through()));
                if all_rejected && !claimed && !leaks && token == Works::Yes {
                    prop_assert_eq!(one, Verdict::Locked);
                }
            }
        }
    }
}
