//! Expands words without running anything.
//!
//! Unknown parts are [`UNKNOWN`] in the text. A pattern (`/app/custom_nodes/*`) stands for each of
//! its matches: a loop over it is read once.

use std::collections::BTreeMap;

use brush_parser::{
    ParserOptions,
    word::{self, Parameter, ParameterExpr, ParameterTestType, SpecialParameter, TildeExpr, WordPiece},
};

use super::outcome::Environment;

/// Replaces an unknown part; never occurs in scripts.
pub(super) const UNKNOWN: char = '\u{1a}';
/// Replaces an unset variable: unknown in a path, empty in a test.
pub(super) const UNSET: char = '\u{19}';

/// Whether a part of the text is unknown.
pub(super) fn is_unknown(text: &str) -> bool {
    text.contains([UNKNOWN, UNSET])
}

/// The value of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    List(Vec<String>),
    /// `declare -A`: keys and values in order.
    Map(Vec<(String, String)>),
}

/// The input of word expansion.
pub(super) struct Scope<'a> {
    pub(super) environment: &'a Environment<'a>,
    pub(super) variables: &'a BTreeMap<String, Value>,
    /// `$1`, `$2`, …
    pub(super) arguments: &'a [String],
    pub(super) here: Option<&'a str>,
    /// The output of a command in `$( )`.
    pub(super) printed: &'a dyn Fn(&str) -> Option<String>,
}

/// Expands a word: usually to one word, to none or several for `"$@"` and arrays.
pub(super) fn words(text: &str, scope: &Scope<'_>) -> Vec<String> {
    if let Some(list) = whole_list(text, scope) {
        return list;
    }
    vec![one(text, scope)]
}

/// `"$@"`, `"${LIST[@]}"` and `"${!MAP[@]}"`, which expand to several words.
fn whole_list(text: &str, scope: &Scope<'_>) -> Option<Vec<String>> {
    let pieces = word::parse(text, &ParserOptions::default()).ok()?;
    let [only] = pieces.as_slice() else { return None };
    let piece = match &only.piece {
        WordPiece::DoubleQuotedSequence(inner) => match inner.as_slice() {
            [only] => &only.piece,
            _ => return None,
        },
        piece => piece,
    };
    let WordPiece::ParameterExpansion(expression) = piece else { return None };
    match expression {
        ParameterExpr::Parameter { parameter, .. } => match parameter {
            Parameter::Special(SpecialParameter::AllPositionalParameters { .. }) => Some(scope.arguments.to_vec()),
            Parameter::NamedWithAllIndices { name, .. } => match scope.variables.get(name)? {
                Value::List(list) => Some(list.clone()),
                Value::Map(map) => Some(map.iter().map(|(_, v)| v.clone()).collect()),
                Value::Text(text) => Some(vec![text.clone()]),
            },
            // Unquoted text is split into words.
            Parameter::Named(name) if matches!(only.piece, WordPiece::ParameterExpansion(_)) => {
                let text = scope.lookup(name)?;
                text.contains(char::is_whitespace).then(|| text.split_whitespace().map(str::to_owned).collect())
            }
            _ => None,
        },
        ParameterExpr::MemberKeys { variable_name, .. } => match scope.variables.get(variable_name)? {
            Value::Map(map) => Some(map.iter().map(|(k, _)| k.clone()).collect()),
            _ => None,
        },
        _ => None,
    }
}

/// Expands a word to a single string.
pub(super) fn one(text: &str, scope: &Scope<'_>) -> String {
    match word::parse(text, &ParserOptions::default()) {
        Ok(pieces) => pieces.iter().map(|p| piece(&p.piece, scope)).collect(),
        Err(_) => UNKNOWN.to_string(),
    }
}

