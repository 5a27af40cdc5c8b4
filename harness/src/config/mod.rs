//! `lockproof.yaml`: how it is read ([`load`]), and what a run is made
//! of once defaults are filled in ([`plan`]).

pub mod accept;
pub mod compose;
pub mod load;
pub mod plan;
pub mod replays;
