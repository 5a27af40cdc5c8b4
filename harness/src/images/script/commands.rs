//! Single commands: what carries others, where they go on, and what they say of the shell itself.

use super::walk::{Fate, Flow, Walk};

impl Walk<'_> {
    /// One command with its words.
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
            ["exit" | "return", ..] => return Flow::Ends,
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
            let flow = self.shell(&words[1..]);
            return if replaced { Flow::Ends } else { flow };
        }
        if matches!(name.as_str(), "su" | "runuser" | "sudo")
            && let Some(n) = words.iter().position(|w| w == "-c")
            && let Some(text) = words.get(n + 1).cloned()
        {
            return self.nested(&text);
        }
        if name == "find"
            && let Some(n) = words.iter().position(|w| w.starts_with("-exec"))
        {
            let matched = self.found(&words);
            let rest: Vec<String> = words[n + 1..]
                .iter()
                .take_while(|w| !matches!(w.as_str(), ";" | "+" | "\\;"))
                .map(|w| if w == "{}" { matched.clone() } else { w.clone() })
                .collect();
            // Whatever comes of it, `find` is content, unless the words end with `+`.
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
        self.writes(&words, fed, document);
        self.starts(&words);
        if !replaced
            && (first.ends_with(".sh") || first.ends_with(".bash") || first.contains('/') && !first.contains("bin/"))
        {
            return self.script(first, &words[1..]);
        }
        if replaced {
            if first.ends_with(".sh") || first.contains("entrypoint") {
                self.script(first, &words[1..]);
            }
            return Flow::Ends;
        }
        Flow::On
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
        let arguments: Vec<String> = rest.iter().map(|w| (*w).to_owned()).collect();
        self.script(path, &arguments)
    }

    /// `sh -c TEXT` and `sh FILE`.
    fn shell(&mut self, words: &[String]) -> Flow {
        let mut words = words.iter();
        let outer = self.state.clone();
        let mut flow = Flow::On;
        while let Some(word) = words.next() {
            if word.starts_with('-') && !word.starts_with("--") {
                self.state.strict |= word.contains('e');
                if word.contains('c') {
                    if let Some(text) = words.next() {
                        self.state.arguments = words.skip(1).cloned().collect();
                        flow = self.nested(text);
                    }
                    break;
                }
            } else if !word.starts_with("--") {
                let rest: Vec<String> = words.cloned().collect();
                flow = self.script(word, &rest);
                break;
            }
        }
        // Another process changes nothing of this one.
        self.state = outer;
        if flow == Flow::Ends { Flow::On } else { flow }
    }

    /// Another script of the container.
    fn script(&mut self, path: &str, arguments: &[String]) -> Flow {
        let Some((name, text)) = self.at(path).and_then(|path| (self.environment.file)(&path)) else {
            self.script.incomplete |=
                !path.contains("/bin/") && !path.ends_with("conda.sh") && !path.ends_with(".bashrc");
            return Flow::On;
        };
        let outer = self.other.replace((name, text.clone()));
        let own = std::mem::replace(&mut self.state.arguments, arguments.to_vec());
        let flow = self.nested(&text);
        self.state.arguments = own;
        self.other = outer;
        flow
    }

    fn found(&self, words: &[String]) -> String {
        let root = words.get(1).map_or(".", |w| w.trim_end_matches('/'));
        let name = words.iter().position(|w| w == "-name" || w == "-iname").and_then(|n| words.get(n + 1));
        name.map_or_else(|| format!("{root}/*"), |name| format!("{root}/*/{name}"))
    }
}

/// The command without what only carries it, and whether it replaces the shell.
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
