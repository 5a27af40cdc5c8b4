//! Whether a visitor can obtain access from the server itself. It is decided by doing: random
//! credentials are posted to the login form, and the cookie that comes back is tried.

use super::{
    client::Client,
    look::{Look, Works, session_works},
    message::{Request, in_words},
};
use crate::{
    keys::form,
    scheme::{Presentation, Scheme},
    secret,
};

/// How a visitor gets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// In one sentence.
    pub how: String,
    /// The request that does it.
    pub request: Request,
    /// What it got.
    pub got: String,
    /// Whether it was the empty token.
    pub empty_token: bool,
}

/// Tries the empty token, which changes nothing.
pub async fn empty_token(client: &Client, scheme: &Scheme, look: &Look) -> Option<Claim> {
    for how in &scheme.present {
        let Presentation::Query { query } = how else { continue };
        for seen in &look.sentinels {
            let request = seen.request.clone().query(query, "");
            let outcome = client.send(&request).await;
            let reference = seen.token.as_ref().ok().filter(|a| a.status.is_success());
            if super::decide::decide(&outcome, reference).let_through() && !seen.decision.let_through() {
                return Some(Claim {
                    how: format!("an empty `?{query}=` is taken for the token"),
                    request,
                    got: in_words(&outcome),
                    empty_token: true,
                });
            }
        }
    }
    None
}

/// Posts credentials that nobody knows to the login form, then those that products are shipped
/// with, then asks to be a guest. When one works, the server's state has changed.
pub async fn form_claim(client: &Client, scheme: &Scheme, look: &Look) -> Option<Claim> {
    let login = scheme.login.as_ref()?;
    let (user, password) = (secret::random(12), secret::random(24));
    secret::register(&password);
    let guest = Request::new(http::Method::POST, login.path.clone())
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(format!("guest_mode=1&{}=guest&{}=guest", login.username, login.password));
    let tries = [
        (form(login, &user, &password), "the login form takes a password that a visitor has just made up"),
        (form(login, "admin", "admin"), "the login form takes a default password (admin/admin)"),
        (form(login, "admin", "password"), "the login form takes a default password (admin/password)"),
        (form(login, "comfyui", "comfyui"), "the login form takes a default password (comfyui/comfyui)"),
        (form(login, "", ""), "the login form takes an empty password"),
        (guest, "the login form lets a visitor in as a guest"),
    ];
    for (request, how) in tries {
        let outcome = client.send(&request).await;
        let Some(cookie) = outcome.as_ref().ok().and_then(|a| a.cookies()) else { continue };
        if session_works(client, scheme, &cookie, &look.sentinels).await == Works::Yes {
            return Some(Claim { how: how.to_owned(), request, got: in_words(&outcome), empty_token: false });
        }
    }
    None
}
