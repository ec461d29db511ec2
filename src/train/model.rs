//! What training needs of a model, whatever it is made of.
//!
//! A model owns no parameters and no gradients: it reads the first from a [`ParameterSource`] and
//! adds the second to a [`GradientSink`], so that both can be slices of the optimizer's flat
//! buffers. It does own what a forward pass keeps for the backward pass, allocated once.

use crate::error::Result;
use crate::optimizer::parameter::{GradientSink, Parameter, ParameterSource};
use std::ops::{AddAssign, Range};

/// Losses of one or more micro-batches, added up; `sum / count` is the mean loss.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Loss {
    /// The sum over all predictions.
    pub sum: f64,
    /// How many predictions there were.
    pub count: u64,
}

impl Loss {
    /// The mean loss of a prediction; 0 of none.
    pub fn mean(self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum / self.count as f64 }
    }
}

impl AddAssign for Loss {
    fn add_assign(&mut self, other: Loss) {
        self.sum += other.sum;
        self.count += other.count;
    }
}

/// Something that can be trained.
pub trait Model {
    /// What one forward pass takes: a micro-batch.
    type Batch: ?Sized;

    /// The parameters in registration order, the first layer's first.
    fn parameters(&self) -> &[Parameter];

    /// Writes the initial values of one parameter, which depend on nothing but `seed`.
    fn initialise(&self, seed: u64, parameter: usize, values: &mut [f32]);

    /// Adds the gradient of `loss_scale` · (mean loss of the micro-batch) to the sink and returns
    /// the loss, unscaled.
    ///
    /// It calls `arrive` before it reads a layer's parameters, and `ready` once for every
    /// parameter, as soon as its gradient is complete and in an order that is always the same.
    fn forward_backward(
        &mut self,
        parameters: &mut dyn ParameterSource,
        batch: &Self::Batch,
        loss_scale: f32,
        gradients: &mut dyn GradientSink,
    ) -> Result<Loss>;

    /// The loss of a micro-batch, without gradients.
    fn evaluate(
        &mut self,
        parameters: &mut dyn ParameterSource,
        batch: &Self::Batch,
    ) -> Result<Loss>;
}

/// Parameters or gradients in memory of their own, for training and sampling on one rank.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tensors {
    /// The values of each parameter, in registration order.
    pub values: Vec<Vec<f32>>,
    /// The parameters in the order in which `ready` named them.
    pub ready: Vec<usize>,
}

impl Tensors {
    /// The initial parameters of a model.
    pub fn initial(model: &(impl Model + ?Sized), seed: u64) -> Tensors {
        let mut tensors = Tensors::zeros(model);
        for (parameter, values) in tensors.values.iter_mut().enumerate() {
            model.initialise(seed, parameter, values);
        }
        tensors
    }

    /// Zeros in the shapes of a model's parameters.
    pub fn zeros(model: &(impl Model + ?Sized)) -> Tensors {
        let zeros = |parameter: &Parameter| vec![0.0; parameter.elements()];
        Tensors { values: model.parameters().iter().map(zeros).collect(), ready: Vec::new() }
    }
}

impl ParameterSource for Tensors {
    fn arrive(&mut self, _: Range<usize>) -> Result<()> {
        Ok(())
    }

    fn values(&self, parameter: usize) -> &[f32] {
        &self.values[parameter]
    }
}

impl GradientSink for Tensors {
    fn gradient(&mut self, parameter: usize) -> &mut [f32] {
        &mut self.values[parameter]
    }

    fn ready(&mut self, parameter: usize) -> Result<()> {
        self.ready.push(parameter);
        Ok(())
    }
}
