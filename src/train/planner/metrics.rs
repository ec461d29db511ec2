//! How good predicted trajectories are, from sums and counts.
//!
//! The prediction of a step is the hypothesis with the largest logit. Over steps: average and final
//! displacement error (ADE, FDE: metres to the true point, mean over points and at the last), the
//! same of the best hypothesis, and of driving on at constant velocity, which any model has to
//! beat. Over points, by the true x in 0–10, 10–20, 20–30, 30–50 and 50–1000 m, as
//! Openpilot-Deepdive: mean error, |x| and |y| error, and the share nearer than 0.5, 1 and 2 m
//! (AP). How often each hypothesis is predicted, and the entropy of that, show a model whose
//! hypotheses have collapsed into one.
//!
//! The original averages means of frames of ranks, so that its numbers depend on the number of
//! ranks and one empty range makes all of it NaN. Here a range that is empty on a rank adds
//! nothing, and all bits are the same at any number of ranks. Cost: about 1 µs a step and
//! hypothesis.

use serde::Serialize;

use super::labels::AXES;
use super::loss::{Rule, first_largest};
use crate::communicator::Communicator;
use crate::error::Result;
use crate::train::sums::Sums;

/// Bounds of the ranges of true x, in metres.
pub const RANGES: [(f32, f32); 5] =
    [(0.0, 10.0), (10.0, 20.0), (20.0, 30.0), (30.0, 50.0), (50.0, 1000.0)];
/// What a point must be nearer than to be a hit, in metres.
pub const HIT_METRES: [f64; 3] = [0.5, 1.0, 2.0];

// Places of sums; three for each range follow.
const AVERAGE: usize = 0;
const FINAL: usize = 1;
const SQUARE: usize = 2;
const BEST_AVERAGE: usize = 3;
const BEST_FINAL: usize = 4;
const STRAIGHT_AVERAGE: usize = 5;
const STRAIGHT_FINAL: usize = 6;
const OF_RANGES: usize = 7;
// Places of counts; one and the hits for each range follow, then the modes twice.
const STEPS: usize = 0;
const RIGHT: usize = 1;
const IN_RANGES: usize = 2;
const PER_RANGE: usize = 1 + HIT_METRES.len();
const MODES: usize = IN_RANGES + PER_RANGE * RANGES.len();

/// Sums and counts of predictions.
#[derive(Clone, PartialEq, Debug)]
pub struct Metrics {
    modes: usize,
    sums: Sums,
}

impl Metrics {
    /// Of no predictions yet, with `modes` hypotheses each.
    pub fn new(modes: usize) -> Self {
        let sums = Sums::new(OF_RANGES + 3 * RANGES.len(), MODES + 2 * modes);
        Metrics { modes, sums }
    }

    /// Adds one step: its logits and trajectories, the truth, and the trajectory of constant
    /// velocity.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn add(&mut self, logits: &[f32], trajectories: &[f32], truth: &[f32], straight: &[f32]) {
        assert!(logits.len() == self.modes && straight.len() == truth.len());
        assert!(trajectories.len() == self.modes * truth.len() && truth.len() >= AXES);
        let of = |mode: usize| &trajectories[mode * truth.len()..(mode + 1) * truth.len()];
        let (predicted, best) = (first_largest(logits), Rule::Trajectory.best(trajectories, truth));
        self.sums.count(STEPS, 1);
        self.sums.count(RIGHT, u64::from(predicted == best));
        self.sums.count(MODES + predicted, 1);
        self.sums.count(MODES + self.modes + best, 1);
        let (average, last) = displacement(of(predicted), truth);
        self.sums.add(AVERAGE, average);
        self.sums.add(FINAL, last);
        let (average, last) = nearest(trajectories, truth);
        self.sums.add(BEST_AVERAGE, average);
        self.sums.add(BEST_FINAL, last);
        let (average, last) = displacement(straight, truth);
        self.sums.add(STRAIGHT_AVERAGE, average);
        self.sums.add(STRAIGHT_FINAL, last);
        self.points(of(predicted), truth);
    }

    fn points(&mut self, predicted: &[f32], truth: &[f32]) {
        let mut square = 0.0;
        for (found, wanted) in predicted.chunks_exact(AXES).zip(truth.chunks_exact(AXES)) {
            let [x, y, _] = difference(found, wanted);
            let error = distance(found, wanted);
            square += error * error;
            let inside = |&(low, high): &(f32, f32)| (low..high).contains(&wanted[0]);
            let Some(range) = RANGES.iter().position(inside) else { continue };
            for (i, value) in [error, x.abs(), y.abs()].into_iter().enumerate() {
                self.sums.add(OF_RANGES + 3 * range + i, value);
            }
            let place = IN_RANGES + PER_RANGE * range;
            self.sums.count(place, 1);
            for (i, limit) in HIT_METRES.into_iter().enumerate() {
                self.sums.count(place + 1 + i, u64::from(error < limit));
            }
        }
        self.sums.add(SQUARE, square / truth.len() as f64);
    }

    /// Adds the steps of `other`.
    pub fn merge(&mut self, other: &Metrics) {
        self.sums.merge(&other.sums);
    }

    /// The metrics of all ranks together, the same bits on each. Collective.
    pub fn combine(&self, comm: &Communicator) -> Result<Metrics> {
        Ok(Metrics { modes: self.modes, sums: self.sums.combine(comm)? })
    }

    /// The numbers to show.
    pub fn report(&self) -> Report {
        let mean = |sum| self.sums.mean(sum, STEPS);
        let row = |average, last| Row { ade: mean(average), fde: mean(last) };
        let counts =
            |from: usize| (from..from + self.modes).map(|i| self.sums.counted(i)).collect();
        let mode_use: Vec<u64> = counts(MODES);
        let steps = self.sums.counted(STEPS);
        Report {
            steps,
            model: row(AVERAGE, FINAL),
            best_of_modes: row(BEST_AVERAGE, BEST_FINAL),
            constant_velocity: row(STRAIGHT_AVERAGE, STRAIGHT_FINAL),
            mean_square: mean(SQUARE),
            accuracy: share(self.sums.counted(RIGHT), steps),
            ranges: (0..RANGES.len()).map(|range| self.range(range)).collect(),
            mode_entropy_bits: entropy_bits(&mode_use),
            mode_use,
            best_mode_use: counts(MODES + self.modes),
        }
    }

    fn range(&self, range: usize) -> RangeReport {
        let place = IN_RANGES + PER_RANGE * range;
        let points = self.sums.counted(place);
        let mean = |i| self.sums.mean(OF_RANGES + 3 * range + i, place);
        RangeReport {
            from_metres: RANGES[range].0,
            to_metres: RANGES[range].1,
            points,
            error: mean(0),
            x_error: mean(1),
            y_error: mean(2),
            ap: std::array::from_fn(|i| share(self.sums.counted(place + 1 + i), points)),
        }
    }
}

