//! What a command line or an entry point shows: where `main.py` is started, by which Python, with
//! which arguments, and whether packages or the lock are installed at each start.

use crate::compose::{
    in_container,
    interpolate::{How, substitute},
};

/// What was read out of a command or a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// The directory of the `main.py` that is started.
    pub code_dir: Option<String>,
    /// The virtual environment that is activated, or whose Python starts it.
    pub environment: Option<String>,
    /// `--base-directory`.
    pub base_directory: Option<String>,
    /// `--port`.
    pub port: Option<u16>,
    /// Whether something starts ComfyUI here.
    pub starts: bool,
    /// Whether the requirements of custom nodes are installed at each start.
    pub requirements: bool,
    /// Whether the login plugin itself is put in place at each start.
    pub plugin: bool,
    /// Whether the credential is written at each start.
    pub credential: bool,
    /// Whether the dependencies of the login plugin are installed at each start.
    pub dependencies: bool,
    /// The line, from 0, that installs something of the lock and lets the start go on when it fails.
    pub swallowed: Option<usize>,
    /// The value of `--enable-cors-header`; empty: any.
    pub cors: Option<String>,
}

/// Packages of the login plugin, as somebody may install them by name.
const DEPENDENCIES: [&str; 3] = ["aiohttp_session", "aiohttp-session", "bcrypt"];

/// Reads a script or a command line that begins in `workdir`; `variable` knows the environment.
pub fn read(text: &str, workdir: Option<&str>, variable: &dyn Fn(&str) -> Option<String>) -> Script {
    let mut script = Script::default();
    let mut here = workdir.map(str::to_owned);
    let mut local: Vec<(String, String)> = Vec::new();
    let mut strict = false;
    let text = text.replace("\\\n", "  ");
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        strict |= line.starts_with("set -") && line.split_whitespace().nth(1).is_some_and(|flags| flags.contains('e'));
        let installs = note_installs(&mut script, line);
        let swallowed = ["|| true", "|| :", "||true", "|| echo"].iter().any(|way| line.contains(way));
        if installs && (swallowed || !strict && number > 0 && !line.contains("&&")) && script.swallowed.is_none() {
            script.swallowed = Some(number);
        }
        for step in line.split("&&").flat_map(|s| s.split(';')).flat_map(|s| s.split("||")) {
            let lookup = |name: &str| {
                local.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone()).or_else(|| variable(name))
            };
            let filled = fill(step.trim(), &lookup);
            let words = shlex::split(&filled).unwrap_or_else(|| filled.split_whitespace().map(str::to_owned).collect());
            let words: Vec<&str> = words
                .iter()
                .map(String::as_str)
                .skip_while(|w| matches!(*w, "exec" | "then" | "do" | "export"))
                .collect();
            take(&mut script, &mut here, &mut local, &words);
        }
    }
    script
}

/// The step with its variables; of those that nobody knows, the `$` stays.
fn fill(step: &str, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    let mut uses = Vec::new();
    let filled = substitute(step, lookup, &mut uses).unwrap_or_else(|_| step.to_owned());
    let unset: Vec<String> = uses.into_iter().filter(|u| u.how == How::Unset).map(|u| u.name).collect();
    if unset.is_empty() {
        return filled;
    }
    let marked = |name: &str| lookup(name).or_else(|| unset.iter().any(|u| u == name).then(|| format!("${name}")));
    substitute(step, &marked, &mut Vec::new()).unwrap_or(filled)
}

fn note_installs(script: &mut Script, line: &str) -> bool {
    let lower = line.to_lowercase();
    let pip = lower.contains("pip") && lower.contains("install") || lower.contains("uv sync");
    let requirements = pip
        && lower.contains("-r")
        && (lower.contains("custom_nodes")
            || lower.contains("$req")
            || lower.contains("$deps")
            || lower.contains("custom_node"));
    let of_login = lower.contains("login") || lower.contains("auth");
    let dependencies = pip && (DEPENDENCIES.iter().any(|d| lower.contains(d)) || lower.contains("-r") && of_login);
    let puts = lower.contains("git clone")
        || lower.starts_with("cp ")
        || lower.contains(" cp ")
        || lower.contains("ln -s")
        || lower.contains("install.sh");
    let plugin = puts && of_login && !lower.contains("password") && !pip;
    let credential =
        lower.contains("login/password") && lower.contains('>') || lower.contains("/password") && lower.contains("> ");
    script.requirements |= requirements;
    script.dependencies |= dependencies;
    script.plugin |= plugin;
    script.credential |= credential;
    dependencies || plugin || requirements
}

