//! From the numbers that a network puts out to trajectories, and the way back.
//!
//! - [`Head::Original`]: x = exp, y = sinh, z as it is: small numbers reach 100 m, and x is
//!   forward. The original's overflow at 89; here both are cut at ±[`LIMIT`] (2981 m, beyond what
//!   any metric counts). Within it values are the original's. Outside, the gradient is that of the
//!   limit and not 0, so that training can come back.
//! - [`Head::Linear`]: as it is, in metres.
//! - [`Head::Residual`]: what differs from driving on at the same speed, in metres. A network that
//!   puts out zeros is already as good as that baseline.
//!
//! Cost: two exponentials a point of [`Head::Original`]; memory traffic else.

use serde::{Deserialize, Serialize};

use super::labels::{AXES, POINTS, TRAJECTORY};

/// Where [`Head::Original`] cuts the arguments of exp and sinh.
pub const LIMIT: f32 = 8.0;

/// How the numbers of a network become a trajectory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Head {
    /// exp and sinh, as the original has it.
    #[default]
    Original,
    /// The numbers themselves.
    Linear,
    /// Added to constant velocity.
    Residual,
}

/// The trajectory of driving straight on at a speed (m/s).
pub fn constant_velocity(speed: f32, times: &[f64; POINTS]) -> [f32; TRAJECTORY] {
    std::array::from_fn(|i| match i % AXES {
        0 => (f64::from(speed) * times[i / AXES]) as f32,
        _ => 0.0,
    })
}

impl Head {
    /// The head of this name in a configuration.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "original" => Some(Head::Original),
            "linear" => Some(Head::Linear),
            "residual" => Some(Head::Residual),
            _ => None,
        }
    }

    /// Replaces the numbers of one or more hypotheses by trajectories; `straight` is the
    /// [`constant_velocity`] of their step.
    pub fn forward(self, numbers: &mut [f32], straight: &[f32]) {
        match self {
            Head::Original => {
                for point in numbers.chunks_exact_mut(AXES) {
                    point[0] = point[0].clamp(-LIMIT, LIMIT).exp();
                    point[1] = point[1].clamp(-LIMIT, LIMIT).sinh();
                }
            }
            Head::Linear => {}
            Head::Residual => {
                for hypothesis in numbers.chunks_exact_mut(straight.len()) {
                    hypothesis.iter_mut().zip(straight).for_each(|(n, s)| *n += s);
                }
            }
        }
    }

    /// Replaces gradients of trajectories by those of the numbers, given the trajectories.
    pub fn backward(self, trajectories: &[f32], gradients: &mut [f32]) {
        if self == Head::Original {
            let points = trajectories.chunks_exact(AXES);
            for (point, gradient) in points.zip(gradients.chunks_exact_mut(AXES)) {
                gradient[0] *= point[0];
                // cosh of the argument of this sinh.
                gradient[1] *= point[1].hypot(1.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::labels::times;
    use super::*;

    #[test]
    fn gradients_are_slopes() {
        let straight = constant_velocity(7.0, &times(5.0));
        for head in ["original", "linear", "residual"].map(|n| Head::named(n).unwrap()) {
            let numbers: Vec<f32> =
                (0..2 * TRAJECTORY).map(|i| (i as f32 * 0.37).sin() * 3.0).collect();
            let mut at = numbers.clone();
            head.forward(&mut at, &straight);
            let mut slope = vec![1.0; numbers.len()];
            head.backward(&at, &mut slope);
            let step = 1.0 / 256.0;
            let moved = |by: f32| {
                let mut moved: Vec<f32> = numbers.iter().map(|n| n + by).collect();
                head.forward(&mut moved, &straight);
                moved
            };
            for ((up, down), slope) in moved(step).iter().zip(moved(-step)).zip(slope) {
                let found = (up - down) / (2.0 * step);
                assert!((found - slope).abs() < 2e-3 * slope.abs().max(1.0), "{found} {slope}");
            }
        }
        assert_eq!(Head::named("exp"), None);
    }

    #[test]
    fn extremes_stay_finite_and_come_back() {
        let mut numbers = [1e30, -1e30, 5.0, -1e30, 1e30, -5.0];
        let mut gradients = [1.0f32; 6];
        Head::Original.forward(&mut numbers, &[]);
        Head::Original.backward(&numbers, &mut gradients);
        assert!(numbers.iter().chain(&gradients).all(|v| v.is_finite()), "{numbers:?}");
        assert!(gradients.iter().all(|g| *g > 0.0), "{gradients:?}");
        assert_eq!((numbers[2], numbers[5]), (5.0, -5.0));
    }

    #[test]
    fn zeros_of_the_residual_are_constant_velocity() {
        let straight = constant_velocity(10.0, &times(5.0));
        assert_eq!(straight[TRAJECTORY - 3..], [50.0, 0.0, 0.0]);
        let mut numbers = vec![0.0; 3 * TRAJECTORY];
        Head::Residual.forward(&mut numbers, &straight);
        assert!(numbers.chunks(TRAJECTORY).all(|h| h == straight));
    }
}
