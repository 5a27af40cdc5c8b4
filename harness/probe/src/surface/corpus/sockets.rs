//! The WebSocket, and requests that only look like one.

use super::{Maker, Probe};
use crate::message::Request;
use lockproof_model::{finding::Rule, scheme::Presentation};

impl Maker<'_> {
    pub(super) fn sockets(&self) -> Vec<Probe> {
        let mut probes = Vec::new();
        for path in ["/ws", "/api/ws"] {
            let socket = upgrade(Request::get(format!("{path}?clientId={}", self.fill.nonce)));
            if self.scheme.is_public("GET", path) {
                continue;
            }
            probes.push(Probe::plain(Rule::LockWebsocket, path, socket.clone(), false));
            let mut forged = vec![
                socket.clone().header("Sec-WebSocket-Protocol", "lockproof"),
                socket.clone().header("Sec-WebSocket-Protocol", "token, lockproof"),
                socket.clone().header("Host", "lockproof").header("Origin", "http://lockproof"),
                socket.clone().header("Origin", "http://localhost:8188"),
                socket.clone().header("Cookie", "token=lockproof"),
            ];
            for how in &self.scheme.present {
                match how {
                    Presentation::Header { header, value } => {
                        for token in ["lockproof", "null", ""] {
                            forged.push(socket.clone().header(header, crate::keys::filled(value, token)));
                        }
                    }
                    Presentation::Query { query } => {
                        for token in ["lockproof", "null", "undefined", ""] {
                            forged.push(socket.clone().query(query, token));
                        }
                    }
                }
            }
            probes.extend(
                forged.into_iter().map(|request| Probe::trick(Rule::LockWebsocket, path, &socket, request, false)),
            );
        }
        // A lock that exempts the WebSocket may recognise it only by its header.
        for target in self.samples() {
            for request in [
                upgrade(target.plain.clone()),
                target.plain.clone().header("Upgrade", "websocket"),
                target.plain.clone().header("Connection", "Upgrade"),
                target.plain.clone().header("Sec-WebSocket-Protocol", "lockproof"),
                target.plain.clone().header("Connection", "Upgrade").header("Upgrade", "h2c"),
            ] {
                probes.push(Probe::trick(Rule::LockWebsocket, &target.route, &target.plain, request, false));
            }
        }
        probes
    }
}

/// The opening handshake of RFC 6455.
fn upgrade(request: Request) -> Request {
    request
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "bG9ja3Byb29mLXByb2JlIQ==")
}
