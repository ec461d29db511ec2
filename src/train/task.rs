//! What the loop needs of a model together with its data.

use std::ops::Range;

use serde::Serialize;

use super::config::{ModelConfig, TrainConfig};
use super::model::Loss;
use super::planner::exhibit::Exhibit;
use super::planner::task::PlannerTask;
use super::text::TextTask;
use crate::communicator::Communicator;
use crate::error::Result;
use crate::optimizer::parameter::{GradientSink, Parameter, ParameterSource};

/// One result of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measure {
    /// Its name, such as `held_out_loss`.
    pub name: String,
    /// Its value.
    pub value: f64,
}

/// A model and its data.
///
/// What a micro-batch holds depends on its step and number alone, never on who computes it: that is
/// how training has the same bits at any number of ranks.
pub trait Task {
    /// The parameters in registration order.
    fn parameters(&self) -> Vec<Parameter>;

    /// The initial values of one parameter.
    fn initialise(&self, seed: u64, parameter: usize) -> Vec<f32>;

    /// Says which micro-batches of each step this rank will ask for, in this order, before the
    /// first. Nothing but time depends on it.
    fn begin(&mut self, _own: Range<usize>) {}

    /// Adds the gradient of `scale` times the mean loss of a micro-batch of a step.
    fn learn(
        &mut self,
        step: u64,
        micro_batch: usize,
        scale: f32,
        parameters: &mut dyn ParameterSource,
        gradients: &mut dyn GradientSink,
    ) -> Result<Loss>;

    /// The results on data that was held out: the same on all ranks. Collective.
    fn evaluate(
        &mut self,
        communicator: &Communicator,
        parameters: &mut dyn ParameterSource,
    ) -> Result<Vec<Measure>>;

    /// What a micro-batch counts as in the throughput: tokens, samples.
    fn units(&self) -> usize;

    /// Something to show of the trained model, by this rank alone.
    fn sample(&mut self, parameters: &mut dyn ParameterSource) -> Result<Option<String>>;

    /// What a report shows beside numbers, of the last evaluation, by this rank alone.
    fn exhibit(&mut self, _parameters: &mut dyn ParameterSource) -> Result<Option<Exhibit>> {
        Ok(None)
    }

    /// How many numbers each micro-batch carries from one step to the next, such as the hidden
    /// state of a recurrent model. Checkpoints hold them, so that a run goes on with the same bits.
    fn carries(&self) -> usize {
        0
    }

    /// What a micro-batch of this rank carries, after a step.
    fn carried(&self, _micro_batch: usize) -> &[f32] {
        &[]
    }

    /// Takes up what a micro-batch carried when a checkpoint was saved.
    fn carry(&mut self, _micro_batch: usize, _values: &[f32]) {}
}

/// The task that a configuration describes, with `threads` threads of this rank.
pub fn task(config: &TrainConfig, threads: usize) -> Result<Box<dyn Task>> {
    match &config.model {
        ModelConfig::Planner(planner) => Ok(Box::new(PlannerTask::new(config, planner, threads)?)),
        ModelConfig::Gpt(gpt) => Ok(Box::new(TextTask::new(config, gpt, threads)?)),
    }
}
