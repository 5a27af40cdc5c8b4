//! Replays what a real ComfyUI answered (`fixtures/contract`) against the lab, or any other server,
//! and says where the answers differ.
//!
//! A difference that is meant is listed by name in [`deviations`]; any other one is a failure.

mod body;
mod compare;
mod credential;
mod deviations;
mod http;
mod left_out;
mod record;
mod replay;
mod report;
mod routes;
mod server;
mod socket;

pub(crate) use self::record::{Record, State};
pub(crate) use self::report::Report;
pub(crate) use self::server::Server;

use anyhow::{Context as _, Result};
use serde_json::Value;

use self::http::Http;
use self::left_out::LeftOut;

/// The server that the recordings are replayed against. It has to be fresh: the recordings begin
/// with an empty history and end with files and users made.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// `http://127.0.0.1:8188`, without a slash at the end.
    pub(crate) base: String,
    /// Which of the recorded states it is in.
    pub(crate) state: State,
    /// The token, in [`State::LoginPassword`]; the password is then [`credential::PASSWORD`].
    pub(crate) token: Option<String>,
    /// Where its code is: the recordings say `/opt/ComfyUI`.
    pub(crate) code_dir: String,
}

/// Replays everything that was recorded in the subject's state, in the order in which it was.
///
/// # Errors
/// A recording that cannot be read, or a server that does not answer at all.
pub(crate) async fn replay_all(subject: &Subject) -> Result<Report> {
    let http = Http::new(subject)?;
    let mut report = Report::default();
    // Before anything is uploaded: the lists of files are part of it.
    object_info(&http, &mut report).await?;
    exchanges(&http, &record::exchanges(subject.state)?, &mut report).await?;
    routes::check(&http, &mut report).await?;
    socket::replay(&http, &mut report).await?;
    Ok(report)
}

/// Replays recorded exchanges.
///
/// # Errors
/// See [`replay_all`].
pub(crate) async fn exchanges(http: &Http, records: &[Record], report: &mut Report) -> Result<()> {
    let mut left_out = LeftOut::default();
    for record in records {
        left_out.make_up_for(http, record).await?;
        let answer = http.send(record).await.with_context(|| record.to_string())?;
        report.exchange(record, compare::answers(record, &answer, &http.subject.code_dir));
    }
    Ok(())
}

/// The definitions of the nodes that workflows here use must be there, the same in every word; a
/// real server has more of them.
async fn object_info(http: &Http, report: &mut Report) -> Result<()> {
    let recorded = record::json("object_info.json")?;
    let answer = http.get("/object_info").await?;
    let mut answered: Value = serde_json::from_slice(&answer.body).context("/object_info")?;
    if let (Some(answered), Some(recorded)) = (answered.as_object_mut(), recorded.as_object()) {
        answered.retain(|name, _| recorded.contains_key(name));
    }
    let differences = compare::json(&recorded, &answered, &http.subject.code_dir);
    report.other("object_info.json", "/object_info", differences);
    Ok(())
}
