//! The environment of a script, and the result of reading it.

use std::collections::BTreeMap;

/// The surroundings of a script.
pub struct Environment<'a> {
    /// The known variables of the container.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Whether no other variables are set.
    pub complete: bool,
    /// The text of another script of the container, with its local file name.
    pub file: &'a dyn Fn(&str) -> Option<(String, String)>,
}

/// At which starts something is restored.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Come {
    /// At no start.
    #[default]
    Never,
    /// Under an unknown condition.
    Maybe,
    /// At each start if none of these paths exists.
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

/// An installation whose failure is ignored by the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swallowed {
    /// The line, from 0.
    pub line: usize,
    /// The local file name of its script; `None`: the command itself.
    pub file: Option<String>,
    /// The text of the line.
    pub text: String,
}

/// What a command or script does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// The directory of the started `main.py`.
    pub code_dir: Option<String>,
    /// The active virtual environment, or the one whose Python starts it.
    pub environment: Option<String>,
    /// Whether it is started by a plain `python` without a path.
    pub plain_python: bool,
    /// The value of `--base-directory`.
    pub base_directory: Option<String>,
    /// The values of `--output-directory`, `--input-directory`, `--user-directory`, by name.
    pub directories: BTreeMap<&'static str, String>,
    /// The value of `--port`.
    pub port: Option<u16>,
    /// Whether it starts ComfyUI.
    pub starts: bool,
    /// Whether the started program has arguments that only ComfyUI supports.
    pub arguments: bool,
    /// The value of `--enable-cors-header`; empty: any origin.
    pub cors: Option<String>,
    /// When the requirements of every custom node are installed, by the directory of the nodes;
    /// `None`: unknown directory.
    pub requirements: Vec<(Option<String>, Come)>,
    /// When the login plugin is installed.
    pub plugin: Come,
    /// When the credential is written.
    pub credential: Come,
    /// When the dependencies of the login plugin are installed.
    pub dependencies: Come,
    /// The first installation of a part of the lock whose failure is ignored.
    pub swallowed: Option<Swallowed>,
    /// The directory into which the start clones ComfyUI's code.
    pub cloned_to: Option<String>,
    /// Directories that become links, as (link, target).
    pub links: Vec<(String, String)>,
    /// Whether a part of it could not be read.
    pub incomplete: bool,
}
