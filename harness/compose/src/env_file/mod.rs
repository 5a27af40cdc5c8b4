//! `.env` files: one variable is written or read, and every other byte stays what it is.
//!
//! A bcrypt token holds `$`, and the readers of such files do not agree on it. What each makes of a
//! line (measured; `tests/token.rs` measures it again):
//!
//! | line | python-dotenv, Compose v1 | Compose v2 | shell | `docker run --env-file` |
//! |---|---|---|---|---|
//! | `T='$2b$12$x'` | right | right | right | keeps the quotes |
//! | `T=$2b$12$x` | right | eats `$x` | eats `$2`, `$1`, `$x` | right |
//! | `T="$2b$12$x"` | right | eats `$x` | eats `$2`, `$1`, `$x` | keeps the quotes |
//! | `T="\$2b\$12\$x"` | keeps the backslashes | right | right | keeps both |
//!
//! So no spelling of it suits all five. Single quotes suit all but `docker run --env-file`, which
//! takes every line literally and therefore needs a [file of its own](Spelling::Literal).

mod line;
mod set;
mod spell;
mod write;

pub use line::{Assignment, assignments};
pub use set::{get, set};
pub use spell::{Spelling, disagreement};
pub use write::{behind_links, replace, store};

/// The variable that holds the token, everywhere.
pub const TOKEN: &str = "COMFYUI_API_TOKEN";
/// The name by which some helpers look for it, so that they send none.
pub const WRONG_NAME: &str = "COMFYUI_API_KEY";
