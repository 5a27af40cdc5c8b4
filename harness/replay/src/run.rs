//! Runs a prompt: queues it, follows it, and fetches its outputs, or cancels it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    calling_off::CalledOff,
    failure::{Failure, execution_error},
    outputs::Item,
    prompt::Prompt,
    server::{Server, Trouble, holds},
    socket::Socket,
};
use crate::outputs;
use lockproof_model::secret;
use lockproof_probe::message::{Answer, Request, in_words};

/// The polling interval while the WebSocket is silent or missing.
const NOW_AND_THEN: Duration = Duration::from_secs(2);
const OFTEN: Duration = Duration::from_millis(200);
/// How long a server may be silent during a run before it counts as dead.
const SILENCE: Duration = Duration::from_secs(15);
/// The pause after an answer that asks to retry.
const COME_AGAIN: Duration = Duration::from_secs(1);

/// Receives the progress of a run.
pub trait Progress: Send + Sync {
    /// The prompt is waiting in the queue behind others.
    fn waiting(&self, behind: usize);
    /// A node is running: its description, the number of finished nodes, their total, and its own
    /// progress from 0 to 1.
    fn node(&self, node: &str, done: usize, all: usize, part: f64);
}

/// Ignores the progress.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Progress for Silent {
    fn waiting(&self, _: usize) {}
    fn node(&self, _: &str, _: usize, _: usize, _: f64) {}
}

/// Runs a prompt and returns its outputs. Cancels it after `limit`.
///
/// # Errors
/// Why there are none.
pub async fn run(
    server: &Server,
    prompt: &Prompt,
    extra: Option<Value>,
    limit: Duration,
    progress: &dyn Progress,
) -> Result<Vec<Item>, Failure> {
    let mut state = State { at: None, done: 0, waits: 0 };
    let begun = Instant::now();
    let work = async {
        let client_id = format!("lockproof-{}", secret::random(16));
        let socket = match Socket::open(server, &client_id).await {
            Ok(socket) => Some(socket),
            Err(why) => {
                tracing::debug!("no WebSocket, polling the history instead: {why}");
                None
            }
        };
        let id = queue(server, prompt, &client_id, extra, begun + limit).await?;
        let run = Run { server, prompt, id: &id, progress };
        let entry = run.follow(socket, &mut state).await;
        server.end();
        outputs::fetch(server, prompt, &entry?).await
    };
    match tokio::time::timeout(limit, work).await {
        Ok(ended) => ended,
        Err(_) => {
            let ended = match server.call_off().await {
                CalledOff::Nothing => String::new(),
                CalledOff::Done => "; the run was cancelled".to_owned(),
                CalledOff::Untold => format!("; {}", CalledOff::UNTOLD),
            };
            let where_ = state.in_words(prompt);
            Err(Failure::new(format!("timed out after {} s: {where_}{ended}", limit.as_secs())))
        }
    }
}

/// Queues the prompt and returns its id.
async fn queue(
    server: &Server,
    prompt: &Prompt,
    client_id: &str,
    extra: Option<Value>,
    until: Instant,
) -> Result<String, Failure> {
    // The id is chosen here, so that the prompt can be cancelled before the server answers.
    let own = prompt_id();
    let mut body = json!({ "prompt": prompt.to_json(), "prompt_id": own, "client_id": client_id });
    if let Some(workflow) = extra {
        body["extra_data"] = json!({ "extra_pnginfo": { "workflow": workflow } });
    }
    let body = body.to_string();
    loop {
        server.begin(&own);
        let answer = match server.ask(Request::post_json("/prompt", &body)).await {
            Ok(answer) => answer,
            Err(trouble) => return Err(unanswered(server, trouble).await),
        };
        if answer.status != 200 {
            server.end();
        }
        match answer.status.as_u16() {
            200 => {
                let accepted: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                // An older server chooses its own id.
                let id = accepted.get("prompt_id").and_then(Value::as_str);
                let id = id.ok_or_else(|| Failure::new("the server accepted the prompt but returned no id"))?;
                server.accepted(id);
                return Ok(id.to_owned());
            }
            429 | 503 => {
                let pause = answer.retry_after().unwrap_or(COME_AGAIN).max(COME_AGAIN);
                if Instant::now() + pause >= until {
                    let said = in_words(&Ok(answer));
                    return Err(Failure::new(format!("the server's queue is full: it keeps answering {said}")));
                }
                tokio::time::sleep(pause).await;
            }
            _ => return Err(refused(&answer, prompt)),
        }
    }
}

