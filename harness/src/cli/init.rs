//! `lockproof init`.

use std::{io::Write, path::PathBuf};

use clap::Args;

use super::{audit::ServiceArguments, output::print};
use lockproof_audit::{self as audit, tokens::token_variables};
use lockproof_compose::{Project, Service};
use lockproof_model::{
    error::{Error, Result},
    event::Event,
    exit,
    scheme::Scheme,
    verdict::Verdict,
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    of: ServiceArguments,
    /// The file to write, or `-` for standard output. An existing file is not overwritten.
    #[arg(long, short, value_name = "PATH", default_value = "lockproof.yaml")]
    output: PathBuf,
    /// Overwrite an existing file.
    #[arg(long)]
    force: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8> {
    let text = arguments.of.with(written)?;
    if arguments.output.as_os_str() == "-" {
        print(&text)?;
        return Ok(exit::OK);
    }
    let shown = arguments.output.display();
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(arguments.force).create_new(!arguments.force);
    let mut file = options.open(&arguments.output).map_err(|e| {
        let error = Error::usage(format!("cannot write {shown}: {e}"));
        if e.kind() == std::io::ErrorKind::AlreadyExists {
            error.fix("overwrite it with --force, or choose another file with --output")
        } else {
            error.fix("choose another path with --output")
        }
    })?;
    file.write_all(text.as_bytes()).map_err(|e| Error::environment(format!("cannot write {shown}")).detail(e))?;
    print(&format!("wrote {shown}; run the gate with `lockproof gate --config {shown}`\n"))?;
    Ok(exit::OK)
}

/// Renders a commented `lockproof.yaml` for one service.
fn written(project: &Project, service: &Service) -> Result<String> {
    let scheme = Scheme::find(Scheme::DEFAULT, std::path::Path::new(""))?;
    let options = audit::Options { services: vec![service.name.clone()], scheme, images: Default::default() };
    let read = audit::audit(project, &options, "")?;
    let subject = read.subjects.first().ok_or_else(|| Error::usage("the project has no subject to write"))?;
    let files: Vec<String> = project.files.iter().map(|file| quoted(&file.display().to_string())).collect();
    let mut text = String::from(
        "# `lockproof gate` starts each subject, installs its lock, runs the events below, and checks \
        after\n# each event what anonymous requests and the token get.\n\nsubjects:\n",
    );
    text.push_str(&format!(
        "  - name: {}\n    compose: [{}]\n    service: {}\n",
        quoted(&service.name),
        files.join(", "),
        quoted(&service.name)
    ));
    let facts = &subject.facts;
    if facts.port != 8188 {
        text.push_str(&format!("    port: {}\n", facts.port));
    }
    if let Some(code) = facts.code_dir.as_ref().filter(|_| facts.layout_known) {
        text.push_str(&format!("    # Detected by default. Read from {}:\n", facts.from.join(", ")));
        let nodes = facts.custom_nodes.clone().unwrap_or_default();
        text.push_str(&format!("    # layout: {{ code_dir: {}, custom_nodes: {} }}\n", quoted(code), quoted(&nodes)));
    }
    let expected: Vec<(Event, Verdict)> = subject
        .predicted
        .iter()
        .filter_map(|(event, verdict)| Some((*event, (*verdict)?)))
        .filter(|(_, verdict)| *verdict != Verdict::Locked)
        .collect();
    if expected.is_empty() {
        text.push_str(
            "    # By default, every subject must be locked after every event. List exceptions here:\n    # \
            expect: { wipe: claimable }\n",
        );
    } else {
        let entries: Vec<String> = expected.iter().map(|(e, v)| format!("{e}: {v}")).collect();
        text.push_str("    # `lockproof audit` predicts these verdicts. To let them pass, remove the `#`.\n");
        text.push_str(&format!("    # expect: {{ {} }}\n", entries.join(", ")));
    }
    text.push_str("\nscheme:\n  use: comfyui-login\n");
    if facts.script.plugin != lockproof_audit::images::script::Come::Never {
        text.push_str("  # The deployment installs its lock at every start, so `install` is not needed.\n");
    } else {
        text.push_str(
            "  # The plugin to install. Without this, the deployment must contain its lock.\n  # \
            install: { from: ./ComfyUI-Login }\n",
        );
    }
    match token_variables(service).first() {
        Some(name) => text
            .push_str(&format!("  # The deployment's own token.\n  credential: {{ token_env: {} }}\n", quoted(name))),
        None => {
            text.push_str("  # credential: { password_env: LOCKPROOF_PASSWORD }   # default: random for each run\n")
        }
    }
    text.push_str(
        "\nevents: [restart, kill, recreate, down-up]\n\n# Known findings that are tolerated until \
        a date, with a reason:\n# accept:\n#   - { rule: lock/static-suffix, reason: \"…\", until: \
        2027-03-31 }\n",
    );
    Ok(text)
}

/// Quotes a text as a YAML scalar. Every JSON string is also a YAML string.
fn quoted(text: &str) -> String {
    let plain = !text.is_empty()
        && text.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '/' || c == '.')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text.to_lowercase().as_str());
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}
