//! What a report shows of a trained planner: its metrics, and some samples from easy to hard.
//!
//! Samples are held-out windows at their last step, when the network has seen all of their history.
//! They are chosen by rank among all errors, so the same ones at any number of ranks.

use serde::Serialize;

use super::labels::{AXES, TRAJECTORY};
use super::metrics::{Report, displacement};

/// Metrics and samples. Serialised are the metrics alone.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Exhibit {
    /// The metrics of the last evaluation.
    #[serde(flatten)]
    pub report: Report,
    /// Seconds that a trajectory looks ahead.
    pub horizon_seconds: f64,
    /// From easy to hard.
    #[serde(skip)]
    pub samples: Vec<Drawn>,
}

/// A path as (metres forward, metres to the left) of the car.
pub type Path = Vec<[f32; 2]>;

/// A prediction and what came true.
#[derive(Clone, PartialEq, Debug)]
pub struct Drawn {
    /// The vehicle.
    pub vehicle: String,
    /// Its speed in m/s.
    pub speed: f32,
    /// Where it went.
    pub truth: Path,
    /// The hypotheses with their probabilities, the most probable first.
    pub modes: Vec<(f64, Path)>,
    /// Driving on at constant velocity.
    pub straight: Path,
    /// The mean distance of the first hypothesis to the truth, and that of constant velocity.
    pub errors: [f64; 2],
}

fn path(trajectory: &[f32]) -> Path {
    trajectory.chunks_exact(AXES).map(|point| [point[0], point[1]]).collect()
}

/// The mean distance of a trajectory to the true one.
pub(super) fn error(trajectory: &[f32], truth: &[f32]) -> f64 {
    displacement(trajectory, truth).0
}

impl Drawn {
    /// From the logits and trajectories of one row, and the row's truth.
    pub(super) fn new(
        vehicle: &str,
        speed: f32,
        (logits, trajectories): (&[f32], &[f32]),
        truth: &[f32],
        straight: &[f32],
    ) -> Self {
        let largest = logits.iter().fold(f32::NEG_INFINITY, |m, &l| m.max(l));
        let powers: Vec<f64> = logits.iter().map(|&l| f64::from(l - largest).exp()).collect();
        let total: f64 = powers.iter().sum();
        let all = powers.iter().zip(trajectories.chunks_exact(TRAJECTORY));
        let mut modes: Vec<_> = all.map(|(power, mode)| (power / total, mode)).collect();
        // Stable: of equals the first comes first, as in metrics.
        modes.sort_by(|a, b| b.0.total_cmp(&a.0));
        let first = modes.first().map_or(f64::NAN, |(_, mode)| error(mode, truth));
        Drawn {
            vehicle: vehicle.to_string(),
            speed,
            truth: path(truth),
            modes: modes.into_iter().map(|(share, mode)| (share, path(mode))).collect(),
            straight: path(straight),
            errors: [first, error(straight, truth)],
        }
    }
}

/// The places of `many` of the errors, or of all, from the smallest to the largest at equal
/// distances in their order.
pub(super) fn spread(errors: &[f64], many: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..errors.len()).collect();
    order.sort_by(|&a, &b| errors[a].total_cmp(&errors[b]));
    let many = many.min(order.len());
    let last = order.len().saturating_sub(1);
    (0..many).map(|i| order[i * last / (many - 1).max(1)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_spread_from_easy_to_hard() {
        let errors = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0];
        assert_eq!(spread(&errors, 3), [1, 0, 5]);
        assert_eq!(spread(&errors, 7), [1, 3, 6, 0, 2, 4, 5]);
        assert_eq!(spread(&errors, 99), spread(&errors, 7));
        assert_eq!(spread(&errors, 1), [1]);
        assert_eq!(spread(&[f64::NAN, 2.0], 2), [1, 0]);
        assert!(spread(&[], 12).is_empty() && spread(&errors, 0).is_empty());
    }

    #[test]
    fn the_most_probable_hypothesis_comes_first_and_is_judged() {
        let along = |y: f32| -> Vec<f32> {
            (0..TRAJECTORY).map(|i| [i as f32, y, 0.0][i % AXES]).collect()
        };
        let trajectories = [along(5.0), along(1.0), along(-2.0)].concat();
        let logits = [0.0, 2.0, 0.0];
        let drawn = Drawn::new("a", 7.0, (&logits, &trajectories), &along(0.0), &along(3.0));
        assert_eq!(drawn.errors, [1.0, 3.0]);
        let left: Vec<f32> = drawn.modes.iter().map(|(_, path)| path[4][1]).collect();
        assert_eq!(left, [1.0, 5.0, -2.0]);
        let sum: f64 = drawn.modes.iter().map(|(share, _)| share).sum();
        assert!((sum - 1.0).abs() < 1e-12 && drawn.modes[0].0 > 0.7);
        assert_eq!(drawn.truth[2], [6.0, 0.0]);
    }
}
