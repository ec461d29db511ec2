//! The planner's eyes: convolutions over the images of all rows of a chunk at once.
//!
//! ```text
//! y₀ = image      yᵢ = ELU(conv(yᵢ₋₁, Wᵢ) + bᵢ)      features = flatten(last y)·Wᵀ
//! ```
//!
//! Kernels are 3 × 3 with stride 2 and one cell of padding, so that each layer halves both sides;
//! the features are added to the embedding of the numbers before its activation. A row of the
//! chunk is an example, so there is one backward pass over the whole chunk, and it comes last: all
//! other gradients are complete before, and those of the later layers before the earlier ones'.
//!
//! Cost of an image: 3 · 2 · 9 · inputs · outputs operations for each output place of a layer, in
//! the first 2 of 3. Memory: activations of all rows, and gradients of the two largest layers.

use crate::error::Result;
use crate::optimizer::parameter::{GradientSink, Parameter, ParameterSource};
use crate::train::config::ImageConfig;
use crate::train::initial;
use crate::train::layers::{activation, add, convolution, linear};

use super::raster::FRAMES;

const KERNEL: usize = 3;

/// The convolutions without their parameters.
#[derive(Debug)]
pub(super) struct Backbone {
    /// One for each layer, with no examples.
    shapes: Vec<convolution::Shape>,
    hidden: usize,
    parameters: Vec<Parameter>,
    /// The output of each layer, after its activation.
    activations: Vec<Vec<f32>>,
    /// The output of a layer before its activation, then the features.
    before: Vec<f32>,
    patches: Vec<f32>,
    /// Gradients of the layer at hand and of the one before it.
    gradients: [Vec<f32>; 2],
}

impl Backbone {
    /// Layers for images of the given sizes, with `hidden` features.
    pub(super) fn new(image: &ImageConfig, hidden: usize) -> Self {
        let (mut shapes, mut parameters) = (Vec::new(), Vec::new());
        let (mut inputs, mut height, mut width) = (FRAMES, image.height, image.width);
        for (layer, &outputs) in image.channels.iter().enumerate() {
            let name = format!("image.convolution{layer}");
            let weight = [outputs, inputs, KERNEL, KERNEL];
            parameters.push(Parameter::new(format!("{name}.weight"), &weight));
            parameters.push(Parameter::new(format!("{name}.bias"), &[outputs]));
            let (examples, kernel, stride, padding) = (0, KERNEL, 2, 1);
            let shape = convolution::Shape {
                examples,
                inputs,
                outputs,
                height,
                width,
                kernel,
                stride,
                padding,
            };
            (inputs, (height, width)) = (outputs, shape.output());
            shapes.push(shape);
        }
        let flat = inputs * height * width;
        parameters.push(Parameter::new("image.projection.weight".to_string(), &[hidden, flat]));
        Backbone {
            activations: vec![Vec::new(); shapes.len()],
            shapes,
            hidden,
            parameters,
            before: Vec::new(),
            patches: Vec::new(),
            gradients: [Vec::new(), Vec::new()],
        }
    }

    /// The parameters: weight and bias of each layer, then the weight of the features.
    pub(super) fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Numbers of an image.
    pub(super) fn elements(&self) -> usize {
        self.shapes.first().map_or(0, |shape| shape.input_elements())
    }

    /// PyTorch's initial values: uniform within 1/√(inputs of an output).
    pub(super) fn initialise(&self, seed: u64, parameter: usize) -> Vec<f32> {
        let mut values = vec![0.0; self.parameters[parameter].elements()];
        let inputs: usize = self.parameters[parameter / 2 * 2].shape[1..].iter().product();
        initial::uniform(&mut values, 1.0 / (inputs as f32).sqrt(), seed, parameter);
        values
    }

    fn shape(&self, layer: usize, rows: usize) -> convolution::Shape {
        convolution::Shape { examples: rows, ..self.shapes[layer] }
    }

    fn projection(&self, rows: usize) -> linear::Shape {
        let inputs = self.parameters[2 * self.shapes.len()].shape[1];
        linear::Shape { rows, inputs, outputs: self.hidden }
    }

    /// Adds the features of all images to `into`.
    pub(super) fn forward(
        &mut self,
        into: &mut [f32],
        parameters: &mut dyn ParameterSource,
        images: &[f32],
        threads: usize,
    ) -> Result<()> {
        let (rows, last) = (images.len() / self.elements(), self.shapes.len());
        for layer in 0..last {
            let shape = self.shape(layer, rows);
            parameters.arrive(2 * layer..2 * layer + 2)?;
            let (done, rest) = self.activations.split_at_mut(layer);
            let x = done.last().map_or(images, |y| y);
            self.patches.resize(shape.patches(), 0.0);
            self.before.resize(rows * shape.output_elements(), 0.0);
            let [weight, bias] = [2 * layer, 2 * layer + 1].map(|p| parameters.values(p));
            let (before, patches) = (&mut self.before, &mut self.patches);
            convolution::forward(before, patches, x, weight, bias, shape, threads);
            rest[0].resize(before.len(), 0.0);
            activation::elu(&mut rest[0], before, threads);
        }
        parameters.arrive(2 * last..2 * last + 1)?;
        let (shape, weight) = (self.projection(rows), parameters.values(2 * last));
        self.before.resize(into.len(), 0.0);
        let x = self.activations.last().map_or(images, |y| y);
        linear::forward(&mut self.before, x, weight, None, shape, threads);
        add(into, &self.before, threads);
        Ok(())
    }

    /// From the gradient of the features back to all parameters, the last layer's first.
    pub(super) fn backward(
        &mut self,
        d_features: &[f32],
        parameters: &dyn ParameterSource,
        images: &[f32],
        gradients: &mut dyn GradientSink,
        threads: usize,
    ) -> Result<()> {
        let (rows, last) = (images.len() / self.elements(), self.shapes.len());
        let (shape, place) = (self.projection(rows), 2 * last);
        let Some(y) = self.activations.last() else { return Ok(()) };
        linear::backward_weight(gradients.gradient(place), d_features, y, shape, threads);
        gradients.ready(place)?;
        self.gradients[0].resize(y.len(), 0.0);
        let weight = parameters.values(place);
        linear::backward_input(&mut self.gradients[0], d_features, weight, shape, threads);
        for layer in (0..last).rev() {
            let (shape, place) = (self.shape(layer, rows), 2 * layer);
            let [dy, dx] = &mut self.gradients;
            self.patches.resize(shape.patches(), 0.0);
            let patches = &mut self.patches;
            activation::elu_backward(dy, &self.activations[layer], threads);
            let x = if layer == 0 { images } else { &self.activations[layer - 1][..] };
            let into = gradients.gradient(place);
            convolution::backward_weight(into, patches, dy, x, shape, threads);
            gradients.ready(place)?;
            convolution::backward_bias(gradients.gradient(place + 1), dy, shape);
            gradients.ready(place + 1)?;
            if layer > 0 {
                dx.resize(x.len(), 0.0);
                let weight = parameters.values(place);
                convolution::backward_input(dx, patches, dy, weight, shape, threads);
                self.gradients.swap(0, 1);
            }
        }
        Ok(())
    }
}