fn piece(piece: &WordPiece, scope: &Scope<'_>) -> String {
    let unknown = || UNKNOWN.to_string();
    match piece {
        WordPiece::Text(text) | WordPiece::SingleQuotedText(text) | WordPiece::AnsiCQuotedText(text) => text.clone(),
        WordPiece::DoubleQuotedSequence(pieces) | WordPiece::GettextDoubleQuotedSequence(pieces) => {
            pieces.iter().map(|p| self::piece(&p.piece, scope)).collect()
        }
        WordPiece::EscapeSequence(text) => text.strip_prefix('\\').unwrap_or(text).to_owned(),
        WordPiece::TildeExpansion(TildeExpr::Home) => scope.lookup("HOME").unwrap_or_else(unknown),
        WordPiece::TildeExpansion(TildeExpr::WorkingDir) => scope.here.map_or_else(unknown, str::to_owned),
        WordPiece::TildeExpansion(_) | WordPiece::ArithmeticExpression(_) => unknown(),
        WordPiece::ParameterExpansion(expression) => parameter(expression, scope).unwrap_or_else(|| {
            let named = matches!(expression, ParameterExpr::Parameter { parameter: Parameter::Named(name), .. }
                if !scope.variables.contains_key(name));
            if named && scope.environment.complete { UNSET.to_string() } else { unknown() }
        }),
        WordPiece::CommandSubstitution(command) | WordPiece::BackquotedCommandSubstitution(command) => {
            (scope.printed)(command).unwrap_or_else(unknown)
        }
    }
}

fn parameter(expression: &ParameterExpr, scope: &Scope<'_>) -> Option<String> {
    let inner = |text: &Option<String>| one(text.as_deref().unwrap_or_default(), scope);
    match expression {
        ParameterExpr::Parameter { parameter, indirect: false } => scope.value(parameter),
        ParameterExpr::UseDefaultValues { parameter, test_type, default_value, .. }
        | ParameterExpr::AssignDefaultValues { parameter, test_type, default_value, .. } => {
            match scope.value(parameter) {
                Some(value) if !value.is_empty() || matches!(test_type, ParameterTestType::Unset) => Some(value),
                _ => Some(inner(default_value)),
            }
        }
        ParameterExpr::IndicateErrorIfNullOrUnset { parameter, .. } => scope.value(parameter),
        ParameterExpr::UseAlternativeValue { parameter, alternative_value, .. } => match scope.value(parameter) {
            Some(value) if !value.is_empty() => Some(inner(alternative_value)),
            Some(_) => Some(String::new()),
            None => scope.environment.complete.then(String::new),
        },
        ParameterExpr::RemoveSmallestSuffixPattern { parameter, pattern, .. }
        | ParameterExpr::RemoveLargestSuffixPattern { parameter, pattern, .. } => {
            let value = scope.value(parameter)?;
            match inner(pattern).as_str() {
                "/" => Some(value.strip_suffix('/').unwrap_or(&value).to_owned()),
                "/*" => value.rsplit_once('/').map(|(parent, _)| parent.to_owned()),
                _ => None,
            }
        }
        ParameterExpr::RemoveLargestPrefixPattern { parameter, pattern, .. } => {
            let value = scope.value(parameter)?;
            (inner(pattern) == "*/").then(|| value.rsplit('/').next().unwrap_or_default().to_owned())
        }
        _ => None,
    }
}

impl Scope<'_> {
    /// A variable of the script or its environment.
    pub(super) fn lookup(&self, name: &str) -> Option<String> {
        match self.variables.get(name) {
            Some(Value::Text(text)) => Some(text.clone()),
            Some(Value::List(list)) => list.first().cloned(),
            Some(Value::Map(_)) => None,
            None if name == "PWD" => self.here.map(str::to_owned),
            None => (self.environment.variable)(name),
        }
    }

    fn value(&self, parameter: &Parameter) -> Option<String> {
        match parameter {
            Parameter::Named(name) => self.lookup(name),
            Parameter::Positional(n) if *n > 0 => {
                let n = usize::try_from(*n).ok()?;
                Some(self.arguments.get(n - 1).cloned().unwrap_or_default())
            }
            Parameter::Special(SpecialParameter::AllPositionalParameters { .. }) => Some(self.arguments.join(" ")),
            Parameter::Special(SpecialParameter::PositionalParameterCount) => Some(self.arguments.len().to_string()),
            Parameter::NamedWithIndex { name, index } => {
                let index = one(index, self);
                match self.variables.get(name)? {
                    Value::Map(map) => map.iter().find(|(k, _)| *k == index).map(|(_, v)| v.clone()),
                    Value::List(list) => list.get(index.parse::<usize>().ok()?).cloned(),
                    Value::Text(text) => (index == "0").then(|| text.clone()),
                }
            }
            Parameter::NamedWithAllIndices { name, .. } => match self.variables.get(name)? {
                Value::List(list) => Some(list.join(" ")),
                Value::Map(map) => Some(map.iter().map(|(_, v)| v.as_str()).collect::<Vec<_>>().join(" ")),
                Value::Text(text) => Some(text.clone()),
            },
            _ => None,
        }
    }
}
