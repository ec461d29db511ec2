//! The configuration of a training run: one TOML file, in which every key that is not known is an
//! error with its line.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::optimizer::distributed::Precision;
use crate::optimizer::groups::Group;
use crate::optimizer::hyper::Rule;
use crate::optimizer::scaler::LossScale;
use crate::optimizer::schedule::Schedule;

/// A training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// What is trained.
    pub model: ModelConfig,
    /// What it is trained on.
    pub data: DataConfig,
    /// Steps and batches.
    pub training: TrainingConfig,
    /// The rule of the steps.
    #[serde(default)]
    pub optimizer: Rule,
    /// Parameters that learn differently.
    #[serde(default)]
    pub groups: Vec<Group>,
    /// The learning rate.
    pub schedule: Schedule,
    /// How the loss is scaled.
    #[serde(default)]
    pub loss_scale: LossScale,
    /// Buffers and communication.
    #[serde(default)]
    pub buffers: BufferConfig,
    /// Checkpoints, if there are any.
    pub checkpoint: Option<CheckpointConfig>,
    /// Files of results, if there are any.
    pub output: Option<OutputConfig>,
}

/// What is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ModelConfig {
    /// A byte-level GPT.
    Gpt(GptConfig),
}

/// The sizes of a GPT over bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GptConfig {
    /// Blocks.
    pub layers: usize,
    /// Elements of a token's row.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// The longest sequence, and the length of those trained on.
    pub context: usize,
    /// Whether the output layer is the token embedding.
    pub tied: bool,
}

impl Default for GptConfig {
    fn default() -> Self {
        GptConfig { layers: 6, width: 384, heads: 6, context: 256, tied: false }
    }
}

/// What is trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Text files, read as bytes one after another. Relative to the configuration.
    pub text: Vec<PathBuf>,
    /// The share at the end of the text that is kept for evaluation.
    #[serde(default = "tenth")]
    pub held_out: f64,
}

fn tenth() -> f64 {
    0.1
}

/// Steps and batches.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingConfig {
    /// Steps of the whole run.
    pub steps: u64,
    /// Micro-batches of a step, over all ranks. Where it is a multiple of the ranks by a power of
    /// two, communication overlaps with the backward pass; the result is the same in any case.
    pub micro_batches: usize,
    /// Sequences of a micro-batch.
    pub examples: usize,
    /// What initial values and batches are drawn from.
    pub seed: u64,
    /// The largest norm of the gradient; 0 for any.
    pub clip: f64,
    /// Steps between two evaluations; 0 for one at the end.
    pub evaluate_every: u64,
    /// Sequences of an evaluation, at most.
    pub evaluate_examples: usize,
    /// Steps between two lines of the log.
    pub log_every: u64,
}

impl Default for TrainingConfig {
    fn default() -> Self {
        TrainingConfig {
            steps: 100,
            micro_batches: 8,
            examples: 4,
            seed: 0,
            clip: 1.0,
            evaluate_every: 0,
            evaluate_examples: 64,
            log_every: 10,
        }
    }
}

/// Buffers and communication. No key changes a bit of the result.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BufferConfig {
    /// How parameters are stored: f32, bf16 or f16. This one does change the result.
    pub precision: Precision,
    /// Elements at which a bucket closes; Megatron-LM's rule without it.
    pub bucket_elements: Option<usize>,
    /// Whether communication overlaps with computation.
    pub overlap: bool,
    /// Whether the ranks of a node share one copy of the parameters.
    pub share: bool,
}

impl Default for BufferConfig {
    fn default() -> Self {
        let precision = Precision::F32;
        BufferConfig { precision, bucket_elements: None, overlap: true, share: true }
    }
}

/// Checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Where they lie. Relative to the configuration.
    pub folder: PathBuf,
    /// Steps between two; 0 for one at the end.
    #[serde(default)]
    pub every: u64,
    /// How many are kept; 0 for all.
    #[serde(default = "two")]
    pub keep: usize,
}

fn two() -> usize {
    2
}

/// Files of results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputConfig {
    /// Where they go. Relative to the configuration.
    pub folder: PathBuf,
    /// The beginning of a text that the trained model goes on with.
    pub prompt: Option<String>,
    /// How many bytes it writes.
    #[serde(default = "many")]
    pub sample_bytes: usize,
}

fn many() -> usize {
    400
}

