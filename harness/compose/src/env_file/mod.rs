//! Reads and writes one variable in `.env` files, and keeps every other byte.
//!
//! A bcrypt token contains `$`, which programs read differently. Results by line (measured;
//! `tests/token.rs` measures them again):
//!
//! | line | python-dotenv, Compose v1 | Compose v2 | shell | `docker run --env-file` |
//! |---|---|---|---|---|
//! | `T='$2b$12$x'` | right | right | right | keeps the quotes |
//! | `T=$2b$12$x` | right | drops `$x` | drops `$2`, `$1`, `$x` | right |
//! | `T="$2b$12$x"` | right | drops `$x` | drops `$2`, `$1`, `$x` | keeps the quotes |
//! | `T="\$2b\$12\$x"` | keeps the backslashes | right | right | keeps both |
//!
//! No spelling works for all five. Single quotes work for all but `docker run --env-file`, which
//! reads lines literally and so needs a [separate file](Spelling::Literal).

mod line;
mod set;
mod spell;
mod write;

pub use line::{Assignment, assignments};
pub use set::{get, set};
pub use spell::{Spelling, disagreement};
pub use write::{behind_links, replace, store};

/// The name of the variable with the token.
pub const TOKEN: &str = "COMFYUI_API_TOKEN";
/// A wrong variable name used by some helpers, which then send no token.
pub const WRONG_NAME: &str = "COMFYUI_API_KEY";
