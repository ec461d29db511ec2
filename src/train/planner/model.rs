//! The planner's network on kinematic inputs, and on images if it has a backbone (`image`):
//!
//! ```text
//! e = ELU(x·W_eᵀ + b_e + features of the image)
//! h = GRU(e, h before)       f = ELU(h·W_fᵀ + b_f)
//! outputs = f·W_oᵀ + b_o     M logits, then M trajectories (see `objective`)
//! ```
//!
//! Back-propagation is truncated: a chunk of steps starts from the hidden state that the chunk
//! before left, through which no gradient goes. Backbone, embedding and head run once over all rows
//! of a chunk (steps · samples), and only the cell goes step by step. The head's gradients are then
//! complete before the cell goes back at all, and all but the convolutions' before those go back,
//! so that their communication hides behind the rest; with one forward pass a step, every gradient
//! would be complete only at the end. A recorded run (`train --record`) shows when each bucket was
//! ready: with images, all but the convolutions' in the first tenth of the backward pass.
//!
//! Cost of a row: 6 operations for each weight, beside the backbone. Memory: about 20 · hidden and
//! 2 · outputs numbers a row, allocated once.

use super::batch::Rows;
use super::image::Backbone;
use super::loss::LossSums;
use super::metrics::Metrics;
use super::objective::Objective;
use super::windows::INPUTS;
use crate::error::{Error, Result};
use crate::optimizer::parameter::{GradientSink, Parameter, ParameterSource};
use crate::train::config::ImageConfig;
use crate::train::initial;
use crate::train::layers::{activation, add, gru, linear};

// Places of the weights in registration order, after those of a backbone; the bias of each follows
// it.
const EMBEDDING: usize = 0;
const CELL_INPUT: usize = 2;
const CELL_HIDDEN: usize = 4;
const HEAD_HIDDEN: usize = 6;
const OUTPUT: usize = 8;

/// How much smaller than usual the output weights begin: predictions start near zero, which with
/// the residual head is constant velocity.
const OUTPUT_SHARE: f32 = 0.1;

/// The network without its parameters: its list of them and the memory of its passes.
#[derive(Debug)]
pub struct Planner {
    hidden: usize,
    objective: Objective,
    threads: usize,
    parameters: Vec<Parameter>,
    image: Option<Backbone>,
    memory: Memory,
}

/// What the passes over a chunk write, by time; each is as long as the largest chunk so far.
#[derive(Debug, Default)]
struct Memory {
    /// Embedding and head before their activation.
    before: Vec<f32>,
    embedded: Vec<f32>,
    input_gates: Vec<f32>,
    /// The carried state, then the one after each step.
    states: Vec<f32>,
    /// What each step of the cell keeps.
    kept: Vec<f32>,
    features: Vec<f32>,
    outputs: Vec<f32>,
    /// Gradients; `hidden_gates` is scratch of the forward pass, too.
    d_outputs: Vec<f32>,
    d_features: Vec<f32>,
    d_states: Vec<f32>,
    d_previous: Vec<f32>,
    d_input_gates: Vec<f32>,
    hidden_gates: Vec<f32>,
    d_embedded: Vec<f32>,
}

/// The sizes of one chunk.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    steps: usize,
    samples: usize,
    hidden: usize,
    outputs: usize,
    threads: usize,
    /// Parameters of the backbone.
    first: usize,
}

impl Sizes {
    fn linear(self, inputs: usize, outputs: usize) -> linear::Shape {
        linear::Shape { rows: self.steps * self.samples, inputs, outputs }
    }

    fn embedding(self) -> linear::Shape {
        self.linear(INPUTS, self.hidden)
    }

    fn cell_input(self) -> linear::Shape {
        self.linear(self.hidden, 3 * self.hidden)
    }

    fn head_hidden(self) -> linear::Shape {
        self.linear(self.hidden, self.hidden)
    }

    fn output(self) -> linear::Shape {
        self.linear(self.hidden, self.outputs)
    }

    fn cell(self) -> gru::Shape {
        gru::Shape { rows: self.samples, hidden: self.hidden }
    }

    /// Elements of the hidden state of all samples.
    fn state(self) -> usize {
        self.samples * self.hidden
    }
}

