//! How a lock works, as data: how it is known, where its state lies, how a token is minted and
//! presented, what stays public, and what the loss of each state does.
//!
//! A scheme file is YAML with the keys of [`Scheme`]; the built-in ones are written the same way.

use std::{collections::BTreeMap, path::Path};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as DeError, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{
    error::{Error, Result},
    parse::{parse_as, suggest},
    state::State,
    verdict::Verdict,
};

/// The schemes that lockproof brings.
const BUILT_IN: &[(&str, &str)] = &[
    ("comfyui-login", include_str!("builtin/comfyui-login.yaml")),
    ("http-basic", include_str!("builtin/http-basic.yaml")),
];

/// How a lock works.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scheme {
    /// The name by which `use:` finds it.
    pub name: String,
    /// What people call it.
    #[serde(default)]
    pub title: String,
    /// The plugin's own files; none: the lock is no custom node, but stands in front of ComfyUI, in a
    /// container of its own or in ComfyUI's.
    #[serde(default)]
    pub plugin: PluginFacts,
    /// Where the credential lies.
    #[serde(default)]
    pub credential: Option<CredentialFacts>,
    /// Where the key that signs sessions lies.
    #[serde(default)]
    pub session_key: Option<SessionKeyFacts>,
    /// The login form.
    #[serde(default)]
    pub login: Option<LoginFacts>,
    /// How a token is shown, the preferred way first.
    pub present: Vec<Presentation>,
    /// What anybody may ask.
    #[serde(default)]
    #[schemars(with = "Vec<WrittenRoute>")]
    pub public: Vec<PublicRoute>,
    /// Further sentinels, beside the four of the contract.
    #[serde(default)]
    pub sentinels: Vec<SentinelRoute>,
    /// The verdict when a state is lost; none: no change.
    #[serde(default)]
    pub on_loss: BTreeMap<State, Verdict>,
}

/// The plugin's own files.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginFacts {
    /// The file that makes its directory a plugin.
    #[serde(default)]
    pub entry: String,
    /// Files that list its Python dependencies.
    #[serde(default)]
    pub requirements: Vec<String>,
    /// Globs by which its directory is known below custom_nodes; the first that matches wins.
    #[serde(default)]
    pub names: Vec<String>,
    /// Globs of files that change while it runs.
    #[serde(default)]
    pub volatile: Vec<String>,
}

/// Where the credential lies.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CredentialFacts {
    /// The path in the container; `{code_dir}`, `{custom_nodes}`, `{plugin_dir}` and `{found}` are
    /// filled in.
    pub file: String,
    /// What of the file is the token.
    pub token: TokenIn,
    /// Where a configuration in the container names the file, which is `{found}` then.
    #[serde(default)]
    pub named_by: Option<NamedBy>,
    /// How the file is written anew when the credential is changed; none: it cannot be.
    #[serde(default)]
    pub rotate: Option<Rotation>,
}

/// A configuration that names a file.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedBy {
    /// The directories in which the configuration lies; a relative path counts from the first one
    /// that is there.
    pub below: Vec<String>,
    /// The words after which the path stands.
    pub directives: Vec<String>,
}

/// How a credential file is written anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rotation {
    /// The first line becomes the bcrypt hash of a new password; the other lines stay.
    Bcrypt,
}

/// What of a file is the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TokenIn {
    /// The first line.
    FirstLine,
    /// The whole file, without white space around it.
    Whole,
    /// Nothing: the file holds hashes, from which no token can be told.
    None,
}

impl TokenIn {
    /// The token in the text of the file, if there is one.
    pub fn of(self, text: &str) -> Option<String> {
        let token = match self {
            Self::FirstLine => text.lines().next().unwrap_or_default().trim(),
            Self::Whole => text.trim(),
            Self::None => "",
        };
        (!token.is_empty()).then(|| token.to_owned())
    }
}

/// Where the key that signs sessions lies.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionKeyFacts {
    /// The path in the container, with the same names to fill in.
    pub file: String,
}