/// A random UUID, like the server's own ids.
fn prompt_id() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system provides random bytes");
    // Version 4, variant 1.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex::encode(bytes);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// The server did not answer, but may have queued the prompt.
async fn unanswered(server: &Server, trouble: Trouble) -> Failure {
    if matches!(trouble, Trouble::Locked { .. }) {
        server.end();
    }
    let called_off = server.call_off().await;
    let mut failure = Failure::from(trouble);
    failure.details.extend((called_off == CalledOff::Done).then(|| "the run was cancelled".to_owned()));
    failure
}

/// The server's check found an error that the local check did not.
fn refused(answer: &Answer, prompt: &Prompt) -> Failure {
    let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let message = said.pointer("/error/message").and_then(Value::as_str);
    let details = said.pointer("/error/details").and_then(Value::as_str).unwrap_or_default().trim().to_owned();
    let mut failure = Failure::new(match message {
        Some(message) => format!("the server rejected the prompt: {message}"),
        None => format!("POST /prompt returned {}", in_words(&Ok(answer.clone()))),
    });
    failure.details.extend((!details.is_empty()).then_some(details));
    for (id, errors) in said.get("node_errors").and_then(Value::as_object).into_iter().flatten() {
        let node = prompt.node(id).map_or_else(|| format!("node {id}"), super::prompt::Node::words);
        for error in errors.get("errors").and_then(Value::as_array).into_iter().flatten() {
            let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
            failure.details.push(format!("{node}: {}: {}", text("message"), text("details")));
        }
    }
    failure
}

/// The progress, as reported by the server.
struct State {
    /// The running node.
    at: Option<String>,
    done: usize,
    /// The number of prompts before it.
    waits: usize,
}

impl State {
    fn in_words(&self, prompt: &Prompt) -> String {
        let node =
            self.at.as_ref().map(|id| prompt.node(id).map_or_else(|| format!("node {id}"), super::prompt::Node::words));
        match (node, self.waits) {
            (Some(node), _) => format!("{node} was running"),
            (None, 0) => "no node had started".to_owned(),
            (None, waits) => format!("it was waiting in the queue ({waits} ahead)"),
        }
    }
}

struct Run<'a> {
    server: &'a Server,
    prompt: &'a Prompt,
    id: &'a str,
    progress: &'a dyn Progress,
}

/// The meaning of a message.
enum Heard {
    /// The run continues.
    Nothing,
    /// The run has ended: read the history.
    Ended,
    /// The run has failed.
    Failed(Failure),
}

