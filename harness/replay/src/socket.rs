//! The WebSocket `/ws`: messages about the running prompt.

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

/// The time limit of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How often the state of all nodes is parsed. It is sent at each step and grows with every node,
/// so that parsing all of them would take longer than the run.
const STATES: Duration = Duration::from_millis(500);

/// An open WebSocket.
pub(super) struct Socket {
    stream: WebSocketStream<Box<dyn probe::server::Stream>>,
    /// When the state of all nodes was last parsed.
    state_read: Option<Instant>,
}

impl Socket {
    /// Opens it for a client.
    ///
    /// # Errors
    /// The reason; a run continues without it.
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
        tokio::time::timeout(HANDSHAKE, opened).await.unwrap_or_else(|_| Err("timed out".to_owned()))
    }

    /// The next message; `None` if the socket is closed. Skips binary previews.
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

/// Whether a message contains the state of all nodes, which only tells how many are done; other
/// messages tell which node is running.
fn is_state(text: &str) -> bool {
    // The server writes the type first; otherwise the message is parsed like any other.
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
