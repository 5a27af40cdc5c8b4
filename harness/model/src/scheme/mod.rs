//! Login schemes as data: how a lock is recognised, where its state is stored, how a token is
//! created and presented, which routes are public, and the effect of losing each state.
//!
//! A scheme file is YAML with the keys of [`Scheme`]; the built-in ones have the same format.

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

/// The built-in schemes.
const BUILT_IN: &[(&str, &str)] = &[
    ("comfyui-login", include_str!("builtin/comfyui-login.yaml")),
    ("http-basic", include_str!("builtin/http-basic.yaml")),
];

/// A login scheme: how a lock works.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scheme {
    /// Its name, for `use:`.
    pub name: String,
    /// Its display name.
    #[serde(default)]
    pub title: String,
    /// The plugin's files. Omit it if the lock is not a custom node but a proxy in front of
    /// ComfyUI, in its own container or in ComfyUI's.
    #[serde(default)]
    pub plugin: PluginFacts,
    /// The credential file.
    #[serde(default)]
    pub credential: Option<CredentialFacts>,
    /// The file with the key that signs sessions.
    #[serde(default)]
    pub session_key: Option<SessionKeyFacts>,
    /// The login form.
    #[serde(default)]
    pub login: Option<LoginFacts>,
    /// The ways to present a token, the preferred one first.
    pub present: Vec<Presentation>,
    /// The routes that need no credential.
    #[serde(default)]
    #[schemars(with = "Vec<WrittenRoute>")]
    pub public: Vec<PublicRoute>,
    /// Additional sentinels, besides the four of the contract.
    #[serde(default)]
    pub sentinels: Vec<SentinelRoute>,
    /// The verdict when a state is lost. A state without an entry has no effect.
    #[serde(default)]
    pub on_loss: BTreeMap<State, Verdict>,
}

/// The plugin's files.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginFacts {
    /// The file that makes a directory a plugin.
    #[serde(default)]
    pub entry: String,
    /// Files that list its Python dependencies.
    #[serde(default)]
    pub requirements: Vec<String>,
    /// Glob patterns for the name of its directory below custom_nodes; the first match wins.
    #[serde(default)]
    pub names: Vec<String>,
    /// Glob patterns of files that change at runtime.
    #[serde(default)]
    pub volatile: Vec<String>,
}

/// The credential file.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CredentialFacts {
    /// The path in the container, with the placeholders `{code_dir}`, `{custom_nodes}`,
    /// `{plugin_dir}` and `{found}`.
    pub file: String,
    /// Which part of the file is the token.
    pub token: TokenIn,
    /// The configuration in the container that names the file; its path replaces `{found}`.
    #[serde(default)]
    pub named_by: Option<NamedBy>,
    /// How to rewrite the file in order to change the credential. Omit it if this is not possible.
    #[serde(default)]
    pub rotate: Option<Rotation>,
}

/// A configuration that names a file.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedBy {
    /// The directories with the configuration; a relative path is resolved against the first one
    /// that exists.
    pub below: Vec<String>,
    /// The keywords before the path.
    pub directives: Vec<String>,
}

/// How to rewrite a credential file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rotation {
    /// Replaces the first line with the bcrypt hash of a new password, and keeps the other lines.
    Bcrypt,
}

/// Which part of a file is the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TokenIn {
    /// The first line.
    FirstLine,
    /// The whole file, without surrounding white space.
    Whole,
    /// None: the file contains hashes, from which no token can be derived.
    None,
}

impl TokenIn {
    /// The token in the text of the file, if any.
    pub fn of(self, text: &str) -> Option<String> {
        let token = match self {
            Self::FirstLine => text.lines().next().unwrap_or_default().trim(),
            Self::Whole => text.trim(),
            Self::None => "",
        };
        (!token.is_empty()).then(|| token.to_owned())
    }
}

/// The file with the key that signs sessions.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionKeyFacts {
    /// The path in the container, with the same placeholders.
    pub file: String,
}

/// The login form.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginFacts {
    /// The path of the login page, and of the form's POST request.
    pub path: String,
    /// The name of the user name field.
    pub username: String,
    /// The name of the password field.
    pub password: String,
}

/// A way to present a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub enum Presentation {
    /// In a header, with the placeholders `{token}` and `{basic}`: the token's base64 form (RFC
    /// 7617), for a token of the form `name:password`.
    Header {
        /// The header's name.
        header: String,
        /// Its value.
        value: String,
    },
    /// In a query parameter.
    Query {
        /// The parameter's name.
        query: String,
    },
}

/// Implemented by hand: an untagged enum would report an unknown key only as "no variant".
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
                "a token is presented in a header, { header: Authorization, value: \"Bearer {token}\" }, or \
                in the query, { query: token }",
            )),
        }
    }
}

/// A route that needs no credential.
#[derive(Clone, Debug, Serialize)]
pub struct PublicRoute {
    /// The method. Default: all methods.
    pub method: Option<String>,
    /// The path; `*` matches anything.
    pub path: String,
}

