//! ELU (α = 1), ReLU, tanh and the logistic function, element by element.
//!
//! Each backward turns the gradient of y into that of x, in place, from **y**: x need not be kept.
//! The derivative at 0 is 0 for ReLU and 1 for ELU, as in PyTorch.

use super::functions::{exp_minus_one, sigmoid, tanh};
use super::map_pairs;

/// `y = x` above 0 and `e^x − 1` below.
pub fn elu(y: &mut [f32], x: &[f32], threads: usize) {
    map_pairs(
        y,
        x,
        threads,
        #[inline(always)]
        |_, x| if x > 0.0 { x } else { exp_minus_one(x) },
    );
}

/// `dx = dy` above 0 and `dy · (y + 1)` below.
pub fn elu_backward(gradient: &mut [f32], y: &[f32], threads: usize) {
    map_pairs(
        gradient,
        y,
        threads,
        #[inline(always)]
        |dy, y| dy * if y > 0.0 { 1.0 } else { y + 1.0 },
    );
}

/// `y = max(x, 0)`; NaN stays.
pub fn relu(y: &mut [f32], x: &[f32], threads: usize) {
    map_pairs(
        y,
        x,
        threads,
        #[inline(always)]
        |_, x| if x < 0.0 { 0.0 } else { x },
    );
}

/// `dx = dy` where y is above 0, and 0 elsewhere.
pub fn relu_backward(gradient: &mut [f32], y: &[f32], threads: usize) {
    map_pairs(
        gradient,
        y,
        threads,
        #[inline(always)]
        |dy, y| if y > 0.0 { dy } else { 0.0 },
    );
}

/// `y = tanh(x)`.
pub fn hyperbolic_tangent(y: &mut [f32], x: &[f32], threads: usize) {
    map_pairs(
        y,
        x,
        threads,
        #[inline(always)]
        |_, x| tanh(x),
    );
}

/// `dx = dy · (1 − y²)`.
pub fn hyperbolic_tangent_backward(gradient: &mut [f32], y: &[f32], threads: usize) {
    map_pairs(
        gradient,
        y,
        threads,
        #[inline(always)]
        |dy, y| dy * (1.0 - y * y),
    );
}

/// `y = 1 / (1 + e^−x)`.
pub fn logistic(y: &mut [f32], x: &[f32], threads: usize) {
    map_pairs(
        y,
        x,
        threads,
        #[inline(always)]
        |_, x| sigmoid(x),
    );
}

/// `dx = dy · y · (1 − y)`.
pub fn logistic_backward(gradient: &mut [f32], y: &[f32], threads: usize) {
    map_pairs(
        gradient,
        y,
        threads,
        #[inline(always)]
        |dy, y| dy * (y * (1.0 - y)),
    );
}
