//! What a model and the optimizer know of each other: the list of parameters, where the model reads
//! their values, and where its backward pass writes gradients.
//!
//! Parameters are numbered in registration order: the first layer first. A backward pass makes
//! their gradients ready about in reverse, and the buffers are laid out in reverse, so that the
//! first bucket is complete while most of the backward pass is still to come.

use crate::error::Result;

/// One tensor that is trained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its full name, such as `blocks.3.attention.qkv.weight`; unique in a model.
    pub name: String,
    /// Its shape, row-major, slowest dimension first.
    pub shape: Vec<usize>,
    /// Whether a second use shares it (input and output embedding): it gets a bucket of its own.
    pub shared_embedding: bool,
}

impl Parameter {
    /// A parameter that is used in one place.
    pub fn new(name: impl Into<String>, shape: &[usize]) -> Self {
        Parameter { name: name.into(), shape: shape.to_vec(), shared_embedding: false }
    }

    /// How many elements it has.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Where a forward pass reads parameters, in f32 whatever the buffer holds.
pub trait ParameterSource {
    /// Waits until the values of this step have arrived for `parameters`; before that,
    /// [`ParameterSource::values`] may be of the step before.
    fn arrive(&mut self, parameters: std::ops::Range<usize>) -> Result<()>;
    /// The values of one parameter, row-major.
    fn values(&self, parameter: usize) -> &[f32];
}

/// Where a backward pass writes gradients.
pub trait GradientSink {
    /// The gradient of one parameter, to be added to: zeros, or what earlier uses of a shared
    /// parameter have added. A matrix product can accumulate straight into it.
    fn gradient(&mut self, parameter: usize) -> &mut [f32];
    /// Says that nothing more will be added for this micro-batch. Communication of its bucket may
    /// start here.
    fn ready(&mut self, parameter: usize) -> Result<()>;
}
