//! The configuration of a training run: one TOML file, in which every key that is not known is an
//! error with its line.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::planner::head::Head;
use super::planner::loss::Rule as BestRule;
use super::planner::raster::Raster;
use super::planner::windows::WindowOptions;
use crate::error::{Error, Result};
use crate::optimizer::distributed::{Options, Passes, Precision};
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
    /// A driving planner.
    Planner(PlannerConfig),
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

/// A recurrent planner on the kinematics of a vehicle, and on images if they are asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlannerConfig {
    /// Numbers of the hidden state, and of the layers around it.
    pub hidden: usize,
    /// Hypotheses.
    pub modes: usize,
    /// How numbers become trajectories: original, linear, or residual to constant velocity.
    pub head: Head,
    /// How the best hypothesis is chosen: angle (the original's), end_point or trajectory.
    pub rule: BestRule,
    /// The weight of regression against classification.
    pub alpha: f32,
    /// Steps of a window that one step of the optimizer goes back through; the next one goes on
    /// with the hidden state. It divides the steps of a window.
    pub chunk: usize,
    /// Images from above and convolutions over them, if it has eyes.
    pub image: Option<ImageConfig>,
}

/// What a planner sees (`planner::raster`) and the convolutions (`planner::image`) over it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageConfig {
    /// Rows of cells, along the car.
    pub height: usize,
    /// Columns, across.
    pub width: usize,
    /// The side of a cell.
    pub metres_per_cell: f64,
    /// Channels that each convolution puts out. Each halves height and width.
    pub channels: Vec<usize>,
}

impl Default for ImageConfig {
    fn default() -> Self {
        ImageConfig { height: 32, width: 32, metres_per_cell: 2.0, channels: vec![8, 16, 16] }
    }
}

impl ImageConfig {
    /// The cells.
    pub fn raster(&self) -> Raster {
        let ImageConfig { height, width, metres_per_cell, .. } = *self;
        Raster { height, width, metres_per_cell }
    }

    fn validate(&self) -> Result<()> {
        self.raster().validate()?;
        let ImageConfig { height, width, channels, .. } = self;
        if channels.is_empty() || channels.contains(&0) {
            return Err(Error::input(
                "image: channels names at least one convolution, each with 1 channel or more",
            ));
        }
        let halved = |size: &usize| size.trailing_zeros() as usize >= channels.len();
        if halved(height) && halved(width) {
            return Ok(());
        }
        let multiple = 1u128 << channels.len().min(127);
        Err(Error::input(format!(
            "image: {height} x {width} cells cannot be halved {} times, once by each of channels; \
             take multiples of {multiple}, or fewer channels",
            channels.len()
        )))
    }
}

impl Default for PlannerConfig {
    fn default() -> Self {
        let (head, rule) = (Head::Residual, BestRule::EndPoint);
        PlannerConfig { hidden: 128, modes: 5, head, rule, alpha: 1.0, chunk: 20, image: None }
    }
}

impl PlannerConfig {
    fn validate(&self, windows: &WindowOptions) -> Result<()> {
        let PlannerConfig { hidden, modes, alpha, chunk, .. } = *self;
        if hidden == 0 || modes == 0 || chunk == 0 {
            return Err(Error::input("model: hidden, modes and chunk are at least 1"));
        }
        if !(alpha.is_finite() && alpha >= 0.0) {
            return Err(Error::input("model: alpha is a finite number from 0"));
        }
        let steps = windows.steps;
        if steps == 0 || !steps.is_multiple_of(chunk) {
            return Err(Error::input(format!(
                "model: chunk {chunk} does not divide the {steps} steps of a window; change one of \
                 chunk and data.windows.steps"
            )));
        }
        let Some(image) = &self.image else { return Ok(()) };
        image.validate().map_err(|e| Error { message: format!("model: {}", e.message), ..e })
    }
}

/// What is trained on: text for a GPT; traces or synthetic drives for a planner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Text files, read as bytes one after another. Relative to the configuration.
    #[serde(default)]
    pub text: Vec<PathBuf>,
    /// Floating-car traces of SUMO in CSV. Relative to the configuration.
    #[serde(default)]
    pub traces: Vec<PathBuf>,
    /// Generated drives instead of traces.
    pub synthetic: Option<SyntheticConfig>,
    /// How windows are cut from drives.
    pub windows: Option<WindowOptions>,
    /// The share that is kept for evaluation: the end of the text, or so many of the vehicles.
    #[serde(default = "tenth")]
    pub held_out: f64,
    /// Threads of each rank that prepare windows while the model trains; 0 for none. They change
    /// no bit.
    #[serde(default)]
    pub workers: usize,
    /// Micro-batches that each of them prepares ahead.
    #[serde(default = "two")]
    pub prefetch: usize,
}

/// Drives that are generated.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyntheticConfig {
    /// How many vehicles.
    pub vehicles: usize,
    /// How long each drives.
    pub seconds: f64,
    /// What the drives are drawn from.
    #[serde(default)]
    pub seed: u64,
}

