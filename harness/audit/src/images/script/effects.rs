//! The effects of commands on a lock: installations, copies and links, and the start of ComfyUI.

use super::{
    Come, Script, Swallowed,
    condition::Condition,
    expand::is_unknown,
    walk::{Fate, Walk},
};

/// Packages of the login plugin that a script may install by name.
const DEPENDENCIES: [&str; 3] = ["aiohttp_session", "aiohttp-session", "bcrypt"];
/// Commands that only read the files that they name.
const LOOKING: [&str; 18] = [
    "echo", "printf", "cat", "ls", "test", "[", "grep", "sed", "cp", "mv", "rm", "touch", "chmod", "chown", "stat",
    "head", "which", "pkill",
];
/// Arguments of ComfyUI that hardly any other `main.py` has.
const ARGUMENTS: [&str; 14] = [
    "--listen",
    "--cpu",
    "--lowvram",
    "--highvram",
    "--normalvram",
    "--novram",
    "--gpu-only",
    "--enable-cors-header",
    "--base-directory",
    "--output-directory",
    "--preview-method",
    "--disable-auto-launch",
    "--extra-model-paths-config",
    "--disable-all-custom-nodes",
];

impl Walk<'_> {
    /// At which starts the current command runs.
    fn when(&self) -> Come {
        let mut missing = Vec::new();
        for condition in &self.conditions {
            match condition {
                Condition::Maybe => return Come::Maybe,
                Condition::Missing(path) => missing.push(path.clone()),
                // An installation always depends on existing nodes or requirements.
                Condition::Exists(path) => {
                    let last = path.rsplit('/').next().unwrap_or_default();
                    let about = path.contains('*')
                        || last.contains("custom_nodes")
                        || last.contains("requirements")
                        || path.contains("custom_nodes/");
                    if !about {
                        return Come::Maybe;
                    }
                }
            }
        }
        if missing.is_empty() { Come::Always } else { Come::Unless(missing) }
    }

    fn swallow(&mut self, line: usize, fate: Fate) {
        let minded = match fate {
            Fate::Stops => true,
            Fate::Ignored => false,
            Fate::ByState => self.state.strict,
        };
        if minded || self.script.swallowed.is_some() {
            return;
        }
        let text = self.source.lines().nth(line - 1).unwrap_or_default().trim().to_owned();
        self.script.swallowed = Some(Swallowed { line: line - 1, file: self.name.clone(), text });
    }

    /// Handles `pip install` and its variants.
    pub(super) fn installs(&mut self, words: &[String], line: usize, fate: Fate) {
        let name = words[0].rsplit('/').next().unwrap_or_default();
        let manager = words.iter().any(|w| w.ends_with("cm-cli.py") || w == "cm-cli" || w == "comfy");
        if manager && words.iter().any(|w| w == "restore-dependencies" || w == "restore-snapshot") {
            self.script.requirements.push((None, self.when()));
            self.swallow(line, fate);
            return;
        }
        let pip = name.starts_with("pip")
            || name.starts_with("python") && words.windows(2).any(|w| w[0] == "-m" && w[1] == "pip")
            || name == "uv" && words.iter().any(|w| w == "pip" || w == "add")
            || name == "conda" && words.iter().any(|w| w == "run");
        if !pip || !words.iter().any(|w| w == "install" || w == "add") {
            return;
        }
        let mut of_lock = words.iter().any(|w| is_dependency(w));
        let mut rest = words.iter();
        let mut files = Vec::new();
        while let Some(word) = rest.next() {
            if word == "-r" || word == "--requirement" {
                files.extend(rest.next().cloned());
            } else if let Some(file) = word.strip_prefix("--requirement=").or_else(|| word.strip_prefix("-r")) {
                files.push(file.to_owned());
            }
        }
        for file in files {
            let place = self.place(&file);
            if let Some(nodes) = of_every_node(&place) {
                self.script.requirements.push((nodes, self.when()));
                self.swallow(line, fate);
            } else {
                of_lock |= names_the_lock(&place);
            }
        }
        if of_lock {
            let when = self.when();
            self.script.dependencies.or(when);
            self.swallow(line, fate);
        }
    }

    /// A path with its unknown parts left in it.
    fn place(&self, path: &str) -> String {
        if path.starts_with('/') || is_unknown(path) {
            return path.to_owned();
        }
        match &self.state.here {
            Some(here) => format!("{here}/{}", path.trim_start_matches("./")),
            None => path.to_owned(),
        }
    }

    /// Handles `git clone`, `cp`, `ln -s`.
    pub(super) fn puts(&mut self, words: &[String], line: usize, fate: Fate) {
        let name = words[0].rsplit('/').next().unwrap_or_default();
        let plain: Vec<&String> = words[1..].iter().filter(|w| !w.starts_with('-')).collect();
        match name {
            "git" if words.iter().any(|w| w == "clone") => {
                let Some(n) = words.iter().position(|w| w.contains("://") || w.starts_with("git@")) else { return };
                let repository = words[n].trim_end_matches('/').trim_end_matches(".git").rsplit('/').next();
                let target = words.get(n + 1).filter(|w| !w.starts_with('-')).map(String::as_str).or(repository);
                let target = target.and_then(|to| self.at(to));
                if crate::images::dockerfile::is_comfyui_repository(&words[n]) {
                    self.script.cloned_to = self.script.cloned_to.take().or(target);
                } else if repository.is_some_and(names_the_lock) || target.as_deref().is_some_and(names_the_lock) {
                    let when = self.when();
                    self.script.plugin.or(when);
                    self.swallow(line, fate);
                }
            }
            "cp" | "rsync" | "mv" | "install" if plain.len() > 1 => {
                let to = plain[plain.len() - 1];
                if to.contains("login/PASSWORD") || to.ends_with("/PASSWORD") {
                    let when = self.when();
                    self.script.credential.or(when);
                } else if plain.iter().any(|w| names_the_lock(w)) && !plain.iter().any(|w| w.contains("PASSWORD")) {
                    let when = self.when();
                    self.script.plugin.or(when);
                    self.swallow(line, fate);
                }
            }
            "ln" if words.iter().any(|w| w.starts_with('-') && w.contains('s')) => {
                let [from, to] = plain.as_slice() else { return };
                if names_the_lock(from) || names_the_lock(to) {
                    let when = self.when();
                    self.script.plugin.or(when);
                }
                let into = to.ends_with('/');
                if let (Some(from), Some(to)) = (self.at(from), self.at(to))
                    && !from.contains('*')
                    && !to.contains('*')
                    && from != to
                {
                    let name = from.rsplit('/').next().unwrap_or_default();
                    let to = if into { format!("{to}/{name}") } else { to };
                    self.script.links.retain(|(known, _)| *known != to);
                    self.script.links.push((to, from));
                }
            }
            _ if words[0].contains("install") && names_the_lock(&words[0]) => {
                let when = self.when();
                self.script.plugin.or(when);
                self.swallow(line, fate);
            }
            _ => {}
        }
    }

    /// Handles a file written by a redirection.
    pub(super) fn written(&mut self, path: &str) {
        if path.contains("login/PASSWORD") || path.ends_with("/PASSWORD") || path == "PASSWORD" {
            let when = self.when();
            self.script.credential.or(when);
        }
    }

    /// Handles files written by a command.
    pub(super) fn writes(&mut self, words: &[String], document: Option<&str>) {
        let name = words[0].rsplit('/').next().unwrap_or_default().to_owned();
        if name == "tee" {
            for word in &words[1..] {
                self.written(word);
            }
        }
        let program = words[1..].iter().map(String::as_str).chain(document);
        if name.starts_with("python")
            && program.into_iter().any(|text| {
                text.contains("PASSWORD") && (text.contains("write") || text.contains("'w") || text.contains("\"w"))
            })
        {
            let when = self.when();
            self.script.credential.or(when);
        }
    }

    pub(super) fn starts(&mut self, words: &[String]) {
        let name = words[0].rsplit('/').next().unwrap_or_default().to_owned();
        let main = words.iter().position(|w| w == "main.py" || w.ends_with("/main.py"));
        let launch = name == "comfy" && words.iter().any(|w| w == "launch");
        let Some(main) = main.or(launch.then_some(0)).filter(|_| !LOOKING.contains(&name.as_str())) else { return };
        let value = |option: &str| -> Option<String> {
            let n =
                words.iter().position(|w| w == option || w.strip_prefix(option).is_some_and(|r| r.starts_with('=')))?;
            match words[n].split_once('=') {
                Some((_, value)) => Some(value.to_owned()),
                None => words.get(n + 1).filter(|w| !w.starts_with("--")).cloned(),
            }
        };
        let code_dir = if launch {
            value("--workspace").and_then(|path| self.at(&path))
        } else if words[main] == "/main.py" {
            Some("/".to_owned())
        } else {
            let directory = words[main].trim_end_matches("main.py").trim_end_matches('/');
            self.at(if directory.is_empty() { "." } else { directory })
        };
        let interpreter =
            words[..main].iter().find(|w| w.rsplit('/').next().is_some_and(|name| name.starts_with("python")));
        let by_path = interpreter.and_then(|p| p.rsplit_once("/bin/python")).map(|(environment, _)| environment);
        let environment = match by_path {
            Some("" | "/usr" | "/usr/local") => None,
            Some(environment) => self.at(environment),
            None => self.state.active.clone(),
        };
        self.started += 1;
        // Of two starts, an unconditional one counts, else the first.
        let sure = self.conditions.is_empty();
        if self.script.starts && !sure {
            return;
        }
        let path = |option| value(option).and_then(|path| self.at(&path));
        let known = |word: &String| ARGUMENTS.iter().any(|a| word == a || word.starts_with(&format!("{a}=")));
        let script = &self.script;
        let next = Script {
            starts: true,
            plain_python: environment.is_none() && interpreter.is_some_and(|p| !is_unknown(p)),
            code_dir,
            environment,
            base_directory: path("--base-directory"),
            directories: [
                ("output", "--output-directory"),
                ("input", "--input-directory"),
                ("user", "--user-directory"),
            ]
            .into_iter()
            .filter_map(|(name, option)| Some((name, path(option)?)))
            .collect(),
            port: value("--port").and_then(|port| port.parse().ok()),
            arguments: words[main..].iter().any(known),
            cors: words[main..]
                .iter()
                .any(|w| w.starts_with("--enable-cors-header"))
                .then(|| value("--enable-cors-header").unwrap_or_default()),
            ..script.clone()
        };
        self.script = next;
    }
}

