//! Finds the public parts of a server: pages, their forms, and the requests of their scripts.

use std::{collections::BTreeSet, sync::OnceLock};

use futures_util::{StreamExt, stream};
use http::Method;
use serde::Deserialize;

use super::{
    absent::Absent,
    form::{Encoding, Field, Form, Purpose, send},
    html::{Page, on_this_server},
    scene::Visitor,
    script::Calls,
};
use crate::{
    message::{Answer, Request},
    surface::{discover::is_known, routes::Route},
};
use lockproof_model::parse::parse_as;

const IN_FLIGHT: usize = 8;
/// The maximum number of linked pages and of scripts to read.
const PAGES: usize = 16;
const SCRIPTS: usize = 12;
const LARGEST: usize = 1024 * 1024;

/// The public parts of a server.
#[derive(Debug)]
pub(super) struct Site {
    /// The requests with their answers.
    pub(super) read: Vec<(Request, Answer)>,
    /// The forms: first the detected ones, then the usual ones.
    pub(super) forms: Vec<Form>,
}

/// Usual paths for one purpose.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Usual {
    purpose: UsualPurpose,
    fields: Vec<String>,
    paths: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum UsualPurpose {
    LogIn,
    Register,
    Guest,
    Reset,
    LogOut,
}

impl UsualPurpose {
    fn purpose(self) -> Purpose {
        match self {
            Self::LogIn => Purpose::LogIn,
            Self::Register => Purpose::Register,
            Self::Guest => Purpose::Guest,
            Self::Reset => Purpose::Reset,
            Self::LogOut => Purpose::LogOut,
        }
    }
}

fn usual() -> &'static [Usual] {
    static USUAL: OnceLock<Vec<Usual>> = OnceLock::new();
    USUAL.get_or_init(|| parse_as(include_str!("usual.yaml"), "usual.yaml").expect("the list is tested"))
}

/// The usual fields for a purpose.
pub(super) fn usual_fields(purpose: Purpose) -> Vec<Field> {
    let known = usual().iter().find(|usual| usual.purpose.purpose() == purpose);
    known.map(|usual| usual.fields.iter().map(|name| Field::named(name)).collect()).unwrap_or_default()
}

impl Site {
    /// Reads the public parts, without changing the server's state.
    pub(super) async fn explore(visitor: &Visitor<'_>) -> Self {
        let login = visitor.scheme.login.as_ref();
        let absent = Absent::learn(visitor, &Method::GET).await;
        let mut read: Vec<(Request, Answer)> =
            absent.samples().map(|(path, answer)| (Request::get(path), answer.clone())).collect();
        let (mut forms, mut others): (Vec<Form>, Vec<Form>) = Default::default();
        let mut scripts: BTreeSet<String> = BTreeSet::new();
        let mut known: BTreeSet<String> = BTreeSet::new();
        let mut next = start(visitor);
        let mut room = PAGES;
        while !next.is_empty() {
            known.extend(next.iter().cloned());
            let answers: Vec<(String, Answer)> = get(visitor, &next).await;
            let mut found = BTreeSet::new();
            for (path, answer) in answers {
                let target = answer.location();
                found.extend(Some(target).filter(|t| !t.is_empty()).and_then(|t| on_this_server(&t, &path)));
                if absent.is(&path, &answer) {
                    continue;
                }
                let text = String::from_utf8_lossy(&answer.body[..answer.body.len().min(LARGEST)]).into_owned();
                if answer.media_type() == "text/html" {
                    let page = Page::parse(&text, &path);
                    forms.extend(page.forms);
                    scripts.extend(page.scripts);
                    found.extend(page.links.into_iter().filter(|link| is_page(link)));
                    others.extend(add_calls(&text, &mut forms, &mut found));
                }
                read.push((Request::get(path).header("Accept", "text/html"), answer));
            }
            let mut onward: Vec<String> = found.into_iter().filter(|path| !known.contains(path)).collect();
            // A lock's page has few links, and their text tells their purpose.
            onward.sort_by_key(|path| !concerns_a_lock(path));
            onward.truncate(room);
            next = onward;
            room -= next.len();
        }
        let scripts: Vec<String> = scripts.into_iter().take(SCRIPTS).collect();
        let mut reads = BTreeSet::new();
        for (path, script) in get(visitor, &scripts).await {
            if script.status.is_success() && !absent.is(&path, &script) {
                let text = String::from_utf8_lossy(&script.body[..script.body.len().min(LARGEST)]).into_owned();
                others.extend(add_calls(&text, &mut forms, &mut reads));
                read.push((Request::get(path), script));
            }
        }
        reads.retain(|path| !known.contains(path));
        for (path, answer) in get(visitor, &reads.into_iter().take(PAGES).collect::<Vec<_>>()).await {
            if !absent.is(&path, &answer) {
                read.push((Request::get(path).header("Accept", "text/html"), answer));
            }
        }
        let own = login.map(|login| {
            let fields =
                vec![Field::named(&login.username), Field { kind: "password".into(), ..Field::named(&login.password) }];
            Form::new(&login.path, "login", fields, Vec::new(), Encoding::Form)
        });
        // A script gives the names of fields; the page gives their types.
        let kinds: Vec<Field> =
            forms.iter().flat_map(|form| form.fields.clone()).filter(|f| !f.kind.is_empty()).collect();
        for field in forms.iter_mut().flat_map(|form| &mut form.fields).filter(|field| field.kind.is_empty()) {
            let known = kinds.iter().find(|known| known.name == field.name);
            field.kind = known.map(|known| known.kind.clone()).unwrap_or_default();
        }
        let mut all: Vec<Form> = Vec::new();
        for form in own.into_iter().chain(forms) {
            merge(&mut all, form);
        }
        let mut site = Self { read, forms: all };
        site.add_usual(visitor, others).await;
        site
    }

