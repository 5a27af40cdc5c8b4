//! `/ws`: what the server tells a client while its prompt runs.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::Value;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{ClientRequestBuilder, Message, http::Uri},
};

use super::server::Server;
use crate::{probe, probe::message::Request, secret::percent_encode};

/// How long the handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// An open web socket.
pub(super) struct Socket(WebSocketStream<Box<dyn probe::server::Stream>>);

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
            Ok(Self(socket))
        };
        tokio::time::timeout(HANDSHAKE, opened).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }

    /// The next message; `None` when the socket is closed. Previews, which are binary, are left out.
    pub(super) async fn next(&mut self) -> Option<Value> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => {
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
