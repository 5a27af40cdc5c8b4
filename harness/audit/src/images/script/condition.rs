//! Tests: `[ ! -d X ]`, `[[ -n $Y ]]`, and what they imply for the branches.

use brush_parser::ast::{BinaryPredicate, ExtendedTestExpr, UnaryPredicate};

use super::expand::{Scope, UNKNOWN, UNSET, is_unknown, one};

/// The condition under which a command runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// This path does not exist.
    Missing(String),
    /// This path exists.
    Exists(String),
    /// Unknown.
    Maybe,
}

/// The result of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Test {
    Known(bool),
    /// The conditions under which it is true, and those under which it is false.
    When(Vec<Condition>, Vec<Condition>),
}

impl Test {
    pub(super) fn maybe() -> Self {
        Self::When(vec![Condition::Maybe], vec![Condition::Maybe])
    }

    fn missing(path: String) -> Self {
        if is_unknown(&path) && path.contains('*') {
            // The pattern matches every custom node, so the directory does not matter.
            return Self::When(vec![Condition::Maybe], vec![Condition::Exists(path)]);
        }
        if is_unknown(&path) || path.is_empty() {
            return Self::maybe();
        }
        Self::When(vec![Condition::Missing(path.clone())], vec![Condition::Exists(path)])
    }

    pub(super) fn not(self) -> Self {
        match self {
            Self::Known(holds) => Self::Known(!holds),
            Self::When(then, other) => Self::When(other, then),
        }
    }

    pub(super) fn and(self, next: Self) -> Self {
        match (self, next) {
            (Self::Known(false), _) | (_, Self::Known(false)) => Self::Known(false),
            (Self::Known(true), test) | (test, Self::Known(true)) => test,
            (Self::When(mut a, _), Self::When(b, _)) => {
                a.extend(b);
                Self::When(a, vec![Condition::Maybe])
            }
        }
    }

    pub(super) fn or(self, next: Self) -> Self {
        self.not().and(next.not()).not()
    }
}

/// `test` or `[` with its words, without the closing bracket.
pub(super) fn test(words: &[String], at: &dyn Fn(&str) -> Option<String>) -> Test {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let Some(n) = words.iter().position(|w| *w == "-o").filter(|n| *n > 0) {
        return plain(&words[..n], at).or(test(&owned(&words[n + 1..]), at));
    }
    if let Some(n) = words.iter().position(|w| *w == "-a").filter(|n| *n > 0) {
        return plain(&words[..n], at).and(test(&owned(&words[n + 1..]), at));
    }
    plain(&words, at)
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

fn plain(words: &[&str], at: &dyn Fn(&str) -> Option<String>) -> Test {
    match words {
        ["!", rest @ ..] => plain(rest, at).not(),
        ["-e" | "-f" | "-d" | "-s" | "-r" | "-x" | "-w" | "-L" | "-h", path] => {
            at(path).map_or_else(Test::maybe, |path| Test::missing(path).not())
        }
        ["-n", text] => length(text).not(),
        ["-z", text] => length(text),
        [left, "=" | "==", right] => same(left, right),
        [left, "!=", right] => same(left, right).not(),
        [left, "-eq", right] => same(left, right),
        [left, "-ne", right] => same(left, right).not(),
        [text] => length(text).not(),
        _ => Test::maybe(),
    }
}

/// Whether a string is empty.
fn length(text: &str) -> Test {
    if text.chars().all(|c| c == UNSET) {
        Test::Known(true)
    } else if text.contains(UNKNOWN) && text.chars().all(|c| c == UNKNOWN) {
        Test::maybe()
    } else {
        Test::Known(false)
    }
}

fn same(left: &str, right: &str) -> Test {
    let (left, right) = (left.replace(UNSET, ""), right.replace(UNSET, ""));
    if left.contains([UNKNOWN, '*']) || right.contains([UNKNOWN, '*']) {
        return Test::maybe();
    }
    Test::Known(left == right)
}

/// `[[ … ]]`.
pub(super) fn extended(expression: &ExtendedTestExpr, scope: &Scope<'_>, at: &dyn Fn(&str) -> Option<String>) -> Test {
    match expression {
        ExtendedTestExpr::And(a, b) => extended(a, scope, at).and(extended(b, scope, at)),
        ExtendedTestExpr::Or(a, b) => extended(a, scope, at).or(extended(b, scope, at)),
        ExtendedTestExpr::Not(inner) => extended(inner, scope, at).not(),
        ExtendedTestExpr::Parenthesized(inner) => extended(inner, scope, at),
        ExtendedTestExpr::UnaryTest(predicate, word) => {
            let text = one(&word.value, scope);
            match predicate {
                UnaryPredicate::FileExists
                | UnaryPredicate::FileExistsAndIsDir
                | UnaryPredicate::FileExistsAndIsRegularFile
                | UnaryPredicate::FileExistsAndIsSymlink
                | UnaryPredicate::FileExistsAndIsReadable
                | UnaryPredicate::FileExistsAndIsWritable
                | UnaryPredicate::FileExistsAndIsExecutable
                | UnaryPredicate::FileExistsAndIsNotZeroLength => {
                    at(&text).map_or_else(Test::maybe, |path| Test::missing(path).not())
                }
                UnaryPredicate::StringHasZeroLength => length(&text),
                UnaryPredicate::StringHasNonZeroLength => length(&text).not(),
                _ => Test::maybe(),
            }
        }
        ExtendedTestExpr::BinaryTest(predicate, left, right) => {
            let (left, right) = (one(&left.value, scope), one(&right.value, scope));
            match predicate {
                BinaryPredicate::StringExactlyMatchesPattern
                | BinaryPredicate::StringExactlyMatchesString
                | BinaryPredicate::ArithmeticEqualTo => same(&left, &right),
                BinaryPredicate::StringDoesNotExactlyMatchPattern
                | BinaryPredicate::StringDoesNotExactlyMatchString
                | BinaryPredicate::ArithmeticNotEqualTo => same(&left, &right).not(),
                _ => Test::maybe(),
            }
        }
    }
}
