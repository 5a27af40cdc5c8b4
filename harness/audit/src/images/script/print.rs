//! The output of commands, as far as it consists of paths: for `$( )`, pipes, and `< <( )`.

use brush_parser::ast::{AndOr, Command, IoFileRedirectTarget, IoRedirect, ProcessSubstitutionKind, RedirectList};

use super::{expand, parse, walk::Walk};

impl Walk<'_> {
    /// The output of a command in `$( )`.
    pub(super) fn prints(&self, command: &str) -> Option<String> {
        let (programs, _) = parse::programs(command);
        let [(_, program)] = programs.as_slice() else { return None };
        let [list] = program.complete_commands.as_slice() else { return None };
        let [item] = list.0.as_slice() else { return None };
        let first = item.0.first.seq.first()?;
        // `$(cd X && pwd)`
        if let [AndOr::And(next)] = item.0.additional.as_slice()
            && next.to_string().starts_with("pwd")
            && let Command::Simple(simple) = first
            && let [cd, .., path] = self.words_of(simple).as_slice()
            && cd == "cd"
        {
            return self.at(path);
        }
        if item.0.additional.is_empty() { self.printed_by(first) } else { None }
    }

    /// The output of a command: paths, or a pattern for them.
    pub(super) fn printed_by(&self, command: &Command) -> Option<String> {
        let Command::Simple(simple) = command else { return None };
        let words = self.words_of(simple);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["dirname", path] => Some(match path.trim_end_matches('/').rsplit_once('/') {
                Some(("", _)) => "/".to_owned(),
                Some((parent, _)) => parent.to_owned(),
                None => ".".to_owned(),
            }),
            ["basename", path, ..] => path.trim_end_matches('/').rsplit('/').next().map(str::to_owned),
            ["pwd", ..] => self.state.here.clone(),
            ["realpath" | "readlink", .., path] => self.at(path),
            ["echo" | "printf", rest @ ..] => {
                let rest: Vec<&str> =
                    rest.iter().copied().filter(|w| !w.starts_with('-') && !w.contains('%')).collect();
                Some(rest.join(" "))
            }
            ["find", rest @ ..] => found(rest),
            ["ls", rest @ ..] => {
                let path = rest.iter().find(|w| !w.starts_with('-'))?;
                Some(if path.contains('*') { (*path).to_owned() } else { "*".to_owned() })
            }
            _ => None,
        }
    }

    /// `done < <(find …)`.
    pub(super) fn fed_by(&self, redirects: Option<&RedirectList>) -> Option<String> {
        redirects?.0.iter().find_map(|redirect| match redirect {
            IoRedirect::File(_, _, IoFileRedirectTarget::ProcessSubstitution(ProcessSubstitutionKind::Read, shell)) => {
                self.printed_by(shell.list.0.first()?.0.first.seq.first()?)
            }
            IoRedirect::HereString(_, word) => Some(self.scoped(|scope| expand::one(&word.value, scope))),
            _ => None,
        })
    }
}

/// The result of `find`, as a pattern.
pub(super) fn found(words: &[&str]) -> Option<String> {
    let (root, rest) = words.split_first().filter(|(root, _)| !root.starts_with('-'))?;
    let name = rest.iter().position(|w| matches!(*w, "-name" | "-iname")).and_then(|n| rest.get(n + 1));
    let root = root.trim_end_matches('/');
    Some(name.map_or_else(|| format!("{root}/*"), |name| format!("{root}/*/{name}")))
}