impl Run<'_> {
    /// Waits for the end and returns the history entry.
    async fn follow(&self, mut socket: Option<Socket>, state: &mut State) -> Result<Value, Failure> {
        let mut heard_of = Instant::now();
        // The WebSocket does not report the queue.
        let mut ask_at = Instant::now() + OFTEN;
        loop {
            let message = async {
                match &mut socket {
                    Some(socket) => socket.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = message => match message {
                    Some(message) => {
                        heard_of = Instant::now();
                        match self.hear(&message, state) {
                            Heard::Nothing => {}
                            Heard::Failed(failure) => return Err(failure),
                            // The message comes slightly before the history entry.
                            Heard::Ended => ask_at = Instant::now(),
                        }
                    }
                    None => {
                        socket = None;
                        ask_at = Instant::now();
                    }
                },
                () = tokio::time::sleep_until(ask_at) => {
                    match self.ask(state).await {
                        Ok(Some(entry)) => return Ok(entry),
                        Ok(None) => heard_of = Instant::now(),
                        Err(Lost::Forgotten) => return Err(self.died(state, "the server no longer knows the \
                            prompt: it was restarted during the run, or its queue was cleared")),
                        Err(Lost::Trouble(Trouble::Gone(why))) => {
                            if heard_of.elapsed() > SILENCE {
                                return Err(self.died(state, &format!("the server stopped answering during the run: {why}")));
                            }
                        }
                        Err(Lost::Trouble(trouble)) => return Err(trouble.into()),
                    }
                    ask_at = Instant::now() + if socket.is_some() && state.at.is_some() { NOW_AND_THEN } else { OFTEN };
                }
            }
        }
    }

    fn died(&self, state: &State, why: &str) -> Failure {
        Failure::new(format!("{why}; {}", state.in_words(self.prompt)))
    }

    /// Reads the history; if the prompt is not there yet, it must be in the queue.
    async fn ask(&self, state: &mut State) -> Result<Option<Value>, Lost> {
        // The queue first: prompts move from the queue to the history, never back.
        let queue = self.server.json(Request::get("/queue")).await.map_err(Lost::Trouble)?;
        let history = self.server.json(Request::get(format!("/history/{}", self.id))).await.map_err(Lost::Trouble)?;
        if let Some(entry) = history.get(self.id) {
            return Ok(Some(entry.clone()));
        }
        let pending = queue["queue_pending"].as_array().cloned().unwrap_or_default();
        if holds(&queue["queue_running"], self.id) {
            state.waits = 0;
        } else if holds(&queue["queue_pending"], self.id) {
            let number = |entry: &Value| entry.get(0).and_then(Value::as_f64).unwrap_or_default();
            let ours = pending.iter().find(|e| e.get(1).and_then(Value::as_str) == Some(self.id)).map(number);
            let before = pending.iter().filter(|entry| Some(number(entry)) < ours).count();
            state.waits = before + queue["queue_running"].as_array().map_or(0, Vec::len);
            self.progress.waiting(state.waits);
        } else {
            return Err(Lost::Forgotten);
        }
        Ok(None)
    }

    fn hear(&self, message: &Value, state: &mut State) -> Heard {
        let data = &message["data"];
        if data["prompt_id"].as_str().is_some_and(|id| id != self.id) {
            return Heard::Nothing;
        }
        match message["type"].as_str().unwrap_or_default() {
            "execution_error" => return Heard::Failed(execution_error(data, self.prompt)),
            "execution_interrupted" => {
                let node = data["node_id"].as_str().and_then(|id| self.prompt.node(id));
                let at = node.map(|node| format!(" at {}", node.words())).unwrap_or_default();
                return Heard::Failed(Failure::new(format!("the run was interrupted by someone else{at}")));
            }
            "execution_success" => return Heard::Ended,
            "executing" => match data["node"].as_str() {
                // The end as reported by older servers; without an id, it may belong to another
                // prompt.
                None => return if data["prompt_id"].is_string() { Heard::Ended } else { Heard::Nothing },
                Some(node) => {
                    state.at = Some(node.to_owned());
                    self.tell(state, 0.0);
                }
            },
            "execution_cached" => state.done = data["nodes"].as_array().map_or(0, Vec::len),
            "progress" => self.tell(state, part(data)),
            "progress_state" => {
                let nodes = data["nodes"].as_object().into_iter().flatten();
                let finished = nodes.filter(|(_, node)| node["state"] == "finished").count();
                state.done = state.done.max(finished);
                let running = data["nodes"].as_object().into_iter().flatten().find(|(_, n)| n["state"] == "running");
                if let Some((_, node)) = running {
                    self.tell(state, part(node));
                }
            }
            _ => {}
        }
        Heard::Nothing
    }

    fn tell(&self, state: &State, part: f64) {
        if let Some(node) = state.at.as_ref().and_then(|id| self.prompt.node(id)) {
            self.progress.node(node.title.as_deref().unwrap_or(&node.class), state.done, self.prompt.nodes.len(), part);
        }
    }
}

fn part(data: &Value) -> f64 {
    let number = |key: &str| data[key].as_f64().unwrap_or_default();
    if number("max") > 0.0 { (number("value") / number("max")).clamp(0.0, 1.0) } else { 0.0 }
}

/// Why the prompt is unknown.
enum Lost {
    /// It is in neither the queue nor the history.
    Forgotten,
    /// The server did not answer.
    Trouble(Trouble),
}
