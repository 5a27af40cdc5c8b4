//! Every format.

use super::{format::Format, html, json, junit, markdown, ndjson, sarif};

/// Every format, in the order in which messages name them.
pub const FORMATS: [&dyn Format; 6] =
    [&json::Json, &junit::Junit, &sarif::Sarif, &html::Html, &markdown::Markdown, &ndjson::Ndjson];
