//! Reads from a Dockerfile what decides where the lock is stored in its image.
//!
//! Nothing is executed. A `RUN` line matters if it clones ComfyUI, creates a virtual environment or
//! installs packages; other lines are ignored.

use std::collections::BTreeMap;

use lockproof_compose::{in_container, interpolate::substitute};

/// The result for the requested stage, or the last one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dockerfile {
    /// The base image.
    pub from: Option<String>,
    /// The final working directory.
    pub workdir: Option<String>,
    /// The variables of the image.
    pub env: BTreeMap<String, String>,
    /// The words of the entry point.
    pub entrypoint: Vec<String>,
    /// The words of the command.
    pub command: Vec<String>,
    /// The declared volumes.
    pub volumes: Vec<String>,
    /// The final user.
    pub user: Option<String>,
    /// The directory into which ComfyUI was cloned.
    pub cloned_to: Option<String>,
    /// The virtual environments that it creates.
    pub environments: Vec<String>,
    /// Whether it installs any packages.
    pub installs: bool,
    /// The words of the health check.
    pub healthcheck: Vec<String>,
    /// Files copied from the build context, as `(from, to)`.
    pub copies: Vec<(String, String)>,
}

impl Dockerfile {
    /// Reads `text` with the build arguments, up to the stage `target` or the last one.
    pub fn read(text: &str, args: &[(String, Option<String>)], target: Option<&str>) -> Self {
        let mut reader = Reader { args: args.iter().cloned().collect(), ..Reader::default() };
        for (word, rest) in instructions(text) {
            if word == "FROM" && reader.is_done(target) {
                break;
            }
            reader.take(&word, &rest);
        }
        let mut now = reader.now;
        let from = now.from.take();
        now.from = from.map(|f| reader.bottom.get(&f).cloned().unwrap_or(f));
        now
    }

    /// The value of a variable in the image.
    pub fn variable(&self, name: &str) -> Option<String> {
        self.env.get(name).cloned()
    }
}

#[derive(Default)]
struct Reader {
    args: BTreeMap<String, Option<String>>,
    defaults: BTreeMap<String, String>,
    stages: BTreeMap<String, Dockerfile>,
    /// The base image of each named stage.
    bottom: BTreeMap<String, String>,
    name: Option<String>,
    now: Dockerfile,
}

impl Reader {
    fn is_done(&self, target: Option<&str>) -> bool {
        target.is_some() && self.name.as_deref() == target
    }

    fn fill(&self, text: &str) -> String {
        let lookup = |name: &str| {
            self.now
                .env
                .get(name)
                .cloned()
                .or_else(|| self.args.get(name).cloned().flatten())
                .or_else(|| self.defaults.get(name).cloned())
        };
        substitute(text, &lookup, &mut Vec::new()).unwrap_or_else(|_| text.to_owned())
    }

    fn directory(&self, path: &str) -> String {
        let path = self.fill(path.trim().trim_matches(['"', '\'']));
        let base = self.now.workdir.as_deref().unwrap_or("/");
        in_container(&if path.starts_with('/') { path } else { format!("{base}/{path}") })
    }

    fn take(&mut self, word: &str, rest: &str) {
        match word {
            "FROM" => self.from(rest),
            "ARG" => {
                for part in shlex::split(rest).unwrap_or_default() {
                    let (name, value) = part.split_once('=').unwrap_or((&part, ""));
                    let value = self.fill(value);
                    if !value.is_empty() || !self.defaults.contains_key(name) {
                        self.defaults.insert(name.to_owned(), value);
                    }
                }
            }
            "ENV" => self.env(rest),
            "WORKDIR" => self.now.workdir = Some(self.directory(rest)),
            "USER" => self.now.user = Some(self.fill(rest.trim())),
            "ENTRYPOINT" => {
                self.now.entrypoint = words(rest).iter().map(|w| self.fill(w)).collect();
                self.now.command.clear();
            }
            "CMD" => self.now.command = words(rest).iter().map(|w| self.fill(w)).collect(),
            "HEALTHCHECK" => {
                let test = rest.find("CMD").map_or("", |n| &rest[n + 3..]);
                self.now.healthcheck = if rest.trim() == "NONE" { Vec::new() } else { words(test) };
            }
            "VOLUME" => {
                let list = serde_json::from_str::<Vec<String>>(rest.trim());
                let list = list.unwrap_or_else(|_| rest.split_whitespace().map(str::to_owned).collect());
                let volumes: Vec<String> = list.iter().map(|v| self.directory(v)).collect();
                self.now.volumes.extend(volumes);
            }
            "COPY" | "ADD" => self.copy(rest),
            "RUN" => self.run(rest),
            _ => {}
        }
    }

