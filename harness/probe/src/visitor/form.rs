//! A form of a page or a script, and its requests.

use http::Method;
use serde_json::{Map, Value, json};

use crate::message::Request;
use lockproof_model::secret;

/// The encoding of a form's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Encoding {
    /// The default of browsers: `application/x-www-form-urlencoded`.
    Form,
    /// As a JSON object.
    Json,
}

impl Encoding {
    /// The other one.
    pub(super) fn other(self) -> Self {
        match self {
            Self::Form => Self::Json,
            Self::Json => Self::Form,
        }
    }
}

/// The purpose of a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// Logs in with a password, or returns a token.
    LogIn,
    /// Registers an account.
    Register,
    /// Logs in as a guest.
    Guest,
    /// Resets a password.
    Reset,
    /// Logs out.
    LogOut,
}

impl Purpose {
    /// The purpose that the words of a path, a form's id or a field's name suggest.
    pub(super) fn from_words(words: &str) -> Option<Self> {
        let words = words.to_ascii_lowercase();
        let says = |known: &[&str]| known.iter().any(|word| words.contains(word));
        if says(&["logout", "signout", "sign_out", "log_out", "logoff"]) {
            Some(Self::LogOut)
        } else if says(&[
            "register", "signup", "sign-up", "sign_up", "enroll", "join", "new_user", "setup", "invite", "create",
        ]) {
            Some(Self::Register)
        } else if says(&["reset", "forgot", "recover", "lost"]) {
            Some(Self::Reset)
        } else if says(&["guest", "anonymous", "demo", "trial"]) {
            Some(Self::Guest)
        } else if says(&[
            "login", "signin", "sign-in", "sign_in", "logon", "auth", "session", "token", "key", "unlock", "pass",
        ]) {
            Some(Self::LogIn)
        } else {
            None
        }
    }
}

/// A field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// The name under which it is sent.
    pub(super) name: String,
    /// The `type` of its element, in lower case; empty if unknown.
    pub(super) kind: String,
    /// Its preset value.
    pub(super) value: String,
}

impl Field {
    /// A field of which only the name is known.
    pub(super) fn named(name: &str) -> Self {
        Self { name: name.to_owned(), kind: String::new(), value: String::new() }
    }

    fn says(&self, words: &[&str]) -> bool {
        let name = self.name.to_ascii_lowercase();
        words.iter().any(|word| name.contains(word))
    }

    /// Whether it is a password field.
    pub(super) fn is_password(&self) -> bool {
        self.kind == "password" || self.says(&["pass", "pwd", "pswd", "pw"])
    }

    /// Whether it requests a guest login.
    pub(super) fn is_guest(&self) -> bool {
        self.says(&["guest", "anonymous", "demo"])
    }

    /// Its value for these credentials.
    fn filled(&self, with: &Credentials<'_>) -> String {
        if self.is_guest() {
            let off = if self.value.is_empty() { "false" } else { &self.value };
            return if with.guest { "true".to_owned() } else { off.to_owned() };
        }
        if self.is_password() {
            return with.password.to_owned();
        }
        if self.kind == "email" || self.says(&["mail"]) {
            return if with.user.is_empty() { String::new() } else { format!("{}@example.com", with.user) };
        }
        if !self.value.is_empty() {
            return self.value.clone();
        }
        if self.kind == "checkbox" || self.says(&["accept", "agree", "terms", "remember"]) {
            return "true".to_owned();
        }
        if self.kind == "number" || self.says(&["expire", "hours", "days", "minutes", "ttl"]) {
            return "1".to_owned();
        }
        if self.says(&["csrf", "xsrf", "invite", "code", "otp", "captcha"]) {
            return String::new();
        }
        with.user.to_owned()
    }
}

/// The credentials that a visitor submits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Credentials<'a> {
    /// The user name, of letters and digits; also used for an email address.
    pub(super) user: &'a str,
    /// The password.
    pub(super) password: &'a str,
    /// Whether to request a guest login.
    pub(super) guest: bool,
}

/// A form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Form {
    /// The path of its POST request.
    pub(super) path: String,
    /// Its purpose.
    pub(super) purpose: Purpose,
    /// Its fields.
    pub(super) fields: Vec<Field>,
    /// The buttons that send their own name, with their values.
    pub(super) buttons: Vec<(String, String)>,
    /// Its encoding, as far as known.
    pub(super) encoding: Encoding,
}

