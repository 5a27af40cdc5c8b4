//! The rules: stable identifiers with their explanation, evidence and remedy.

use std::{borrow::Cow, collections::BTreeMap, str::FromStr, sync::OnceLock};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    error::{Error, Result},
    parse::parse_as,
};

/// The severity of a finding; the worst first, so that `severity <= threshold` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// An intruder gets in, or the owner is locked out.
    Error,
    /// The lock will fail later, or something else is broken.
    Warning,
    /// For information.
    Note,
}

impl Severity {
    /// Every severity, the worst first.
    pub const ALL: [Self; 3] = [Self::Error, Self::Warning, Self::Note];

    /// The name in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

macro_rules! rules {
    ($($variant:ident = $id:literal $severity:ident;)+) => {
        /// A rule; its identifier is stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "each rule is documented in catalogue.yaml, which `explain` prints")]
        pub enum Rule { $($variant,)+ }

        impl Rule {
            /// All rules, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The stable identifier.
            pub fn id(self) -> &'static str {
                match self { $(Self::$variant => $id,)+ }
            }

            /// Its default severity.
            pub fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)+ }
            }
        }
    };
}

rules! {
    LockOpen = "lock/open" Error;
    LockClaimable = "lock/claimable" Error;
    LockEmptyToken = "lock/empty-token" Error;
    LockLockedOut = "lock/locked-out" Error;
    LockDown = "lock/down" Error;
    LockTokenChanged = "lock/token-changed" Error;
    LockSessionLost = "lock/session-lost" Warning;
    LockOldTokenAlive = "lock/old-token-alive" Error;
    LockBootWindow = "lock/boot-window" Error;
    LockStaticSuffix = "lock/static-suffix" Error;
    LockUnprotectedRoute = "lock/unprotected-route" Error;
    LockUnprotectedMethod = "lock/unprotected-method" Error;
    LockUnprotectedPrefix = "lock/unprotected-prefix" Error;
    LockWebsocket = "lock/websocket" Error;
    LockForgedCredential = "lock/forged-credential" Error;
    LockTamperedSession = "lock/tampered-session" Error;
    LockTrustedHeader = "lock/trusted-header" Error;
    LockPathConfusion = "lock/path-confusion" Error;
    LockMalformedHeader = "lock/malformed-header" Note;
    LockWearsOut = "lock/wears-out" Warning;
    LockTokenLeak = "lock/token-leak" Error;
    LockCrossSite = "lock/cross-site" Warning;
    PersistPlugin = "persist/plugin" Warning;
    PersistDeps = "persist/deps" Warning;
    PersistCredential = "persist/credential" Warning;
    PersistSessionKey = "persist/session-key" Warning;
    PersistData = "persist/data" Warning;
    PersistAnonymousVolume = "persist/anonymous-volume" Warning;
    PersistTmpfs = "persist/tmpfs" Warning;
    PersistReadOnly = "persist/read-only" Warning;
    PersistInertMount = "persist/inert-mount" Warning;
    PersistMasksImage = "persist/masks-image" Warning;
    PersistPrediction = "persist/prediction" Warning;
    DeployHealthcheck = "deploy/healthcheck" Warning;
    DeployPublishedPort = "deploy/published-port" Warning;
    DeployTokenInFile = "deploy/token-in-file" Warning;
    DeployTokenInterpolated = "deploy/token-interpolated" Warning;
    DeployVariableName = "deploy/variable-name" Warning;
    DeployFloatingTag = "deploy/floating-tag" Warning;
    DeployCorsOrigin = "deploy/cors-origin" Warning;
    DeployFailOpenStart = "deploy/fail-open-start" Warning;
    DeployWorkspaceUnset = "deploy/workspace-unset" Warning;
    DeployBypassedProxy = "deploy/bypassed-proxy" Warning;
    ReplayChanged = "replay/changed" Warning;
    ReplayFailed = "replay/failed" Warning;
    ReplayTokenUnused = "replay/token-unused" Warning;
}

/// The explanation of a rule, as printed by `lockproof explain`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// What is wrong, in a few words.
    pub title: String,
    /// Why it matters.
    pub why: String,
    /// What a finding shows as evidence.
    pub evidence: String,
    /// What to do about it.
    pub remedy: String,
}

impl Rule {
    /// Its explanation.
    ///
    /// # Panics
    /// If the built-in catalogue, which is tested, lacks the rule.
    pub fn facts(self) -> &'static Facts {
        static CATALOGUE: OnceLock<BTreeMap<String, Facts>> = OnceLock::new();
        let catalogue = CATALOGUE.get_or_init(|| {
            parse_as(include_str!("catalogue.yaml"), "catalogue.yaml").expect("the catalogue is tested")
        });
        &catalogue[self.id()]
    }

    /// Whether `accept:` may accept it. `false` for rules that mean that there is no working lock.
    pub fn acceptable(self) -> bool {
        !matches!(
            self,
            Self::LockOpen | Self::LockClaimable | Self::LockEmptyToken | Self::LockLockedOut | Self::LockDown
        )
    }

    /// Whether a finding of it is a bypass of an otherwise working lock, which makes the verdict
    /// `leaky`.
    pub fn is_leak(self) -> bool {
        matches!(
            self,
            Self::LockStaticSuffix
                | Self::LockUnprotectedRoute
                | Self::LockUnprotectedMethod
                | Self::LockUnprotectedPrefix
                | Self::LockWebsocket
                | Self::LockForgedCredential
                | Self::LockTamperedSession
                | Self::LockTrustedHeader
                | Self::LockPathConfusion
                | Self::LockOldTokenAlive
        )
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.id())
    }
}

impl FromStr for Rule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(rule) = Self::ALL.iter().find(|rule| rule.id() == text) {
            return Ok(*rule);
        }
        let nearest = Self::ALL.iter().min_by_key(|rule| strsim::damerau_levenshtein(rule.id(), text));
        let fix = nearest
            .map_or_else(String::new, |rule| format!("did you mean `{rule}`? `lockproof explain` lists every rule"));
        Err(Error::usage(format!("no such rule: `{text}`")).fix(fix))
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = String::deserialize(deserializer)?;
        id.parse().map_err(|e: Error| de::Error::custom(e.what()))
    }
}

impl JsonSchema for Rule {
    fn schema_name() -> Cow<'static, str> {
        "Rule".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let ids: Vec<&str> = Self::ALL.iter().map(|rule| rule.id()).collect();
        json_schema!({ "type": "string", "enum": ids })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_in_the_catalogue_and_nothing_else_is() {
        let catalogue: BTreeMap<String, Facts> =
            parse_as(include_str!("catalogue.yaml"), "catalogue.yaml").expect("it can be read");
        let listed: Vec<&str> = catalogue.keys().map(String::as_str).collect();
        let mut rules: Vec<&str> = Rule::ALL.iter().map(|rule| rule.id()).collect();
        rules.sort_unstable();
        assert_eq!(listed, rules);
        for (id, facts) in &catalogue {
            for text in [&facts.title, &facts.why, &facts.evidence, &facts.remedy] {
                assert!(!text.trim().is_empty(), "{id} says nothing");
            }
        }
    }

    #[test]
    fn severities_are_the_contract_s() {
        for rule in Rule::ALL {
            let expected = match rule.id() {
                "lock/session-lost" | "lock/wears-out" | "lock/cross-site" => Severity::Warning,
                "lock/malformed-header" => Severity::Note,
                id if id.starts_with("lock/") => Severity::Error,
                _ => Severity::Warning,
            };
            assert_eq!(rule.severity(), expected, "{rule}");
        }
    }
}
