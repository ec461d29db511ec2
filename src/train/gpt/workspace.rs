//! The memory of a GPT's passes, allocated for the largest micro-batch so far.
//!
//! Floats per token kept for the backward pass, of each block: 16 · width and
//! heads · length probabilities. On top of all blocks: the logits, and 5 · width of gradients that
//! are passed down. About 63 MB a block for 8 × 256 tokens of width 384, of which the
//! probabilities are 13.

use super::{Batch, Config};
use crate::train::layers::attention;
use crate::train::layers::cross_entropy;
use crate::train::layers::layer_norm::RowStatistics;
use crate::train::model::Loss;

/// What one block keeps.
#[derive(Debug, Default)]
pub(crate) struct BlockKept {
    /// The residual stream before the block.
    pub(crate) input: Vec<f32>,
    pub(crate) attention_rows: Vec<RowStatistics>,
    /// What attention sees.
    pub(crate) attention_normed: Vec<f32>,
    pub(crate) qkv: Vec<f32>,
    pub(crate) probabilities: Vec<f32>,
    pub(crate) attended: Vec<f32>,
    /// The residual stream between attention and perceptron.
    pub(crate) middle: Vec<f32>,
    pub(crate) mlp_rows: Vec<RowStatistics>,
    /// What the perceptron sees.
    pub(crate) mlp_normed: Vec<f32>,
    /// Before GELU.
    pub(crate) hidden: Vec<f32>,
    /// After GELU.
    pub(crate) activated: Vec<f32>,
}

/// All memory of the passes.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    pub(crate) examples: usize,
    pub(crate) length: usize,
    pub(crate) inputs: Vec<u32>,
    targets: Vec<u32>,
    pub(crate) blocks: Vec<BlockKept>,
    /// The residual stream after all blocks.
    pub(crate) output: Vec<f32>,
    pub(crate) output_rows: Vec<RowStatistics>,
    pub(crate) output_normed: Vec<f32>,
    /// The logits, and then their gradient.
    pub(crate) logits: Vec<f32>,
    losses: Vec<f32>,
    /// The gradient of the residual stream.
    pub(crate) d_residual: Vec<f32>,
    /// Gradients as wide as a token's row.
    pub(crate) d_narrow: Vec<f32>,
    /// Gradients of the hidden layer, or of Q, K and V.
    pub(crate) d_wide: Vec<f32>,
    pub(crate) scratch: Vec<f32>,
}

impl Workspace {
    /// Splits the tokens in inputs and targets and sizes all buffers; those of the backward pass
    /// only if it follows. Nothing is allocated once the sizes were seen.
    pub(crate) fn prepare(&mut self, config: &Config, batch: &Batch, backward: bool) {
        let Batch { examples, length, ref tokens } = *batch;
        (self.examples, self.length) = (examples, length);
        self.inputs.clear();
        self.targets.clear();
        for example in tokens.chunks_exact(length + 1) {
            self.inputs.extend_from_slice(&example[..length]);
            self.targets.extend_from_slice(&example[1..]);
        }
        let rows = examples * length;
        let width = config.width;
        let attention = self.attention(config);
        self.blocks.resize_with(config.layers, BlockKept::default);
        for block in &mut self.blocks {
            block.attention_rows.resize(rows, RowStatistics::default());
            block.mlp_rows.resize(rows, RowStatistics::default());
            block.probabilities.resize(attention.probabilities(), 0.0);
            block.qkv.resize(rows * 3 * width, 0.0);
            for narrow in [
                &mut block.input,
                &mut block.attention_normed,
                &mut block.attended,
                &mut block.middle,
                &mut block.mlp_normed,
            ] {
                narrow.resize(rows * width, 0.0);
            }
            block.hidden.resize(rows * 4 * width, 0.0);
            block.activated.resize(rows * 4 * width, 0.0);
        }
        self.output.resize(rows * width, 0.0);
        self.output_normed.resize(rows * width, 0.0);
        self.output_rows.resize(rows, RowStatistics::default());
        self.logits.resize(rows * config.vocabulary, 0.0);
        self.losses.resize(rows, 0.0);
        if backward {
            self.d_residual.resize(rows * width, 0.0);
            self.d_narrow.resize(rows * width, 0.0);
            self.d_wide.resize(rows * 4 * width, 0.0);
            self.scratch.resize(attention.scratch(), 0.0);
        }
    }

    /// Tokens in the micro-batch.
    pub(crate) fn rows(&self) -> usize {
        self.examples * self.length
    }

    /// The shape of attention.
    pub(crate) fn attention(&self, config: &Config) -> attention::Shape {
        let Workspace { examples, length, .. } = *self;
        attention::Shape { examples, length, width: config.width, heads: config.heads }
    }

    /// The loss of the logits.
    pub(crate) fn loss(&mut self, config: &Config, threads: usize) -> Loss {
        let Workspace { losses, logits, targets, .. } = self;
        cross_entropy::forward(losses, logits, targets, config.vocabulary, threads);
        self.total()
    }

    /// The loss of the logits, which become the gradient of their scaled mean.
    pub(crate) fn loss_and_gradient(
        &mut self,
        config: &Config,
        loss_scale: f32,
        threads: usize,
    ) -> Loss {
        let scale = loss_scale / self.rows() as f32;
        let Workspace { losses, logits, targets, .. } = self;
        let width = config.vocabulary;
        cross_entropy::forward_backward(losses, logits, targets, width, scale, threads);
        self.total()
    }

    fn total(&self) -> Loss {
        let sum = self.losses.iter().map(|&loss| f64::from(loss)).sum();
        Loss { sum, count: self.losses.len() as u64 }
    }
}
