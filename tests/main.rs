//! What cargo nextest runs.

mod mutants;
