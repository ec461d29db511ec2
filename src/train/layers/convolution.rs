//! Convolution of images: PyTorch's `conv2d` (a cross-correlation) with square kernel, stride and
//! zero padding, on examples × channels × height × width.
//!
//! Each example is unfolded into a matrix of patches, channels·kernel² × output places, and the
//! layer is a product with it: `y = W·patches + b`. Backward: `dW += dy·patchesᵀ`, and
//! `dpatches = Wᵀ·dy` is folded back by adding. The patches are made again in the backward pass,
//! which is cheaper than keeping kernel² copies of every input.

use crate::reduce::matrix::{Matrix, MatrixMut, product};

/// The sizes of a convolution and of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Images.
    pub examples: usize,
    /// Channels of the input.
    pub inputs: usize,
    /// Channels of the output.
    pub outputs: usize,
    /// Rows of the input.
    pub height: usize,
    /// Columns of the input.
    pub width: usize,
    /// Rows and columns of the kernel.
    pub kernel: usize,
    /// Distance between neighbouring patches.
    pub stride: usize,
    /// Rows and columns of zeros on every side.
    pub padding: usize,
}

impl Shape {
    /// Rows and columns of the output.
    ///
    /// # Panics
    /// If the kernel is larger than the padded input.
    pub fn output(self) -> (usize, usize) {
        let places = |size: usize| {
            let padded = size + 2 * self.padding;
            assert!(padded >= self.kernel && self.stride > 0, "no place for the kernel");
            (padded - self.kernel) / self.stride + 1
        };
        (places(self.height), places(self.width))
    }

    /// Elements of one example of the input.
    pub fn input_elements(self) -> usize {
        self.inputs * self.height * self.width
    }

    /// Elements of one example of the output.
    pub fn output_elements(self) -> usize {
        self.outputs * self.places()
    }

    /// Elements of the scratch for patches.
    pub fn patches(self) -> usize {
        self.patch() * self.places()
    }

    fn places(self) -> usize {
        let (rows, columns) = self.output();
        rows * columns
    }

    fn patch(self) -> usize {
        self.inputs * self.kernel * self.kernel
    }
}

/// `y = conv2d(x, W) + b`, with W as outputs × inputs × kernel × kernel; `patches` is scratch.
pub fn forward(
    y: &mut [f32],
    patches: &mut [f32],
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    shape: Shape,
    threads: usize,
) {
    check(x, y, patches, shape);
    let (places, patch) = (shape.places(), shape.patch());
    assert_eq!(bias.len(), shape.outputs);
    let examples = x.chunks_exact(shape.input_elements());
    for (y, x) in y.chunks_exact_mut(shape.output_elements()).zip(examples) {
        unfold(patches, x, shape);
        y.chunks_exact_mut(places).zip(bias).for_each(|(y, &b)| y.fill(b));
        let y = MatrixMut::new(y, shape.outputs, places);
        let weight = Matrix::new(weight, shape.outputs, patch);
        product(y, weight, Matrix::new(patches, patch, places), 1.0, 1.0, threads);
    }
}

/// `dx`, the gradient of the input; `patches` is scratch.
pub fn backward_input(
    dx: &mut [f32],
    patches: &mut [f32],
    dy: &[f32],
    weight: &[f32],
    shape: Shape,
    threads: usize,
) {
    check(dx, dy, patches, shape);
    let (places, patch) = (shape.places(), shape.patch());
    let weight = Matrix::new(weight, shape.outputs, patch).transposed();
    dx.fill(0.0);
    let examples = dx.chunks_exact_mut(shape.input_elements());
    for (dx, dy) in examples.zip(dy.chunks_exact(shape.output_elements())) {
        let dy = Matrix::new(dy, shape.outputs, places);
        product(MatrixMut::new(patches, patch, places), weight, dy, 1.0, 0.0, threads);
        fold_add(dx, patches, shape);
    }
}

/// `dW += Σ dy·patchesᵀ`, in the order of the examples; `patches` is scratch.
pub fn backward_weight(
    dweight: &mut [f32],
    patches: &mut [f32],
    dy: &[f32],
    x: &[f32],
    shape: Shape,
    threads: usize,
) {
    check(x, dy, patches, shape);
    let (places, patch) = (shape.places(), shape.patch());
    let examples = x.chunks_exact(shape.input_elements());
    for (dy, x) in dy.chunks_exact(shape.output_elements()).zip(examples) {
        unfold(patches, x, shape);
        let dy = Matrix::new(dy, shape.outputs, places);
        let transposed = Matrix::new(patches, patch, places).transposed();
        let dweight = MatrixMut::new(&mut *dweight, shape.outputs, patch);
        product(dweight, dy, transposed, 1.0, 1.0, threads);
    }
}

/// `db += Σ dy` over examples and places.
pub fn backward_bias(dbias: &mut [f32], dy: &[f32], shape: Shape) {
    assert_eq!((dbias.len(), dy.len()), (shape.outputs, shape.examples * shape.output_elements()));
    for dy in dy.chunks_exact(shape.output_elements()) {
        for (db, dy) in dbias.iter_mut().zip(dy.chunks_exact(shape.places())) {
            *db += super::functions::sum_of(dy, |x| x);
        }
    }
}

fn check(x: &[f32], y: &[f32], patches: &[f32], shape: Shape) {
    assert_eq!(x.len(), shape.examples * shape.input_elements());
    assert_eq!(y.len(), shape.examples * shape.output_elements());
    assert_eq!(patches.len(), shape.patches());
}

/// Calls `visit(at, start, tap)` for every element of the patch and every row of output places:
/// `at` is that row's start in the patches, `start` that of the input row under it (none in the
/// padding), and `tap` the column of the element in the kernel.
fn each_output_row(shape: Shape, mut visit: impl FnMut(usize, Option<usize>, usize)) {
    let (rows, columns) = shape.output();
    for patch in 0..shape.patch() {
        let tap_column = patch % shape.kernel;
        let tap_row = patch / shape.kernel % shape.kernel;
        let channel = patch / (shape.kernel * shape.kernel);
        for row in 0..rows {
            let input_row = (row * shape.stride + tap_row).checked_sub(shape.padding);
            let input_row = input_row.filter(|&input_row| input_row < shape.height);
            let start = input_row.map(|input| (channel * shape.height + input) * shape.width);
            visit((patch * rows + row) * columns, start, tap_column);
        }
    }
}

/// The column of the input under tap `tap` at output column `column`; none in the padding.
#[inline(always)]
fn input_column(column: usize, tap: usize, shape: Shape) -> Option<usize> {
    let column = (column * shape.stride + tap).checked_sub(shape.padding)?;
    (column < shape.width).then_some(column)
}

fn unfold(patches: &mut [f32], x: &[f32], shape: Shape) {
    let (_, columns) = shape.output();
    each_output_row(shape, |at, start, tap| {
        let row = &mut patches[at..at + columns];
        for (column, value) in row.iter_mut().enumerate() {
            let from = start.zip(input_column(column, tap, shape));
            *value = from.map_or(0.0, |(start, column)| x[start + column]);
        }
    });
}

fn fold_add(dx: &mut [f32], patches: &[f32], shape: Shape) {
    let (_, columns) = shape.output();
    each_output_row(shape, |at, start, tap| {
        let Some(start) = start else { return };
        for (column, value) in patches[at..at + columns].iter().enumerate() {
            if let Some(column) = input_column(column, tap, shape) {
                dx[start + column] += value;
            }
        }
    });
}