/// The login form.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginFacts {
    /// The path of the page, which is also where the form is posted.
    pub path: String,
    /// The field of the user name.
    pub username: String,
    /// The field of the password.
    pub password: String,
}

/// One way to show a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub enum Presentation {
    /// In a header; `{token}` is filled in, and `{basic}` with its base64 form (RFC 7617), for a token
    /// that is `name:password`.
    Header {
        /// The header's name.
        header: String,
        /// Its value.
        value: String,
    },
    /// In the query.
    Query {
        /// The parameter's name.
        query: String,
    },
}

/// Read by hand: an unknown key of an untagged enum would only be "no variant".
impl<'de> Deserialize<'de> for Presentation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Written {
            header: Option<String>,
            value: Option<String>,
            query: Option<String>,
        }
        match Written::deserialize(deserializer)? {
            Written { header: Some(header), value: Some(value), query: None } => Ok(Self::Header { header, value }),
            Written { header: None, value: None, query: Some(query) } => Ok(Self::Query { query }),
            _ => Err(D::Error::custom(
                "a token is shown in a header, { header: Authorization, value: \"Bearer {token}\" }, \
                 or in the query, { query: token }",
            )),
        }
    }
}

/// A route that anybody may ask.
#[derive(Clone, Debug, Serialize)]
pub struct PublicRoute {
    /// The method; none: every one.
    pub method: Option<String>,
    /// The path; `*` matches anything.
    pub path: String,
}

/// A public route as it may be written.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it is there for the published schema alone")]
enum WrittenRoute {
    /// The path, for every method; `*` matches anything.
    Path(String),
    /// With a method.
    Route(NamedRoute),
}

/// A public route with its method.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NamedRoute {
    /// The method; none: every one.
    #[serde(default)]
    method: Option<String>,
    /// The path; `*` matches anything.
    path: String,
}

impl<'de> Deserialize<'de> for PublicRoute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Route;
        impl<'de> Visitor<'de> for Route {
            type Value = PublicRoute;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a path, or { method: GET, path: /login }")
            }

            fn visit_str<E: DeError>(self, path: &str) -> std::result::Result<PublicRoute, E> {
                Ok(PublicRoute { method: None, path: path.to_owned() })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<PublicRoute, A::Error> {
                let NamedRoute { method, path } = NamedRoute::deserialize(MapAccessDeserializer::new(map))?;
                Ok(PublicRoute { method, path })
            }
        }
        deserializer.deserialize_any(Route)
    }
}

/// A further sentinel.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SentinelRoute {
    /// The method. Default: GET.
    #[serde(default)]
    pub method: Option<String>,
    /// The path.
    pub path: String,
}

/// The JSON Schema of scheme files, as it is published in `docs/scheme.schema.json`.
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(Scheme).to_value()
}

impl Scheme {
    /// The scheme that is meant when none is named.
    pub const DEFAULT: &str = "comfyui-login";

