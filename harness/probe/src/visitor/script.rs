//! Reads the requests of scripts: their paths and the names of their fields.

use std::sync::LazyLock;

use regex::Regex;

use super::form::{Encoding, Field, Form, Purpose};
use super::pattern::pattern;

/// The searched length before a call for its body's fields, and after it for its options, in bytes.
const BEFORE: usize = 1200;
const BEHIND: usize = 700;
/// The maximum number of calls per script.
const CALLS: usize = 24;

static CALL: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r#"((?:fetchApi|\bfetch|axios(?:\.[a-z]+)?|\$\.[a-zA-Z]+|\.open)\(\s*(?:\{[^{}]*?url\s*:\s*|["'`](?:GET|POST|PUT|get|post|put)["'`]\s*,\s*|[a-zA-Z_.]*URL\(\s*)?)["'`](/[^"'`\s]*)["'`]?\)?"#,
    )
});

/// The requests of a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Calls {
    /// Its POST requests, as forms.
    pub(super) forms: Vec<Form>,
    /// Its POST requests without a known purpose.
    pub(super) others: Vec<Form>,
    /// The paths of its GET requests.
    pub(super) reads: Vec<String>,
}

impl Calls {
    /// The calls of a script that concern a lock, detected by their paths or field names.
    pub(super) fn parse(script: &str) -> Self {
        let mut calls = Self::default();
        let found: Vec<_> = CALL.captures_iter(script).collect();
        for (index, call) in found.iter().enumerate() {
            let (Some(all), Some(path)) = (call.get(0), call.get(2)) else { continue };
            let path = path.as_str().split(['$', '#']).next().unwrap_or_default();
            if path.len() < 2 || path.starts_with("//") {
                continue;
            }
            let last = index.checked_sub(1).and_then(|i| found.get(i)?.get(0)).map_or(0, |m| m.end());
            let next = found.get(index + 1).and_then(|c| c.get(0)).map_or(script.len(), |m| m.start());
            let before = slice(script, all.start().saturating_sub(BEFORE).max(last), all.start());
            let behind = slice(script, all.end(), (all.end() + BEHIND).min(next));
            let (mut fields, json) = fields(before, behind);
            let concerns =
                Purpose::from_words(path).is_some() || fields.iter().any(|f| f.is_password() || f.is_guest());
            if calls.forms.len() + calls.others.len() + calls.reads.len() >= CALLS {
                break;
            }
            let head = call.get(1).map_or("", |m| m.as_str()).to_ascii_lowercase();
            let posts = head.contains("post") || head.contains("put") || method(behind) == "POST";
            if posts {
                fields.retain(|field| !field.name.is_empty());
                let encoding = if json { Encoding::Json } else { Encoding::Form };
                let list = if concerns { &mut calls.forms } else { &mut calls.others };
                list.push(Form::new(path, "", fields, Vec::new(), encoding));
            } else if concerns {
                calls.reads.push(path.to_owned());
            }
        }
        calls
    }
}