    /// Adds the usual forms that exist, routes with the name of one, and `others`.
    async fn add_usual(&mut self, visitor: &Visitor<'_>, others: Vec<Form>) {
        let mut wanted: Vec<Form> = others;
        let usual_form = |purpose: Purpose, path: &str| {
            let form = Form::new(path, "", usual_fields(purpose), Vec::new(), Encoding::Form);
            Form { purpose, ..form }
        };
        for usual in usual() {
            wanted.extend(usual.paths.iter().map(|path| usual_form(usual.purpose.purpose(), path)));
        }
        let named = |route: &&Route| route.method() == Method::POST && !route.path.contains('{');
        for route in visitor.routes.iter().filter(named) {
            wanted.extend(Purpose::from_words(&route.path).map(|purpose| usual_form(purpose, &route.path)));
        }
        let mut known: BTreeSet<String> = self.forms.iter().map(|form| bare(&form.path).to_owned()).collect();
        wanted.retain(|form| form.purpose != Purpose::LogOut && known.insert(bare(&form.path).to_owned()));
        let absent = Absent::learn(visitor, &Method::POST).await;
        let asked = stream::iter(wanted).map(|form| async move {
            let empty = send(&form.path, form.encoding, &[]);
            (visitor.ask(&empty).await, empty, form)
        });
        let answers: Vec<_> = asked.buffered(IN_FLIGHT).collect().await;
        for (answer, request, form) in answers {
            if let Some(answer) = answer
                && !absent.is(&form.path, &answer)
            {
                // A form that accepts an empty request shows it here.
                self.read.push((request, answer));
                self.forms.push(form);
            }
        }
        self.read.extend(absent.samples().map(|(path, answer)| (Request::new(Method::POST, path), answer.clone())));
    }
}

/// A path without its query.
fn bare(path: &str) -> &str {
    path.split('?').next().unwrap_or_default()
}

/// The start pages of a visit.
fn start(visitor: &Visitor<'_>) -> Vec<String> {
    let mut paths: Vec<String> = visitor.scheme.login.iter().map(|login| login.path.clone()).collect();
    let public = visitor.scheme.public.iter().map(|route| route.path.clone()).filter(|p| !p.contains(['*', '{']));
    paths.extend(public);
    paths.extend(usual().iter().flat_map(|usual| usual.paths.iter().cloned()));
    let read =
        |route: &&Route| route.method() == Method::GET && !route.path.contains('{') && concerns_a_lock(&route.path);
    paths.extend(visitor.routes.iter().filter(read).map(|route| route.path.clone()));
    let mut known = BTreeSet::new();
    paths.retain(|path| known.insert(path.clone()));
    paths
}

/// Requests pages like a browser.
async fn get(visitor: &Visitor<'_>, paths: &[String]) -> Vec<(String, Answer)> {
    let ask = |path: String| async move {
        let request = Request::get(&*path).header("Accept", "text/html");
        visitor.ask(&request).await.map(|answer| (path, answer))
    };
    stream::iter(paths.to_vec()).map(ask).buffered(IN_FLIGHT).filter_map(|found| async { found }).collect().await
}

fn concerns_a_lock(path: &str) -> bool {
    Purpose::from_words(path).is_some() && !path.contains("/assets/") && !path.ends_with(".css")
}

/// Whether a link may be a page.
fn is_page(path: &str) -> bool {
    let last = path.split('?').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    last.rsplit_once('.').is_none_or(|(_, ending)| ending.starts_with("htm") || ending == "php")
}

/// Adds a script's requests to the lock. Returns its other POST requests, without ComfyUI's own routes.
fn add_calls(script: &str, forms: &mut Vec<Form>, reads: &mut BTreeSet<String>) -> Vec<Form> {
    let calls = Calls::parse(script);
    forms.extend(calls.forms);
    reads.extend(calls.reads);
    calls.others.into_iter().filter(|form| !is_known(&form.path)).collect()
}

/// Adds a form, or merges it with a known one: a script may send a form that a page shows.
fn merge(forms: &mut Vec<Form>, form: Form) {
    // If no field name matches, it is another form.
    let shares = |known: &Form| {
        form.fields.is_empty() || form.fields.iter().any(|field| known.fields.iter().any(|f| f.name == field.name))
    };
    let same = forms.iter_mut().find(|known| {
        bare(&known.path) == bare(&form.path)
            && known.purpose == form.purpose
            && (known.fields.is_empty() || shares(known))
    });
    match same {
        None => forms.push(form),
        Some(known) => {
            // The form's own fields are known; from the other one, take only fields that the server may require.
            let more: Vec<Field> =
                form.fields.iter().filter(|field| !field.value.is_empty() || !known.has_password()).cloned().collect();
            *known = known.clone().with_fields(&more);
            for button in form.buttons {
                if !known.buttons.contains(&button) {
                    known.buttons.push(button);
                }
            }
            if form.encoding == Encoding::Json {
                known.encoding = Encoding::Json;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_usual_paths_can_be_read() {
        let paths: Vec<&String> = usual().iter().flat_map(|usual| &usual.paths).collect();
        assert!(paths.len() > 50 && paths.iter().all(|path| path.starts_with('/')));
        assert_eq!(paths.iter().collect::<BTreeSet<_>>().len(), paths.len());
        assert_eq!(usual_fields(Purpose::LogIn), [Field::named("username"), Field::named("password")]);
    }
}