/// The errors of one kind of prediction in metres; `None` without steps.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Row {
    /// Average displacement error.
    pub ade: Option<f64>,
    /// Final displacement error.
    pub fde: Option<f64>,
}

/// The errors of points in a range of true x; `None` without points.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct RangeReport {
    /// Where the range begins.
    pub from_metres: f32,
    /// Where the next one begins.
    pub to_metres: f32,
    /// Points in it.
    pub points: u64,
    /// The mean distance to the true point.
    pub error: Option<f64>,
    /// The mean difference in x.
    pub x_error: Option<f64>,
    /// The mean difference in y.
    pub y_error: Option<f64>,
    /// The share of points nearer than each of [`HIT_METRES`].
    pub ap: [Option<f64>; HIT_METRES.len()],
}

/// What is shown of metrics. The field names are JSON keys.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// Steps that were predicted.
    pub steps: u64,
    /// The hypothesis with the largest logit.
    pub model: Row,
    /// The nearest hypothesis, for ADE and for FDE each.
    pub best_of_modes: Row,
    /// Driving straight on at the same speed.
    pub constant_velocity: Row,
    /// The mean squared difference of a coordinate: the original's `l2_dist`.
    pub mean_square: Option<f64>,
    /// The share of steps whose largest logit is the best hypothesis by squared error.
    pub accuracy: Option<f64>,
    /// By distance.
    pub ranges: Vec<RangeReport>,
    /// How often each hypothesis had the largest logit.
    pub mode_use: Vec<u64>,
    /// How often each was the best.
    pub best_mode_use: Vec<u64>,
    /// The entropy of `mode_use`: 0 when one hypothesis is always taken.
    pub mode_entropy_bits: f64,
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The entropy of a histogram; 0 of an empty one.
pub fn entropy_bits(counts: &[u64]) -> f64 {
    let total: u64 = counts.iter().sum();
    let shares = counts.iter().filter(|&&c| c > 0).map(|&c| c as f64 / total as f64);
    // Adding 0 makes the −0 of a single mode a plain 0.
    -shares.map(|p| p * p.log2()).sum::<f64>() + 0.0
}

fn difference(a: &[f32], b: &[f32]) -> [f64; AXES] {
    std::array::from_fn(|i| f64::from(a[i]) - f64::from(b[i]))
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    difference(a, b).iter().map(|d| d * d).sum::<f64>().sqrt()
}

/// The mean distance of points, and that of the last.
pub(super) fn displacement(found: &[f32], truth: &[f32]) -> (f64, f64) {
    let (mut sum, mut last) = (0.0, 0.0);
    for (a, b) in found.chunks_exact(AXES).zip(truth.chunks_exact(AXES)) {
        last = distance(a, b);
        sum += last;
    }
    (sum * AXES as f64 / truth.len() as f64, last)
}

/// The smallest of each over the hypotheses; NaN only if all are.
fn nearest(trajectories: &[f32], truth: &[f32]) -> (f64, f64) {
    let all = trajectories.chunks_exact(truth.len()).map(|h| displacement(h, truth));
    all.fold((f64::NAN, f64::NAN), |a, b| (a.0.min(b.0), a.1.min(b.1)))
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
