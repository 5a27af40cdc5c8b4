//! Single commands: wrappers that run other commands, what they install, and shell built-ins.

use super::{
    expand::UNKNOWN,
    print::found,
    walk::{Fate, Flow, Walk},
};

impl Walk<'_> {
    /// Handles one command.
    pub(super) fn run(
        &mut self,
        words: &[String],
        line: usize,
        fate: Fate,
        fed: Option<&str>,
        document: Option<&str>,
    ) -> Flow {
        let (words, replaced) = unwrapped(words);
        let Some(first) = words.first() else { return Flow::On };
        let name = first.rsplit('/').next().unwrap_or(first).to_owned();
        let plain: Vec<&str> = words.iter().map(String::as_str).collect();
        match plain.as_slice() {
            ["exit", ..] => return Flow::Ends,
            ["return", ..] => return Flow::Returns,
            ["set", flags @ ..] => self.set(flags),
            ["trap", action, signals @ ..] if signals.contains(&"ERR") && action.contains("exit") => {
                self.state.strict = true;
            }
            ["cd" | "pushd", path] | ["cd" | "pushd", "--", path] => self.change(first, path),
            ["popd", ..] => {
                let to = self.state.stack.pop().flatten();
                self.state.before = std::mem::replace(&mut self.state.here, to);
            }
            ["source" | ".", path, rest @ ..] => return self.source(path, rest),
            ["eval", rest @ ..] => return self.nested(&rest.join(" ")),
            _ => {}
        }
        if matches!(name.as_str(), "sh" | "bash" | "dash" | "ash" | "zsh") {
            self.shell(&words[1..]);
            return if replaced { Flow::Ends } else { Flow::On };
        }
        if matches!(name.as_str(), "su" | "runuser" | "sudo")
            && let Some(n) = words.iter().position(|w| w == "-c")
            && let Some(text) = words.get(n + 1).cloned()
        {
            self.process(false, Vec::new(), |walk| walk.nested(&text));
            return Flow::On;
        }
        if name == "find"
            && let Some(n) = words.iter().position(|w| w.starts_with("-exec"))
        {
            let matched = found(&plain[1..]).unwrap_or_else(|| UNKNOWN.to_string());
            let rest: Vec<String> = words[n + 1..]
                .iter()
                .take_while(|w| !matches!(w.as_str(), ";" | "+" | "\\;"))
                .map(|w| if w == "{}" { matched.clone() } else { w.clone() })
                .collect();
            // `find` ignores the exit code, unless the words end with `+`.
            let own = if words.last().is_some_and(|w| w == "+") { fate } else { Fate::Ignored };
            return self.run(&rest, line, own, None, None);
        }
        if name == "xargs" {
            let skip = words[1..].iter().position(|w| {
                w.starts_with("pip")
                    || w.starts_with("uv")
                    || w.starts_with("python")
                    || w.starts_with("sh")
                    || w.starts_with('/')
            });
            if let Some(n) = skip {
                let mut rest = words[n + 1..].to_vec();
                match rest.iter().position(|w| w == "{}") {
                    Some(place) => rest[place] = fed.unwrap_or_default().to_owned(),
                    None => rest.extend(fed.map(str::to_owned)),
                }
                return self.run(&rest, line, fate, None, None);
            }
        }
        self.installs(&words, line, fate);
        self.puts(&words, line, fate);
        self.writes(&words, document);
        self.starts(&words);
        self.execute(first, &words[1..]);
        if replaced { Flow::Ends } else { Flow::On }
    }

    fn set(&mut self, flags: &[&str]) {
        let mut flags = flags.iter();
        while let Some(flag) = flags.next() {
            let on = flag.starts_with('-');
            if flag.len() > 1 && flag[1..].contains('e') && !flag[1..].contains('-') && flag.starts_with(['-', '+']) {
                self.state.strict = on;
            }
            if flag.ends_with('o') && flag.len() > 1 {
                match flags.next() {
                    Some(&"errexit") => self.state.strict = on,
                    Some(&"pipefail") => self.state.pipefail = on,
                    _ => {}
                }
            }
        }
    }

    fn change(&mut self, how: &str, path: &str) {
        let to = if path == "-" { self.state.before.clone() } else { self.at(path) };
        let from = std::mem::replace(&mut self.state.here, to);
        if how == "pushd" {
            self.state.stack.push(from.clone());
        }
        self.state.before = from;
    }

    fn source(&mut self, path: &str, rest: &[&str]) -> Flow {
        if path.ends_with("/activate") || path == "activate" {
            let directory = path.trim_end_matches("activate").trim_end_matches('/');
            let directory = directory.strip_suffix("bin").or(directory.strip_suffix("Scripts")).unwrap_or(directory);
            let directory = directory.trim_end_matches('/');
            self.state.active = self.at(if directory.is_empty() { "." } else { directory });
            self.script.incomplete |= self.state.active.is_none();
            return Flow::On;
        }
        let Some((name, text)) = self.file(path) else {
            // Scripts of a distribution or conda set variables, and install nothing.
            self.script.incomplete |= !path.ends_with("conda.sh") && !path.ends_with(".bashrc");
            return Flow::On;
        };
        let arguments = if rest.is_empty() {
            self.state.arguments.clone()
        } else {
            rest.iter().map(|word| (*word).to_owned()).collect()
        };
        let own = std::mem::replace(&mut self.state.arguments, arguments);
        let (conditions, leaves) = self.entered();
        let flow = self.of_file(name, &text);
        self.returned(conditions, leaves);
        self.state.arguments = own;
        if flow == Flow::Returns { Flow::On } else { flow }
    }

    /// `sh -c TEXT` and `sh FILE`.
    fn shell(&mut self, words: &[String]) {
        let mut strict = false;
        for (n, word) in words.iter().enumerate() {
            match word.strip_prefix('-') {
                Some(flags) if !flags.starts_with('-') => {
                    strict |= flags.contains('e');
                    if flags.contains('c') {
                        let text = words.get(n + 1).cloned().unwrap_or_default();
                        // The first word after it is `$0`.
                        let arguments = words.get(n + 3..).unwrap_or_default().to_vec();
                        return self.process(strict, arguments, |walk| walk.nested(&text));
                    }
                }
                Some(_) => {}
                None => {
                    let Some((name, text)) = self.file(word) else {
                        self.script.incomplete = true;
                        return;
                    };
                    return self.process(strict, words[n + 1..].to_vec(), |walk| walk.of_file(name, &text));
                }
            }
        }
    }

    /// Reads another script of the container, run as a separate process. A bare name is looked up
    /// in the usual directories of image commands; if it is missing, nothing is concluded.
    fn execute(&mut self, path: &str, arguments: &[String]) {
        let by_path = path.contains('/') || path.ends_with(".sh") || path.ends_with(".bash");
        let found = if by_path { self.file(path) } else { self.file(&format!("/usr/local/bin/{path}")) };
        let Some((name, text)) = found else {
            // A file in a `bin` directory is not one of the deployment's scripts, unless its name
            // ends in `sh`.
            self.script.incomplete |= by_path && (!path.contains("bin/") || path.ends_with("sh"));
            return;
        };
        let shebang = text.lines().next().filter(|line| line.starts_with("#!")).unwrap_or("#!/bin/sh");
        if !shebang.contains("sh") {
            self.script.incomplete = true;
            return;
        }
        let strict = shebang.split_whitespace().skip(1).any(|w| w.starts_with('-') && w.contains('e'));
        self.process(strict, arguments.to_vec(), |walk| walk.of_file(name, &text));
    }

    fn file(&self, path: &str) -> Option<(String, String)> {
        (self.environment.file)(&self.at(path)?)
    }

    /// Reads the text of a named script, whose name is used in messages about its lines.
    fn of_file(&mut self, name: String, text: &str) -> Flow {
        let outer = self.name.replace(name);
        let flow = self.nested(text);
        self.name = outer;
        flow
    }

    /// Another process: it inherits the current state and does not change it.
    fn process(&mut self, strict: bool, arguments: Vec<String>, walk: impl FnOnce(&mut Self) -> Flow) {
        let (outer, conditions) = (self.state.clone(), self.entered());
        (self.state.arguments, self.state.strict, self.state.pipefail) = (arguments, strict, false);
        walk(self);
        self.state = outer;
        self.left_process(conditions);
    }
}

/// The command without its wrappers, and whether it replaces the shell.
fn unwrapped(words: &[String]) -> (Vec<String>, bool) {
    let mut words = words.to_vec();
    let mut replaced = false;
    while let Some(first) = words.first() {
        let name = first.rsplit('/').next().unwrap_or(first).to_owned();
        let skip = match name.as_str() {
            "exec" => {
                replaced = true;
                1
            }
            "command" | "builtin" | "nohup" | "time" | "then" | "do" | "tini" | "dumb-init" | "stdbuf" | "nice"
            | "setsid" => 1,
            "sudo" if !words.iter().any(|w| w == "-c") => 1,
            "gosu" | "su-exec" | "timeout" | "setpriv" => 2,
            "env" => 1,
            _ if first.contains('=') && !first.starts_with('=') && !first.contains('/') && words.len() > 1 => 1,
            _ => break,
        };
        words.drain(..skip.min(words.len()));
        if skip > 0 && !matches!(name.as_str(), "then" | "do") {
            let options = words.iter().take_while(|w| w.starts_with('-')).count();
            words.drain(..options);
        }
    }
    (words, replaced)
}