impl Planner {
    /// A network with a hidden state of `hidden` numbers. Its passes use `threads` threads of the
    /// current rayon pool; they do not change the bits.
    pub fn new(hidden: usize, objective: Objective, threads: usize) -> Self {
        let layer = |name: &str, outputs: usize, inputs: usize| {
            [
                Parameter::new(format!("{name}.weight"), &[outputs, inputs]),
                Parameter::new(format!("{name}.bias"), &[outputs]),
            ]
        };
        let parameters = [
            layer("embedding", hidden, INPUTS),
            layer("cell.input", 3 * hidden, hidden),
            layer("cell.hidden", 3 * hidden, hidden),
            layer("head.hidden", hidden, hidden),
            layer("head.output", objective.outputs(), hidden),
        ];
        let parameters = parameters.into_iter().flatten().collect();
        let memory = Memory::default();
        Planner { hidden, objective, threads, parameters, image: None, memory }
    }

    /// The same network with a backbone for images; the backbone's parameters come first.
    pub fn with_images(mut self, image: &ImageConfig) -> Self {
        let backbone = Backbone::new(image, self.hidden);
        self.parameters.splice(..0, backbone.parameters().iter().cloned());
        Planner { image: Some(backbone), ..self }
    }

    /// The parameters, the first layer's first.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Numbers of the hidden state of one sample.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// What the network is trained for.
    pub fn objective(&self) -> &Objective {
        &self.objective
    }

    /// The initial values of a parameter: PyTorch's, but for the output layer.
    pub fn initialise(&self, seed: u64, parameter: usize) -> Vec<f32> {
        let first = self.image.as_ref().map_or(0, |image| image.parameters().len());
        if let Some(image) = self.image.as_ref().filter(|_| parameter < first) {
            return image.initialise(seed, parameter);
        }
        let mut values = vec![0.0; self.parameters[parameter].elements()];
        let weight = (parameter - first) / 2 * 2;
        // Of the cell too, all layers have as many inputs as their weight's rows are long.
        let limit = 1.0 / (self.parameters[first + weight].shape[1] as f32).sqrt();
        match (weight, parameter == first + weight) {
            (OUTPUT, true) => initial::uniform(&mut values, OUTPUT_SHARE * limit, seed, parameter),
            (OUTPUT, false) => {}
            _ => initial::uniform(&mut values, limit, seed, parameter),
        }
        values
    }

    /// Adds the gradient of `scale` times the mean loss over all rows of a chunk, and returns the
    /// loss. `carried` is the hidden state before the chunk, and after it the one that it leaves.
    pub fn learn(
        &mut self,
        parameters: &mut dyn ParameterSource,
        rows: Rows<'_>,
        carried: &mut [f32],
        scale: f32,
        gradients: &mut dyn GradientSink,
    ) -> Result<LossSums> {
        let sizes = self.forward(parameters, rows, carried)?;
        let mut sums = LossSums::new(self.objective.modes, self.objective.loss);
        let Memory { outputs, d_outputs, .. } = &mut self.memory;
        let weight = scale / (sizes.steps * sizes.samples) as f32;
        d_outputs.resize(outputs.len(), 0.0);
        self.objective.learn(outputs, rows, weight, d_outputs, &mut sums);
        self.memory.backward(parameters, rows.inputs, gradients, sizes)?;
        if let Some(image) = &mut self.image {
            let d_features = &self.memory.d_embedded;
            image.backward(d_features, parameters, rows.images, gradients, self.threads)?;
        }
        Ok(sums)
    }

    /// Adds what the predictions of a chunk are worth to `sums` and `metrics`. `carried` as in
    /// [`Planner::learn`].
    pub fn judge(
        &mut self,
        parameters: &mut dyn ParameterSource,
        rows: Rows<'_>,
        carried: &mut [f32],
        sums: &mut LossSums,
        metrics: &mut Metrics,
    ) -> Result<()> {
        self.forward(parameters, rows, carried)?;
        let Memory { outputs, d_outputs, .. } = &mut self.memory;
        d_outputs.resize(outputs.len(), 0.0);
        self.objective.learn(outputs, rows, 1.0, d_outputs, sums);
        self.objective.judge(outputs, rows, metrics);
        Ok(())
    }