fn slice(text: &str, from: usize, to: usize) -> &str {
    let from = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    let to = (0..=to.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(from..to).unwrap_or_default()
}

/// The method in the options of a call.
fn method(behind: &str) -> String {
    static METHOD: LazyLock<Regex> = LazyLock::new(|| pattern(r#"\b(?:method|type)\s*:\s*["'`]([A-Za-z]+)["'`]"#));
    METHOD.captures(behind).map_or_else(|| "GET".to_owned(), |found| found[1].to_ascii_uppercase())
}

/// The fields of a call's body, with literal values, and whether they are sent as JSON.
fn fields(before: &str, behind: &str) -> (Vec<Field>, bool) {
    static APPENDED: LazyLock<Regex> =
        LazyLock::new(|| pattern(r#"\.(?:append|set)\(\s*["'`]([A-Za-z][\w-]*)["'`]\s*,\s*(?:["'`]([^"'`]*)["'`])?"#));
    static LITERAL: LazyLock<Regex> = LazyLock::new(|| {
        pattern(r"(JSON\.stringify\(|URLSearchParams\(|(?:body|data)\s*[:=]\s*|^\s*,\s*)\{([^{}]*)\}")
    });
    static MEMBER: LazyLock<Regex> = LazyLock::new(|| {
        pattern(r#"["']?([A-Za-z][\w-]*)["']?\s*(?::\s*(?:["'`]([^"'`]*)["'`]|(true|false|\d+)\b|[^,]+))?(?:,|$)"#)
    });
    let mut fields: Vec<Field> = Vec::new();
    let mut add = |name: &str, value: &str| {
        let options = ["method", "headers", "credentials", "body", "mode", "cache", "redirect"];
        if !options.contains(&name) && !fields.iter().any(|field| field.name == name) {
            fields.push(Field { value: value.to_owned(), ..Field::named(name) });
        }
    };
    for text in [before, behind] {
        for found in APPENDED.captures_iter(text) {
            // `append` is used for headers too.
            if !found[1].contains("Content-Type") && !found[1].eq_ignore_ascii_case("Accept") {
                add(&found[1], found.get(2).map_or("", |value| value.as_str()));
            }
        }
    }
    let mut json = false;
    for text in [behind, before] {
        for found in LITERAL.captures_iter(text) {
            // The second argument of `axios.post` is the body, that of `fetch` its options.
            json |= found[1].starts_with("JSON") || found[1].trim() == "," && !found[2].contains("method");
            for part in MEMBER.captures_iter(found[2].trim()) {
                let value = part.get(2).or_else(|| part.get(3)).map_or("", |value| value.as_str());
                add(&part[1], value);
            }
        }
    }
    (fields, json || behind.contains("application/json") || behind.contains("JSON.stringify"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(script: &str) -> Vec<String> {
        let calls = Calls::parse(script);
        let names = |form: &Form| {
            let named = form.fields.iter().map(|f| match f.value.as_str() {
                "" => f.name.clone(),
                value => format!("{}={value}", f.name),
            });
            named.collect::<Vec<_>>().join(",")
        };
        let posts = calls.forms.iter().map(|f| format!("{:?} {} {:?} {}", f.purpose, f.path, f.encoding, names(f)));
        posts.chain(calls.reads.iter().map(|path| format!("GET {path}"))).collect()
    }

    #[test]
    fn calls_are_read_with_the_names_of_their_fields() {
        assert_eq!(
            told(
                r#"const d = new FormData(form); d.set("guest_login", "true");
                   const r = await fetch("/login", { method: "POST", body: d });"#
            ),
            ["LogIn /login Form guest_login=true"]
        );
        assert_eq!(
            told(
                r#"fetch('/api/join', {method:'POST',headers:{'Content-Type':'application/json'},body:JSON.stringify({email, secret_pw: p, guest: true})})"#
            ),
            ["Register /api/join Json email,secret_pw,guest=true"]
        );
        assert_eq!(
            told(r#"axios.post(`/v1/token`, { "user": u, "pass": p }); axios.get("/guest/key?x=1")"#),
            ["LogIn /v1/token Json user,pass", "GET /guest/key?x=1"]
        );
        assert_eq!(
            told(
                r#"var x = new XMLHttpRequest(); x.open("POST", "/unlock"); x.send(new URLSearchParams({ code: c }))"#
            ),
            ["LogIn /unlock Form code"]
        );
    }

    #[test]
    fn calls_that_say_not_what_for_come_apart() {
        let enter = r#"fetch("/lab/enter", { method: "POST", body: JSON.stringify({ nickname, accept: true }) })"#;
        let others = Calls::parse(enter).others;
        assert_eq!((others.len(), others[0].path.as_str(), others[0].fields.len()), (1, "/lab/enter", 2));
        assert_eq!(
            told(r#"api.fetchApi("/queue"); fetch("/prompt", {method: "POST", body: JSON.stringify({prompt})})"#),
            [""; 0]
        );
    }
}
