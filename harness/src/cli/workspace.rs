//! `lockproof workspace`.

use clap::{Args, ValueEnum};

use super::{audit::ServiceArguments, output::print};
use lockproof_audit::{
    facts,
    workspace::{Candidate, candidates},
};
use lockproof_compose::{Project, Service};
use lockproof_model::{
    error::{Error, Result},
    exit,
};

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Arguments {
    #[command(flatten)]
    of: ServiceArguments,
    /// The output format.
    #[arg(long, value_enum, default_value_t = Format::Env)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Shell assignments.
    Env,
    /// A JSON object.
    Json,
    /// Only the path in the container.
    Plain,
}

const AFTER_HELP: &str = "\
For install scripts:
  eval \"$(lockproof workspace)\"
  lockproof workspace --format plain

COMFYUI_WORKSPACE_PATH is the path in the container. COMFYUI_WORKSPACE_HOST is the host directory
of a bind mount; COMFYUI_WORKSPACE_VOLUME is the name of a volume.";

pub(super) fn run(arguments: &Arguments) -> Result<u8> {
    let workspace = arguments.of.with(one)?;
    print(&written(&workspace, arguments.format))?;
    Ok(exit::OK)
}

fn one(project: &Project, service: &Service) -> Result<Candidate> {
    let found = candidates(service);
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => {
            let place = project.sources.place(service.at);
            let mut error = Error::usage(format!("no mount of `{}` is a workspace", service.name)).at(place);
            for mount in &service.mounts {
                error = error.detail(format!("{}: {}", mount.target, mount.owner().words()));
            }
            let target = facts::of(service, None).code_dir.unwrap_or_else(|| "/workspace".to_owned());
            Err(error
                .fix(format!("mount one (`- ./workspace:{target}`), or set COMFYUI_WORKSPACE_PATH on the service")))
        }
        several => {
            let mut error =
                Error::usage(format!("{} mounts of `{}` could be the workspace", several.len(), service.name))
                    .at(project.sources.place(service.at));
            for candidate in several {
                error = error.detail(format!("{} ← {}", candidate.target, candidate.host));
            }
            Err(error.fix(format!("set COMFYUI_WORKSPACE_PATH on the service, for example to {}", several[0].target)))
        }
    }
}

fn written(workspace: &Candidate, format: Format) -> String {
    let host = if workspace.is_path { "COMFYUI_WORKSPACE_HOST" } else { "COMFYUI_WORKSPACE_VOLUME" };
    let quoted = |text: &str| shlex::try_quote(text).map_or_else(|_| text.to_owned(), std::borrow::Cow::into_owned);
    match format {
        Format::Env => {
            format!("COMFYUI_WORKSPACE_PATH={}\n{host}={}\n", quoted(&workspace.target), quoted(&workspace.host))
        }
        Format::Plain => format!("{}\n", workspace.target),
        Format::Json => {
            let kind = if workspace.is_path { "host" } else { "volume" };
            let object =
                serde_json::json!({ "container": workspace.target, kind: workspace.host, "why": workspace.why });
            format!("{object}\n")
        }
    }
}
