//! What an optimizer must know of its gradients before a step: the sum of their squares, exactly,
//! and whether they are finite.
//!
//! The norm that gradients are clipped by must not depend on how ranks, buckets and shards cut
//! them, so the sum is exact (`exact`): its partial sums may be taken over any pieces and added in
//! any order. To be fast it takes 1024 elements at a time. The square `q` of an f32 is exact in
//! f64, and is cut at two grids, `q = h₁ + h₂ + r`, with h₁ a multiple of 2ᵃ and h₂ of 2ᵃ⁻⁴², where
//! the largest square of the block is below 2ᵃ⁺⁴². So 1024 h₁, and likewise the h₂, add up without
//! rounding. What remains, r, is zero unless an element is some 2¹⁸ times smaller than the largest
//! of its block; such blocks go element by element. Processors with integer multiply-adds of 52
//! bits square integers instead (`ifma`).
//!
//! (Cutting by adding and subtracting a large constant: Rump, Ogita, Oishi, "Accurate
//! floating-point summation", 2008.)
//!
//! Cost: 4 bytes read an element, and 12 vector operations on 8 elements (6 with `ifma`, of which
//! half are cheap): 0.35 and 0.16 ns an element of the first-level cache on a Zen 4.

#![allow(unsafe_code)] // what is compiled for wider vectors is called once they were detected

#[cfg(target_arch = "x86_64")]
pub(super) mod ifma;

use super::exact::ExactSum;
use super::kernels::{Vectors, for_vectors, vectors};

/// Elements summed before the exact sum sees them; 2¹⁰ is what 53 bits leave beside 42 of a grid.
const BLOCK: usize = 1024;
/// Bits between the two grids.
const GRID_BITS: i32 = 42;
/// Sums that run beside each other.
const LANES: usize = 16;
/// The bits of +∞ without sign: from here on an f32 is not finite.
const INFINITY_BITS: u32 = 0x7f80_0000;

/// Adds the squares of all elements to `sum`, exactly. True if all of them are finite; otherwise
/// the sum is an infinity or NaN.
///
/// The norm of gradients that are yet to be unscaled is that of the scaled ones times the inverse
/// scale.
///
/// ```
/// use rankwise::reduce::{exact::ExactSum, squares::add_squares};
///
/// let gradient: Vec<f32> = (0..10_000).map(|i| (i as f32).sin()).collect();
/// let (mut whole, mut pieces) = (ExactSum::new(), ExactSum::new());
/// assert!(add_squares(&gradient, &mut whole));
/// gradient.chunks(77).for_each(|piece| assert!(add_squares(piece, &mut pieces)));
/// assert_eq!(whole.value().to_bits(), pieces.value().to_bits());
/// ```
pub fn add_squares(elements: &[f32], sum: &mut ExactSum) -> bool {
    add_with(vectors(), elements, sum)
}

/// Whether no element is NaN or infinite, in one pass.
pub fn all_finite(elements: &[f32]) -> bool {
    let vectors = vectors();
    elements.chunks(BLOCK).all(|block| largest(vectors, block) < INFINITY_BITS)
}

fn add_with(vectors: Vectors, elements: &[f32], sum: &mut ExactSum) -> bool {
    let mut finite = true;
    for block in elements.chunks(BLOCK) {
        let largest = largest(vectors, block);
        if largest >= INFINITY_BITS {
            finite = false;
            block.iter().for_each(|&g| sum.add(f64::from(g) * f64::from(g)));
        } else if largest > 0 && !add_integers(vectors, block, largest, sum) {
            add_block(vectors, block, grids(largest), sum);
        }
    }
    finite
}

/// Adds the squares of a block as integers, if the processor can and that is exact.
fn add_integers(vectors: Vectors, block: &[f32], largest: u32, sum: &mut ExactSum) -> bool {
    #[cfg(target_arch = "x86_64")]
    if vectors == Vectors::Avx512 && ifma::available() {
        // SAFETY: the processor has the instructions.
        return unsafe { ifma::add(block, largest, sum) };
    }
    let _ = (vectors, block, largest, sum);
    false
}

/// Adds the squares of at most [`BLOCK`] finite elements.
fn add_block(vectors: Vectors, block: &[f32], cuts: [f64; 2], sum: &mut ExactSum) {
    let [high, low, rest] = cut_sums(vectors, block, cuts);
    sum.add(high);
    sum.add(low);
    if rest != 0.0 {
        let rests = block.iter().map(|&g| cut_square(g, cuts)[2]);
        rests.filter(|&rest| rest != 0.0).for_each(|rest| sum.add(rest));
    }
}

/// The two constants that cut at the grids of a block whose largest size has these bits.
fn grids(largest: u32) -> [f64; 2] {
    // The largest size is below 2^(exponent + 1); subnormals are below 2^−126.
    let exponent = (largest >> 23) as i32 - 127;
    let grid = 2 * (exponent + 1) - GRID_BITS;
    // Around 1.5 · 2^(grid + 52) the spacing of f64 is 2^grid.
    let cut = |grid: i32| 1.5 * f64::from_bits(((grid + 52 + 1023) as u64) << 52);
    [cut(grid), cut(grid - GRID_BITS)]
}

