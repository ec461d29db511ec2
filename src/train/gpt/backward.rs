//! The backward pass of a GPT: gradients become ready in exactly the reverse of registration
//! order, so that the optimizer's buckets fill from their fronts and can leave one by one.

use super::workspace::{BlockKept, Workspace};
use super::{BlockParameters, Config, place};
use crate::error::Result;
use crate::optimizer::parameter::{GradientSink, ParameterSource};
use crate::train::layers::layer_norm::RowStatistics;
use crate::train::layers::{attention, embedding, gelu, layer_norm, linear};

/// Adds all gradients, from the gradient of the logits that the workspace holds.
pub(crate) fn gradients(
    workspace: &mut Workspace,
    parameters: &mut dyn ParameterSource,
    sink: &mut dyn GradientSink,
    config: &Config,
    threads: usize,
) -> Result<()> {
    let Config { layers, width, vocabulary, tied, .. } = *config;
    let (rows, length) = (workspace.rows(), workspace.length);
    let gain = place::last_gain(layers);
    let head = if tied { place::TOKENS } else { gain + 2 };

    let shape = linear::Shape { rows, inputs: width, outputs: vocabulary };
    let (d_logits, normed) = (&workspace.logits, &workspace.output_normed);
    linear::backward_weight(sink.gradient(head), d_logits, normed, shape, threads);
    if !tied {
        sink.ready(head)?;
    }
    let d_normed = &mut workspace.d_narrow;
    linear::backward_input(d_normed, d_logits, parameters.values(head), shape, threads);
    workspace.d_residual.fill(0.0);
    let norm = Norm {
        x: &workspace.output,
        rows: &workspace.output_rows,
        gain: parameters.values(gain),
        place: gain,
    };
    norm.backward_add(&mut workspace.d_residual, d_normed, sink, threads)?;

    let shape = workspace.attention(config);
    for layer in (0..layers).rev() {
        let own = BlockParameters { source: parameters, first: place::block(layer).start };
        let pass = Pass { own, sink: &mut *sink, shape, threads };
        let mut flowing = Flowing {
            residual: &mut workspace.d_residual,
            narrow: &mut workspace.d_narrow,
            wide: &mut workspace.d_wide,
            scratch: &mut workspace.scratch,
        };
        pass.block(&mut flowing, &workspace.blocks[layer])?;
    }

    let dx = &workspace.d_residual;
    embedding::backward_positions(sink.gradient(place::POSITIONS), dx, length, width);
    sink.ready(place::POSITIONS)?;
    embedding::backward_table(sink.gradient(place::TOKENS), dx, &workspace.inputs, width);
    sink.ready(place::TOKENS)
}

/// A layer norm; its bias follows its gain.
struct Norm<'a> {
    x: &'a [f32],
    rows: &'a [RowStatistics],
    gain: &'a [f32],
    place: usize,
}

impl Norm<'_> {
    /// The gradients of bias and gain, and that of the input added to `dx`.
    fn backward_add(
        &self,
        dx: &mut [f32],
        dy: &[f32],
        sink: &mut dyn GradientSink,
        threads: usize,
    ) -> Result<()> {
        linear::backward_bias(sink.gradient(self.place + 1), dy, threads);
        sink.ready(self.place + 1)?;
        layer_norm::backward_gain(sink.gradient(self.place), dy, self.x, self.rows, threads);
        sink.ready(self.place)?;
        layer_norm::backward_input_add(dx, dy, self.x, self.rows, self.gain, threads);
        Ok(())
    }
}

/// Gradients on their way down.
struct Flowing<'a> {
    /// Of the residual stream: of the output of the block, and in the end of its input.
    residual: &'a mut [f32],
    narrow: &'a mut [f32],
    wide: &'a mut [f32],
    scratch: &'a mut [f32],
}

/// The backward pass of one block.
struct Pass<'a> {
    own: BlockParameters<'a>,
    sink: &'a mut dyn GradientSink,
    shape: attention::Shape,
    threads: usize,
}

impl Pass<'_> {
    fn block(mut self, flowing: &mut Flowing, kept: &BlockKept) -> Result<()> {
        let width = self.shape.width;
        let Flowing { residual, narrow, wide, scratch } = flowing;

        let sizes = self.sizes(4 * width, width);
        self.linear(wide, residual, &kept.activated, place::OUTPUT_WEIGHT, sizes)?;
        gelu::backward(wide, &kept.hidden, gelu::Form::Tanh, self.threads);
        let sizes = self.sizes(width, 4 * width);
        self.linear(narrow, wide, &kept.mlp_normed, place::HIDDEN_WEIGHT, sizes)?;
        self.norm(residual, narrow, &kept.middle, &kept.mlp_rows, place::MLP_GAIN)?;

        let sizes = self.sizes(width, width);
        self.linear(narrow, residual, &kept.attended, place::ATTENTION_OUTPUT_WEIGHT, sizes)?;
        let sizes = self.sizes(width, 3 * width);
        let d_qkv = &mut wide[..sizes.rows * sizes.outputs];
        let BlockKept { attended, probabilities, qkv, .. } = kept;
        let read = attention::Kept { y: attended, probabilities, qkv };
        attention::backward(d_qkv, scratch, narrow, read, self.shape, self.threads);
        self.linear(narrow, d_qkv, &kept.attention_normed, place::QKV_WEIGHT, sizes)?;
        self.norm(residual, narrow, &kept.input, &kept.attention_rows, place::ATTENTION_GAIN)
    }

    fn sizes(&self, inputs: usize, outputs: usize) -> linear::Shape {
        linear::Shape { rows: self.shape.examples * self.shape.length, inputs, outputs }
    }

    /// Bias, weight and input of a linear layer, whose bias follows its weight.
    fn linear(
        &mut self,
        dx: &mut [f32],
        dy: &[f32],
        x: &[f32],
        weight: usize,
        sizes: linear::Shape,
    ) -> Result<()> {
        let place = self.own.first + weight;
        linear::backward_bias(self.sink.gradient(place + 1), dy, self.threads);
        self.sink.ready(place + 1)?;
        linear::backward_weight(self.sink.gradient(place), dy, x, sizes, self.threads);
        self.sink.ready(place)?;
        linear::backward_input(dx, dy, self.own.of(weight), sizes, self.threads);
        Ok(())
    }

    fn norm(
        &mut self,
        residual: &mut [f32],
        dy: &[f32],
        x: &[f32],
        rows: &[RowStatistics],
        gain: usize,
    ) -> Result<()> {
        let norm = Norm { x, rows, gain: self.own.of(gain), place: self.own.first + gain };
        norm.backward_add(residual, dy, &mut *self.sink, self.threads)
    }
}
