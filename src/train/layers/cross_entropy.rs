//! Softmax and cross-entropy in one: `loss = log Σ e^z − z[target]`, of rows of logits.
//!
//! The gradient, `(softmax(z) − 1[target]) · scale`, replaces the logits in place: one pass over
//! the row from cache. The loss of a mean has scale = 1 / rows, times any loss scale.

use super::functions::{exp, maximum, sum_of};
use super::{ROW_BLOCK, for_each_part};
use crate::reduce::simd::vectorised;

/// The losses of the rows; their sum over all rows is the caller's to take, in f64.
///
/// # Panics
/// If a target is not a column.
pub fn forward(losses: &mut [f32], logits: &[f32], targets: &[u32], width: usize, threads: usize) {
    assert_eq!((logits.len(), losses.len()), (targets.len() * width, targets.len()));
    let parts = logits.chunks(ROW_BLOCK * width).zip(targets.chunks(ROW_BLOCK));
    for_each_part(
        threads,
        parts.zip(losses.chunks_mut(ROW_BLOCK)),
        |((logits, targets), losses)| {
            vectorised(
                #[inline(always)]
                || {
                    let rows = logits.chunks_exact(width).zip(targets);
                    for ((row, &target), loss) in rows.zip(losses) {
                        let largest = maximum(row);
                        let sum = sum_of(
                            row,
                            #[inline(always)]
                            |z| exp(z - largest),
                        );
                        *loss = sum.ln() - (row[target as usize] - largest);
                    }
                },
            );
        },
    );
}

/// The losses of the rows, with the logits replaced by their gradient times `scale`.
///
/// # Panics
/// If a target is not a column.
pub fn forward_backward(
    losses: &mut [f32],
    logits: &mut [f32],
    targets: &[u32],
    width: usize,
    scale: f32,
    threads: usize,
) {
    assert_eq!((logits.len(), losses.len()), (targets.len() * width, targets.len()));
    let parts = logits.chunks_mut(ROW_BLOCK * width).zip(targets.chunks(ROW_BLOCK));
    for_each_part(
        threads,
        parts.zip(losses.chunks_mut(ROW_BLOCK)),
        |((logits, targets), losses)| {
            vectorised(
                #[inline(always)]
                || {
                    let rows = logits.chunks_exact_mut(width).zip(targets);
                    for ((row, &target), loss) in rows.zip(losses) {
                        *loss = row_gradient(row, target as usize, scale);
                    }
                },
            );
        },
    );
}

#[inline(always)]
fn row_gradient(row: &mut [f32], target: usize, scale: f32) -> f32 {
    let largest = maximum(row);
    let chosen = row[target] - largest;
    for z in row.iter_mut() {
        *z = exp(*z - largest);
    }
    let sum = sum_of(row, |e| e);
    let factor = scale / sum;
    for e in row.iter_mut() {
        *e *= factor;
    }
    row[target] -= scale;
    sum.ln() - chosen
}
