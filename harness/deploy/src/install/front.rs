//! A lock in a proxy in front of ComfyUI: nothing is installed; its credential file is read from
//! the proxy's configuration.

use crate::{deployment::Deployment, engine::exec::Command};
use lockproof_model::{error::Result, path::normalise};

/// The credential file that a proxy's configuration names; `None` if none does.
///
/// # Errors
/// An environment error if the container cannot be read.
pub(super) async fn credential_file(deployment: &Deployment) -> Result<Option<String>> {
    let scheme = &deployment.subject.lock.scheme;
    let Some(by) = scheme.credential.as_ref().and_then(|c| c.named_by.as_ref()) else { return Ok(None) };
    // Skips comments; missing directories are not an error.
    let script = format!(
        "for d in {}; do [ -d \"$d\" ] || continue; echo \"in $d\"; \
         grep -rhE '^[[:space:]]*({})[[:space:]]' \"$d\" 2>/dev/null; done",
        by.below.iter().filter_map(|d| shlex::try_quote(d).ok()).collect::<Vec<_>>().join(" "),
        by.directives.join("|"),
    );
    let command = Command::new(["sh", "-c", &script]).user("0");
    let said = deployment.engine.exec(&deployment.container_id(), command).await?.stdout;
    Ok(first_path(&said))
}

/// The first path in the output; a relative one is resolved against its directory.
fn first_path(said: &str) -> Option<String> {
    let mut directory = "/";
    for line in said.lines() {
        if let Some(next) = line.strip_prefix("in ") {
            directory = next;
            continue;
        }
        let value = line.split_whitespace().nth(1)?.trim_end_matches(';').trim_matches(['"', '\'']);
        if value.is_empty() || value == "off" {
            continue;
        }
        return Some(normalise(&if value.starts_with('/') {
            value.to_owned()
        } else {
            format!("{directory}/{value}")
        }));
    }
    None
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::absolute("in /etc/nginx\n    auth_basic_user_file /run/secrets/htpasswd;\n", Some("/run/secrets/htpasswd"))]
    #[case::relative("in /etc/nginx\nauth_basic_user_file conf.d/.htpasswd;\n", Some("/etc/nginx/conf.d/.htpasswd"))]
    #[case::apache("in /etc/apache2\n  AuthUserFile \"/etc/apache2/.htpasswd\"\n", Some("/etc/apache2/.htpasswd"))]
    #[case::second_directory("in /etc/nginx\nin /etc/apache2\nAuthUserFile x\n", Some("/etc/apache2/x"))]
    #[case::none("in /etc/nginx\n", None)]
    fn a_configuration_names_the_file(#[case] said: &str, #[case] path: Option<&str>) {
        assert_eq!(first_path(said).as_deref(), path);
    }
}