    fn from(&mut self, rest: &str) {
        if let Some(name) = self.name.take() {
            let mut stage = self.now.clone();
            stage.from = stage.from.map(|f| self.bottom.get(&f).cloned().unwrap_or(f));
            if let Some(from) = &stage.from {
                self.bottom.insert(name.clone(), from.clone());
            }
            self.stages.insert(name, stage);
        }
        self.now = Dockerfile::default();
        let parts: Vec<String> =
            rest.split_whitespace().filter(|p| !p.starts_with("--")).map(|p| self.fill(p)).collect();
        let Some(image) = parts.first() else { return };
        self.now = self.stages.get(&image.to_lowercase()).cloned().unwrap_or_default();
        if self.now.from.is_none() {
            self.now.from = Some(image.clone());
        }
        self.name = (parts.len() == 3 && parts[1].eq_ignore_ascii_case("as")).then(|| parts[2].to_lowercase());
    }

    fn env(&mut self, rest: &str) {
        let parts = shlex::split(rest).unwrap_or_default();
        if parts.first().is_some_and(|p| p.contains('=')) {
            for part in &parts {
                if let Some((name, value)) = part.split_once('=') {
                    let value = self.fill(value);
                    self.now.env.insert(name.to_owned(), value);
                }
            }
        } else if let Some((name, value)) = rest.trim().split_once(char::is_whitespace) {
            let value = self.fill(value.trim());
            self.now.env.insert(name.to_owned(), value);
        }
        if let Some(environment) = self.now.env.get("VIRTUAL_ENV").cloned() {
            self.environment(&environment);
        }
    }

    fn environment(&mut self, path: &str) {
        let path = self.directory(path);
        if !self.now.environments.contains(&path) {
            self.now.environments.push(path);
        }
    }

    fn copy(&mut self, rest: &str) {
        let parts: Vec<String> = match serde_json::from_str::<Vec<String>>(rest.trim()) {
            Ok(parts) => parts,
            Err(_) => rest.split_whitespace().map(str::to_owned).collect(),
        };
        if rest.contains("--from=") {
            return;
        }
        let parts: Vec<&String> = parts.iter().filter(|p| !p.starts_with("--")).collect();
        let Some((to, from)) = parts.split_last() else { return };
        for file in from {
            let file = self.fill(file);
            let name = file.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            let whole = to.ends_with('/') || from.len() > 1 || *to == "." || *to == "./";
            let target =
                if whole && !file.ends_with('/') && file != "." { format!("{to}/{name}") } else { (*to).clone() };
            let target = self.directory(&target);
            self.now.copies.push((file.trim_start_matches("./").to_owned(), target));
        }
    }

    fn run(&mut self, rest: &str) {
        let mut here = self.now.workdir.clone().unwrap_or_else(|| "/".to_owned());
        let at = |here: &str, path: &str| {
            let path = path.trim_matches(['"', '\'', ';', ')']);
            in_container(&if path.starts_with('/') { path.to_owned() } else { format!("{here}/{path}") })
        };
        for step in rest.split(['\n', ';']).flat_map(|line| line.split("&&")) {
            let step = self.fill(step.trim());
            let parts: Vec<&str> = step.split_whitespace().collect();
            match parts.as_slice() {
                ["cd", path, ..] => here = at(&here, path),
                [.., "venv", _] | [.., "venv", _, _] | [.., "virtualenv", _] if !step.starts_with("apt") => {
                    let path = parts.iter().rev().find(|p| !p.starts_with('-')).copied().unwrap_or_default();
                    if path != "venv" || parts.iter().filter(|p| **p == "venv").count() > 1 {
                        let path = at(&here, path);
                        self.environment(&path);
                    }
                }
                _ => {}
            }
            if let Some(place) = parts.iter().position(|p| is_comfyui_repository(p)) {
                let to = parts.get(place + 1).filter(|p| !p.starts_with(['-', '&', '|']));
                let to = to.copied().unwrap_or("ComfyUI");
                self.now.cloned_to.get_or_insert_with(|| at(&here, to));
            }
            if let ["comfy", .., "install"] | ["comfy", .., "install", _] = parts.as_slice()
                && let Some(n) = parts.iter().position(|p| *p == "--workspace")
                && let Some(path) = parts.get(n + 1)
            {
                self.now.cloned_to.get_or_insert_with(|| at(&here, path));
            }
            self.now.installs |= step.contains("pip install") || step.contains("uv pip");
        }
    }
}

