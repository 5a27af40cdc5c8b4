//! `/ws`: what the server tells a client while its prompt runs.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::Value;
use tokio::time::Instant;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{ClientRequestBuilder, Message, http::Uri},
};

use super::server::Server;
use lockproof_model::secret::percent_encode;
use lockproof_probe::{self as probe, message::Request};

/// How long the handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How often the state of all nodes is read. It is told at each step of each node and grows with every
/// node that ran, so that reading all of them would take longer than the run.
const STATES: Duration = Duration::from_millis(500);

/// An open web socket.
pub(super) struct Socket {
    stream: WebSocketStream<Box<dyn probe::server::Stream>>,
    /// When the state of all nodes was read last.
    state_read: Option<Instant>,
}

impl Socket {
    /// Opens it for a client.
    ///
    /// # Errors
    /// Why there is none; a run goes on without.
    pub(super) async fn open(server: &Server, client_id: &str) -> Result<Self, String> {
        let request = server.authorised(Request::get(format!("/ws?clientId={}", percent_encode(client_id))));
        let place = server.client().server();
        let base = server.base();
        let origin = base.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or(rest));
        let scheme = if base.starts_with("https") { "wss" } else { "ws" };
        let uri = format!("{scheme}://{origin}{}", place.target(&request.target));
        let uri: Uri = uri.parse().map_err(|e| format!("{uri}: {e}"))?;
        let builder = request
            .headers
            .iter()
            .fold(ClientRequestBuilder::new(uri), |builder, (name, value)| builder.with_header(name, value));
        let opened = async {
            let stream = place.connect().await.map_err(|fault| fault.to_string())?;
            let (socket, _) = client_async(builder, stream).await.map_err(|e| e.to_string())?;
            Ok(Self { stream: socket, state_read: None })
        };
        tokio::time::timeout(HANDSHAKE, opened).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }

    /// The next message; `None` when the socket is closed. Previews, which are binary, are left out.
    pub(super) async fn next(&mut self) -> Option<Value> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => {
                    if is_state(&text) {
                        if self.state_read.is_some_and(|at| at.elapsed() < STATES) {
                            continue;
                        }
                        self.state_read = Some(Instant::now());
                    }
                    if let Ok(value) = super::json::parse(&text) {
                        return Some(value);
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }
}

/// Whether a message tells the state of all nodes, which says only how many are done: which one runs,
/// and how far it is, is told beside it.
fn is_state(text: &str) -> bool {
    // The server writes the type first; where it does not, the message is read as all others are.
    let start = &text.as_bytes()[..text.len().min(40)];
    memchr::memmem::find(start, b"\"progress_state\"").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_all_nodes_is_known_without_reading_it() {
        assert!(is_state(r#"{"type": "progress_state", "data": {"prompt_id": "x", "nodes": {}}}"#));
        assert!(!is_state(r#"{"type": "progress", "data": {"node": "progress_state"}}"#));
        assert!(!is_state(
            r#"{"type": "executed", "data": {"node": "9", "output": {"text": ["\"progress_state\""]}}}"#
        ));
        assert!(!is_state(""));
    }
}
