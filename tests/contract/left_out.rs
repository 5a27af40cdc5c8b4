//! A third of the recorded lines was left out, and some of them made or removed a file that a later
//! line looks at. What such a line needs is made up for here.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use super::body::{self, Body};
use super::http::Http;
use super::record::Record;

/// The user's files that the replay has made so far.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    present: BTreeSet<String>,
}

impl LeftOut {
    /// Makes or removes the file that the record is about, so that its answer is possible.
    pub(super) async fn make_up_for(&mut self, http: &Http, record: &Record) -> Result<()> {
        let Some(file) = record.path.strip_prefix("/userdata/contract.") else {
            return Ok(());
        };
        let wanted = match (record.method.as_str(), record.status) {
            ("GET", 200) | ("DELETE", 204) => true,
            ("GET" | "DELETE", 404) => false,
            _ => self.present.contains(file),
        };
        if wanted != self.present.contains(file) {
            let (method, body) = if wanted {
                let label = if file == "js" { "POST /userdata js" } else { "POST /userdata" };
                ("POST", body::of(label))
            } else {
                ("DELETE", Body::None)
            };
            let answer = http.accepted(method, &record.path, body).await?;
            ensure!(answer.status < 300, "preparing for {record}: {}", answer.status);
        }
        // What the exchange itself leaves behind.
        match (record.method.as_str(), record.status) {
            ("POST", 200) => self.present.insert(file.to_owned()),
            ("DELETE", 204) => self.present.remove(file),
            _ if wanted => self.present.insert(file.to_owned()),
            _ => self.present.remove(file),
        };
        Ok(())
    }
}
