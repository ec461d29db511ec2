//! Causal multi-head attention: `softmax(Q·Kᵀ/√d + mask)·V` per example and head.
//!
//! Input rows hold Q, K and V side by side (3 · width), heads side by side within each; all
//! products read them in place as strided views. Queries are taken in blocks of [`QUERY_BLOCK`],
//! each against the keys up to its end only, so that about half of the square is never computed
//! and a block of scores stays in cache between its product, its softmax and the next product.
//! The probabilities are kept for the backward pass: examples · heads · length² floats, which
//! costs less time than computing them again.
//!
//! Backward, per block of queries, with P the probabilities and D = rows of dY · rows of Y:
//! `dV += Pᵀ·dY`, `dS = P ∘ (dY·Vᵀ − D)`, `dQ = dS·K/√d`, `dK += dSᵀ·Q/√d`.
//! Threads share out the examples.

use super::for_each_part;
use super::functions::{exp, maximum, sum_of, sum_of_two};
use crate::reduce::matrix::{Matrix, MatrixMut, product};
use crate::reduce::simd::vectorised;

/// Queries that are taken together.
pub const QUERY_BLOCK: usize = 64;

/// The sizes of an attention layer and its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Independent sequences.
    pub examples: usize,
    /// Tokens in each.
    pub length: usize,
    /// Elements of a token's row, over all heads.
    pub width: usize,
    /// Heads; they divide the width.
    pub heads: usize,
}

impl Shape {
    /// Elements of the probabilities that `forward` keeps.
    pub fn probabilities(self) -> usize {
        self.examples * self.heads * self.length * self.length
    }

    /// Elements of the scratch that `backward` needs.
    pub fn scratch(self) -> usize {
        self.examples * QUERY_BLOCK.min(self.length) * self.length
    }

    fn head_width(self) -> usize {
        assert!(self.heads > 0 && self.width.is_multiple_of(self.heads), "heads divide the width");
        self.width / self.heads
    }

    fn score_scale(self) -> f32 {
        1.0 / (self.head_width() as f32).sqrt()
    }

    /// The ranges of queries, the last first: it has the most keys.
    fn blocks(self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let length = self.length;
        let starts = (0..length).step_by(QUERY_BLOCK).rev();
        starts.map(move |start| start..(start + QUERY_BLOCK).min(length))
    }
}

/// Where query, key or value of a head begins in an example's Q, K, V rows.
#[derive(Clone, Copy)]
struct Head {
    query: usize,
    key: usize,
    value: usize,
    output: usize,
}

impl Head {
    fn of(head: usize, shape: Shape) -> Head {
        let output = head * shape.head_width();
        Head { query: output, key: shape.width + output, value: 2 * shape.width + output, output }
    }
}

/// The view of `rows` rows from row `first` of one head's part, which begins at `column`.
fn part(
    data: &[f32],
    column: usize,
    first: usize,
    rows: usize,
    width: usize,
    stride: usize,
) -> Matrix<'_> {
    Matrix::strided(&data[first * stride + column..], rows, width, stride)
}

fn part_mut(
    data: &mut [f32],
    column: usize,
    first: usize,
    rows: usize,
    width: usize,
    stride: usize,
) -> MatrixMut<'_> {
    MatrixMut::strided(&mut data[first * stride + column..], rows, width, stride)
}

/// Writes the outputs, one row of `width` a token, and the probabilities. Probabilities of keys
/// after the query's block are left as they were and are never read.
pub fn forward(
    y: &mut [f32],
    probabilities: &mut [f32],
    qkv: &[f32],
    shape: Shape,
    threads: usize,
) {
    let tokens = shape.length * shape.width;
    assert_eq!((y.len(), qkv.len()), (shape.examples * tokens, 3 * shape.examples * tokens));
    assert_eq!(probabilities.len(), shape.probabilities());
    let square = shape.heads * shape.length * shape.length;
    let parts = y.chunks_mut(tokens).zip(probabilities.chunks_mut(square));
    for_each_part(threads, parts.zip(qkv.chunks(3 * tokens)), |((y, probabilities), qkv)| {
        let heads = probabilities.chunks_mut(shape.length * shape.length);
        for (head, probabilities) in heads.enumerate() {
            forward_head(y, probabilities, qkv, Head::of(head, shape), shape);
        }
    });
}

fn forward_head(y: &mut [f32], probabilities: &mut [f32], qkv: &[f32], head: Head, shape: Shape) {
    let Shape { length, width, .. } = shape;
    let (size, stride) = (shape.head_width(), 3 * width);
    for queries in shape.blocks() {
        let (rows, keys) = (queries.len(), queries.end);
        let block = &mut probabilities[queries.start * length..queries.end * length];
        let query = part(qkv, head.query, queries.start, rows, size, stride);
        let key = part(qkv, head.key, 0, keys, size, stride);
        let scores = MatrixMut::strided(block, rows, keys, length);
        product(scores, query, key.transposed(), shape.score_scale(), 0.0, 1);
        causal_softmax(block, queries.start, keys, length);
        let value = part(qkv, head.value, 0, keys, size, stride);
        let block = Matrix::strided(block, rows, keys, length);
        product(
            part_mut(y, head.output, queries.start, rows, size, width),
            block,
            value,
            1.0,
            0.0,
            1,
        );
    }
}

