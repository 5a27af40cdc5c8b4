//! Additional routes from a file.

use std::path::Path;

use lockproof_model::{
    error::{Error, Result},
    parse::parse_as,
    read,
};
use lockproof_probe::surface::routes::Route;

/// Reads a file of additional routes.
pub(super) fn read_routes(path: &Path) -> Result<Vec<Route>> {
    let text = read::text(path, read::SHORT)
        .map_err(|e| Error::usage(format!("cannot read {}", path.display())).at("--routes").detail(e))?;
    parse_as(&text, &path.display().to_string())
}
