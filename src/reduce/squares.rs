//! What an optimizer must know of its gradients before a step: the sum of their squares, exactly,
//! and whether they are finite.
//!
//! The norm that gradients are clipped by must not depend on how ranks, buckets and shards cut them,
//! so the sum is exact (`exact`): its partial sums may be taken over any pieces and added in any
//! order. To be fast it takes 1024 elements at a time. The square `q` of an f32 is exact in f64, and
//! is cut at two grids, `q = h₁ + h₂ + r`, with h₁ a multiple of 2ᵃ and h₂ of 2ᵃ⁻⁴², where the
//! largest square of the block is below 2ᵃ⁺⁴². So 1024 h₁, and likewise the h₂, add up in f64
//! without rounding. What remains, r, is zero unless an element is some 2¹⁸ times smaller than the
//! largest of its block; such blocks go element by element.
//!
//! (Cutting by adding and subtracting a large constant: Rump, Ogita, Oishi, "Accurate floating-point
//! summation", 2008.)
//!
//! Cost: 4 bytes read an element, and 13 vector operations on 8 elements.

use super::exact::ExactSum;
#[cfg(target_arch = "x86_64")]
use super::kernels::{Vectors, vectors};

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
    let mut finite = true;
    for block in elements.chunks(BLOCK) {
        let largest = largest(block);
        if largest >= INFINITY_BITS {
            finite = false;
            block.iter().for_each(|&g| sum.add(f64::from(g) * f64::from(g)));
        } else if largest > 0 {
            add_block(block, largest, sum);
        }
    }
    finite
}

/// Whether no element is NaN or infinite, in one pass.
pub fn all_finite(elements: &[f32]) -> bool {
    elements.chunks(BLOCK).all(|block| largest(block) < INFINITY_BITS)
}

/// The bits of the largest size; NaN is above infinity.
fn largest(block: &[f32]) -> u32 {
    #[inline(always)]
    fn plain(block: &[f32]) -> u32 {
        block.iter().fold(0, |largest, x| largest.max(x.to_bits() & 0x7fff_ffff))
    }
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn avx2(block: &[f32]) -> u32 {
            plain(block)
        }
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn avx512(block: &[f32]) -> u32 {
            plain(block)
        }
        match vectors() {
            // SAFETY: `vectors` has found the instructions on this processor.
            Vectors::Avx512 => unsafe { avx512(block) },
            // SAFETY: as above.
            Vectors::Avx2 => unsafe { avx2(block) },
            Vectors::Plain => plain(block),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    plain(block)
}

/// The two constants that cut at the grids of a block whose largest size has these bits.
fn grids(largest: u32) -> (f64, f64) {
    // The largest size is below 2^(exponent + 1); subnormals are below 2^−126.
    let exponent = (largest >> 23) as i32 - 127;
    let grid = 2 * (exponent + 1) - GRID_BITS;
    // Around 1.5 · 2^(grid + 52) the spacing of f64 is 2^grid.
    let cut = |grid: i32| 1.5 * f64::from_bits(((grid + 52 + 1023) as u64) << 52);
    (cut(grid), cut(grid - GRID_BITS))
}

/// Adds the squares of at most [`BLOCK`] finite elements.
fn add_block(block: &[f32], largest: u32, sum: &mut ExactSum) {
    let (cut1, cut2) = grids(largest);
    let [high, low, rest] = cut_sums(block, cut1, cut2);
    sum.add(high);
    sum.add(low);
    if rest > 0.0 {
        let rests = block.iter().map(|&g| cut_square(g, cut1, cut2)[2]);
        rests.filter(|&rest| rest != 0.0).for_each(|rest| sum.add(rest));
    }
}

/// The square of `g` as three terms.
#[inline(always)]
fn cut_square(g: f32, cut1: f64, cut2: f64) -> [f64; 3] {
    let square = f64::from(g) * f64::from(g);
    let high = (square + cut1) - cut1;
    let rest = square - high;
    let low = (rest + cut2) - cut2;
    [high, low, rest - low]
}

/// The sums of the three terms; of the third, whose sum is not exact, of its size.
fn cut_sums(block: &[f32], cut1: f64, cut2: f64) -> [f64; 3] {
    #[inline(always)]
    fn plain(block: &[f32], cut1: f64, cut2: f64) -> [f64; 3] {
        let mut sums = [[0.0f64; LANES]; 3];
        let (whole, tail) = block.as_chunks::<LANES>();
        for chunk in whole {
            for lane in 0..LANES {
                let [high, low, rest] = cut_square(chunk[lane], cut1, cut2);
                sums[0][lane] += high;
                sums[1][lane] += low;
                sums[2][lane] += rest.abs();
            }
        }
        for (lane, &g) in tail.iter().enumerate() {
            let [high, low, rest] = cut_square(g, cut1, cut2);
            sums[0][lane] += high;
            sums[1][lane] += low;
            sums[2][lane] += rest.abs();
        }
        sums.map(|lanes| lanes.iter().sum())
    }
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn avx2(block: &[f32], cut1: f64, cut2: f64) -> [f64; 3] {
            plain(block, cut1, cut2)
        }
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn avx512(block: &[f32], cut1: f64, cut2: f64) -> [f64; 3] {
            plain(block, cut1, cut2)
        }
        match vectors() {
            // SAFETY: `vectors` has found the instructions on this processor.
            Vectors::Avx512 => unsafe { avx512(block, cut1, cut2) },
            // SAFETY: as above.
            Vectors::Avx2 => unsafe { avx2(block, cut1, cut2) },
            Vectors::Plain => plain(block, cut1, cut2),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    plain(block, cut1, cut2)
}
