//! Reads a page: its forms, its scripts, and its links to other pages.

use std::sync::LazyLock;

use regex::Regex;

use super::form::{Encoding, Field, Form};
use super::pattern::pattern;

/// The contents of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    /// Its forms, and the fields outside any form.
    pub(super) forms: Vec<Form>,
    /// The scripts of this server that it loads.
    pub(super) scripts: Vec<String>,
    /// The pages of this server that it links to.
    pub(super) links: Vec<String>,
}

impl Page {
    /// Reads the page at `path`.
    pub(super) fn parse(html: &str, path: &str) -> Self {
        static FORM: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?is)<form\b([^>]*)>(.*?)</form>"));
        static LINK: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?is)<(a|script)\b([^>]*)>"));
        let mut page = Self::default();
        let mut outside = html.to_owned();
        for found in FORM.captures_iter(html) {
            let head = attributes(&found[1]);
            let action = value_of(&head, "action").unwrap_or_default();
            if let Some(target) = on_this_server(&action, path) {
                let (fields, buttons) = controls(&found[2]);
                let words = ["id", "class", "name", "onsubmit"].iter().filter_map(|name| value_of(&head, name));
                let hint = words.collect::<Vec<_>>().join(" ");
                page.forms.push(Form::new(&target, &hint, fields, buttons, Encoding::Form));
            }
            outside = outside.replacen(&found[0], "", 1);
        }
        let (fields, buttons) = controls(&outside);
        if fields.iter().any(Field::is_password) {
            page.forms.push(Form::new(path, "", fields, buttons, Encoding::Form));
        }
        for found in LINK.captures_iter(html) {
            let reads = attributes(&found[2]);
            let list = if found[1].eq_ignore_ascii_case("script") { &mut page.scripts } else { &mut page.links };
            let name = if found[1].eq_ignore_ascii_case("script") { "src" } else { "href" };
            list.extend(value_of(&reads, name).filter(|v| !v.is_empty()).and_then(|v| on_this_server(&v, path)));
        }
        page
    }
}

/// Resolves a reference of the page at `path`; `None` if it leads to another server.
pub(super) fn on_this_server(reference: &str, path: &str) -> Option<String> {
    let reference = reference.split('#').next().unwrap_or_default().trim();
    let here = path.split('?').next().unwrap_or_default();
    if reference.is_empty() || reference.starts_with("javascript:") {
        return Some(here.to_owned());
    }
    if reference.contains("://") || reference.starts_with("//") || reference.starts_with("data:") {
        return None;
    }
    if reference.starts_with('/') {
        return Some(reference.to_owned());
    }
    if reference.starts_with('?') {
        return Some(format!("{here}{reference}"));
    }
    if reference.contains(':') {
        return None;
    }
    let directory = here.rfind('/').map_or("", |end| &here[..end]);
    Some(format!("{directory}/{}", reference.trim_start_matches("./")))
}

/// The fields and named buttons of a part of a page.
fn controls(html: &str) -> (Vec<Field>, Vec<(String, String)>) {
    static CONTROL: LazyLock<Regex> =
        LazyLock::new(|| pattern(r"(?is)<(input|select|textarea|button)\b((?:[^>'\x22]|'[^']*'|\x22[^\x22]*\x22)*)>"));
    let (mut fields, mut buttons) = (Vec::new(), Vec::new());
    for found in CONTROL.captures_iter(html) {
        let reads = attributes(&found[2]);
        let kind = value_of(&reads, "type").unwrap_or_default().to_ascii_lowercase();
        let value = value_of(&reads, "value").unwrap_or_default();
        let is_button =
            found[1].eq_ignore_ascii_case("button") || matches!(kind.as_str(), "submit" | "button" | "image");
        // A field that only a script reads has an id, which is often its name in the request.
        let name = value_of(&reads, "name").or_else(|| value_of(&reads, "id").filter(|_| !is_button));
        match name.filter(|name| !name.is_empty()) {
            Some(name) if is_button => buttons.push((name, value)),
            Some(name) => fields.push(Field { name, kind, value }),
            None => {}
        }
    }
    (fields, buttons)
}

fn attributes(text: &str) -> Vec<(String, String)> {
    static ATTRIBUTE: LazyLock<Regex> =
        LazyLock::new(|| pattern(r#"([A-Za-z_:@][-A-Za-z0-9_:.@]*)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))"#));
    ATTRIBUTE
        .captures_iter(text)
        .map(|found| {
            let value = [2, 3, 4].iter().find_map(|group| found.get(*group)).map_or("", |value| value.as_str());
            (found[1].to_ascii_lowercase(), decoded(value))
        })
        .collect()
}

fn value_of(attributes: &[(String, String)], name: &str) -> Option<String> {
    attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
}

fn decoded(text: &str) -> String {
    let quotes = text.replace("&quot;", "\"").replace("&#34;", "\"").replace("&#39;", "'").replace("&#x27;", "'");
    quotes.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_with_its_fields_and_named_buttons() {
        let html = r#"<form action="/join?x=1" id='signup'><input name="email" type=email><input type=password name=pw>
            <button name="reset" value="1">Forgotten?</button><input type='submit' name='go'><button>Go</button></form>"#;
        let page = Page::parse(html, "/login");
        let form = &page.forms[0];
        assert_eq!(form.path, "/join?x=1");
        assert_eq!(form.fields.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["email", "pw"]);
        assert_eq!(form.buttons, [("reset".to_owned(), "1".to_owned()), ("go".to_owned(), String::new())]);
    }

    #[test]
    fn fields_outside_of_a_form_are_posted_to_the_page_itself() {
        let page = Page::parse(r#"<input id="user"><input id="pass" type="password"><button>x</button>"#, "/login?a=1");
        assert_eq!(page.forms.len(), 1);
        assert_eq!((page.forms[0].path.as_str(), page.forms[0].fields.len()), ("/login?a=1", 2));
        assert!(Page::parse(r#"<input id="search">"#, "/").forms.is_empty());
    }

    #[test]
    fn only_what_is_on_this_server_is_followed() {
        let html = r#"<script src="js/auth.js?v=1"></script><script src="https://cdn.example/x.js"></script>
            <a href="/register">r</a><a href="mailto:x@y">m</a><a href="//other/x">o</a>"#;
        let page = Page::parse(html, "/lock/login");
        assert_eq!(page.scripts, ["/lock/js/auth.js?v=1"]);
        assert_eq!(page.links, ["/register"]);
    }
}
