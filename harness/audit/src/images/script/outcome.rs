//! What a script finds around it, and what is read out of it.

use std::collections::BTreeMap;

/// What a script finds around it.
pub struct Environment<'a> {
    /// The variables of the container that are known.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Whether those are all that somebody sets.
    pub complete: bool,
    /// The text of another script of the container, with the name of its file here.
    pub file: &'a dyn Fn(&str) -> Option<(String, String)>,
}

/// When a start puts something back.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Come {
    /// At no start.
    #[default]
    Never,
    /// Under a condition that reading does not decide.
    Maybe,
    /// At each start that finds nothing at these paths.
    Unless(Vec<String>),
    /// At each start.
    Always,
}

impl Come {
    pub(super) fn or(&mut self, more: Self) {
        if more > *self {
            *self = more;
        }
    }
}

/// An installation whose failure the start does not mind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swallowed {
    /// The line, from 0.
    pub line: usize,
    /// The script in which it stands, by its file here; none: the command itself.
    pub file: Option<String>,
    /// What the line says.
    pub text: String,
}

/// What was read out of a command or a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// The directory of the `main.py` that is started.
    pub code_dir: Option<String>,
    /// The virtual environment that is activated, or whose Python starts it.
    pub environment: Option<String>,
    /// Whether it is started by a Python of which nothing but the name is said.
    pub plain_python: bool,
    /// `--base-directory`.
    pub base_directory: Option<String>,
    /// `--output-directory`, `--input-directory`, `--user-directory`, by their names.
    pub directories: BTreeMap<&'static str, String>,
    /// `--port`.
    pub port: Option<u16>,
    /// Whether something starts ComfyUI here.
    pub starts: bool,
    /// Whether what is started has arguments that only ComfyUI takes.
    pub arguments: bool,
    /// The value of `--enable-cors-header`; empty: any.
    pub cors: Option<String>,
    /// When the requirements of every custom node are installed, by the directory of the nodes; none:
    /// that is not known.
    pub requirements: Vec<(Option<String>, Come)>,
    /// When the login plugin itself is put in place.
    pub plugin: Come,
    /// When the credential is written.
    pub credential: Come,
    /// When the dependencies of the login plugin are installed.
    pub dependencies: Come,
    /// The first installation of something of the lock that lets the start go on when it fails.
    pub swallowed: Option<Swallowed>,
    /// Where ComfyUI's code is put by the start.
    pub cloned_to: Option<String>,
    /// Directories that become links to others.
    pub links: Vec<(String, String)>,
    /// Whether some of it could not be read.
    pub incomplete: bool,
}