    /// After [`Planner::judge`], what it judged: M logits and M trajectories a row.
    pub fn predictions(&self) -> &[f32] {
        &self.memory.outputs
    }

    fn forward(
        &mut self,
        parameters: &mut dyn ParameterSource,
        rows: Rows<'_>,
        carried: &mut [f32],
    ) -> Result<Sizes> {
        let (hidden, outputs, threads) = (self.hidden, self.objective.outputs(), self.threads);
        let samples = carried.len() / hidden;
        let many = rows.speeds.len();
        if samples == 0 || many == 0 || !many.is_multiple_of(samples) {
            return Err(Error::internal(format!("a chunk of {many} rows for {samples} samples")));
        }
        let image = self.image.as_ref().map_or(0, Backbone::elements);
        if rows.images.len() != many * image {
            return Err(Error::internal(format!(
                "{many} rows with {} numbers of images; the network takes {image} a row",
                rows.images.len()
            )));
        }
        let first = self.image.as_ref().map_or(0, |image| image.parameters().len());
        let sizes = Sizes { steps: many / samples, samples, hidden, outputs, threads, first };
        self.memory.embed(parameters, rows, &mut self.image, sizes)?;
        self.memory.forward(parameters, carried, sizes)?;
        Ok(sizes)
    }
}

impl Memory {
    /// From numbers and images to the inputs of the cell.
    fn embed(
        &mut self,
        parameters: &mut dyn ParameterSource,
        rows: Rows<'_>,
        image: &mut Option<Backbone>,
        sizes: Sizes,
    ) -> Result<()> {
        let Sizes { hidden, threads, first, .. } = sizes;
        let place = first + EMBEDDING;
        layer(&mut self.before, rows.inputs, place, parameters, (sizes.embedding(), threads))?;
        if let Some(image) = image {
            image.forward(&mut self.before, parameters, rows.images, threads)?;
        }
        self.embedded.resize(rows.speeds.len() * hidden, 0.0);
        activation::elu(&mut self.embedded, &self.before, threads);
        Ok(())
    }

    fn forward(
        &mut self,
        parameters: &mut dyn ParameterSource,
        carried: &mut [f32],
        sizes: Sizes,
    ) -> Result<()> {
        let Sizes { steps, hidden, threads, first, .. } = sizes;
        let (rows, state) = (steps * sizes.samples, sizes.state());
        layer(
            &mut self.input_gates,
            &self.embedded,
            first + CELL_INPUT,
            parameters,
            (sizes.cell_input(), threads),
        )?;
        self.states.resize((steps + 1) * state, 0.0);
        self.states[..state].copy_from_slice(carried);
        self.cell(parameters, sizes)?;
        carried.copy_from_slice(&self.states[steps * state..]);
        layer(
            &mut self.before,
            &self.states[state..],
            first + HEAD_HIDDEN,
            parameters,
            (sizes.head_hidden(), threads),
        )?;
        self.features.resize(rows * hidden, 0.0);
        activation::elu(&mut self.features, &self.before, threads);
        let place = first + OUTPUT;
        layer(&mut self.outputs, &self.features, place, parameters, (sizes.output(), threads))
    }

    /// The cell, step by step.
    fn cell(&mut self, parameters: &mut dyn ParameterSource, sizes: Sizes) -> Result<()> {
        let (shape, state) = (sizes.cell(), sizes.state());
        let place = sizes.first + CELL_HIDDEN;
        parameters.arrive(place..place + 2)?;
        let (weight, bias) = (parameters.values(place), parameters.values(place + 1));
        self.kept.resize(sizes.steps * shape.kept(), 0.0);
        self.hidden_gates.resize(sizes.steps * 3 * state, 0.0);
        let kept = self.kept.chunks_exact_mut(shape.kept());
        let gates = self.input_gates.chunks_exact(3 * state);
        for (step, (kept, input_gates)) in kept.zip(gates).enumerate() {
            let (before, after) = self.states.split_at_mut((step + 1) * state);
            let hidden_gates = &mut self.hidden_gates[..3 * state];
            let into = gru::Step { next: &mut after[..state], kept, hidden_gates };
            let (layer, previous) = (gru::Hidden { weight, bias }, &before[step * state..]);
            gru::forward_step(into, input_gates, previous, layer, shape, sizes.threads);
        }
        Ok(())
    }

