//! What a workflow needs and how it is compared: `NAME.lockproof.yaml` beside `NAME.json`, or the
//! same under `extra.lockproof` in the editor's format.
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

/// What a workflow needs, and how it is compared.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metadata {
    /// What the server must have; what it lacks makes the replay `skipped`.
    pub needs: Needs,
    /// Files that are uploaded to the server's inputs first, relative to the workflow.
    pub inputs: Vec<PathBuf>,
    /// The mean difference of the pixels, from 0 to 1, up to which a picture is the same.
    pub tolerance: Option<f64>,
    /// The time for the whole replay.
    pub timeout: Option<Span>,
    /// Whether the stored outputs are those of the lab's stand-ins: on a real server they say
    /// nothing, and what it gives first is what later runs are compared with.
    pub stand_ins: bool,
}

/// What a server must have.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Needs {
    /// Model files, as `FOLDER/FILE`.
    pub models: Vec<String>,
    /// A graphics card.
    pub gpu: bool,
    /// Packs of custom nodes, or single classes of theirs.
    pub custom_nodes: Vec<String>,
}

impl Metadata {
    /// What is said of the workflow at `path`; the file beside it goes before what stands in it.
    ///
    /// # Errors
    /// A usage error with the place, for an unknown key or an input that is not there.
    pub fn read(path: &Path, extra: Option<&Value>) -> Result<Self> {
        let beside = path.with_extension("lockproof.yaml");
        let (metadata, place) = if beside.is_file() {
            let place = beside.display().to_string();
            let text = lockproof_model::read::text(&beside, lockproof_model::read::SHORT)
                .map_err(|e| Error::usage(format!("cannot read {place}")).detail(e))?;
            // A file of comments alone says nothing.
            (parse_as::<Option<Self>>(&text, &place)?.unwrap_or_default(), place)
        } else if let Some(extra) = extra {
            // JSON is YAML, so mistakes are told in the same way.
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
                return Err(Error::usage(format!("the model `{model}` does not say its folder"))
                    .at(place)
                    .fix(format!("write for example checkpoints/{model}")));
            }
        }
        for input in self.input_files(path) {
            if !input.is_file() {
                return Err(Error::usage(format!("the input {} is not there", input.display()))
                    .at(place)
                    .fix("paths of `inputs` are relative to the workflow"));
            }
        }
        Ok(())
    }

    /// The files that are uploaded first.
    pub fn input_files(&self, workflow: &Path) -> Vec<PathBuf> {
        let beside = workflow.parent().unwrap_or(Path::new(""));
        self.inputs.iter().map(|input| beside.join(input)).collect()
    }
}