    /// The built-in scheme of that name, or the scheme file at that path below `base`.
    ///
    /// # Errors
    /// A usage error when there is neither, or the file is wrong.
    pub fn find(name: &str, base: &Path) -> Result<Self> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            return parse_as(text, name);
        }
        let path = base.join(name);
        let text = crate::read::text(&path, crate::read::SHORT).map_err(|e| {
            Error::usage(format!(
                "there is no scheme `{name}`: it is not built in, and {} cannot be read",
                path.display()
            ))
            .at("scheme.use")
            .detail(e)
            .fix(format!("the built-in schemes are: {}", built_in_names()))
        })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads the text of a scheme file; `shown` is its name in messages.
    ///
    /// # Errors
    /// A usage error with the place of what is wrong.
    pub fn parse(text: &str, shown: &str) -> Result<Self> {
        let scheme: Self = parse_as(text, shown)?;
        if scheme.present.is_empty() {
            return Err(Error::usage("the scheme does not say how a token is shown")
                .at(shown)
                .fix("add present: [{ header: Authorization, value: \"Bearer {token}\" }]"));
        }
        scheme.check_names().map_err(|e| e.or_at(shown))?;
        scheme.check_patterns().map_err(|e| e.or_at(shown))?;
        Ok(scheme)
    }

    /// Whether every name in braces is one that is filled in: any other would be sent, or looked for,
    /// as it stands.
    fn check_names(&self) -> Result<()> {
        for how in &self.present {
            let Presentation::Header { header, value } = how else { continue };
            known_names(value, &TOKEN_NAMES, &format!("present: the value of {header}"))?;
            if !TOKEN_NAMES.iter().any(|name| value.contains(&format!("{{{name}}}"))) {
                return Err(Error::usage(format!("the value of {header}, `{value}`, has no token in it")).fix(
                    "write {token} where the token stands, or {basic} for its base64 form: value: \"Bearer {token}\"",
                ));
            }
        }
        let files = [
            ("credential.file", self.credential.as_ref().map(|c| &c.file)),
            ("session_key.file", self.session_key.as_ref().map(|k| &k.file)),
        ];
        for (place, file) in files {
            known_names(file.map_or("", String::as_str), &PATH_NAMES, place)?;
        }
        Ok(())
    }

    /// Whether every glob and every method can be read: one that cannot would match nothing, or be sent as GET.
    fn check_patterns(&self) -> Result<()> {
        let globs = self.public.iter().map(|route| ("public", &route.path));
        let globs = globs.chain(self.plugin.names.iter().map(|glob| ("plugin.names", glob)));
        for (place, glob) in globs.chain(self.plugin.volatile.iter().map(|glob| ("plugin.volatile", glob))) {
            globset::Glob::new(glob).map_err(|e| {
                Error::usage(format!("{place}: `{glob}` is not a pattern: {}", e.kind())).fix("`*` matches anything")
            })?;
        }
        let methods = self.sentinels.iter().map(|route| ("sentinels", &route.method));
        for (place, method) in methods.chain(self.public.iter().map(|route| ("public", &route.method))) {
            let Some(method) = method else { continue };
            if method.is_empty() || !method.bytes().all(|b| b.is_ascii_uppercase()) {
                return Err(Error::usage(format!("{place}: `{method}` is not an HTTP method"))
                    .fix("write it in capitals, such as GET or POST"));
            }
        }
        Ok(())
    }

    /// Whether the lock is no custom node, but a proxy in front of ComfyUI.
    pub fn in_front(&self) -> bool {
        self.plugin.entry.is_empty()
    }

    /// Whether a token is a name and a password.
    pub fn is_basic(&self) -> bool {
        let basic = |how: &Presentation| matches!(how, Presentation::Header { value, .. } if value.contains("{basic}"));
        self.present.first().is_some_and(basic)
    }

    /// Whether anybody may ask `method` `path`, with or without the prefix `/api`.
    pub fn is_public(&self, method: &str, path: &str) -> bool {
        let bare = path.strip_prefix("/api").filter(|rest| rest.starts_with('/')).unwrap_or(path);
        self.public.iter().any(|route| {
            route.method.as_deref().is_none_or(|m| m.eq_ignore_ascii_case(method))
                && (matches(&route.path, path) || matches(&route.path, bare))
        })
    }

    /// What the loss of `state` alone does to a lock that held.
    pub fn verdict_without(&self, state: State) -> Option<Verdict> {
        self.on_loss.get(&state).copied()
    }
}

/// What is filled in where a token is shown.
const TOKEN_NAMES: [&str; 2] = ["token", "basic"];
/// What is filled in in paths.
const PATH_NAMES: [&str; 4] = ["code_dir", "custom_nodes", "plugin_dir", "found"];

