//! Layers as free functions over slices: each file has one layer, its forward and its backward.
//!
//! All tensors are row-major f32. Shapes, parameter layouts and formulas are those of PyTorch, and
//! the tests compare with it. One style for all:
//! - outputs come first, then inputs, then parameters, the shape, and last the threads;
//! - `forward` overwrites its output;
//! - `backward_input` overwrites the gradient of the input, unless its name says that it adds;
//! - `backward_weight`, `backward_bias`, … **add** to the gradient of one parameter, so that they
//!   can write straight into the flat buffer of the optimizer;
//! - a length that does not fit the shape is a bug of the caller and panics.
//!
//! Work is split by rows, examples or columns and never along a sum, so the bits do not depend on
//! `threads`; and loops run on the widest vectors with the bits of the plain ones.

pub mod activation;
pub mod attention;
pub mod convolution;
pub mod cross_entropy;
pub mod embedding;
pub mod functions;
pub mod gelu;
pub mod gru;
pub mod layer_norm;
pub mod linear;

use rayon::prelude::*;

/// Rows that one task takes: small enough to share out, large enough to pay for it.
pub(crate) const ROW_BLOCK: usize = 32;

/// Elements that one task of an element-wise loop takes.
const ELEMENT_BLOCK: usize = 1 << 13;

/// Runs `work` on every part, on at most `threads` threads of the current rayon pool.
pub(crate) fn for_each_part<T: Send>(
    threads: usize,
    parts: impl Iterator<Item = T>,
    work: impl Fn(T) + Sync + Send,
) {
    if threads <= 1 {
        return parts.for_each(work);
    }
    let parts: Vec<T> = parts.collect();
    let each = parts.len().div_ceil(threads);
    parts.into_par_iter().with_min_len(each.max(1)).for_each(work);
}

/// `into[j] += Σᵢ f(i, j)` over rows, for columns in panels that fit in registers. Rows are added
/// up in blocks, which keeps the rounding error low, in an order that only `rows` decides.
#[inline(always)]
pub(crate) fn add_column_sums(
    into: &mut [f32],
    first_column: usize,
    rows: usize,
    f: impl Fn(usize, usize, &mut [f32]),
) {
    const PANEL: usize = 64;
    const BLOCK: usize = 128;
    for (index, panel) in into.chunks_mut(PANEL).enumerate() {
        let column = first_column + index * PANEL;
        let mut total = [0.0; PANEL];
        let mut first = 0;
        while first < rows {
            let end = (first + BLOCK).min(rows);
            let mut block = [0.0; PANEL];
            for row in first..end {
                f(row, column, &mut block[..panel.len()]);
            }
            for (total, x) in total.iter_mut().zip(block) {
                *total += x;
            }
            first = end;
        }
        for (sum, x) in panel.iter_mut().zip(total) {
            *sum += x;
        }
    }
}

/// Applies `f` to pairs of elements: `y[i] = f(y[i], x[i])`.
pub(crate) fn map_pairs(
    y: &mut [f32],
    x: &[f32],
    threads: usize,
    f: impl Fn(f32, f32) -> f32 + Sync + Send + Copy,
) {
    assert_eq!(y.len(), x.len());
    let parts = y.chunks_mut(ELEMENT_BLOCK).zip(x.chunks(ELEMENT_BLOCK));
    for_each_part(threads, parts, |(y, x)| {
        crate::reduce::simd::vectorised(
            #[inline(always)]
            || {
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = f(*y, x);
                }
            },
        );
    });
}

/// `y += x`, as at the end of a residual branch.
pub fn add(y: &mut [f32], x: &[f32], threads: usize) {
    map_pairs(
        y,
        x,
        threads,
        #[inline(always)]
        |y, x| y + x,
    );
}

#[cfg(test)]
mod test_cases;
#[cfg(test)]
pub(crate) mod tests;