/// Whether a word is the URL of ComfyUI's own repository, not of a custom node.
pub(super) fn is_comfyui_repository(word: &str) -> bool {
    let word = word.trim_matches(['"', '\'']).trim_end_matches('/').trim_end_matches(".git").to_lowercase();
    (word.contains("://") || word.starts_with("git@")) && word.rsplit('/').next() == Some("comfyui")
}

/// The words of an instruction in exec or shell form.
fn words(rest: &str) -> Vec<String> {
    let rest = rest.trim();
    match serde_json::from_str::<Vec<String>>(rest) {
        Ok(words) => words,
        Err(_) if rest.is_empty() => Vec::new(),
        Err(_) => vec!["/bin/sh".to_owned(), "-c".to_owned(), rest.to_owned()],
    }
}

/// The instructions with their arguments; joins continued lines and keeps here-documents.
fn instructions(text: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines();
    while let Some(line) = lines.next() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut whole = line.to_owned();
        while whole.ends_with('\\') {
            whole.pop();
            match lines.next() {
                Some(more) if more.trim_start().starts_with('#') => whole.push_str(" \\"),
                Some(more) => {
                    whole.push(' ');
                    whole.push_str(more.trim());
                }
                None => break,
            }
        }
        let (word, rest) = whole.split_once(char::is_whitespace).unwrap_or((&whole, ""));
        let mut rest = rest.to_owned();
        if let Some(end) = here_document(&rest) {
            for more in lines.by_ref() {
                if more.trim() == end {
                    break;
                }
                rest.push('\n');
                rest.push_str(more);
            }
        }
        found.push((word.to_uppercase(), rest));
    }
    found
}

fn here_document(rest: &str) -> Option<String> {
    let word = rest.split("<<").nth(1)?.split_whitespace().next()?;
    let word = word.trim_start_matches('-').trim_matches(['"', '\'']);
    (!word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')).then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_stage_is_read_with_its_base() {
        let text = "ARG BASE=python:3.12\nFROM $BASE AS base\nENV ROOT=/srv COMFY_DIR=\"/srv/ComfyUI\"\nWORKDIR ${ROOT}\n\
                    RUN apt-get update && \\\n    # a comment\n    git clone --depth 1 https://github.com/comfyanonymous/ComfyUI.git ${COMFY_DIR} \\\n && python3 -m venv /srv/venv\n\
                    FROM alpine AS other\nFROM base\nVOLUME [\"/data\"]\nCOPY --chmod=755 docker/entry.sh /entry.sh\n\
                    WORKDIR ComfyUI\nENTRYPOINT [\"/entry.sh\"]\nCMD python main.py --listen\nHEALTHCHECK --interval=5s CMD curl -f http://localhost:8188/\n";
        let read = Dockerfile::read(text, &[], None);
        assert_eq!(read.from.as_deref(), Some("python:3.12"));
        assert_eq!(read.workdir.as_deref(), Some("/srv/ComfyUI"));
        assert_eq!(read.cloned_to.as_deref(), Some("/srv/ComfyUI"));
        assert_eq!(read.environments, ["/srv/venv"]);
        assert_eq!(read.volumes, ["/data"]);
        assert_eq!(read.entrypoint, ["/entry.sh"]);
        assert_eq!(read.command, ["/bin/sh", "-c", "python main.py --listen"]);
        assert_eq!(read.copies, [("docker/entry.sh".to_owned(), "/entry.sh".to_owned())]);
        assert_eq!(read.healthcheck.last().map(String::as_str), Some("curl -f http://localhost:8188/"));
    }

    #[test]
    fn arguments_and_targets_choose() {
        let text = "ARG TAG=a\nFROM x:${TAG} AS one\nWORKDIR /one\nFROM y AS two\nWORKDIR /two\n";
        let args = [("TAG".to_owned(), Some("b".to_owned()))];
        let one = Dockerfile::read(text, &args, Some("one"));
        assert_eq!((one.from.as_deref(), one.workdir.as_deref()), (Some("x:b"), Some("/one")));
        assert_eq!(Dockerfile::read(text, &[], None).workdir.as_deref(), Some("/two"));
    }

    #[test]
    fn a_custom_node_is_not_comfyui() {
        assert!(is_comfyui_repository("https://github.com/Comfy-Org/ComfyUI"));
        assert!(!is_comfyui_repository("https://github.com/ltdrdata/ComfyUI-Manager.git"));
        assert!(!is_comfyui_repository("ComfyUI"));
    }
}
