//! The server's API, as used by canaries.

use serde_json::{Value, json};

use super::Kind;
use lockproof_model::{scheme::Scheme, secret::percent_encode};
use lockproof_probe::{
    client::Client,
    keys::{Keys, authorised},
    look::is_refusal,
    message::Request,
};
use lockproof_replay::server::form;

/// A server with its credentials.
#[derive(Clone, Copy)]
pub struct Access<'a> {
    /// The server.
    pub client: &'a Client,
    /// The login scheme.
    pub scheme: &'a Scheme,
    /// The credentials.
    pub keys: &'a Keys,
}

/// The API of one user.
pub(super) struct Api<'a> {
    pub(super) access: Access<'a>,
    /// The user, on a multi-user server.
    pub(super) user: Option<String>,
}

/// The prefixes of the user's workflows and settings.
const WORKFLOWS: &str = "workflows%2F";

impl Api<'_> {
    /// The status and body of the answer; `None` if the lock rejects the request or there is no
    /// answer.
    async fn ask(&self, request: Request) -> Option<(u16, Vec<u8>)> {
        let request = match &self.user {
            Some(user) => request.header("comfy-user", user.as_str()),
            None => request,
        };
        let Access { client, scheme, keys } = self.access;
        let answer = client.send(&authorised(request, scheme, keys.token())).await.ok()?;
        let says_nothing = is_refusal(&answer) || answer.status.is_server_error();
        (!says_nothing).then(|| (answer.status.as_u16(), answer.body.to_vec()))
    }

    async fn done(&self, request: Request) -> Result<Vec<u8>, String> {
        let path = request.path().to_owned();
        match self.ask(request).await {
            Some((200..=299, body)) => Ok(body),
            Some((status, _)) => Err(format!("{path} answered {status}")),
            None => Err(format!("{path} did not answer an authenticated request")),
        }
    }

    /// Creates a user on a multi-user server, and acts as that user from now on.
    pub(super) async fn add_user(&mut self, name: &str) -> Result<Option<String>, String> {
        let users: Value = serde_json::from_slice(&self.done(Request::get("/users")).await?).unwrap_or_default();
        if !users["users"].is_object() {
            return Ok(None);
        }
        let body = json!({ "username": name }).to_string();
        let added = self.done(Request::post_json("/users", &body)).await?;
        let id: String = serde_json::from_slice(&added).map_err(|_| "/users returned no id".to_owned())?;
        self.user = Some(id.clone());
        Ok(Some(id))
    }

    /// Stores a file or setting, and returns the name under which it is stored.
    pub(super) async fn put(&self, kind: Kind, name: &str, content: &[u8]) -> Result<String, String> {
        match kind {
            Kind::Input | Kind::Output => {
                let (content_type, body) = form(name, content, kind.directory());
                let request = Request::new(http::Method::POST, "/upload/image");
                let kept = self.done(request.header("Content-Type", content_type).body(body)).await?;
                let kept: Value = serde_json::from_slice(&kept).unwrap_or_default();
                Ok(kept["name"].as_str().unwrap_or(name).to_owned())
            }
            Kind::Workflow => {
                let request =
                    Request::new(http::Method::POST, format!("/userdata/{WORKFLOWS}{}", percent_encode(name)));
                self.done(request.body(content.to_vec())).await.map(|_| name.to_owned())
            }
            Kind::Setting => {
                let value = json!(String::from_utf8_lossy(content)).to_string();
                let request = Request::post_json(format!("/settings/{}", percent_encode(name)), &value);
                self.done(request).await.map(|_| name.to_owned())
            }
            Kind::User => Err("users are created through another request".to_owned()),
        }
    }

    /// Reads a stored file or setting: `None` if unknown, `Some(None)` if it does not exist.
    pub(super) async fn get(&self, kind: Kind, name: &str) -> Option<Option<Vec<u8>>> {
        let encoded = percent_encode(name);
        let target = match kind {
            Kind::Input | Kind::Output => format!("/view?filename={encoded}&type={}", kind.directory()),
            Kind::Workflow => format!("/userdata/{WORKFLOWS}{encoded}"),
            Kind::Setting => "/settings".to_owned(),
            Kind::User => "/users".to_owned(),
        };
        // For a deleted user, the server answers 401 or 500, which could also come from the lock.
        let (status, body) = self.ask(Request::get(target)).await?;
        if status == 404 {
            return Some(None);
        }
        if !(200..300).contains(&status) {
            return None;
        }
        let json = || serde_json::from_slice::<Value>(&body).ok();
        Some(match kind {
            Kind::Input | Kind::Output | Kind::Workflow => Some(body),
            Kind::Setting => json()?.get(name).and_then(Value::as_str).map(|text| text.as_bytes().to_vec()),
            Kind::User => json()?["users"].get(name).map(|_| name.as_bytes().to_vec()),
        })
    }
}

impl Kind {
    /// The server's name of the directory of pictures.
    fn directory(self) -> &'static str {
        if self == Self::Output { "output" } else { "input" }
    }
}
