//! Prompts that a notebook queues on the server: recorded by the proxy, and cancelled if the notebook does
//! not finish, so that the server is not left busy.

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};

use lockproof_probe::{
    client::Client,
    message::{Fault, Request},
};
use lockproof_replay::server::holds;

/// The time limit for cancelling all prompts.
const LONGEST: Duration = Duration::from_secs(10);
/// The polling interval of the queue.
const AGAIN: Duration = Duration::from_millis(200);
/// The maximum number of recorded prompts, which limits the memory.
const MOST: usize = 1000;

/// A prompt that the server accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Queued {
    id: String,
    /// The part of the target before `/prompt`, such as `/api`.
    prefix: String,
    query: String,
    /// The credential headers of the notebook's request.
    credentials: Vec<(String, String)>,
}

/// A request that may queue a prompt.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    prefix: String,
    query: String,
    credentials: Vec<(String, String)>,
}

impl Asked {
    /// The request, if it is `POST …/prompt`.
    pub(super) fn of(method: &Method, target: &str, headers: &HeaderMap) -> Option<Self> {
        let (path, query) = target.split_once('?').map_or((target, ""), |(path, query)| (path, query));
        let prefix = path.strip_suffix("/prompt").filter(|_| method == Method::POST)?;
        let credentials = [header::AUTHORIZATION, header::COOKIE]
            .iter()
            .flat_map(|name| headers.get_all(name).iter().map(move |value| (name.to_string(), value)))
            .filter_map(|(name, value)| Some((name, value.to_str().ok()?.to_owned())))
            .collect();
        Some(Self { prefix: prefix.to_owned(), query: query.to_owned(), credentials })
    }

    /// The queued prompt, if the server accepted it.
    pub(super) fn accepted(self, status: StatusCode, body: &[u8]) -> Option<Queued> {
        let answer: Value = serde_json::from_slice(body).ok().filter(|_| status == StatusCode::OK)?;
        let id = answer.get("prompt_id")?.as_str()?.to_owned();
        Some(Queued { id, prefix: self.prefix, query: self.query, credentials: self.credentials })
    }
}

/// Records a prompt, up to the limit.
pub(super) fn note(all: &mut Vec<Queued>, queued: Queued) {
    if all.len() < MOST {
        all.push(queued);
    }
}

/// Cancels the unfinished prompts. Returns a description of the result; `None` if none was left.
pub(super) async fn cancel(client: &Client, all: &[Queued]) -> Option<String> {
    let mut cancelled = 0;
    let work = async {
        for queued in all {
            cancelled += usize::from(queued.cancel(client).await?);
        }
        Ok::<_, Fault>(())
    };
    let ended = tokio::time::timeout(LONGEST, work).await;
    let told = match cancelled {
        0 => None,
        1 => Some("its queued prompt was cancelled".to_owned()),
        n => Some(format!("{n} queued prompts were cancelled")),
    };
    match ended {
        Ok(Ok(())) => told,
        _ => {
            let left = "its queued prompts may still be running: the server did not answer";
            Some(told.map_or_else(|| left.to_owned(), |told| format!("{told}; {left}")))
        }
    }
}

