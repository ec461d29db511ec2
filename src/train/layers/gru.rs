//! The gated recurrent unit, in PyTorch's form and gate order (r, z, n):
//!
//! ```text
//! r = σ(x·W_irᵀ + b_ir + h·W_hrᵀ + b_hr)      z = σ(x·W_izᵀ + b_iz + h·W_hzᵀ + b_hz)
//! n = tanh(x·W_inᵀ + b_in + r ∘ (h·W_hnᵀ + b_hn))      h' = (1 − z) ∘ n + z ∘ h
//! ```
//!
//! The input projection `x·W_iᵀ + b_i` does not depend on h: the caller does it for all steps in
//! one product (`linear::forward`), and the gradients of all weights likewise after the last
//! backward step, from the gradients of the gates that each step writes. A step itself is one
//! product of rows · hidden · 3 hidden and one pass over the gates.

use super::functions::{sigmoid, tanh};
use super::{ROW_BLOCK, for_each_part, linear};
use crate::reduce::simd::vectorised;

/// The sizes of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Sequences that advance together.
    pub rows: usize,
    /// Elements of the hidden state of each.
    pub hidden: usize,
}

impl Shape {
    /// The product with the hidden weights, as a linear layer.
    pub fn hidden_linear(self) -> linear::Shape {
        linear::Shape { rows: self.rows, inputs: self.hidden, outputs: 3 * self.hidden }
    }

    /// Elements of what a forward step keeps: r, z, n and the hidden part of n.
    pub fn kept(self) -> usize {
        4 * self.rows * self.hidden
    }
}

/// The hidden half of the parameters.
#[derive(Clone, Copy, Debug)]
pub struct Hidden<'a> {
    /// W_h, 3 hidden × hidden.
    pub weight: &'a [f32],
    /// b_h.
    pub bias: &'a [f32],
}

/// What a forward step writes.
#[derive(Debug)]
pub struct Step<'a> {
    /// The new state, rows × hidden.
    pub next: &'a mut [f32],
    /// For [`backward_step`]: [`Shape::kept`] elements.
    pub kept: &'a mut [f32],
    /// Scratch, rows × 3 hidden.
    pub hidden_gates: &'a mut [f32],
}

/// What a backward step writes.
#[derive(Debug)]
pub struct StepGradients<'a> {
    /// Of the state before the step, rows × hidden.
    pub previous: &'a mut [f32],
    /// Of the input's gates, rows × 3 hidden.
    pub input_gates: &'a mut [f32],
    /// Of the hidden gates, rows × 3 hidden.
    pub hidden_gates: &'a mut [f32],
}

/// One step from `previous` and the input's gates, rows × 3 hidden with their bias.
pub fn forward_step(
    step: Step,
    input_gates: &[f32],
    previous: &[f32],
    layer: Hidden,
    shape: Shape,
    threads: usize,
) {
    let Step { next, kept, hidden_gates } = step;
    let linear = shape.hidden_linear();
    linear::forward(hidden_gates, previous, layer.weight, Some(layer.bias), linear, threads);
    let hidden = shape.hidden;
    assert_eq!((next.len(), previous.len()), (shape.rows * hidden, shape.rows * hidden));
    assert_eq!((kept.len(), input_gates.len()), (shape.kept(), hidden_gates.len()));
    let block = ROW_BLOCK * hidden;
    let outputs = next.chunks_mut(block).zip(kept.chunks_mut(4 * block));
    let gates = input_gates.chunks(3 * block).zip(hidden_gates.chunks(3 * block));
    let parts = outputs.zip(gates).zip(previous.chunks(block));
    for_each_part(threads, parts, |(((next, kept), (input, from_hidden)), previous)| {
        vectorised(
            #[inline(always)]
            || {
                let rows = next.chunks_exact_mut(hidden).zip(kept.chunks_exact_mut(4 * hidden));
                for (i, (next, kept)) in rows.enumerate() {
                    let gates = i * 3 * hidden..(i + 1) * 3 * hidden;
                    let previous = &previous[i * hidden..(i + 1) * hidden];
                    forward_row(next, kept, &input[gates.clone()], &from_hidden[gates], previous);
                }
            },
        );
    });
}

