//! GELU, `x · Φ(x)`, exactly (by erf) and as the tanh approximation of GPT-2.
//!
//! - erf: `x/2 · (1 + erf(x/√2))`, with the derivative
//!   `(1 + erf(x/√2))/2 + x · e^(−x²/2)/√(2π)`;
//! - tanh: `x/2 · (1 + t)` with t = tanh(√(2/π)·(x + 0.044715 x³)), and the derivative
//!   `(1 + t)/2 + x/2 · (1 − t²) · √(2/π)·(1 + 0.134145 x²)`.

use super::functions::{erf, exp, tanh};
use super::map_pairs;
use std::f32::consts::FRAC_1_SQRT_2;

/// √(2/π).
const SCALE: f32 = 0.797_884_6;
/// 1/√(2π).
const DENSITY: f32 = 0.398_942_3;

/// Which of the two forms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// By the error function.
    Erf,
    /// By the hyperbolic tangent.
    #[default]
    Tanh,
}

/// `y = gelu(x)`.
pub fn forward(y: &mut [f32], x: &[f32], form: Form, threads: usize) {
    match form {
        Form::Erf => map_pairs(
            y,
            x,
            threads,
            #[inline(always)]
            |_, x| 0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2)),
        ),
        Form::Tanh => map_pairs(
            y,
            x,
            threads,
            #[inline(always)]
            |_, x| 0.5 * x * (1.0 + tanh(SCALE * (x + 0.044_715 * x * x * x))),
        ),
    }
}

/// Turns the gradient of y into that of x, in place.
pub fn backward(gradient: &mut [f32], x: &[f32], form: Form, threads: usize) {
    match form {
        Form::Erf => map_pairs(
            gradient,
            x,
            threads,
            #[inline(always)]
            |dy, x| {
                let below = 0.5 * (1.0 + erf(x * FRAC_1_SQRT_2));
                dy * (below + x * DENSITY * exp(-0.5 * x * x))
            },
        ),
        Form::Tanh => map_pairs(
            gradient,
            x,
            threads,
            #[inline(always)]
            |dy, x| {
                let t = tanh(SCALE * (x + 0.044_715 * x * x * x));
                let slope = (1.0 - t * t) * SCALE * (1.0 + 0.134_145 * x * x);
                dy * (0.5 * (1.0 + t) + 0.5 * x * slope)
            },
        ),
    }
}