fn known_names(text: &str, known: &[&str], place: &str) -> Result<()> {
    let names = text.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
    for name in names {
        if !known.contains(&name) {
            let listed = known.iter().map(|name| format!("{{{name}}}")).collect::<Vec<_>>().join(", ");
            return Err(Error::usage(format!("{place}: nothing is filled in for {{{name}}}"))
                .fix(format!("{}; the names here are: {listed}", suggest(name, known, "names"))));
        }
    }
    Ok(())
}

fn matches(pattern: &str, path: &str) -> bool {
    pattern == path || globset::Glob::new(pattern).is_ok_and(|glob| glob.compile_matcher().is_match(path))
}

fn built_in_names() -> String {
    BUILT_IN.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_scheme_can_be_read() {
        for (name, _) in BUILT_IN {
            let scheme = Scheme::find(name, Path::new(".")).expect("it is ours");
            assert_eq!(scheme.name, *name);
        }
    }

    #[test]
    fn a_pattern_or_a_method_that_cannot_be_read_is_refused() {
        let of = |more: &str| {
            let text = format!("name: a\npresent: [{{ header: X, value: \"{{token}}\" }}]\n{more}\n");
            Scheme::parse(&text, "a.yaml").map(|_| ()).map_err(|e| e.to_string())
        };
        of("public: [/static/*]").expect("it is right");
        for (more, told) in [
            ("public: [\"/a[\"]", "public: `/a[` is not a pattern"),
            ("plugin: { volatile: [\"{a\"] }", "plugin.volatile: `{a` is not a pattern"),
            ("plugin: { names: [\"[\"] }", "plugin.names: `[` is not a pattern"),
            ("sentinels: [{ method: get it, path: /a }]", "sentinels: `get it` is not an HTTP method"),
        ] {
            let error = of(more).expect_err(more);
            assert!(error.contains(told) && error.contains("a.yaml"), "{error}");
        }
    }

    #[test]
    fn only_the_login_page_is_public() {
        let scheme = Scheme::find(Scheme::DEFAULT, Path::new(".")).expect("built in");
        assert!(scheme.is_public("GET", "/login"));
        assert!(scheme.is_public("POST", "/api/login"));
        assert!(!scheme.is_public("GET", "/logins"));
        assert!(!scheme.is_public("GET", "/system_stats"));
    }

    fn read(text: &str) -> Result<Scheme> {
        let scheme: Scheme = parse_as(&format!("name: x\n{text}"), "x.yaml")?;
        scheme.check_names().map(|()| scheme)
    }

    #[test]
    fn a_public_route_may_be_a_path() {
        let scheme = read("present: [{ query: token }]\npublic: [/login, { method: GET, path: /health }]\n");
        let scheme = scheme.expect("it is right");
        assert!(scheme.is_public("POST", "/login") && scheme.is_public("GET", "/health"));
        assert!(!scheme.is_public("POST", "/health"));
    }

    #[test]
    fn a_slip_of_the_pen_names_what_was_meant() {
        let wrong = |text: &str| read(text).expect_err("it is wrong").to_string();
        for (text, said) in [
            ("present: [{ heder: X, value: \"{token}\" }]", "did you mean `header`?"),
            ("present: [{ header: X }]", "in the query, { query: token }"),
            ("present: [{ header: X, value: \"{tokn}\" }]", "did you mean `token`?"),
            ("present: [{ header: X, value: Bearer }]", "has no token in it"),
            (
                "present: [{ query: t }]\ncredential: { file: \"{codedir}/T\", token: whole }",
                "did you mean `code_dir`?",
            ),
            ("present: [{ query: t }]\nsession_key: { file: \"{nodes}/T\" }", "{custom_nodes}"),
            ("present: [{ query: t }]\npublic: [{ paht: /login }]", "did you mean `path`?"),
        ] {
            let shown = wrong(text);
            assert!(shown.contains(said), "{shown}");
        }
    }

    #[test]
    fn the_token_is_the_first_line() {
        assert_eq!(TokenIn::FirstLine.of("$2b$x \nuser"), Some("$2b$x".to_owned()));
        assert_eq!(TokenIn::FirstLine.of("\nuser"), None);
    }
}
