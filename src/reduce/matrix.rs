//! Matrix products in f32: `C ← α·A·B + β·C`, on the kernels of the `gemm` crate, as safe calls.
//!
//! Operands are views of slices with any strides, so that a transpose, a block or one head of an
//! attention layer is a view and never a copy. With β = 1 a gradient accumulates in place.
//!
//! Every element of C is one chain of additions along `k`, in blocks of [`DEPTH_BLOCK`]. The crate
//! would choose that block from the size of the caches, so products are cut here into depths that
//! it leaves whole. Its threads split rows and columns, never `k`. So bits depend on the shape and
//! the strides, and not on threads. AVX2 and AVX-512 also agree, but for vectors (one row or
//! column) and results of at most 256 elements whose operands are contiguous along `k`, where the
//! chains are as many as a vector has lanes.
//!
//! Cost: 2·m·n·k operations. At 512³ one core reaches its peak: 250 GFLOP/s on Zen 5, whose vector
//! units are 512 bits wide, and 114 on Zen 4, whose are 256.

#![allow(unsafe_code)] // the kernels take raw pointers; the views check ranges once

use gemm_common::Parallelism;

/// Elements along `k` that are added up in registers before C is touched.
pub const DEPTH_BLOCK: usize = 512;

/// A matrix that is read.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

/// A row-major matrix that is written; its rows may lie apart.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

/// The elements that a view spans, from its first to its last.
fn span(rows: usize, columns: usize, row_stride: usize, column_stride: usize) -> usize {
    if rows == 0 || columns == 0 {
        return 0;
    }
    let last = (rows - 1)
        .checked_mul(row_stride)
        .zip((columns - 1).checked_mul(column_stride))
        .and_then(|(down, right)| down.checked_add(right))
        .and_then(|last| last.checked_add(1));
    assert!(last.is_some_and(|last| isize::try_from(last).is_ok()), "a view of too many elements");
    last.unwrap_or(usize::MAX)
}

