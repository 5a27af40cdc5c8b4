//! `deploy/token-in-file` and `deploy/token-interpolated`: tokens that others can read, and tokens
//! that Compose changes. Messages never contain a token.

use super::{scene::Found, scene::Scene, subject::Placed};
use lockproof_compose::{Service, dotenv, interpolate::How, model::Variable};
use lockproof_model::{finding::Rule, secret};

pub(super) fn findings(scene: &Scene<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    for variable in &scene.service.environment {
        found.extend(in_file(variable));
        found.extend(interpolated(variable));
    }
    for (name, value) in &scene.facts.image_env {
        if is_token(name) && !is_placeholder(value) {
            hide(value);
            let at = scene.service.image.as_ref().map_or(scene.service.at, |i| i.at);
            found.push(
                Found::new(Rule::DeployTokenInFile, at, format!("the image contains a value for {name}"))
                    .evidence(format!("{name}=… in the image's environment")),
            );
        }
    }
    found.extend(in_dot_env(scene));
    found
}

/// Whether a variable contains a token or password of the lock, by its name.
pub(super) fn is_token(name: &str) -> bool {
    let name = name.to_uppercase();
    let secret = ["TOKEN", "API_KEY", "PASSWORD", "SECRET", "PASSWD"]
        .iter()
        .any(|word| name.ends_with(word) || name.contains(&format!("{word}_")));
    let of_lock = ["COMFY", "LOGIN", "AUTH", "WEB_", "BASIC"].iter().any(|word| name.contains(word));
    let bare = matches!(name.as_str(), "TOKEN" | "API_TOKEN" | "API_KEY" | "PASSWORD");
    let other = ["HF_", "HUGGING", "CIVITAI", "GITHUB", "NGC", "OPENAI", "COMFY_ORG", "_FILE"]
        .iter()
        .any(|word| name.contains(word));
    secret && (of_lock || bare) && !other
}

/// The names of the variables with the token of the service's lock.
pub fn token_variables(service: &Service) -> Vec<String> {
    let tokens = service.environment.iter().filter(|v| is_token(&v.name) && !v.name.to_uppercase().contains("PASSW"));
    tokens.map(|v| v.name.clone()).collect()
}

/// Whether the value is a bcrypt hash, which is ComfyUI-Login's token.
fn is_bcrypt(value: &str) -> bool {
    let rest = ["$2a$", "$2b$", "$2y$"].iter().find_map(|p| value.strip_prefix(p));
    rest.is_some_and(|rest| rest.len() >= 50 && rest.as_bytes().get(2) == Some(&b'$'))
}

fn is_placeholder(value: &str) -> bool {
    let lower = value.trim().to_lowercase();
    lower.is_empty()
        || lower.starts_with('<')
        || lower.starts_with("your")
        // `sk-xxxxxxxx`, `****`
        || lower.rsplit('-').next().is_some_and(|end| end.len() > 2 && end.chars().all(|c| matches!(c, 'x' | '*' | '.')))
        || matches!(
            lower.as_str(),
            "changeme" | "change-me" | "change_me" | "xxx" | "none" | "null" | "true" | "false" | "todo" | "…" | "..."
        )
}

/// Redacts a value in all output. Plain words such as `password` are not redacted, which would
/// garble other text.
fn hide(value: &str) {
    if !value.chars().all(|c| c.is_ascii_alphabetic()) {
        secret::register(value);
    }
}

fn in_file(variable: &Variable) -> Option<Found> {
    let value = variable.value.as_deref()?;
    let token = is_token(&variable.name) || is_bcrypt(value);
    if !token || variable.passed || variable.env_file.is_some() || value.trim().is_empty() {
        return None;
    }
    let defaulted = variable.raw.as_ref().is_some_and(|raw| raw.uses.iter().any(|u| u.how == How::Default));
    let from_elsewhere = variable.raw.as_ref().is_some_and(|raw| raw.uses.iter().any(|u| u.how == How::Set));
    if from_elsewhere
        || variable.raw.is_some() && !defaulted && !variable.raw.as_ref().is_some_and(|r| r.uses.is_empty())
    {
        return None;
    }
    if is_placeholder(value) && !defaulted {
        return None;
    }
    hide(value);
    let name = &variable.name;
    let message = if defaulted {
        format!("the file contains a default value for {name}")
    } else {
        format!("the file contains the value of {name}")
    };
    Some(Found::new(Rule::DeployTokenInFile, variable.at, message).evidence(format!("{name}=…")).remedy(format!(
        "move it to a .env with mode 0600 that git ignores, reference it, and change the \
                token:\nenvironment:\n  {name}: ${{{name}:?set it in .env}}"
    )))
}

