//! All report formats.

use super::{format::Format, html, json, junit, markdown, ndjson, sarif};

/// All formats, in the order of messages.
pub const FORMATS: [&dyn Format; 6] =
    [&json::Json, &junit::Junit, &sarif::Sarif, &html::Html, &markdown::Markdown, &ndjson::Ndjson];
