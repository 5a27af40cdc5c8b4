//! The requirements and comparison settings of a workflow: `NAME.lockproof.yaml` beside
//! `NAME.json`, or `extra.lockproof` in the editor's format.
//!
//! ```yaml
//! needs:
//!   models: [diffusion_models/qwen_image_fp8_e4m3fn.safetensors]
//!   gpu: true
//!   custom_nodes: [ComfyUI-KJNodes]
//! inputs: [photo.png]     # uploaded before the run, from beside the workflow
//! tolerance: 0.02
//! timeout: 10m
//! ```

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use lockproof_model::{
    duration::Span,
    error::{Error, Result},
    parse::parse_as,
};

/// The requirements and comparison settings of a workflow.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metadata {
    /// What the server must have; otherwise the replay is `skipped`.
    pub needs: Needs,
    /// Files to upload to the server's inputs before the run, relative to the workflow.
    pub inputs: Vec<PathBuf>,
    /// The largest accepted mean difference of the pixels, from 0 to 1.
    pub tolerance: Option<f64>,
    /// The time limit of the whole replay.
    pub timeout: Option<Span>,
    /// Whether the stored outputs were made with the lab's stand-in nodes: on a real server they
    /// are ignored, and later runs are compared with its first output.
    pub stand_ins: bool,
}

/// What a server must have.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Needs {
    /// Model files, as `FOLDER/FILE`.
    pub models: Vec<String>,
    /// Whether a GPU is required.
    pub gpu: bool,
    /// Custom node packages, or single node classes.
    pub custom_nodes: Vec<String>,
}

impl Metadata {
    /// The settings of the workflow at `path`; the file beside it takes precedence over embedded
    /// settings.
    ///
    /// # Errors
    /// A usage error with position, for an unknown key or a missing input file.
    pub fn read(path: &Path, extra: Option<&Value>) -> Result<Self> {
        let beside = path.with_extension("lockproof.yaml");
        let (metadata, place) = if beside.is_file() {
            let place = beside.display().to_string();
            let text = lockproof_model::read::text(&beside, lockproof_model::read::SHORT)
                .map_err(|e| Error::usage(format!("cannot read {place}")).detail(e))?;
            // A file with only comments is empty.
            (parse_as::<Option<Self>>(&text, &place)?.unwrap_or_default(), place)
        } else if let Some(extra) = extra {
            // JSON is YAML, so errors are reported in the same way.
            let place = format!("{} (extra.lockproof)", path.display());
            (parse_as(&extra.to_string(), &place)?, place)
        } else {
            return Ok(Self::default());
        };
        metadata.check(path, &place)?;
        Ok(metadata)
    }

    fn check(&self, path: &Path, place: &str) -> Result<()> {
        if let Some(tolerance) = self.tolerance.filter(|t| !(0.0..=1.0).contains(t)) {
            return Err(Error::usage(format!("`tolerance: {tolerance}` is not between 0 and 1")).at(place));
        }
        for model in &self.needs.models {
            if !model.contains('/') {
                return Err(Error::usage(format!("the model `{model}` has no folder"))
                    .at(place)
                    .fix(format!("write for example checkpoints/{model}")));
            }
        }
        for input in self.input_files(path) {
            if !input.is_file() {
                return Err(Error::usage(format!("the input {} does not exist", input.display()))
                    .at(place)
                    .fix("correct the path, which is relative to the workflow"));
            }
        }
        Ok(())
    }

    /// The files to upload before the run.
    pub fn input_files(&self, workflow: &Path) -> Vec<PathBuf> {
        let beside = workflow.parent().unwrap_or(Path::new(""));
        self.inputs.iter().map(|input| beside.join(input)).collect()
    }
}