/// The square of `g` as three terms.
#[inline(always)]
fn cut_square(g: f32, cuts: [f64; 2]) -> [f64; 3] {
    let square = f64::from(g) * f64::from(g);
    let high = (square + cuts[0]) - cuts[0];
    let rest = square - high;
    let low = (rest + cuts[1]) - cuts[1];
    [high, low, rest - low]
}

for_vectors!(fn largest<>(block: &[f32]) -> u32 = largest_loop);
for_vectors!(fn cut_sums<>(block: &[f32], cuts: [f64; 2]) -> [f64; 3] = cut_sums_loop);

/// The bits of the largest size; NaN is above infinity.
#[inline(always)]
fn largest_loop(block: &[f32]) -> u32 {
    block.iter().fold(0, |largest, x| largest.max(x.to_bits() & 0x7fff_ffff))
}

/// The sums of the first two terms, and anything but 0 if a third term is not.
///
/// `square + cut` has the bits of `cut` plus the first term in units of the grid, so the terms add
/// up as integers, which the processor does beside its additions of f64.
#[inline(always)]
fn cut_sums_loop(block: &[f32], cuts: [f64; 2]) -> [f64; 3] {
    let mut sums = [[0u64; LANES]; 3];
    let (whole, tail) = block.as_chunks::<LANES>();
    // Two calls: with one loop over both the compiler keeps the sums in memory.
    whole.iter().for_each(|chunk| add_cut(&mut sums, chunk, cuts));
    let mut last = [0.0; LANES];
    last[..tail.len()].copy_from_slice(tail);
    add_cut(&mut sums, &last, cuts);
    let added = (whole.len() + 1) * LANES;
    let total = |which: usize| {
        let all = sums[which].iter().fold(0u64, |all, &lane| all.wrapping_add(lane));
        let units = all.wrapping_sub(cuts[which].to_bits().wrapping_mul(added as u64)) as i64;
        // A cut is 1.5 · 2⁵² units.
        units as f64 * (cuts[which] / (1.5 * (1u64 << 52) as f64))
    };
    let rest = sums[2].iter().any(|&lane| lane != 0);
    [total(0), total(1), f64::from(u8::from(rest))]
}

#[inline(always)]
fn add_cut(sums: &mut [[u64; LANES]; 3], elements: &[f32; LANES], cuts: [f64; 2]) {
    for lane in 0..LANES {
        let square = f64::from(elements[lane]) * f64::from(elements[lane]);
        let high = square + cuts[0];
        let rest = square - (high - cuts[0]);
        let low = rest + cuts[1];
        sums[0][lane] = sums[0][lane].wrapping_add(high.to_bits());
        sums[1][lane] = sums[1][lane].wrapping_add(low.to_bits());
        sums[2][lane] |= (rest - (low - cuts[1])).to_bits();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reduce::kernels::all_vectors;

    fn bits(i: usize) -> u32 {
        let x = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((x ^ x >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) as u32
    }

    /// Element by element, without blocks.
    fn reference(elements: &[f32]) -> ExactSum {
        let mut sum = ExactSum::new();
        elements.iter().for_each(|&g| sum.add(f64::from(g) * f64::from(g)));
        sum
    }

    /// Finite numbers whose exponents spread over `spread` up from `low`; every 5th is zero.
    fn finite(n: usize, low: u32, spread: u32) -> Vec<f32> {
        let number = |i: usize| {
            let exponent = low + bits(2 * i) % spread;
            let number = f32::from_bits(bits(2 * i + 1) & 0x807f_ffff | exponent << 23);
            if i % 5 == 4 { 0.0 } else { number }
        };
        (0..n).map(number).collect()
    }

    #[test]
    fn sums_are_exact_for_all_sizes_and_spreads() {
        let ranges = [(0, 1), (0, 255), (120, 8), (100, 30), (60, 100), (254, 1), (0, 2), (1, 50)];
        for (low, spread) in ranges {
            for n in [0, 1, 15, 16, 17, 1023, 1024, 1025, 5000] {
                let elements = finite(n, low, spread);
                let expected = reference(&elements).limbs();
                for vectors in all_vectors() {
                    let mut sum = ExactSum::new();
                    assert!(add_with(vectors, &elements, &mut sum));
                    let case = format!("{vectors:?} n={n} exponents {low}+{spread}");
                    assert_eq!(sum.limbs(), expected, "{case}");
                }
                assert!(all_finite(&elements));
            }
        }
    }

    #[test]
    fn the_largest_sums_of_a_block_stay_exact() {
        for g in [f32::MAX, 1.0, 1.999_999_9, f32::MIN_POSITIVE, f32::from_bits(1)] {
            let elements = [g; BLOCK];
            let mut sum = ExactSum::new();
            assert!(add_squares(&elements, &mut sum));
            assert_eq!(sum.limbs(), reference(&elements).limbs(), "{g}");
        }
    }

    #[test]
    fn one_bad_element_anywhere_is_found() {
        for n in [1, 16, 17, 1024, 1100, 3000] {
            for at in [0, n / 2, n - 1] {
                for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut elements = vec![f32::MAX; n];
                    elements[at] = bad;
                    let mut sum = ExactSum::new();
                    assert!(!all_finite(&elements), "{bad} at {at} of {n}");
                    assert!(!add_squares(&elements, &mut sum), "{bad} at {at} of {n}");
                    assert!(!sum.value().is_finite(), "{bad} at {at} of {n}");
                }
            }
        }
    }
}