impl DataConfig {
    /// An error unless this is what the model learns from, and nothing else.
    fn validate(&self, model: &ModelConfig) -> Result<()> {
        let wrong = |what: &str| Err(Error::input(format!("data: {what}")));
        if !(0.0..1.0).contains(&self.held_out) {
            return wrong("held_out is a share from 0 to below 1");
        }
        let DataConfig { text, traces, synthetic, windows, workers, prefetch, .. } = self;
        let has_drives = !traces.is_empty() || synthetic.is_some();
        match model {
            _ if *workers > 0 && *prefetch == 0 => {
                wrong("workers need prefetch of at least 1; workers = 0 is for none")
            }
            ModelConfig::Gpt(_) if *workers > 0 => {
                wrong("workers are for kind = \"planner\"; cutting text costs nothing")
            }
            ModelConfig::Gpt(_) if has_drives || windows.is_some() => {
                wrong("traces, synthetic and windows are for kind = \"planner\"; a gpt has text")
            }
            ModelConfig::Gpt(_) if text.is_empty() => wrong("text names no file"),
            ModelConfig::Planner(_) if !text.is_empty() => {
                wrong("text is for kind = \"gpt\"; a planner has traces or synthetic")
            }
            ModelConfig::Planner(_) if !has_drives => wrong(
                "traces names no file; name some, or give synthetic with vehicles and seconds",
            ),
            ModelConfig::Planner(_) if !traces.is_empty() && synthetic.is_some() => {
                wrong("traces and synthetic are both given; leave one out")
            }
            _ => synthetic.map_or(Ok(()), |drives| drives.validate()),
        }
    }
}

impl SyntheticConfig {
    fn validate(&self) -> Result<()> {
        // A day of 10 Hz states of one vehicle is 35 MB; beyond that a number is a slip.
        if self.vehicles > 0 && self.seconds > 0.0 && self.seconds <= 86_400.0 {
            return Ok(());
        }
        Err(Error::input(
            "data: synthetic needs vehicles of at least 1, and seconds above 0, at most 86400",
        ))
    }
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
    /// Sequences, or windows, of a micro-batch.
    pub examples: usize,
    /// What initial values and batches are drawn from.
    pub seed: u64,
    /// The largest norm of the gradient; 0 for any.
    pub clip: f64,
    /// Steps between two evaluations; 0 for one at the end.
    pub evaluate_every: u64,
    /// Sequences, or windows, of an evaluation, at most.
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

/// Buffers and communication. No key but those of 16 bits changes a bit of the result.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BufferConfig {
    /// How parameters are stored: f32, bf16 or f16.
    pub precision: Precision,
    /// Whether gradients are stored as the parameters are; else in f32. With 16 bits the result
    /// depends on how many micro-batches a rank holds.
    pub narrow_gradients: bool,
    /// How often a step goes over the gradients where all ranks share memory: separate, folded, or
    /// fused where gradients are not clipped.
    pub passes: Passes,
    /// Whether a parameter that no layer used has the gradient zero; else it is an error.
    pub unused_is_zero: bool,
    /// Elements at which a bucket closes; Megatron-LM's rule without it.
    pub bucket_elements: Option<usize>,
    /// Whether communication overlaps with computation.
    pub overlap: bool,
    /// Whether the ranks of a node share one copy of the parameters.
    pub share: bool,
}

impl Default for BufferConfig {
    fn default() -> Self {
        let options = Options::default();
        BufferConfig {
            precision: options.precision,
            narrow_gradients: options.narrow_gradients,
            passes: options.passes,
            unused_is_zero: options.unused_is_zero,
            bucket_elements: options.bucket_elements,
            overlap: options.overlap,
            share: options.share,
        }
    }
}

impl BufferConfig {
    /// What the optimizer is asked for, with the moments of its rule.
    pub fn options(&self, moments: usize, record: bool) -> Options {
        Options {
            precision: self.precision,
            narrow_gradients: self.narrow_gradients,
            bucket_elements: self.bucket_elements,
            passes: self.passes,
            overlap: self.overlap,
            share: self.share,
            unused_is_zero: self.unused_is_zero,
            moments,
            record,
        }
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
        config.data.traces.iter_mut().for_each(found);
        config.checkpoint.iter_mut().for_each(|checkpoint| found(&mut checkpoint.folder));
        config.output.iter_mut().for_each(|output| found(&mut output.folder));
        Ok(config)
    }

    /// Reads a text; `path` is for messages.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self> {
        let config: TrainConfig = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            let message = error.message().replace('\n', "; ");
            let line =
                text[..start].matches('\n').count() + 1 + lines_to_key(&text[start..], &message);
            Error::line(path, line as u64, message)
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
        self.data.validate(&self.model)?;
        match &self.model {
            ModelConfig::Gpt(_) => Ok(()),
            ModelConfig::Planner(planner) => {
                planner.validate(&self.data.windows.unwrap_or_default())
            }
        }
    }
}

/// How many lines further a key stands that a message calls unknown. Of a table whose kind decides
/// its keys, only the beginning is known.
fn lines_to_key(table: &str, message: &str) -> usize {
    let Some(rest) = message.strip_prefix("unknown field `") else { return 0 };
    let key = rest.split('`').next().unwrap_or_default();
    let stands = |line: &str| line.split('=').next().is_some_and(|left| left.trim() == key);
    table.lines().position(stands).unwrap_or(0)
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
        let ModelConfig::Gpt(gpt) = &config.model else { panic!("{:?}", config.model) };
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
            ("layers", "layer", "c.toml line 3"),
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
