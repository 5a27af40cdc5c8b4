//! `lockproof.yaml`: how it is read ([`load`]), and the run that results from it with defaults filled in
//! ([`plan`]).

pub mod accept;
pub mod compose;
pub mod load;
pub mod plan;
pub mod replays;