impl Queued {
    /// Deletes the prompt from the queue, or interrupts it. Returns whether there was anything to cancel.
    async fn cancel(&self, client: &Client) -> Result<bool, Fault> {
        let mut found = false;
        loop {
            let queue = self.queue(client).await?;
            if holds(&queue["queue_pending"], &self.id) {
                let delete = json!({ "delete": [self.id] }).to_string();
                self.post(client, "/queue", &delete).await?;
            } else if holds(&queue["queue_running"], &self.id) {
                let which = json!({ "prompt_id": self.id }).to_string();
                self.post(client, "/interrupt", &which).await?;
            } else {
                return Ok(found);
            }
            found = true;
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn queue(&self, client: &Client) -> Result<Value, Fault> {
        let answer = client.send(&self.request(Request::get(self.target("/queue")))).await?;
        let wrong = || Fault::Broken(format!("GET /queue was answered with {}", answer.status));
        serde_json::from_slice(&answer.body).ok().filter(|_| answer.status.is_success()).ok_or_else(wrong)
    }

    async fn post(&self, client: &Client, path: &str, body: &str) -> Result<(), Fault> {
        let answer = client.send(&self.request(Request::post_json(self.target(path), body))).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        Err(Fault::Broken(format!("POST {path} was answered with {}", answer.status)))
    }

    fn target(&self, path: &str) -> String {
        let query = if self.query.is_empty() { String::new() } else { format!("?{}", self.query) };
        format!("{}{path}{query}", self.prefix)
    }

    fn request(&self, request: Request) -> Request {
        self.credentials.iter().fold(request, |request, (name, value)| request.header(name, value))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    fn queued(id: &str) -> Queued {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, "Bearer t".parse().expect("a value"));
        let asked = Asked::of(&Method::POST, "/api/prompt?a=b", &headers).expect("it queues");
        asked.accepted(StatusCode::OK, format!(r#"{{"prompt_id":"{id}"}}"#).as_bytes()).expect("it was accepted")
    }

    #[test]
    fn only_a_prompt_that_was_accepted_is_noted() {
        let headers = HeaderMap::new();
        assert!(Asked::of(&Method::GET, "/prompt", &headers).is_none());
        assert!(Asked::of(&Method::POST, "/queue", &headers).is_none());
        let asked = || Asked::of(&Method::POST, "/prompt", &headers).expect("it queues");
        assert!(asked().accepted(StatusCode::BAD_REQUEST, br#"{"prompt_id":"a"}"#).is_none());
        assert!(asked().accepted(StatusCode::OK, b"<html>").is_none());
        let mut all = Vec::new();
        (0..MOST + 5).for_each(|n| note(&mut all, queued(&n.to_string())));
        assert_eq!(all.len(), MOST);
    }

    /// A server with one prompt that runs and one that waits; it records each request line and body.
    async fn server(seen: Arc<Mutex<Vec<String>>>) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let (mut running, mut pending) = (true, true);
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut bytes = vec![0; 4096];
                let size = stream.read(&mut bytes).await.unwrap_or_default();
                let text = String::from_utf8_lossy(&bytes[..size]).into_owned();
                running &= !text.contains("/interrupt");
                pending &= !text.contains("delete");
                let list = |on: bool, id: &str| if on { format!("[[1,\"{id}\"]]") } else { "[]".to_owned() };
                let body = format!(
                    r#"{{"queue_running":{},"queue_pending":{}}}"#,
                    list(running, "runs"),
                    list(pending, "waits")
                );
                seen.lock().expect("a lock").push(text);
                let answer =
                    format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                let _sent = stream.write_all(answer.as_bytes()).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn what_runs_is_interrupted_and_what_waits_is_deleted_with_the_notebooks_own_credential() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let client = Client::new(server(Arc::clone(&seen)).await, Duration::from_secs(5));
        let all = [queued("runs"), queued("waits"), queued("is over")];
        let told = cancel(&client, &all).await;
        assert_eq!(told.as_deref(), Some("2 queued prompts were cancelled"));
        let seen = seen.lock().expect("a lock");
        assert!(seen.iter().all(|text| text.contains("Bearer t") && text.contains("?a=b")), "{seen:?}");
        assert!(seen.iter().any(|text| text.starts_with("POST /api/interrupt") && text.contains("\"runs\"")));
        assert!(seen.iter().any(|text| text.starts_with("POST /api/queue") && text.contains("\"waits\"")));
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_said_to_be_unknown() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let client = Client::new(address, Duration::from_secs(1));
        let told = cancel(&client, &[queued("runs")]).await.expect("something is said");
        assert!(told.contains("did not answer"), "{told}");
        assert_eq!(cancel(&client, &[]).await, None);
    }
}