/// A `$` in the file that Compose reads as a variable.
fn interpolated(variable: &Variable) -> Option<Found> {
    let raw = variable.raw.as_ref()?;
    if !is_token(&variable.name) {
        return None;
    }
    let eaten: Vec<&str> = raw.uses.iter().filter(|u| u.bare && u.how == How::Unset).map(|u| u.name.as_str()).collect();
    // `TOKEN=$COMFYUI_API_TOKEN` is a reference; only a `$` inside a longer value is an accident.
    let whole = raw.text.strip_prefix('$').is_some_and(|rest| rest == raw.uses.first().map_or("", |u| u.name.as_str()));
    if eaten.is_empty() || whole {
        return None;
    }
    hide(&raw.text);
    let name = &variable.name;
    Some(
        Found::new(
            Rule::DeployTokenInterpolated,
            variable.at,
            format!("Compose reads {} `$` in {name} as variable references", eaten.len()),
        )
        .evidence(format!("{name}=…: v1 and v2 replace them with nothing"))
        .remedy("write every `$` in the value as `$$`, or move it to .env in single quotes".to_owned()),
    )
}

/// A token in `.env` that Compose v2 changes.
fn in_dot_env(scene: &Scene<'_>) -> Vec<Found> {
    let path = scene.project.directory.join(".env");
    // Compose itself reads it, even through a link.
    let Ok(text) = lockproof_model::read::text(&path, lockproof_model::read::SHORT) else { return Vec::new() };
    let Ok(variables) = dotenv::parse(&text, &|name| scene.project.env.get(name).map(str::to_owned)) else {
        return Vec::new();
    };
    let shown = shown(scene, &path);
    variables
        .iter()
        .filter(|v| is_token(&v.name) && v.quote != Some('\'') && v.is_eaten())
        .map(|v| {
            hide(&v.written);
            let whose = if v.refused {
                "v2 rejects the file, v1 keeps the value as written"
            } else {
                "v2 replaces what looks like a variable, v1 keeps the value as written"
            };
            Found {
                at: Placed::Elsewhere(shown.clone(), v.line),
                ..Found::new(
                    Rule::DeployTokenInterpolated,
                    scene.service.at,
                    format!("Compose v2 reads the `$` in {} as variable references", v.name),
                )
                .evidence(format!("{}=…: {whose}", v.name))
                .remedy(format!("quote the value with single quotes: {}='…'", v.name))
            }
        })
        .collect()
}

pub(super) fn shown(scene: &Scene<'_>, path: &std::path::Path) -> String {
    let first = scene.project.sources.all().first().map(|s| std::path::PathBuf::from(&s.name));
    let base = first.as_deref().and_then(std::path::Path::parent).unwrap_or(std::path::Path::new(""));
    match path.strip_prefix(&scene.project.directory) {
        Ok(rest) => base.join(rest).display().to_string(),
        Err(_) => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tokens() {
        for name in ["COMFYUI_API_TOKEN", "COMFYUI_API_KEY", "LOGIN_PASSWORD", "WEB_PASSWORD", "API_TOKEN"] {
            assert!(is_token(name), "{name}");
        }
        for name in ["HF_TOKEN", "CIVITAI_API_TOKEN", "CIVITAI_TOKEN", "COMFYUI_PORT", "TZ", "COMFYUI_PASSWORD_FILE"] {
            assert!(!is_token(name), "{name}");
        }
        assert!(is_bcrypt("$2b$12$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234"));
    }
}
