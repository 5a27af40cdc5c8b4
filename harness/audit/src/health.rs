//! `deploy/healthcheck`: a health check that fails while the lock works.

use super::{scene::Found, scene::Scene, subject::Placed};
use lockproof_model::finding::Rule;

pub(super) fn findings(scene: &Scene<'_>) -> Vec<Found> {
    let own = scene.service.healthcheck.as_ref();
    let (test, at, whose) = match own {
        Some(check) if check.disabled => return Vec::new(),
        Some(check) if !check.test.is_empty() => (check.test.clone(), check.at, "the file's"),
        _ => {
            let image = scene.service.image.as_ref().map(|i| i.at);
            let at = image.or(scene.service.build.as_ref().map(|b| b.at)).unwrap_or(scene.service.at);
            (scene.facts.healthcheck.clone(), at, "the image's")
        }
    };
    let line = test.join(" ");
    let Some(path) = asked(&line) else { return Vec::new() };
    if scene.scheme.is_public("GET", &path) || !minds(&line) || shows_credential(&line) {
        return Vec::new();
    }
    let port = scene.facts.port;
    let public = scene.scheme.login.as_ref().map_or("/login", |l| l.path.as_str());
    let found = Found {
        at: Placed::At(at),
        ..Found::new(
            Rule::DeployHealthcheck,
            at,
            format!(
                "{whose} health check requests {path}, which fails when the lock works and succeeds when it is lost"
            ),
        )
        .evidence(line)
        .remedy(format!(
            "request the login page, which exists only while the plugin is \
                loaded:\nhealthcheck:\n  test: [\"CMD\", \"curl\", \"-fsS\", \
                \"http://127.0.0.1:{port}{public}\"]"
        ))
    };
    vec![found]
}

/// The path of the URL that a health check requests.
pub(super) fn asked(line: &str) -> Option<String> {
    let start = line.find("http://").or_else(|| line.find("https://"))?;
    let url = line[start..].split(|c: char| c.is_whitespace() || "'\")];|`".contains(c)).next()?;
    let rest = url.split_once("://")?.1;
    let path = rest.find('/').map_or("/", |n| &rest[n..]);
    Some(path.split(['?', '#']).next().unwrap_or("/").to_owned())
}

/// Whether the check fails on 401. `curl` without `-f` accepts any answer.
pub(super) fn minds(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let curl = words.iter().any(|w| w.rsplit('/').next() == Some("curl"));
    if curl {
        let short = |w: &str| w.starts_with('-') && !w.starts_with("--") && w.contains('f');
        return words.iter().any(|w| short(w) || w.starts_with("--fail")) || line.contains("http_code");
    }
    line.contains("wget")
        || line.contains("urlopen")
        || line.contains("raise_for_status")
        || line.contains("urllib")
        || line.contains("fetch(")
}

fn shows_credential(line: &str) -> bool {
    let lower = line.to_lowercase();
    ["authorization", "token=", "--user ", " -u ", "bearer"].iter().any(|word| lower.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requested_path_and_whether_401_fails_the_check() {
        let cases = [
            ("CMD curl -f http://localhost:8188/system_stats", Some("/system_stats"), true),
            ("CMD-SHELL curl -fsS http://127.0.0.1:8188 || exit 1", Some("/"), true),
            ("CMD-SHELL curl -s http://localhost:8188/ > /dev/null", Some("/"), false),
            ("CMD wget -q --spider http://localhost:8188/queue?x=1", Some("/queue"), true),
            (
                "CMD python -c import urllib.request; urllib.request.urlopen('http://localhost:8188/object_info')",
                Some("/object_info"),
                true,
            ),
            ("CMD pgrep python", None, false),
        ];
        for (line, path, minded) in cases {
            assert_eq!((asked(line).as_deref(), minds(line)), (path, minded), "{line}");
        }
    }
}
