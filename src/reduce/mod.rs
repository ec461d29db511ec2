//! Reduction kernels: `into[i] = s₀[i] ⊕ s₁[i] ⊕ … ⊕ s_{k−1}[i]`, by the canonical tree.
//!
//! One pass over `k` sources: `k` elements read and one written per result element, which is the
//! least a reduction can move. 16-bit floats accumulate in f32 and are rounded once.
//!
//! `kernels` holds the loops, each compiled for AVX-512, AVX2 and the plain target and chosen at
//! run time; the tree is the same in all of them, so the bits are too.
//! `exact` holds order-independent sums; `gather` holds row sums of sparse matrices, on the vectors
//! of `vector16`, and `blocked` the same for tables beyond the caches. `step` holds the
//! element-wise steps of optimizers; `squares` what a step needs to know of its gradients first:
//! their norm and whether they are finite, and `fused` all of that in one loop. `matrix` holds
//! matrix products; `simd` runs other loops on wide vectors; `streaming` writes results past the
//! caches.

#![allow(unsafe_code)] // raw slices of several ranks meet here; see `ReduceFn`

pub mod between;
pub mod blocked;
mod divisor;
pub mod exact;
pub mod fused;
pub mod gather;
mod kernels;
pub mod matrix;
pub mod simd;
pub mod squares;
pub mod step;
pub mod streaming;
mod vector16;

use crate::element::{DType, Element, Op};

pub use kernels::{narrow, widen};

/// A reduction over raw memory, chosen once per call and run many times.
///
/// # Safety
/// Every source is readable and `into` is writable for `n` elements of the kernel's type, all
/// aligned to it. `into` equals one of the sources or overlaps none of them. No other thread or
/// process writes the sources or touches `into` meanwhile.
pub type ReduceFn = unsafe fn(sources: &[*const u8], into: *mut u8, n: usize, divisor: f64);

/// The kernel for a type and an operator. It divides by its last argument only where `op` is an
/// average; callers pass 1 for partial results.
pub fn kernel(dtype: DType, op: Op) -> ReduceFn {
    kernels::choose(dtype, op)
}

