//! Form attempts of a visitor: random credentials, default credentials, a guest login, and an account
//! that the visitor registers.

use http::StatusCode;

use super::{
    Step, Visit,
    crawl::{Site, usual_fields},
    form::{Credentials, Encoding, Form, Purpose, send},
};
use crate::{
    claim::Claim,
    message::{Answer, Outcome},
};
use lockproof_model::secret;

/// Common default credentials, as (user, password).
const DEFAULTS: [(&str, &str); 4] =
    [("admin", "admin"), ("admin", "password"), ("comfyui", "comfyui"), ("guest", "guest")];
/// The number of these to try on a lock that blocks after failed attempts.
const LIKELIEST: usize = 2;
/// Form fields that request a guest login.
const GUEST: [(&str, &str); 3] = [("guest_mode", "1"), ("guest_login", "true"), ("guest", "true")];
/// The maximum number of login forms at which a new account is tried.
const DOORS: usize = 4;

/// A random user name and password.
struct MadeUp {
    user: String,
    password: String,
}

impl MadeUp {
    /// Letters and digits, with the characters that password rules require.
    fn new() -> Self {
        let made = Self { user: secret::random(12), password: format!("{}A1!", secret::random(21)) };
        // Random, so they are replaced: reports would otherwise differ in every run.
        secret::register_as(&made.user, "A-VISITOR");
        secret::register_as(&made.password, "MADE-UP");
        made
    }

    fn credentials(&self) -> Credentials<'_> {
        Credentials { user: &self.user, password: &self.password, guest: false }
    }
}

/// The result of one attempt.
enum Tried {
    In(Vec<Step>),
    Out(Outcome),
}