/// A public route as written in a file.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only used for the published schema")]
enum WrittenRoute {
    /// The path, for all methods; `*` matches anything.
    Path(String),
    /// With a method.
    Route(NamedRoute),
}

/// A public route with its method.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NamedRoute {
    /// The method. Default: all methods.
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

/// An additional sentinel.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SentinelRoute {
    /// The method. Default: GET.
    #[serde(default)]
    pub method: Option<String>,
    /// The path.
    pub path: String,
}

/// The JSON Schema of scheme files, as published in `docs/scheme.schema.json`.
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(Scheme).to_value()
}

impl Scheme {
    /// The default scheme.
    pub const DEFAULT: &str = "comfyui-login";

    /// The built-in scheme with that name, or the scheme file at that path below `base`.
    ///
    /// # Errors
    /// A usage error if neither exists, or if the file is invalid.
    pub fn find(name: &str, base: &Path) -> Result<Self> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            return parse_as(text, name);
        }
        let path = base.join(name);
        let text = crate::read::text(&path, crate::read::SHORT).map_err(|e| {
            Error::usage(format!("unknown scheme `{name}`: it is not built in, and {} cannot be read", path.display()))
                .at("scheme.use")
                .detail(e)
                .fix(format!("built-in schemes: {}", built_in_names()))
        })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads the text of a scheme file; `shown` is its name in messages.
    ///
    /// # Errors
    /// A usage error with position.
    pub fn parse(text: &str, shown: &str) -> Result<Self> {
        let scheme: Self = parse_as(text, shown)?;
        if scheme.present.is_empty() {
            return Err(Error::usage("the scheme has no `present`")
                .at(shown)
                .fix("add present: [{ header: Authorization, value: \"Bearer {token}\" }]"));
        }
        scheme.check_names().map_err(|e| e.or_at(shown))?;
        scheme.check_patterns().map_err(|e| e.or_at(shown))?;
        Ok(scheme)
    }

    /// Checks for unknown placeholders, which would be used literally.
    fn check_names(&self) -> Result<()> {
        for how in &self.present {
            let Presentation::Header { header, value } = how else { continue };
            known_names(value, &TOKEN_NAMES, &format!("present: the value of {header}"))?;
            if !TOKEN_NAMES.iter().any(|name| value.contains(&format!("{{{name}}}"))) {
                return Err(Error::usage(format!("the value of {header}, `{value}`, does not contain the token")).fix(
                    "write {token} for the token, or {basic} for HTTP Basic credentials: value: \"Bearer {token}\"",
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

    /// Checks every glob and method: an invalid glob would match nothing, and an invalid method would be sent as
    /// GET.
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

    /// Whether the lock is a proxy in front of ComfyUI, not a custom node.
    pub fn in_front(&self) -> bool {
        self.plugin.entry.is_empty()
    }

    /// Whether the token consists of a user name and a password.
    pub fn is_basic(&self) -> bool {
        let basic = |how: &Presentation| matches!(how, Presentation::Header { value, .. } if value.contains("{basic}"));
        self.present.first().is_some_and(basic)
    }

    /// Whether `method` `path` needs no credential, with or without the prefix `/api`.
    pub fn is_public(&self, method: &str, path: &str) -> bool {
        let bare = path.strip_prefix("/api").filter(|rest| rest.starts_with('/')).unwrap_or(path);
        self.public.iter().any(|route| {
            route.method.as_deref().is_none_or(|m| m.eq_ignore_ascii_case(method))
                && (matches(&route.path, path) || matches(&route.path, bare))
        })
    }

    /// The effect of losing only `state` on a working lock.
    pub fn verdict_without(&self, state: State) -> Option<Verdict> {
        self.on_loss.get(&state).copied()
    }
}

/// The placeholders of a presented token.
const TOKEN_NAMES: [&str; 2] = ["token", "basic"];
/// The placeholders of paths.
const PATH_NAMES: [&str; 4] = ["code_dir", "custom_nodes", "plugin_dir", "found"];

fn known_names(text: &str, known: &[&str], place: &str) -> Result<()> {
    let names = text.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
    for name in names {
        if !known.contains(&name) {
            let listed = known.iter().map(|name| format!("{{{name}}}")).collect::<Vec<_>>().join(", ");
            return Err(Error::usage(format!("{place}: unknown placeholder {{{name}}}"))
                .fix(format!("{}; valid names: {listed}", suggest(name, known, "names"))));
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
    fn a_misspelled_key_suggests_the_right_one() {
        let wrong = |text: &str| read(text).expect_err("it is wrong").to_string();
        for (text, said) in [
            ("present: [{ heder: X, value: \"{token}\" }]", "did you mean `header`?"),
            ("present: [{ header: X }]", "in the query, { query: token }"),
            ("present: [{ header: X, value: \"{tokn}\" }]", "did you mean `token`?"),
            ("present: [{ header: X, value: Bearer }]", "does not contain the token"),
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