/// Combines slices of one length into another, as collectives do with those of several ranks.
///
/// # Panics
/// If there are no sources or the lengths differ.
pub fn combine<T: Element>(sources: &[&[T]], into: &mut [T], op: Op) {
    assert!(!sources.is_empty() && sources.iter().all(|s| s.len() == into.len()));
    let pointers: Vec<*const u8> = sources.iter().map(|s| s.as_ptr().cast()).collect();
    let divisor = sources.len() as f64;
    // SAFETY: all slices have the length of `into`, which borrows apart from them.
    unsafe { kernel(T::DTYPE, op)(&pointers, into.as_mut_ptr().cast(), into.len(), divisor) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::with_element_type;
    use half::bf16;

    /// The kernel with a divisor of its own.
    fn run<T: Element>(op: Op, sources: &[Vec<T>], divisor: f64) -> Vec<T> {
        let n = sources[0].len();
        let mut into = vec![T::default(); n];
        let pointers: Vec<*const u8> = sources.iter().map(|s| s.as_ptr().cast()).collect();
        // SAFETY: the vectors hold n elements each and `into` is separate from them.
        unsafe { kernel(T::DTYPE, op)(&pointers, into.as_mut_ptr().cast(), n, divisor) };
        into
    }

    fn expected(op: Op, values: &[f64], divisor: f64) -> f64 {
        let fold = |f: fn(f64, f64) -> f64| values.iter().copied().reduce(f).unwrap();
        match op {
            Op::Sum => fold(|a, b| a + b),
            Op::Product => fold(|a, b| a * b),
            Op::Min => fold(f64::min),
            Op::Max => fold(f64::max),
            Op::Average => fold(|a, b| a + b) / divisor,
        }
    }

    #[test]
    fn every_type_and_operator_matches_plain_arithmetic_at_awkward_lengths() {
        for dtype in DType::ALL {
            for op in Op::ALL {
                for k in [1usize, 2, 3, 4, 5, 8, 9] {
                    for n in [0usize, 1, 3, 15, 16, 17, 63, 64, 65, 255, 257, 1031] {
                        with_element_type!(dtype, T => {
                            let value = |r: usize, i: usize| {
                                match op {
                                    Op::Product => 1 + (r + i) as u8 % 2,
                                    _ => ((7 * r + i) % 13) as u8,
                                }
                            };
                            let sources: Vec<Vec<T>> = (0..k)
                                .map(|r| (0..n).map(|i| T::from_small(value(r, i))).collect())
                                .collect();
                            // A power of two divides small sums exactly or truncates to check.
                            let divisor = 4.0;
                            let result = run::<T>(op, &sources, divisor);
                            for (i, &got) in result.iter().enumerate() {
                                let values: Vec<f64> =
                                    (0..k).map(|r| f64::from(value(r, i))).collect();
                                let mut want = expected(op, &values, divisor);
                                if !(dtype.is_half() || matches!(dtype, DType::F32 | DType::F64)) {
                                    want = want.trunc();
                                }
                                let case = format!("{dtype} {} k={k} n={n} i={i}", op.name());
                                assert_eq!(got.to_f64(), want, "{case}");
                            }
                        });
                    }
                }
            }
        }
    }

    #[test]
    fn the_order_is_the_canonical_tree() {
        fn tree(values: &[f64]) -> f64 {
            if let [one] = *values {
                return one;
            }
            let (left, right) = values.split_at(values.len().next_power_of_two() / 2);
            tree(left) + tree(right)
        }
        // Values of very different sizes: every order of additions has bits of its own.
        let value = |r: usize, i: usize| {
            let mixed = (r * 7919 + i * 104_729 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (mixed >> 12) as f64 * 2f64.powi((mixed % 61) as i32 - 30)
        };
        for k in 1..=40 {
            for n in [1, 127, 128, 129, 300] {
                let sources: Vec<Vec<f64>> =
                    (0..k).map(|r| (0..n).map(|i| value(r, i)).collect()).collect();
                for (i, got) in run(Op::Sum, &sources, 1.0).into_iter().enumerate() {
                    let column: Vec<f64> = sources.iter().map(|s| s[i]).collect();
                    assert_eq!(got.to_bits(), tree(&column).to_bits(), "k={k} n={n} i={i}");
                }
            }
        }
    }

    #[test]
    fn bf16_rounds_once_and_not_at_every_step() {
        // 256 + 1 + 1 is 258 in f32; rounding after each step in bf16 (8 bits) stays at 256.
        let sources = [256.0f32, 1.0, 1.0].map(|x| vec![bf16::from_f32(x); 100]);
        for x in run(Op::Sum, &sources, 1.0) {
            assert_eq!(x.to_f32(), 258.0);
        }
    }

    #[test]
    fn min_and_max_do_not_depend_on_the_order() {
        let nan = f64::NAN;
        for (a, b, min, max) in [
            (0.0, -0.0, -0.0, 0.0),
            (-0.0, 0.0, -0.0, 0.0),
            (1.0, nan, nan, nan),
            (nan, 1.0, nan, nan),
        ] {
            let low = run(Op::Min, &[vec![a], vec![b]], 1.0)[0];
            let high = run(Op::Max, &[vec![a], vec![b]], 1.0)[0];
            assert_eq!(
                low.to_bits(),
                if min.is_nan() { f64::NAN.to_bits() } else { min.to_bits() }
            );
            assert_eq!(
                high.to_bits(),
                if max.is_nan() { f64::NAN.to_bits() } else { max.to_bits() }
            );
        }
    }

    #[test]
    fn reducing_onto_an_operand_is_allowed() {
        let mut a: Vec<i64> = (0..777).collect();
        let b: Vec<i64> = (0..777).map(|i| 1000 * i).collect();
        let pointers = [b.as_ptr().cast::<u8>(), a.as_ptr().cast::<u8>()];
        // SAFETY: `into` is exactly the second source; both hold 777 elements.
        unsafe { kernel(DType::I64, Op::Sum)(&pointers, a.as_mut_ptr().cast(), 777, 1.0) };
        assert!(a.iter().enumerate().all(|(i, &x)| x == 1001 * i as i64));
    }

    #[test]
    fn half_precision_survives_widening_and_narrowing() {
        with_element_type!(DType::F16, T => {
            let narrow_in: Vec<T> = (0..=255).map(T::from_small).collect();
            let mut wide = vec![0f32; 256];
            widen(&narrow_in, &mut wide);
            let mut back = vec![T::default(); 256];
            narrow(&wide, &mut back);
            assert_eq!(narrow_in, back);
        });
    }
}