    /// From `d_outputs` back to all parameters, the last layer's first.
    fn backward(
        &mut self,
        parameters: &mut dyn ParameterSource,
        inputs: &[f32],
        gradients: &mut dyn GradientSink,
        sizes: Sizes,
    ) -> Result<()> {
        let Sizes { steps, hidden, threads, first, .. } = sizes;
        let (rows, state) = (steps * sizes.samples, sizes.state());
        let weights = |place: usize| parameters.values(first + place);
        let mut layer = |place: usize, dy: &[f32], x: &[f32], shape: linear::Shape| {
            let weight = first + place;
            linear::backward_weight(gradients.gradient(weight), dy, x, shape, threads);
            gradients.ready(weight)?;
            linear::backward_bias(gradients.gradient(weight + 1), dy, threads);
            gradients.ready(weight + 1)
        };
        layer(OUTPUT, &self.d_outputs, &self.features, sizes.output())?;
        self.d_features.resize(rows * hidden, 0.0);
        let weight = weights(OUTPUT);
        let shape = sizes.output();
        linear::backward_input(&mut self.d_features, &self.d_outputs, weight, shape, threads);
        activation::elu_backward(&mut self.d_features, &self.features, threads);
        layer(HEAD_HIDDEN, &self.d_features, &self.states[state..], sizes.head_hidden())?;
        self.d_states.resize(rows * hidden, 0.0);
        let weight = weights(HEAD_HIDDEN);
        let shape = sizes.head_hidden();
        linear::backward_input(&mut self.d_states, &self.d_features, weight, shape, threads);
        self.cell_backward(weights(CELL_HIDDEN), sizes);
        let before = &self.states[..steps * state];
        layer(CELL_HIDDEN, &self.hidden_gates, before, sizes.cell_input())?;
        layer(CELL_INPUT, &self.d_input_gates, &self.embedded, sizes.cell_input())?;
        self.d_embedded.resize(rows * hidden, 0.0);
        let weight = weights(CELL_INPUT);
        let shape = sizes.cell_input();
        linear::backward_input(&mut self.d_embedded, &self.d_input_gates, weight, shape, threads);
        activation::elu_backward(&mut self.d_embedded, &self.embedded, threads);
        layer(EMBEDDING, &self.d_embedded, inputs, sizes.embedding())
    }

    /// From the gradients of all states to those of the gates of all steps.
    fn cell_backward(&mut self, weight: &[f32], sizes: Sizes) {
        let (shape, state, threads) = (sizes.cell(), sizes.state(), sizes.threads);
        self.d_previous.resize(state, 0.0);
        self.d_input_gates.resize(sizes.steps * 3 * state, 0.0);
        for step in (0..sizes.steps).rev() {
            let own = step * state..(step + 1) * state;
            let gates = 3 * own.start..3 * own.end;
            if step + 1 < sizes.steps {
                // What the step after it passed back.
                add(&mut self.d_states[own.clone()], &self.d_previous, threads);
            }
            let into = gru::StepGradients {
                previous: &mut self.d_previous,
                input_gates: &mut self.d_input_gates[gates.clone()],
                hidden_gates: &mut self.hidden_gates[gates],
            };
            let kept = &self.kept[step * shape.kept()..(step + 1) * shape.kept()];
            let (dnext, previous) = (&self.d_states[own.clone()], &self.states[own]);
            gru::backward_step(into, dnext, kept, previous, weight, shape, threads);
        }
    }
}

/// `y = x·Wᵀ + b` with the parameters at `weight` and after it, once they have arrived.
fn layer(
    y: &mut Vec<f32>,
    x: &[f32],
    weight: usize,
    parameters: &mut dyn ParameterSource,
    (shape, threads): (linear::Shape, usize),
) -> Result<()> {
    parameters.arrive(weight..weight + 2)?;
    y.resize(shape.rows * shape.outputs, 0.0);
    let bias = Some(parameters.values(weight + 1));
    linear::forward(y, x, parameters.values(weight), bias, shape, threads);
    Ok(())
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