fn take(script: &mut Script, here: &mut Option<String>, local: &mut Vec<(String, String)>, words: &[&str]) {
    let at = |here: &Option<String>, path: &str| -> Option<String> {
        if path.contains('$') {
            None
        } else if path.starts_with('/') {
            Some(in_container(path))
        } else {
            here.as_deref().map(|here| in_container(&format!("{here}/{path}")))
        }
    };
    if let [one] = words
        && let Some((name, value)) = one.split_once('=')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    {
        local.push((name.to_owned(), value.to_owned()));
        return;
    }
    match words {
        ["cd" | "pushd", path, ..] => *here = at(here, path),
        ["source" | ".", path, ..] if path.ends_with("/activate") => {
            let path = path.trim_end_matches("/activate").trim_end_matches("/bin").trim_end_matches("/Scripts");
            script.environment = at(here, if path.is_empty() { "." } else { path });
        }
        _ => {}
    }
    if let Some(n) = words.iter().position(|w| *w == "main.py" || w.ends_with("/main.py")) {
        script.starts = true;
        let directory = words[n].trim_end_matches("main.py").trim_end_matches('/');
        script.code_dir = if words[n] == "/main.py" {
            Some("/".to_owned())
        } else {
            at(here, if directory.is_empty() { "." } else { directory })
        };
        let interpreter =
            words[..n].iter().find(|w| w.rsplit('/').next().is_some_and(|name| name.starts_with("python")));
        if let Some(environment) = interpreter.and_then(|p| p.rsplit_once("/bin/python")).map(|(e, _)| e)
            && !matches!(environment, "/usr" | "/usr/local" | "")
        {
            script.environment = at(here, environment);
        }
    }
    let value = |name: &str| {
        let n = words.iter().position(|w| *w == name || w.strip_prefix(name).is_some_and(|r| r.starts_with('=')))?;
        match words[n].split_once('=') {
            Some((_, value)) => Some(value),
            None => words.get(n + 1).copied().filter(|w| !w.starts_with("--")),
        }
    };
    if let Some(path) = value("--base-directory") {
        script.base_directory = at(here, path);
    }
    if let Some(port) = value("--port") {
        script.port = port.parse().ok();
    }
    if words.iter().any(|w| w.starts_with("--enable-cors-header")) {
        script.cors = Some(value("--enable-cors-header").unwrap_or_default().to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Script {
        read(text, Some("/start"), &|name| (name == "COMFYUI_DIR").then(|| "/srv/ComfyUI".to_owned()))
    }

    #[test]
    fn where_it_is_started() {
        let cases = [
            (
                "cd /workspace/ComfyUI && source venv/bin/activate && python main.py --listen",
                "/workspace/ComfyUI",
                Some("/workspace/ComfyUI/venv"),
            ),
            ("/opt/venv/bin/python /opt/ComfyUI/main.py --port=9000", "/opt/ComfyUI", Some("/opt/venv")),
            ("python main.py", "/start", None),
            ("cd $COMFYUI_DIR; exec python3 main.py", "/srv/ComfyUI", None),
            ("ROOT=/x\ncd \"$ROOT\"\npython ./ComfyUI/main.py", "/x/ComfyUI", None),
        ];
        for (text, code_dir, environment) in cases {
            let script = of(text);
            assert_eq!(
                (script.code_dir.as_deref(), script.environment.as_deref()),
                (Some(code_dir), environment),
                "{text}"
            );
        }
        assert_eq!(of("python main.py --base-directory /data").base_directory.as_deref(), Some("/data"));
        assert_eq!(of("cd \"$(dirname x)\" && python main.py").code_dir, None);
    }

    #[test]
    fn what_each_start_installs_and_whether_it_minds() {
        let fails = of("pip install aiohttp_session bcrypt || true\npython main.py");
        assert!(fails.dependencies && fails.swallowed == Some(0));
        let strict = of("set -eu\ngit clone https://example/ComfyUI-Login custom_nodes/ComfyUI-Login\npython main.py");
        assert!(strict.plugin && strict.swallowed.is_none());
        let nodes = of("set -e\npip install -r custom_nodes/x/requirements.txt\npython main.py --enable-cors-header");
        assert!(nodes.requirements && nodes.cors.as_deref() == Some(""));
    }
}
