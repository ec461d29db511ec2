//! The loss over several hypotheses, as Openpilot-Deepdive has it.
//!
//! For one step, of M trajectories with logits, and the true trajectory:
//! 1. `k` = the best hypothesis by [`Rule`], the first on ties; no gradient goes through this
//!    choice;
//! 2. classification = −log softmax(logits)ₖ;
//! 3. regression = mean over points and axes of smooth-L1(trajectoryₖ − truth), where smooth-L1 of
//!    `d` is d²/2 below 1 and |d| − ½ above;
//! 4. loss = classification + α · regression. Only hypothesis `k` gets a gradient of 3.
//!
//! The loss of a batch is the mean over its steps; each step's gradient is scaled by a weight, 1
//! over all steps of all ranks, so that uneven batches count by samples. Cost: one pass over the M
//! trajectories; everything is O(M·33·3).

use serde::{Deserialize, Serialize};

use super::labels::AXES;
use crate::communicator::Communicator;
use crate::error::Result;
use crate::train::sums::Sums;

/// How the best hypothesis is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The smallest angle between the end points, seen from the car: the original's.
    #[default]
    Angle,
    /// The nearest end point.
    EndPoint,
    /// The smallest squared error over all points: how the original judges its choice.
    Trajectory,
}

impl Rule {
    /// The rule of this name in a configuration.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "angle" => Some(Rule::Angle),
            "end_point" => Some(Rule::EndPoint),
            "trajectory" => Some(Rule::Trajectory),
            _ => None,
        }
    }

    /// The best of the trajectories, one after another in `trajectories`.
    pub fn best(self, trajectories: &[f32], truth: &[f32]) -> usize {
        let hypotheses = trajectories.chunks_exact(truth.len());
        first_smallest(hypotheses.map(|hypothesis| self.distance(hypothesis, truth)))
    }

    fn distance(self, hypothesis: &[f32], truth: &[f32]) -> f32 {
        let end = truth.len() - AXES;
        match self {
            Rule::Angle => 1.0 - cosine(&hypothesis[end..], &truth[end..]),
            Rule::EndPoint => squared_error(&hypothesis[end..], &truth[end..]),
            Rule::Trajectory => squared_error(hypothesis, truth),
        }
    }
}

/// The first of the smallest; a NaN is smaller than all, so that it is seen in the loss.
fn first_smallest(values: impl Iterator<Item = f32>) -> usize {
    let mut best = (0, f32::INFINITY);
    for (i, value) in values.enumerate() {
        if value < best.1 || value.is_nan() && !best.1.is_nan() {
            best = (i, value);
        }
    }
    best.0
}

/// The index of the largest, the first on ties: what a classifier says.
pub fn first_largest(values: &[f32]) -> usize {
    first_smallest(values.iter().map(|v| -v))
}

/// torch's CosineSimilarity in its own steps: lengths of at least 1e-8, vectors divided by them.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let length = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-8);
    let (a_length, b_length) = (length(a), length(b));
    a.iter().zip(b).map(|(x, y)| x / a_length * (y / b_length)).sum()
}

fn squared_error(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum()
}

/// What the loss is made of.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LossOptions {
    /// How the best hypothesis is chosen.
    pub rule: Rule,
    /// The weight of regression.
    pub alpha: f32,
}

impl Default for LossOptions {
    fn default() -> Self {
        LossOptions { rule: Rule::Angle, alpha: 1.0 }
    }
}

/// The loss of one step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StepLoss {
    /// −log of the probability of the best hypothesis.
    pub classification: f64,
    /// The mean smooth-L1 error of the best hypothesis.
    pub regression: f64,
    /// The best hypothesis.
    pub best: usize,
}

