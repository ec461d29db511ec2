//! `y = (x − mean) / √(variance + ε) · gain + bias` on rows, with the biased variance.
//!
//! Backward, with x̂ the normalised row and g = dy · gain:
//! `dx = (g − mean(g) − x̂ · mean(g · x̂)) / √(variance + ε)`,
//! `dgain += Σ dy · x̂`, `dbias += Σ dy`. Two floats a row are kept from the forward pass.

use super::functions::{sum_of, sum_of_two};
use super::{ROW_BLOCK, add_column_sums, for_each_part};
use crate::reduce::simd::vectorised;

/// Added to the variance, as in PyTorch and GPT-2.
pub const EPSILON: f32 = 1e-5;

/// What the backward pass needs of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowStatistics {
    /// The mean of the row.
    pub mean: f32,
    /// 1 / √(variance + ε).
    pub scale: f32,
}

/// Normalises the rows of `x` and keeps their statistics.
pub fn forward(
    y: &mut [f32],
    statistics: &mut [RowStatistics],
    x: &[f32],
    gain: &[f32],
    bias: &[f32],
    threads: usize,
) {
    let width = gain.len();
    assert_eq!((x.len(), bias.len()), (y.len(), width));
    assert_eq!(x.len(), statistics.len() * width);
    let block = ROW_BLOCK * width;
    let parts = y.chunks_mut(block).zip(statistics.chunks_mut(ROW_BLOCK)).zip(x.chunks(block));
    for_each_part(threads, parts, |((y, statistics), x)| {
        vectorised(
            #[inline(always)]
            || {
                let rows = y.chunks_exact_mut(width).zip(x.chunks_exact(width));
                for ((y, x), kept) in rows.zip(statistics) {
                    *kept = forward_row(y, x, gain, bias);
                }
            },
        );
    });
}

#[inline(always)]
fn forward_row(y: &mut [f32], x: &[f32], gain: &[f32], bias: &[f32]) -> RowStatistics {
    let width = x.len() as f32;
    let mean = sum_of(x, |x| x) / width;
    let variance = sum_of(x, |x| (x - mean) * (x - mean)) / width;
    let scale = 1.0 / (variance + EPSILON).sqrt();
    for (((y, x), gain), bias) in y.iter_mut().zip(x).zip(gain).zip(bias) {
        *y = (x - mean) * scale * gain + bias;
    }
    RowStatistics { mean, scale }
}

/// **Adds** the gradient of the input to `dx`, which holds that of the residual path.
pub fn backward_input_add(
    dx: &mut [f32],
    dy: &[f32],
    x: &[f32],
    statistics: &[RowStatistics],
    gain: &[f32],
    threads: usize,
) {
    let width = gain.len();
    assert_eq!((x.len(), dy.len()), (dx.len(), dx.len()));
    assert_eq!(x.len(), statistics.len() * width);
    let block = ROW_BLOCK * width;
    let parts = dx.chunks_mut(block).zip(dy.chunks(block)).zip(x.chunks(block));
    for_each_part(threads, parts.zip(statistics.chunks(ROW_BLOCK)), |(((dx, dy), x), kept)| {
        vectorised(
            #[inline(always)]
            || {
                let inputs = dy.chunks_exact(width).zip(x.chunks_exact(width));
                for ((dx, (dy, x)), kept) in dx.chunks_exact_mut(width).zip(inputs).zip(kept) {
                    backward_row(dx, dy, x, *kept, gain);
                }
            },
        );
    });
}

#[inline(always)]
fn backward_row(dx: &mut [f32], dy: &[f32], x: &[f32], kept: RowStatistics, gain: &[f32]) {
    let RowStatistics { mean, scale } = kept;
    let width = x.len() as f32;
    let mean_g = sum_of_two(dy, gain, |dy, gain| dy * gain) / width;
    // Σ g·x̂ in two factors; dx has g in it only here and in the loop below.
    let mut lanes = [0.0f32; 16];
    let each = dy.chunks(16).zip(x.chunks(16)).zip(gain.chunks(16));
    for ((dy, x), gain) in each {
        for (lane, ((dy, x), gain)) in lanes.iter_mut().zip(dy.iter().zip(x).zip(gain)) {
            *lane += dy * gain * ((x - mean) * scale);
        }
    }
    let mean_gx = sum_of(&lanes, |x| x) / width;
    for (((dx, dy), x), gain) in dx.iter_mut().zip(dy).zip(x).zip(gain) {
        let normalised = (x - mean) * scale;
        *dx += (dy * gain - mean_g - normalised * mean_gx) * scale;
    }
}

/// `dgain += Σ rows of dy · x̂`. The gradient of the bias is `linear::backward_bias`.
pub fn backward_gain(
    dgain: &mut [f32],
    dy: &[f32],
    x: &[f32],
    statistics: &[RowStatistics],
    threads: usize,
) {
    let width = dgain.len();
    assert_eq!((x.len(), dy.len()), (statistics.len() * width, statistics.len() * width));
    let each = width.div_ceil(threads.max(1));
    for_each_part(threads, dgain.chunks_mut(each).enumerate(), |(part, dgain)| {
        vectorised(
            #[inline(always)]
            || {
                add_column_sums(
                    dgain,
                    part * each,
                    statistics.len(),
                    #[inline(always)]
                    |row, column, sums| {
                        let RowStatistics { mean, scale } = statistics[row];
                        let at = row * width + column;
                        let pairs = dy[at..].iter().zip(&x[at..]);
                        for (sum, (dy, x)) in sums.iter_mut().zip(pairs) {
                            *sum += dy * ((x - mean) * scale);
                        }
                    },
                );
            },
        );
    });
}
