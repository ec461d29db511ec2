//! `y = x·Wᵀ + b` on rows, with W as outputs × inputs.
//!
//! Backward: `dx = dy·W`, `dW += dyᵀ·x`, `db += Σ rows of dy`: three products of the same size,
//! 6 · rows · inputs · outputs operations in all, and no copy: the gradient of the weight
//! accumulates in the caller's buffer.

use super::{ROW_BLOCK, add_column_sums, for_each_part};
use crate::reduce::matrix::{Matrix, MatrixMut, product};
use crate::reduce::simd::vectorised;

/// The sizes of a linear layer and of the rows it is applied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows of the input and of the output.
    pub rows: usize,
    /// Elements of an input row.
    pub inputs: usize,
    /// Elements of an output row.
    pub outputs: usize,
}

/// `y = x·Wᵀ + b`.
pub fn forward(
    y: &mut [f32],
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    shape: Shape,
    threads: usize,
) {
    let Shape { rows, inputs, outputs } = shape;
    let beta = if let Some(bias) = bias {
        broadcast(y, bias, shape, threads);
        1.0
    } else {
        0.0
    };
    let transposed = Matrix::new(weight, outputs, inputs).transposed();
    let y = MatrixMut::new(y, rows, outputs);
    product(y, Matrix::new(x, rows, inputs), transposed, 1.0, beta, threads);
}

/// Fills every row with the bias, so that the product adds to it: one pass less than adding later.
fn broadcast(y: &mut [f32], bias: &[f32], shape: Shape, threads: usize) {
    assert_eq!((y.len(), bias.len()), (shape.rows * shape.outputs, shape.outputs));
    for_each_part(threads, y.chunks_mut((ROW_BLOCK * shape.outputs).max(1)), |y| {
        y.chunks_exact_mut(shape.outputs).for_each(|row| row.copy_from_slice(bias));
    });
}

/// `y = residual + x·Wᵀ + b`, the end of a residual branch.
pub fn forward_residual(
    y: &mut [f32],
    residual: &[f32],
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    shape: Shape,
    threads: usize,
) {
    let Shape { rows, inputs, outputs } = shape;
    assert_eq!((y.len(), residual.len()), (rows * outputs, rows * outputs));
    assert_eq!(bias.len(), outputs);
    let block = (ROW_BLOCK * outputs).max(1);
    for_each_part(threads, y.chunks_mut(block).zip(residual.chunks(block)), |(y, residual)| {
        vectorised(
            #[inline(always)]
            || {
                let rows = y.chunks_exact_mut(outputs).zip(residual.chunks_exact(outputs));
                for (y, residual) in rows {
                    for ((y, x), b) in y.iter_mut().zip(residual).zip(bias) {
                        *y = x + b;
                    }
                }
            },
        );
    });
    let transposed = Matrix::new(weight, outputs, inputs).transposed();
    let y = MatrixMut::new(y, rows, outputs);
    product(y, Matrix::new(x, rows, inputs), transposed, 1.0, 1.0, threads);
}

/// `dx = dy·W`.
pub fn backward_input(dx: &mut [f32], dy: &[f32], weight: &[f32], shape: Shape, threads: usize) {
    let Shape { rows, inputs, outputs } = shape;
    let (dy, weight) = (Matrix::new(dy, rows, outputs), Matrix::new(weight, outputs, inputs));
    product(MatrixMut::new(dx, rows, inputs), dy, weight, 1.0, 0.0, threads);
}

/// `dW += dyᵀ·x`.
pub fn backward_weight(dweight: &mut [f32], dy: &[f32], x: &[f32], shape: Shape, threads: usize) {
    let Shape { rows, inputs, outputs } = shape;
    let (dy, x) = (Matrix::new(dy, rows, outputs), Matrix::new(x, rows, inputs));
    let dweight = MatrixMut::new(dweight, outputs, inputs);
    product(dweight, dy.transposed(), x, 1.0, 1.0, threads);
}

/// `db += Σ rows of dy`.
pub fn backward_bias(dbias: &mut [f32], dy: &[f32], threads: usize) {
    let outputs = dbias.len();
    assert!(outputs > 0 && dy.len().is_multiple_of(outputs));
    let rows = dy.len() / outputs;
    let each = outputs.div_ceil(threads.max(1));
    for_each_part(threads, dbias.chunks_mut(each).enumerate(), |(part, dbias)| {
        vectorised(
            #[inline(always)]
            || {
                add_column_sums(
                    dbias,
                    part * each,
                    rows,
                    #[inline(always)]
                    |row, column, sums| {
                        let from = &dy[row * outputs + column..];
                        for (sum, x) in sums.iter_mut().zip(from) {
                            *sum += x;
                        }
                    },
                );
            },
        );
    });
}
