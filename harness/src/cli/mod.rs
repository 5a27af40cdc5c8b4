//! The command line: one file per subcommand. Results go to standard output; progress and
//! diagnostics go to standard error.

mod audit;
mod audit_view;
mod clean;
mod completions;
mod credential;
mod doctor;
mod explain;
mod gate;
mod init;
mod output;
mod parallel;
mod probe;
mod progress;
mod replay;
mod reports;
mod reproduce;
mod routes;
mod signal;
mod style;
mod token;
mod values;
mod workspace;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

use lockproof_model::{
    error::{Error, Result},
    exit,
};
use output::complain;
use style::{Color, Style};

/// Prove that the login of a ComfyUI server survives restarts, re-creations and upgrades of its
/// container.
#[derive(Debug, Parser)]
#[command(name = "lockproof", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    /// When to use colour.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, env = "LOCKPROOF_COLOR")]
    color: Color,
    /// Use verbose output: engine calls and decisions (-vv: everything).
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Do not show progress.
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit codes:
  0  every subject passed
  1  a finding counts, or a verdict is not the expected one
  2  usage or configuration error; nothing was started
  3  environment error: no engine, no image, port in use, disk full
  4  undecided: no verdict could be reached
  130, 143  interrupted, after cleaning up";

#[derive(Debug, Subcommand)]
enum Command {
    /// Start deployments, install the lock, run every event and judge the result.
    Gate(gate::Arguments),
    /// Read compose files and predict whether the lock survives, without an engine.
    Audit(audit::Arguments),
    /// Test the lock of a running server.
    Probe(probe::Arguments),
    /// Replay workflows and notebooks through the lock and compare their outputs.
    Replay(Box<replay::Arguments>),
    /// Create, read, check or rotate the token of a server.
    Token(Box<token::Arguments>),
    /// Print the mounted workspace of a compose file, for install scripts.
    Workspace(workspace::Arguments),
    /// Create a commented lockproof.yaml from a compose file.
    Init(init::Arguments),
    /// Reproduce the original bug as a timeline, then prove its fix.
    Reproduce(reproduce::Arguments),
    /// Check the engine, its access to this machine, and the lab.
    Doctor(doctor::Arguments),
    /// Remove containers, volumes and networks left by killed runs.
    Clean(clean::Arguments),
    /// Explain a rule: why it matters, its evidence and its remedy.
    Explain(explain::Arguments),
    /// Generate a completion script for a shell.
    Completions(completions::Arguments),
}

/// Parses the arguments, runs the command and returns the exit code.
pub fn main<I, T>(arguments: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(e) => {
            // Clap's exit codes: 0 for --help and --version, 2 for an error.
            let _unwritable = e.print();
            return ExitCode::from(if e.use_stderr() { exit::USAGE } else { exit::OK });
        }
    };
    let style = Style::of_this_process(cli.color);
    let code = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(cli, &style)),
        Err(e) => Err(Error::environment("cannot start threads").detail(e)),
    };
    ExitCode::from(code.unwrap_or_else(|error| {
        complain(&style, &error);
        error.exit_code()
    }))
}

async fn run(cli: Cli, style: &Style) -> Result<u8> {
    let talk = progress::Talk::begin(style, cli.verbose, cli.quiet);
    match cli.command {
        Command::Gate(arguments) => gate::run(arguments, style, &talk).await,
        Command::Audit(arguments) => audit::run(arguments, style, &talk).await,
        Command::Workspace(arguments) => workspace::run(&arguments),
        Command::Init(arguments) => init::run(&arguments),
        Command::Probe(arguments) => probe::run(arguments, style, &talk).await,
        Command::Replay(arguments) => replay::run(*arguments, style, &talk).await,
        Command::Token(arguments) => token::run(*arguments, &talk).await,
        Command::Reproduce(arguments) => reproduce::run(arguments, style, &talk).await,
        Command::Doctor(arguments) => doctor::run(arguments, style).await,
        Command::Clean(arguments) => clean::run(arguments).await,
        Command::Explain(arguments) => explain::run(&arguments, style),
        Command::Completions(arguments) => completions::run(&arguments, command()),
    }
}

/// The clap command, for completions, manual pages and the tests of `--help`.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