impl TrainConfig {
    /// Reads a file; its paths become relative to where the program runs.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, "read", &e))?;
        let mut config = TrainConfig::parse(&text, path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let found = |path: &mut PathBuf| *path = folder.join(&*path);
        config.data.text.iter_mut().for_each(found);
        config.checkpoint.iter_mut().for_each(|checkpoint| found(&mut checkpoint.folder));
        config.output.iter_mut().for_each(|output| found(&mut output.folder));
        Ok(config)
    }

    /// Reads a text; `path` is for messages.
    fn parse(text: &str, path: &Path) -> Result<Self> {
        let config: TrainConfig = toml::from_str(text).map_err(|error| {
            let message = error.message().replace('\n', "; ");
            // A section that is one of several kinds is read as a whole, without lines.
            match error.span().filter(|span| span.start > 0) {
                Some(span) => {
                    let before = &text[..span.start.min(text.len())];
                    Error::line(path, before.matches('\n').count() as u64 + 1, message)
                }
                None => Error::input(format!("{}: {message}", path.display())),
            }
        })?;
        config.validate().map_err(|error| {
            let message = format!("{}: {}", path.display(), error.message);
            Error { message, ..error }
        })?;
        Ok(config)
    }

    fn validate(&self) -> Result<()> {
        self.optimizer.validate()?;
        self.schedule.validate()?;
        let TrainingConfig { micro_batches, examples, clip, log_every, .. } = self.training;
        let wrong = |what: &str| Err(Error::input(what.to_string()));
        if micro_batches == 0 || examples == 0 || log_every == 0 {
            return wrong("training: micro_batches, examples and log_every are at least 1");
        }
        if !(clip.is_finite() && clip >= 0.0) {
            return wrong("training: clip is a finite number from 0 (0 for none)");
        }
        if !(0.0..1.0).contains(&self.data.held_out) {
            return wrong("data: held_out is a share from 0 to below 1");
        }
        if self.data.text.is_empty() {
            return wrong("data: text names no file");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimizer::schedule::Decay;

    const SMALL: &str = "[model]\nkind = \"gpt\"\nlayers = 2\n[data]\ntext = [\"a.txt\"]\n\
                         [training]\nsteps = 5\n[schedule]\nlr = 1e-3\ndecay = \"cosine\"\n";

    #[test]
    fn defaults_fill_in_and_sections_are_read() {
        let config = TrainConfig::parse(SMALL, Path::new("c.toml")).unwrap();
        let ModelConfig::Gpt(gpt) = &config.model;
        assert_eq!((gpt.layers, gpt.width, config.training.steps), (2, 384, 5));
        assert_eq!((config.optimizer, config.schedule.decay), (Rule::default(), Decay::Cosine));
        let more = format!(
            "{SMALL}[optimizer]\nrule = \"sgd\"\nmomentum = 0.9\n[[groups]]\npattern = \"*\"\n\
             [loss_scale]\nkind = \"dynamic\"\nwindow = 5\n[buffers]\nprecision = \"bf16\"\n"
        );
        let config = TrainConfig::parse(&more, Path::new("c.toml")).unwrap();
        assert!(matches!(config.optimizer, Rule::Sgd { momentum: 0.9, .. }));
        assert!(matches!(config.loss_scale, LossScale::Dynamic(rule) if rule.window == 5));
        assert_eq!(config.buffers.precision, Precision::Bf16);
    }

    #[test]
    fn errors_name_the_line_and_the_key() {
        for (from, to, expected) in [
            ("layers", "layer", "c.toml: unknown field `layer`, expected one of `layers`"),
            ("steps = 5", "steps = \"5\"", "c.toml line 7"),
            ("cosine", "cosinus", "decay 'cosinus'"),
            ("lr = 1e-3", "lr = -1", "c.toml: schedule: lr is -1"),
            ("[\"a.txt\"]", "[]", "text names no file"),
            ("steps = 5", "micro_batches = 0", "micro_batches, examples"),
            ("[schedule]\nlr = 1e-3\ndecay = \"cosine\"\n", "", "schedule"),
        ] {
            let text = SMALL.replace(from, to);
            assert_ne!(text, SMALL);
            let error = TrainConfig::parse(&text, Path::new("c.toml")).unwrap_err();
            assert!(error.message.contains(expected), "{error}");
        }
    }
}