/// Whether a requirement is a package of the login plugin, with or without a version.
fn is_dependency(requirement: &str) -> bool {
    let name = requirement.split(|c: char| !(c.is_ascii_alphanumeric() || "-_".contains(c))).next();
    name.is_some_and(|name| DEPENDENCIES.iter().any(|known| name.eq_ignore_ascii_case(known)))
}

/// Whether a path or the name of a repository is that of a login plugin. Only the names of the plugin and of
/// the file count: a directory above, the host or the user of a URL (`oauth2:…@host`) says nothing.
fn names_the_lock(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | "." | "*")).collect();
    let node = parts.iter().position(|part| *part == "custom_nodes").and_then(|n| parts.get(n + 1));
    let last = parts.len().checked_sub(1).map(|n| &parts[n]);
    // `ComfyUI-Login/requirements.txt`, `ComfyUI-Login/*.py`
    let of_file = last.filter(|name| name.contains(['.', '*'])).and_then(|_| parts.get(parts.len().checked_sub(2)?));
    [node, last, of_file].into_iter().flatten().any(|name| is_login(name))
}

/// Whether a name suggests that a login is required.
fn is_login(name: &str) -> bool {
    let name = name.to_lowercase();
    let words = || name.split(|c: char| !c.is_ascii_alphanumeric());
    name.contains("login")
        || words().any(|w| w.ends_with("auth") || w.starts_with("authent") || w.starts_with("authoriz"))
}

/// Whether a requirements file is that of every custom node; with the directory of the nodes if it
/// is known.
fn of_every_node(path: &str) -> Option<Option<String>> {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    let (file, directories) = parts.split_last()?;
    let any = directories.iter().position(|p| p.contains('*'))?;
    if !file.contains("requirements") && !file.contains('*') {
        return None;
    }
    let root = format!("/{}", directories[..any].join("/"));
    if is_unknown(path) || !path.starts_with('/') {
        return Some(None);
    }
    root.to_lowercase().contains("node").then_some(Some(root))
}
