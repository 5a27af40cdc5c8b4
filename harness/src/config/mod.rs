//! `lockproof.yaml`: what it may say ([`mod@file`]), how it is read ([`load`]), and what a run is made
//! of once defaults are filled in ([`plan`]).

pub mod accept;
pub mod compose;
pub mod duration;
pub mod file;
pub mod load;
pub mod plan;
pub mod replays;
