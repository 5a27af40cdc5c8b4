//! Checks whether a visitor can obtain access from the server itself, by trying it: submits random
//! credentials to the login form, and uses the returned cookie.

use std::sync::OnceLock;

use regex::Regex;

use super::{
    client::Client,
    decide::{Kind, decide, kind},
    look::{Look, Works, is_refusal, session_works},
    message::{Outcome, Request, in_words},
};
use crate::{
    keys::form,
    scheme::{Presentation, Scheme},
    secret,
    surface::corpus::credentials::{WRONG, empty_values},
};

/// A way for visitors to obtain access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Described in one sentence.
    pub how: String,
    /// The request.
    pub request: Request,
    /// Its answer.
    pub got: String,
    /// Whether it is the empty token.
    pub empty_token: bool,
}

/// Tries the empty token in every way of presenting a token; this changes nothing.
pub async fn empty_token(client: &Client, scheme: &Scheme, look: &Look) -> Option<Claim> {
    for seen in look.sentinels.iter().filter(|seen| !seen.decision.let_through()) {
        let through = |outcome: &Outcome| match seen.token.as_ref().ok().filter(|a| !is_refusal(a)) {
            Some(reference) => decide(outcome, Some(reference)).let_through(),
            // A page with 200 may be the login page; JSON data is not.
            None => outcome
                .as_ref()
                .is_ok_and(|a| a.status.is_success() && matches!(kind(a), Kind::Object(_) | Kind::Array)),
        };
        for (request, wrong, how) in empty_forms(&seen.request, scheme) {
            let outcome = client.send(&request).await;
            // If any token is accepted, the empty one is not special.
            if through(&outcome) && !through(&client.send(&wrong).await) {
                return Some(Claim { how, request, got: in_words(&outcome), empty_token: true });
            }
        }
    }
    None
}

/// The sentinel with an empty token, with a wrong one, and a description of the first.
fn empty_forms(plain: &Request, scheme: &Scheme) -> Vec<(Request, Request, String)> {
    let mut forms = Vec::new();
    for how in &scheme.present {
        match how {
            Presentation::Query { query } => {
                let empty = plain.clone().query(query, "");
                let words = format!("an empty `?{query}=` is accepted as the token");
                forms.push((empty, plain.clone().query(query, WRONG), words));
            }
            Presentation::Header { header, value } => {
                let words = format!("an `{header}` header without a token is accepted");
                let wrong = plain.clone().header(header, crate::keys::filled(value, WRONG));
                forms.extend(
                    empty_values(value)
                        .into_iter()
                        .map(|empty| (plain.clone().header(header, empty), wrong.clone(), words.clone())),
                );
            }
        }
    }
    forms
}

/// Submits random credentials to the login form, then default ones, then a guest login. If one
/// succeeds, the server's state has changed.
pub async fn form_claim(client: &Client, scheme: &Scheme, look: &Look) -> Option<Claim> {
    let login = scheme.login.as_ref()?;
    let (user, password) = (secret::random(12), secret::random(24));
    // Random, so they are replaced: reports would otherwise differ in every run.
    secret::register_as(&user, "A-VISITOR");
    secret::register_as(&password, "MADE-UP");
    let guest = Request::new(http::Method::POST, login.path.clone())
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(format!("guest_mode=1&{}=guest&{}=guest", login.username, login.password));
    let mut tries = vec![
        (form(login, &user, &password), "the login form accepts a password chosen by a visitor"),
        (form(login, "admin", "admin"), "the login form accepts a default password (admin/admin)"),
        (form(login, "admin", "password"), "the login form accepts a default password (admin/password)"),
        (form(login, "comfyui", "comfyui"), "the login form accepts a default password (comfyui/comfyui)"),
        (form(login, "", ""), "the login form accepts an empty password"),
        (guest, "the login form accepts guests"),
        // The first attempt may only have set the password, without a login.
        (form(login, &user, &password), "the login form accepts a password that a visitor chose before"),
    ];
    // A page may have other buttons than the login: to reset, to register.
    if let Ok(page) = client.send(&Request::get(login.path.clone())).await {
        for (name, value) in named_buttons(&String::from_utf8_lossy(&page.body)) {
            let mut pressed = form(login, &user, &password);
            let text = format!(
                "{}&{}={}",
                String::from_utf8_lossy(&pressed.body),
                secret::percent_encode(&name),
                secret::percent_encode(&value)
            );
            pressed.body = text.into();
            tries.push((pressed, "a button on the login page gives access to any visitor"));
        }
    }
    for (request, how) in tries {
        let outcome = client.send(&request).await;
        let Some(cookie) = outcome.as_ref().ok().and_then(|a| a.cookies()) else { continue };
        if session_works(client, scheme, &cookie, &look.sentinels).await == Works::Yes {
            return Some(Claim { how: how.to_owned(), request, got: in_words(&outcome), empty_token: false });
        }
    }
    None
}

/// The buttons of a page that send their own name, with their values.
fn named_buttons(page: &str) -> Vec<(String, String)> {
    static BUTTON: OnceLock<Option<Regex>> = OnceLock::new();
    static ATTRIBUTE: OnceLock<Option<Regex>> = OnceLock::new();
    let button = BUTTON.get_or_init(|| Regex::new(r#"(?is)<(?:button|input)\b([^>]*)>"#).ok());
    let attribute = ATTRIBUTE.get_or_init(|| Regex::new(r#"(?i)\b(name|value|type)\s*=\s*["']([^"']*)["']"#).ok());
    let (Some(button), Some(attribute)) = (button, attribute) else { return Vec::new() };
    button
        .captures_iter(page)
        .filter_map(|found| {
            let inside = &found[1];
            let get = |name: &str| {
                attribute.captures_iter(inside).find(|a| a[1].eq_ignore_ascii_case(name)).map(|a| a[2].to_owned())
            };
            let is_button =
                found[0].to_lowercase().starts_with("<button") || get("type").is_some_and(|t| t == "submit");
            is_button.then(|| Some((get("name")?, get("value").unwrap_or_default()))).flatten()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buttons_with_a_name_are_found() {
        let page = r#"<input name="username"><button>Log in</button>
            <button type="submit" name="reset" value="1">Forgotten?</button><input type='submit' name='go'>"#;
        assert_eq!(named_buttons(page), [("reset".to_owned(), "1".to_owned()), ("go".to_owned(), String::new())]);
    }
}