impl Form {
    /// A detected form; its purpose follows from its path, `hint` and its fields.
    pub(super) fn new(
        path: &str,
        hint: &str,
        fields: Vec<Field>,
        buttons: Vec<(String, String)>,
        encoding: Encoding,
    ) -> Self {
        let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
        let bare = path.split('?').next().unwrap_or_default();
        let purpose = Purpose::from_words(bare)
            .filter(|purpose| *purpose != Purpose::LogIn)
            .or_else(|| Purpose::from_words(hint).filter(|purpose| *purpose != Purpose::Guest))
            .or_else(|| Purpose::from_words(bare))
            .or_else(|| Purpose::from_words(&names.join(" ")))
            .unwrap_or(Purpose::LogIn);
        Self { path: path.to_owned(), purpose, fields, buttons, encoding }
    }

    /// Whether it has a password field.
    pub(super) fn has_password(&self) -> bool {
        self.fields.iter().any(Field::is_password)
    }

    /// Adds missing fields.
    pub(super) fn with_fields(mut self, more: &[Field]) -> Self {
        for field in more {
            if !self.fields.iter().any(|known| known.name == field.name) {
                self.fields.push(field.clone());
            }
        }
        self
    }

    /// The request that submits it, with `extra` fields unchanged.
    pub(super) fn request(&self, encoding: Encoding, with: &Credentials<'_>, extra: &[(&str, &str)]) -> Request {
        let extra_pairs = extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let own = self.fields.iter().filter(|field| !extra.iter().any(|(name, _)| *name == field.name));
        let pairs: Vec<(String, String)> =
            own.map(|field| (field.name.clone(), field.filled(with))).chain(extra_pairs).collect();
        send(&self.path, encoding, &pairs)
    }
}

/// A request that submits fields.
pub(super) fn send(path: &str, encoding: Encoding, pairs: &[(String, String)]) -> Request {
    match encoding {
        Encoding::Form => {
            let body: Vec<String> = pairs
                .iter()
                .map(|(n, v)| format!("{}={}", secret::percent_encode(n), secret::percent_encode(v)))
                .collect();
            Request::new(Method::POST, path)
                .header("Content-Type", "application/x-www-form-urlencoded")
                .body(body.join("&"))
        }
        Encoding::Json => {
            let value = |text: &str| match text {
                "true" => json!(true),
                "false" => json!(false),
                text => text.parse::<u32>().map_or_else(|_| json!(text), |number| json!(number)),
            };
            let map: Map<String, Value> = pairs.iter().map(|(n, v)| (n.clone(), value(v))).collect();
            Request::post_json(path, &Value::Object(map).to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(request: &Request) -> String {
        String::from_utf8_lossy(&request.body).into_owned()
    }

    #[test]
    fn fields_are_filled_with_what_their_names_ask_for() {
        let names = [
            "username",
            "email",
            "password",
            "confirm_password",
            "agree",
            "expire_hours",
            "invite_code",
            "guest_login",
        ];
        let fields = names.iter().map(|name| Field::named(name)).collect();
        let form = Form::new("/register", "", fields, Vec::new(), Encoding::Form);
        let with = Credentials { user: "anna", password: "Secret1!", guest: false };
        assert_eq!(
            body(&form.request(Encoding::Form, &with, &[])),
            "username=anna&email=anna%40example.com&password=Secret1%21&confirm_password=Secret1%21&agree=true\
             &expire_hours=1&invite_code=&guest_login=false"
        );
        assert_eq!(
            body(&form.request(Encoding::Json, &Credentials { guest: true, ..with }, &[])),
            r#"{"username":"anna","email":"anna@example.com","password":"Secret1!","confirm_password":"Secret1!","agree":true,"expire_hours":1,"invite_code":"","guest_login":true}"#
        );
    }

    #[test]
    fn what_a_form_is_for_shows_in_its_path_first() {
        let purpose = |path: &str, hint: &str, field: &str| {
            Form::new(path, hint, vec![Field::named(field)], Vec::new(), Encoding::Form).purpose
        };
        assert_eq!(purpose("/register", "login-form", "password"), Purpose::Register);
        assert_eq!(purpose("/login", "register-form", "password"), Purpose::Register);
        assert_eq!(purpose("/login", "", "guest_login"), Purpose::LogIn);
        assert_eq!(purpose("/go", "", "new_user_password"), Purpose::Register);
        assert_eq!(purpose("/api/v1/guest", "", "x"), Purpose::Guest);
        assert_eq!(purpose("/logout", "", "x"), Purpose::LogOut);
    }
}
