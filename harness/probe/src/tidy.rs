//! Removes the files that probes wrote to a server, and reports those that could not be removed.
//!
//! Probes write to the user directory, under names that begin with `lockproof-`. The server confirms each
//! removal: a `DELETE` that was rejected or got no answer removes nothing.

use std::collections::{BTreeMap, BTreeSet};

use http::{Method, StatusCode};

use super::{
    client::Client,
    look::when_asked,
    message::{Outcome, Request, in_words},
};
use crate::keys::{Keys, authorised};
use lockproof_model::scheme::Scheme;

/// The access for removing files.
pub(super) struct Tidy<'a> {
    pub(super) client: &'a Client,
    pub(super) scheme: &'a Scheme,
    pub(super) keys: Option<&'a Keys>,
}

impl Tidy<'_> {
    /// Removes the files that requests for these targets may have written. Returns a line for each that may
    /// still exist.
    pub(super) async fn remove<'t>(&self, targets: impl IntoIterator<Item = &'t str>) -> Vec<String> {
        let mut left = Vec::new();
        for (file, targets) in files(targets) {
            let plain = format!("/userdata/{file}");
            let mut last = None;
            let mut gone = false;
            for target in targets.iter().map(String::as_str).chain([plain.as_str()]) {
                let outcome = when_asked(self.client, &self.request(Method::DELETE, target)).await;
                gone = outcome.as_ref().is_ok_and(|answer| answer.status.is_success());
                if gone {
                    break;
                }
                last = Some(outcome);
            }
            // It may never have been written.
            if !gone && !self.is_missing(&plain).await {
                let said = last.as_ref().map_or_else(|| "not sent".to_owned(), in_words);
                left.push(format!("{file} in the user directory (DELETE {plain}: {said})"));
            }
        }
        left
    }

    async fn is_missing(&self, target: &str) -> bool {
        let outcome: Outcome = when_asked(self.client, &self.request(Method::GET, target)).await;
        outcome.is_ok_and(|answer| answer.status == StatusCode::NOT_FOUND)
    }

    fn request(&self, method: Method, target: &str) -> Request {
        let request = Request::new(method, target);
        match self.keys {
            Some(keys) => authorised(request, self.scheme, keys.token()),
            None => request,
        }
    }
}

/// The files by name, with the targets that may have written each. A move writes the file at the end of its
/// target.
fn files<'t>(targets: impl IntoIterator<Item = &'t str>) -> BTreeMap<String, BTreeSet<String>> {
    let mut files: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for target in targets {
        let path = target.split('?').next().unwrap_or(target);
        let Some((before, file)) = path.split_once("/userdata/") else { continue };
        let (own, file) = match file.split_once("/move/") {
            Some((_, to)) => (format!("{before}/userdata/{to}"), to),
            None => (path.to_owned(), file),
        };
        if !file.is_empty() {
            files.entry(file.to_owned()).or_default().insert(own);
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[test]
    fn a_move_writes_what_it_ends_with() {
        let found = files(["/userdata/a", "/api/userdata/a?x", "/userdata/a/move/b.js", "/queue", "/userdata/"]);
        let names: Vec<(&str, Vec<&str>)> =
            found.iter().map(|(file, by)| (file.as_str(), by.iter().map(String::as_str).collect())).collect();
        assert_eq!(names, [("a", vec!["/api/userdata/a", "/userdata/a"]), ("b.js", vec!["/userdata/b.js"])]);
    }

    /// A server that answers by the request line.
    async fn server(answer: fn(&str) -> &'static str) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut bytes = vec![0; 4096];
                let size = stream.read(&mut bytes).await.unwrap_or_default();
                let text = String::from_utf8_lossy(&bytes[..size]).into_owned();
                let status = answer(text.lines().next().unwrap_or_default());
                let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
                let _sent = stream.write_all(head.as_bytes()).await;
            }
        });
        Client::new(address, Duration::from_secs(2))
    }

    async fn left(answer: fn(&str) -> &'static str) -> Vec<String> {
        let client = server(answer).await;
        let scheme = Scheme::find(Scheme::DEFAULT, Path::new("")).expect("built in");
        let keys = Keys::new("a-token-of-nobody".to_owned(), None, None);
        let tidy = Tidy { client: &client, scheme: &scheme, keys: Some(&keys) };
        tidy.remove(["/userdata/lockproof-x.js", "/userdata/lockproof-x/move/lockproof-y"]).await
    }

    #[tokio::test]
    async fn what_was_removed_or_never_written_is_not_left() {
        assert!(left(|_| "204 No Content").await.is_empty());
        assert!(left(|_| "404 Not Found").await.is_empty());
        let by_its_plain_name = |line: &str| {
            if line.starts_with("DELETE /userdata/") { "204 No Content" } else { "405 Method Not Allowed" }
        };
        assert!(left(by_its_plain_name).await.is_empty());
    }

    #[tokio::test]
    async fn what_could_not_be_removed_is_told_with_the_answer() {
        let refused = left(|line| if line.starts_with("DELETE") { "403 Forbidden" } else { "200 OK" }).await;
        assert_eq!(refused.len(), 2, "{refused:?}");
        assert!(refused[0].starts_with("lockproof-x.js in the user directory (DELETE ") && refused[0].contains("403"));
        // Nobody says whether it is there.
        let broken = left(|_| "500 Internal Server Error").await;
        assert_eq!(broken.len(), 2, "{broken:?}");
    }
}
