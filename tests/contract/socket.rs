//! Replays the recorded web socket messages: a workflow run twice, and one that fails.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::body::{self, Body};
use super::http::Http;
use super::report::Report;
use super::{compare, credential, record};

/// Longer than any message takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the recorded workflows and compares what the server tells meanwhile.
pub(super) async fn replay(http: &Http, report: &mut Report) -> Result<()> {
    // A colour that no run had before: the first run must not be cached.
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos();
    let graph = body::graph(nanos % 0x0100_0000);
    let mut socket = Socket::open(http, "contract").await?;
    let recorded: Vec<Value> = record::lines("websocket.jsonl")?;
    let first_run = recorded.iter().position(is_end).context("websocket.jsonl has no end")?;
    let (first, second) = recorded.split_at(first_run + 1);
    let (greeting, first) = first.split_first().context("websocket.jsonl is empty")?;
    socket.expect("websocket.jsonl", std::slice::from_ref(greeting), http, report).await?;
    for messages in [first, second] {
        queue(http, &graph, "contract").await?;
        socket.expect("websocket.jsonl", messages, http, report).await?;
    }
    replay_error(http, report).await
}

/// A file that is no image, loaded.
async fn replay_error(http: &Http, report: &mut Report) -> Result<()> {
    let upload = Body::Form(body::file("bad.png", b"not an image").text("overwrite", "true"));
    let answer = http.accepted("POST", "/upload/image", upload).await?;
    ensure!(answer.status == 200, "uploading bad.png: {}", answer.status);
    let graph = json!({
        "1": { "class_type": "LoadImage", "inputs": { "image": "bad.png" } },
        "2": { "class_type": "SaveImage", "inputs": { "images": ["1", 0], "filename_prefix": "e" } },
    });
    let mut socket = Socket::open(http, "e").await?;
    // The greeting is not in this recording.
    socket.next().await?;
    let id = queue(http, &graph, "e").await?;
    let recorded: Vec<Value> = record::lines("websocket-error.jsonl")?;
    socket.expect("websocket-error.jsonl", &recorded, http, report).await?;

    // The history is there once the run is over.
    while !is_end(&socket.next().await?) {}
    let answer = http.get(&format!("/history/{id}")).await?;
    let answered = only_value(&serde_json::from_slice(&answer.body)?)?;
    let recorded = only_value(&record::json("history-error.json")?)?;
    // The number of the prompt is a counter, and has no key to say so.
    let differences = compare::json(&recorded, &answered, &http.subject.code_dir)
        .into_iter()
        .filter(|difference| difference.at != "json.prompt[0]")
        .collect();
    report.other("history-error.json", "/history", differences);
    Ok(())
}

/// A history is keyed by prompt ids, which vary.
fn only_value(history: &Value) -> Result<Value> {
    let entry = history.as_object().and_then(|entries| entries.values().next());
    entry.cloned().context("the history has no entry")
}

/// Queues a workflow; its prompt id.
async fn queue(http: &Http, graph: &Value, client: &str) -> Result<String> {
    let request = json!({ "prompt": graph, "client_id": client }).to_string();
    let answer = http.accepted("POST", "/prompt", Body::Text(request)).await?;
    let answered: Value = serde_json::from_slice(&answer.body)?;
    answered["prompt_id"].as_str().map(str::to_owned).with_context(|| answered.to_string())
}

/// The message after which a run is over.
fn is_end(message: &Value) -> bool {
    message["type"] == "executing" && message["data"]["node"].is_null()
}

struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn open(http: &Http, client: &str) -> Result<Self> {
        let shown = credential::shown(http.accepted_credential(), http.token())?;
        let base = http.subject.base.replacen("http", "ws", 1);
        let token = shown.query.map(|token| format!("&token={token}")).unwrap_or_default();
        let mut request = format!("{base}/ws?clientId={client}{token}").into_client_request()?;
        if let Some((name, value)) = shown.header {
            request.headers_mut().insert(name, value.parse()?);
        }
        let (stream, _) = connect_async(request).await.context("/ws")?;
        Ok(Self(stream))
    }

    /// The next text message; previews are not compared.
    async fn next(&mut self) -> Result<Value> {
        loop {
            let message = timeout(PATIENCE, self.0.next()).await.context("/ws fell silent")?;
            match message.context("/ws was closed")?? {
                Message::Text(text) => return Ok(serde_json::from_str(&text)?),
                Message::Close(_) => bail!("/ws was closed"),
                _ => {}
            }
        }
    }

    /// Compares the next messages with the recorded ones.
    async fn expect(&mut self, file: &str, recorded: &[Value], http: &Http, report: &mut Report) -> Result<()> {
        for (index, recorded) in recorded.iter().enumerate() {
            let answered = self.next().await.with_context(|| format!("instead of {recorded}"))?;
            let what = format!("{file}, message {} ({})", index + 1, recorded["type"]);
            report.other(&what, "/ws", compare::json(recorded, &answered, &http.subject.code_dir));
        }
        Ok(())
    }
}