impl Visit<'_> {
    /// Tries every form. Attempts that cause few failed logins come first, because a lock may count them;
    /// default passwords come last.
    pub(super) async fn try_forms(&mut self, site: &Site) -> Option<Claim> {
        let of = |purpose: Purpose| site.forms.iter().filter(move |form| form.purpose == purpose);
        let made_up = MadeUp::new();
        let doors: Vec<&Form> = of(Purpose::LogIn).take(DOORS).collect();
        for form in of(Purpose::LogIn).take(1) {
            let found = self.come_in(form, &made_up).await;
            if found.is_some() {
                return found;
            }
        }
        for form in of(Purpose::Guest) {
            if let Some(steps) = self.ask_as_guest(form).await {
                return Some(self.claim(form, "accepts guests", steps));
            }
        }
        for form in of(Purpose::Register).chain(of(Purpose::Reset)) {
            let found = self.make_account(form, &doors).await;
            if found.is_some() {
                return found;
            }
        }
        for form in of(Purpose::LogIn).skip(1) {
            let found = self.come_in(form, &made_up).await;
            if found.is_some() {
                return found;
            }
        }
        for (index, form) in of(Purpose::LogIn).enumerate() {
            let found = self.guess(form, &made_up, index == 0).await;
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Tries a form with a random password, and as a guest.
    async fn come_in(&mut self, form: &Form, made_up: &MadeUp) -> Option<Claim> {
        let form = &with_usual_fields(form);
        // On a first run, the first submitted password becomes the password.
        if let Tried::In(steps) = self.send(form, form.encoding, &made_up.credentials(), &[]).await? {
            return Some(self.claim(form, "accepts a password chosen by a visitor", steps));
        }
        let steps = self.ask_as_guest(form).await?;
        Some(self.claim(form, "accepts guests", steps))
    }

    /// Tries default passwords in both encodings, and the other buttons of a page.
    async fn guess(&mut self, form: &Form, made_up: &MadeUp, is_first: bool) -> Option<Claim> {
        let form = &with_usual_fields(form);
        let just = made_up.credentials();
        for encoding in [form.encoding, form.encoding.other()] {
            let main = is_first && encoding == form.encoding;
            let made_up_before = |how: &str| (just, format!("accepts a password {how}"), true);
            let mut tries = Vec::new();
            if encoding != form.encoding {
                tries.push(made_up_before("chosen by a visitor"));
            }
            // These do not count as failed logins if the form requires a password.
            for user in ["", just.user] {
                let empty = Credentials { user, password: "", guest: false };
                tries.push((empty, "accepts an empty password".to_owned(), true));
            }
            for (index, (user, password)) in DEFAULTS.into_iter().enumerate() {
                let how = format!("accepts a default password ({user}/{password})");
                tries.push((Credentials { user, password, guest: false }, how, main && index < LIKELIEST));
            }
            if main {
                // The first attempt may only have set the password, without a login.
                let (with, how, _) = made_up_before("that a visitor chose before");
                tries.push((with, how, false));
            }
            for (with, how, is_likely) in tries {
                // If a lock counts failed logins, only the most likely attempts run, and only at its first form.
                if self.brake.has_blocked() && !is_likely {
                    continue;
                }
                match self.send(form, encoding, &with, &[]).await? {
                    Tried::In(steps) => return Some(self.claim(form, &how, steps)),
                    // The server does not support this encoding: further attempts are pointless.
                    Tried::Out(outcome) if encoding != form.encoding && is_not_read(&outcome) => break,
                    Tried::Out(_) => {}
                }
            }
        }
        // A page may have other buttons than the login: to reset, to register.
        for (name, value) in form.buttons.iter().filter(|(name, _)| !name.to_lowercase().contains("guest")) {
            let pressed = [(name.as_str(), value.as_str())];
            if let Tried::In(steps) = self.send(form, form.encoding, &just, &pressed).await? {
                return Some(self.claim(form, "has a button that gives access to any visitor", steps));
            }
        }
        None
    }

    /// Requests a guest login with all flags at once, then determines which flag works.
    async fn ask_as_guest(&mut self, form: &Form) -> Option<Vec<Step>> {
        let flags: Vec<(&str, &str)> = form
            .fields
            .iter()
            .filter(|field| field.is_guest())
            .map(|field| (field.name.as_str(), "true"))
            .chain(GUEST)
            .collect();
        for encoding in [form.encoding, form.encoding.other()] {
            // Without a password, which could count as a failed login.
            let guest = Credentials { user: "guest", password: "", guest: true };
            let Tried::In(steps) = self.send(&with_usual_fields(form), encoding, &guest, &distinct(&flags)).await?
            else {
                continue;
            };
            for flag in std::iter::once(&[][..]).chain(flags.iter().map(std::slice::from_ref)) {
                let pairs: Vec<_> =
                    flag.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
                if let Some((_, Some(shorter))) = self.attempt(&[], send(&form.path, encoding, &pairs)).await {
                    return Some(shorter);
                }
            }
            return Some(steps);
        }
        None
    }

    /// Registers an account or resets a password, then logs in with it.
    async fn make_account(&mut self, form: &Form, doors: &[&Form]) -> Option<Claim> {
        let resets = form.purpose == Purpose::Reset;
        let how = if resets {
            "gives any visitor access by a password reset"
        } else {
            "lets any visitor register an account with access"
        };
        let form = &with_usual_fields(form);
        for encoding in [form.encoding, form.encoding.other()] {
            let made_up = MadeUp::new();
            let with =
                if resets { Credentials { user: "admin", ..made_up.credentials() } } else { made_up.credentials() };
            let (outcome, chain) = self.attempt(&[], form.request(encoding, &with, &[])).await?;
            if let Some(steps) = chain {
                self.visited.is_disturbed = true;
                return Some(self.claim(form, how, steps));
            }
            let Ok(answer) = &outcome else { continue };
            if !is_taken(answer) {
                continue;
            }
            self.visited.is_disturbed = true;
            let made = Step { request: form.request(encoding, &with, &[]), got: crate::message::in_words(&outcome) };
            for door in doors {
                for encoding in [door.encoding, door.encoding.other()] {
                    let request = with_usual_fields(door).request(encoding, &with, &[]);
                    if let (_, Some(steps)) = self.attempt(std::slice::from_ref(&made), request).await? {
                        return Some(self.claim(form, how, steps));
                    }
                }
            }
        }
        None
    }

    async fn send(
        &mut self,
        form: &Form,
        encoding: Encoding,
        with: &Credentials<'_>,
        extra: &[(&str, &str)],
    ) -> Option<Tried> {
        let (outcome, chain) = self.attempt(&[], form.request(encoding, with, extra)).await?;
        Some(chain.map_or(Tried::Out(outcome), Tried::In))
    }

    fn claim(&self, form: &Form, what: &str, steps: Vec<Step>) -> Claim {
        let is_main = self.visitor.scheme.login.as_ref().is_some_and(|login| login.path == form.path);
        let bare = form.path.split('?').next().unwrap_or_default();
        let who = if is_main { "the login form" } else { bare };
        Claim { how: format!("{who} {what}"), steps, empty_token: false }
    }
}

/// Adds the usual fields to a form whose fields are unknown.
fn with_usual_fields(form: &Form) -> Form {
    let is_known = form.has_password()
        || form.purpose == Purpose::Guest
        || form.purpose == Purpose::Reset && !form.fields.is_empty();
    if is_known { form.clone() } else { form.clone().with_fields(&usual_fields(form.purpose)) }
}

fn distinct<'a>(flags: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for flag in flags {
        if !seen.iter().any(|(name, _)| name == &flag.0) {
            seen.push(*flag);
        }
    }
    seen
}

/// Whether the server could not parse the request.
fn is_not_read(outcome: &Outcome) -> bool {
    outcome.as_ref().is_ok_and(|answer| {
        matches!(
            answer.status,
            StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE | StatusCode::UNPROCESSABLE_ENTITY
        ) || answer.status.is_server_error()
    })
}

/// Whether the submitted form may have been accepted.
fn is_taken(answer: &Answer) -> bool {
    answer.status.is_success() || answer.status.is_redirection()
}