/// The loss of one step and its gradient times `weight`, which replaces what is in the gradients.
///
/// # Panics
/// If the lengths do not fit: M logits, M trajectories, one truth.
pub fn step_loss(
    options: LossOptions,
    (logits, trajectories): (&[f32], &[f32]),
    truth: &[f32],
    weight: f32,
    (of_logits, of_trajectories): (&mut [f32], &mut [f32]),
) -> StepLoss {
    assert!(truth.len() >= AXES && trajectories.len() == logits.len() * truth.len());
    assert!(of_logits.len() == logits.len() && of_trajectories.len() == trajectories.len());
    let best = options.rule.best(trajectories, truth);
    of_trajectories.fill(0.0);
    let range = best * truth.len()..(best + 1) * truth.len();
    let hypothesis = &trajectories[range.clone()];
    let gradients = (of_logits, &mut of_trajectories[range]);
    loss_of_best(options, best, (logits, hypothesis), truth, weight, gradients)
}

/// [`step_loss`] where the best hypothesis is known: its trajectory and gradient alone are needed.
pub fn loss_of_best(
    options: LossOptions,
    best: usize,
    (logits, hypothesis): (&[f32], &[f32]),
    truth: &[f32],
    weight: f32,
    (of_logits, of_hypothesis): (&mut [f32], &mut [f32]),
) -> StepLoss {
    let classification = cross_entropy(logits, best, weight, of_logits);
    let scale = weight * options.alpha / truth.len() as f32;
    let errors = hypothesis.iter().zip(truth).map(|(p, t)| p - t);
    let mut sum = 0.0;
    for (error, gradient) in errors.zip(of_hypothesis) {
        let size = error.abs();
        sum += f64::from(if size < 1.0 { 0.5 * error * error } else { size - 0.5 });
        *gradient = scale * error.clamp(-1.0, 1.0);
    }
    StepLoss { classification, regression: sum / truth.len() as f64, best }
}

/// −log softmax(logits) at `best`, and its gradient softmax − 1 at `best`, times `weight`.
fn cross_entropy(logits: &[f32], best: usize, weight: f32, gradients: &mut [f32]) -> f64 {
    let largest = logits.iter().fold(f32::NEG_INFINITY, |m, &l| m.max(l));
    let power = |logit: f32| f64::from(logit - largest).exp();
    let total: f64 = logits.iter().map(|&l| power(l)).sum();
    for (i, (gradient, &logit)) in gradients.iter_mut().zip(logits).enumerate() {
        let share = power(logit) / total - if i == best { 1.0 } else { 0.0 };
        *gradient = (f64::from(weight) * share) as f32;
    }
    total.ln() - f64::from(logits[best] - largest)
}

/// The loss over steps of any batches and ranks; the same bits however they are spread.
#[derive(Clone, PartialEq, Debug)]
pub struct LossSums {
    alpha: f64,
    /// Sums: classification, regression. Counts: steps, then how often each was best.
    sums: Sums,
}

impl LossSums {
    /// The sums of nothing, for `modes` hypotheses.
    pub fn new(modes: usize, options: LossOptions) -> Self {
        LossSums { alpha: f64::from(options.alpha), sums: Sums::new(2, 1 + modes) }
    }

    /// Adds a step.
    pub fn add(&mut self, step: StepLoss) {
        self.sums.add(0, step.classification);
        self.sums.add(1, step.regression);
        self.sums.count(0, 1);
        self.sums.count(1 + step.best, 1);
    }

    /// Adds the steps of `other`.
    pub fn merge(&mut self, other: &LossSums) {
        self.sums.merge(&other.sums);
    }

    /// The sums of all ranks together. Collective.
    pub fn combine(&self, comm: &Communicator) -> Result<LossSums> {
        Ok(LossSums { alpha: self.alpha, sums: self.sums.combine(comm)? })
    }

    /// How many steps were added.
    pub fn steps(&self) -> u64 {
        self.sums.counted(0)
    }

    /// The mean over steps of (classification, regression); `None` without steps.
    pub fn parts(&self) -> Option<(f64, f64)> {
        Some((self.sums.mean(0, 0)?, self.sums.mean(1, 0)?))
    }

    /// The mean loss over steps; `None` without steps.
    pub fn mean(&self) -> Option<f64> {
        self.parts().map(|(classification, regression)| classification + self.alpha * regression)
    }

    /// How often a hypothesis was the best one.
    pub fn times_best(&self, mode: usize) -> u64 {
        self.sums.counted(1 + mode)
    }
}

#[cfg(test)]
#[path = "loss_tests.rs"]
mod tests;