#[inline(always)]
fn forward_row(
    next: &mut [f32],
    kept: &mut [f32],
    input: &[f32],
    hidden: &[f32],
    previous: &[f32],
) {
    let n = next.len();
    let (reset, rest) = kept.split_at_mut(n);
    let (update, rest) = rest.split_at_mut(n);
    let (new, hidden_new) = rest.split_at_mut(n);
    let (input, hidden) = (&input[..3 * n], &hidden[..3 * n]);
    let (reset, update, new, hidden_new) =
        (&mut reset[..n], &mut update[..n], &mut new[..n], &mut hidden_new[..n]);
    let previous = &previous[..n];
    for j in 0..n {
        let r = sigmoid(input[j] + hidden[j]);
        let z = sigmoid(input[n + j] + hidden[n + j]);
        let new_value = tanh(input[2 * n + j] + r * hidden[2 * n + j]);
        next[j] = (1.0 - z) * new_value + z * previous[j];
        reset[j] = r;
        update[j] = z;
        new[j] = new_value;
        hidden_new[j] = hidden[2 * n + j];
    }
}

/// One step back: from the gradient of `next` those of the two kinds of gates (each rows × 3
/// hidden) and of `previous`. With them, over all steps, the caller does
/// `linear::backward_weight(dW_h, d_hidden_gates, previous)`,
/// `linear::backward_weight(dW_i, d_input_gates, x)` and the biases.
pub fn backward_step(
    gradients: StepGradients,
    dnext: &[f32],
    kept: &[f32],
    previous: &[f32],
    hidden_weight: &[f32],
    shape: Shape,
    threads: usize,
) {
    let dprevious = gradients.previous;
    let (d_input_gates, d_hidden_gates) = (gradients.input_gates, gradients.hidden_gates);
    let hidden = shape.hidden;
    assert_eq!((dnext.len(), previous.len()), (shape.rows * hidden, shape.rows * hidden));
    assert_eq!((kept.len(), dprevious.len()), (shape.kept(), dnext.len()));
    assert_eq!((d_input_gates.len(), d_hidden_gates.len()), (3 * dnext.len(), 3 * dnext.len()));
    let block = ROW_BLOCK * hidden;
    let outputs = d_input_gates.chunks_mut(3 * block).zip(d_hidden_gates.chunks_mut(3 * block));
    let inputs = dnext.chunks(block).zip(kept.chunks(4 * block)).zip(previous.chunks(block));
    for_each_part(
        threads,
        outputs.zip(inputs),
        |((input, from_hidden), ((dnext, kept), previous))| {
            vectorised(
                #[inline(always)]
                || {
                    let gates = input.chunks_exact_mut(3 * hidden);
                    for (i, (input, from_hidden)) in
                        gates.zip(from_hidden.chunks_exact_mut(3 * hidden)).enumerate()
                    {
                        let row = i * hidden..(i + 1) * hidden;
                        let kept = &kept[4 * row.start..4 * row.end];
                        backward_row(input, from_hidden, &dnext[row.clone()], kept, &previous[row]);
                    }
                },
            );
        },
    );
    let linear = shape.hidden_linear();
    linear::backward_input(dprevious, d_hidden_gates, hidden_weight, linear, threads);
    // The direct path, h' = … + z ∘ h.
    let block = ROW_BLOCK * hidden;
    let parts = dprevious.chunks_mut(block).zip(dnext.chunks(block)).zip(kept.chunks(4 * block));
    for_each_part(threads, parts, |((dprevious, dnext), kept)| {
        vectorised(
            #[inline(always)]
            || {
                let rows = dprevious.chunks_exact_mut(hidden).zip(dnext.chunks_exact(hidden));
                for ((dprevious, dnext), kept) in rows.zip(kept.chunks_exact(4 * hidden)) {
                    let update = &kept[hidden..2 * hidden];
                    for ((dprevious, dnext), z) in dprevious.iter_mut().zip(dnext).zip(update) {
                        *dprevious += dnext * z;
                    }
                }
            },
        );
    });
}

#[inline(always)]
fn backward_row(
    d_input: &mut [f32],
    d_hidden: &mut [f32],
    dnext: &[f32],
    kept: &[f32],
    previous: &[f32],
) {
    let n = dnext.len();
    let (d_input, d_hidden) = (&mut d_input[..3 * n], &mut d_hidden[..3 * n]);
    let (kept, previous) = (&kept[..4 * n], &previous[..n]);
    for j in 0..n {
        let (r, z, new, hidden_new) = (kept[j], kept[n + j], kept[2 * n + j], kept[3 * n + j]);
        let d_new = dnext[j] * (1.0 - z) * (1.0 - new * new);
        let d_update = dnext[j] * (previous[j] - new) * (z * (1.0 - z));
        let d_reset = d_new * hidden_new * (r * (1.0 - r));
        d_input[j] = d_reset;
        d_hidden[j] = d_reset;
        d_input[n + j] = d_update;
        d_hidden[n + j] = d_update;
        d_input[2 * n + j] = d_new;
        d_hidden[2 * n + j] = d_new * r;
    }
}