/// Softmax of the first `first + i + 1` elements of row i; zeros after them, up to `keys`.
fn causal_softmax(block: &mut [f32], first: usize, keys: usize, length: usize) {
    vectorised(
        #[inline(always)]
        || {
            for (i, row) in block.chunks_mut(length).enumerate() {
                let (seen, hidden) = row[..keys].split_at_mut(first + i + 1);
                let largest = maximum(seen);
                for s in seen.iter_mut() {
                    *s = exp(*s - largest);
                }
                let factor = 1.0 / sum_of(seen, |e| e);
                for e in seen.iter_mut() {
                    *e *= factor;
                }
                hidden.fill(0.0);
            }
        },
    );
}

/// What the backward pass reads of the forward pass.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a> {
    /// The outputs.
    pub y: &'a [f32],
    /// The probabilities.
    pub probabilities: &'a [f32],
    /// The inputs.
    pub qkv: &'a [f32],
}

/// Writes the gradient of Q, K and V; `scratch` has [`Shape::scratch`] elements.
pub fn backward(
    dqkv: &mut [f32],
    scratch: &mut [f32],
    dy: &[f32],
    kept: Kept,
    shape: Shape,
    threads: usize,
) {
    let tokens = shape.length * shape.width;
    assert_eq!((kept.y.len(), dy.len()), (shape.examples * tokens, shape.examples * tokens));
    assert_eq!((kept.qkv.len(), dqkv.len()), (3 * dy.len(), 3 * dy.len()));
    assert_eq!(kept.probabilities.len(), shape.probabilities());
    assert_eq!(scratch.len(), shape.scratch());
    if dy.is_empty() {
        return;
    }
    let square = shape.length * shape.length;
    let each_scratch = shape.scratch() / shape.examples;
    let outputs = dqkv.chunks_mut(3 * tokens).zip(scratch.chunks_mut(each_scratch));
    for_each_part(threads, outputs.zip(dy.chunks(tokens)).enumerate(), |(at, (outputs, dy))| {
        let (dqkv, scratch) = outputs;
        let y = &kept.y[at * tokens..(at + 1) * tokens];
        let qkv = &kept.qkv[3 * at * tokens..3 * (at + 1) * tokens];
        let heads = at * shape.heads..(at + 1) * shape.heads;
        for (head, place) in heads.enumerate() {
            let probabilities = &kept.probabilities[place * square..(place + 1) * square];
            let kept = Kept { y, probabilities, qkv };
            backward_head(dqkv, scratch, dy, kept, Head::of(head, shape), shape);
        }
    });
}

fn backward_head(
    dqkv: &mut [f32],
    scratch: &mut [f32],
    dy: &[f32],
    kept: Kept,
    head: Head,
    shape: Shape,
) {
    let Shape { length, width, .. } = shape;
    let (size, stride, scale) = (shape.head_width(), 3 * width, shape.score_scale());
    for queries in shape.blocks() {
        let (rows, keys) = (queries.len(), queries.end);
        // The last block, which comes first, reaches all keys: it overwrites, the others add.
        let beta = if keys == length { 0.0 } else { 1.0 };
        let block = &kept.probabilities[queries.start * length..queries.end * length];
        let p = Matrix::strided(block, rows, keys, length);
        let dy_block = part(dy, head.output, queries.start, rows, size, width);
        product(
            part_mut(dqkv, head.value, 0, keys, size, stride),
            p.transposed(),
            dy_block,
            1.0,
            beta,
            1,
        );
        let value = part(kept.qkv, head.value, 0, keys, size, stride);
        product(MatrixMut::new(scratch, rows, keys), dy_block, value.transposed(), 1.0, 0.0, 1);
        let along = |query: usize| {
            let at = (queries.start + query) * width + head.output;
            (&dy[at..at + size], &kept.y[at..at + size])
        };
        softmax_backward(scratch, block, keys, length, along);
        let ds = Matrix::new(scratch, rows, keys);
        let key = part(kept.qkv, head.key, 0, keys, size, stride);
        let dquery = part_mut(dqkv, head.query, queries.start, rows, size, stride);
        product(dquery, ds, key, scale, 0.0, 1);
        let query = part(kept.qkv, head.query, queries.start, rows, size, stride);
        let dkey = part_mut(dqkv, head.key, 0, keys, size, stride);
        product(dkey, ds.transposed(), query, scale, beta, 1);
    }
}

/// Turns dP into dS, `P ∘ (dP − D)`, with D from the rows of dY and Y of each query. Hidden keys
/// have P = 0.
fn softmax_backward<'a>(
    dp: &mut [f32],
    block: &[f32],
    keys: usize,
    length: usize,
    rows: impl Fn(usize) -> (&'a [f32], &'a [f32]),
) {
    vectorised(
        #[inline(always)]
        || {
            for (query, (dp, p)) in dp.chunks_mut(keys).zip(block.chunks(length)).enumerate() {
                let (dy, y) = rows(query);
                let along = sum_of_two(dy, y, |a, b| a * b);
                for (dp, p) in dp.iter_mut().zip(p) {
                    *dp = p * (*dp - along);
                }
            }
        },
    );
}