impl<'a> Matrix<'a> {
    /// Rows one after the other.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Matrix::strided(data, rows, columns, columns)
    }

    /// Rows that start `row_stride` elements apart, at the start of `data`.
    ///
    /// # Panics
    /// If the last element lies outside `data`.
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        let needed = span(rows, columns, row_stride, 1);
        assert!(needed <= data.len(), "{rows}x{columns} by {row_stride} in {}", data.len());
        Matrix { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// The transpose: the same elements with rows and columns exchanged.
    pub fn transposed(self) -> Self {
        Matrix {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    /// The columns `start..start + columns` of all rows.
    fn columns_from(self, start: usize, columns: usize) -> Self {
        debug_assert!(start + columns <= self.columns);
        let data = self.data.get(start * self.column_stride..).unwrap_or(&[]);
        Matrix { data, columns, ..self }
    }
}

impl<'a> MatrixMut<'a> {
    /// Rows one after the other.
    pub fn new(data: &'a mut [f32], rows: usize, columns: usize) -> Self {
        MatrixMut::strided(data, rows, columns, columns)
    }

    /// Rows that start `row_stride` elements apart, at the start of `data`.
    ///
    /// # Panics
    /// If the last element lies outside `data`, or rows overlap.
    pub fn strided(data: &'a mut [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        let needed = span(rows, columns, row_stride, 1);
        assert!(needed <= data.len(), "{rows}x{columns} by {row_stride} in {}", data.len());
        assert!(rows <= 1 || row_stride >= columns, "rows overlap: {row_stride} < {columns}");
        MatrixMut { data, rows, columns, row_stride }
    }
}

/// `c ← alpha·a·b + beta·c`; with `beta` = 0, what `c` held does not matter, not even NaN.
///
/// `threads` are taken from the current rayon pool; 1 stays on this thread. Nothing is added where
/// `a` has no columns.
///
/// # Panics
/// If the shapes do not fit together.
pub fn product(c: MatrixMut, a: Matrix, b: Matrix, alpha: f32, beta: f32, threads: usize) {
    let MatrixMut { data, rows, columns, row_stride } = c;
    assert!(
        a.rows == rows && b.columns == columns && a.columns == b.rows,
        "{rows}x{columns} is no product of {}x{} and {}x{}",
        a.rows,
        a.columns,
        b.rows,
        b.columns
    );
    if a.columns == 0 {
        for row in data.chunks_mut(row_stride.max(1)).take(rows) {
            let row = &mut row[..columns];
            row.iter_mut().for_each(|x| *x = if beta == 0.0 { 0.0 } else { beta * *x });
        }
        return;
    }
    let mut start = 0;
    while start < a.columns {
        let depth = DEPTH_BLOCK.min(a.columns - start);
        let beta = if start == 0 { beta } else { 1.0 };
        let left = a.columns_from(start, depth);
        let right = b.transposed().columns_from(start, depth).transposed();
        let c = MatrixMut { data: &mut *data, rows, columns, row_stride };
        one_depth(c, left, right, alpha, beta, threads);
        start += depth;
    }
}

/// One call of the kernel. It writes columns of C fastest, so C is given to it as its transpose:
/// `Cᵀ = Bᵀ·Aᵀ`.
fn one_depth(c: MatrixMut, a: Matrix, b: Matrix, alpha: f32, beta: f32, threads: usize) {
    let parallelism = if threads > 1 { Parallelism::Rayon(threads) } else { Parallelism::None };
    let gemm = gemm_f32::gemm::f32::get_gemm_fn();
    // SAFETY: every view was made by a constructor, by `transposed` or by `columns_from`, which
    // keep all its elements inside its slice and its strides within `isize`; `product` compared
    // the shapes. `c` is borrowed mutably, apart from `a` and `b`, and its rows do not overlap.
    unsafe {
        gemm(
            c.columns,
            c.rows,
            a.columns,
            c.data.as_mut_ptr(),
            c.row_stride as isize,
            1,
            beta != 0.0,
            b.data.as_ptr(),
            b.row_stride as isize,
            b.column_stride as isize,
            a.data.as_ptr(),
            a.row_stride as isize,
            a.column_stride as isize,
            beta,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values with all bits in use, different in every place.
    fn values(n: usize, seed: usize) -> Vec<f32> {
        let mix = |i: usize| (i * 2_654_435_761 + seed * 40_503 + 12_345) % 1_000_003;
        (0..n).map(|i| mix(i) as f32 / 500_001.5 - 1.0).collect()
    }

    fn reference(
        (rows, depth, columns): (usize, usize, usize),
        a: impl Fn(usize, usize) -> f32,
        b: impl Fn(usize, usize) -> f32,
    ) -> Vec<f64> {
        let element = |i: usize, j: usize| {
            (0..depth).map(|k| f64::from(a(i, k)) * f64::from(b(k, j))).sum::<f64>()
        };
        (0..rows * columns).map(|at| element(at / columns, at % columns)).collect()
    }

    #[test]
    fn all_transposes_and_factors_match_plain_sums_at_awkward_shapes() {
        for (m, k, n) in [
            (0, 3, 4),
            (3, 0, 4),
            (3, 4, 0),
            (1, 1, 1),
            (1, 9, 5),
            (5, 9, 1),
            (7, 2, 3),
            (17, 33, 16),
            (65, 130, 47),
            (20, 1100, 33),
        ] {
            let (a, b, c) = (values(m * k, 1), values(k * n, 2), values(m * n, 3));
            for (turn_a, turn_b, beta) in
                [(false, false, 0.0), (true, false, 1.0), (false, true, 0.5), (true, true, 1.0)]
            {
                let left =
                    if turn_a { Matrix::new(&a, k, m).transposed() } else { Matrix::new(&a, m, k) };
                let right =
                    if turn_b { Matrix::new(&b, n, k).transposed() } else { Matrix::new(&b, k, n) };
                let sums = reference(
                    (m, k, n),
                    |i, x| if turn_a { a[x * m + i] } else { a[i * k + x] },
                    |x, j| if turn_b { b[j * k + x] } else { b[x * n + j] },
                );
                let mut got = if beta == 0.0 { vec![f32::NAN; m * n] } else { c.clone() };
                product(MatrixMut::new(&mut got, m, n), left, right, 2.0, beta, 1);
                for i in 0..m * n {
                    let want = 2.0 * sums[i] + f64::from(beta) * f64::from(c[i]);
                    let error = (f64::from(got[i]) - want).abs();
                    assert!(error < 2e-6 * k.max(1) as f64, "{m} {k} {n}: {error}");
                }
            }
        }
    }

    #[test]
    fn strided_views_touch_nothing_between_their_rows() {
        let (a, b) = (values(6 * 10, 1), values(4 * 9, 2));
        let mut c = [7.0f32; 6 * 8];
        let left = Matrix::strided(&a[2..], 6, 4, 10);
        let right = Matrix::strided(&b[3..], 4, 5, 9);
        product(MatrixMut::strided(&mut c[1..], 6, 5, 8), left, right, 1.0, 0.0, 1);
        let sums = reference((6, 4, 5), |i, k| a[2 + i * 10 + k], |k, j| b[3 + k * 9 + j]);
        for (at, &got) in c.iter().enumerate() {
            let (i, j) = (at / 8, (at % 8).wrapping_sub(1));
            if j < 5 {
                assert!((f64::from(got) - sums[i * 5 + j]).abs() < 1e-5);
            } else {
                assert_eq!(got, 7.0);
            }
        }
    }

    #[test]
    fn bits_do_not_depend_on_threads() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        for (m, k, n) in [(1, 700, 900), (64, 64, 64), (129, 1536, 200), (384, 513, 97)] {
            let (a, b) = (values(m * k, 1), values(k * n, 2));
            let bits = |threads| {
                let mut c = values(m * n, 3);
                let (left, right) = (Matrix::new(&a, k, m).transposed(), Matrix::new(&b, k, n));
                pool.install(|| {
                    product(MatrixMut::new(&mut c, m, n), left, right, 1.0, 1.0, threads);
                });
                c.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let one = bits(1);
            assert!((2..=4).all(|threads| bits(threads) == one), "{m} {k} {n}");
        }
    }

    #[test]
    #[should_panic(expected = "is no product")]
    fn shapes_that_do_not_fit_are_refused() {
        let data = [0.0; 12];
        let mut c = [0.0; 9];
        let (a, b) = (Matrix::new(&data, 3, 4), Matrix::new(&data, 3, 3));
        product(MatrixMut::new(&mut c, 3, 3), a, b, 1.0, 0.0, 1);
    }

    #[test]
    #[should_panic(expected = "in 12")]
    fn views_outside_their_slice_are_refused() {
        Matrix::strided(&[0.0; 12], 3, 4, 5);
    }
}
