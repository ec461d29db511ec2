//! Exact sums of squares by integer multiply-adds of 52 bits (AVX-512 IFMA).
//!
//! Elements below 2ᵀ in size are scaled to `i = |g| · 2^(52 − T)`, below 2⁵², and `2⁵² + i` as f64
//! has the bits of `i` for its fraction: one multiply-add makes the integer. Two instructions add
//! the low and the high 52 bits of `i²` to 64-bit lanes, which have room for 2¹² of them. `i` is
//! exact for elements from 2^(T − 29) on, and zero; the extremes of the sizes say afterwards
//! whether all were in that range.
//!
//! Cost: 2 conversions, 2 multiply-adds, 4 integer multiply-adds and 4 integer operations on 16
//! elements, half of what cutting at two grids takes.

use std::arch::x86_64::{
    __m512, __m512d, __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_castpd_si512,
    _mm512_castps_si512, _mm512_castps512_ps256, _mm512_castsi512_ps, _mm512_cvtps_pd,
    _mm512_extractf32x8_ps, _mm512_fmadd_pd, _mm512_loadu_ps, _mm512_madd52hi_epu64,
    _mm512_madd52lo_epu64, _mm512_max_epu32, _mm512_min_epu32, _mm512_reduce_add_epi64,
    _mm512_reduce_max_epu32, _mm512_reduce_min_epu32, _mm512_set1_epi32, _mm512_set1_pd,
    _mm512_setzero_si512, _mm512_sub_epi32,
};

use super::INFINITY_BITS;
use crate::reduce::exact::ExactSum;

/// Most elements between [`Lanes::new`] and [`Lanes::finish`]: the sums stay below 2⁶³.
pub(in crate::reduce) const MOST: usize = 2048;
/// Below the largest exponent, so many are exact.
const EXACT: i32 = 29;
const SIGN: u32 = 1 << 31;

/// Whether this processor has the instructions.
pub(in crate::reduce) fn available() -> bool {
    use crate::reduce::kernels::{Vectors, vectors};
    vectors() == Vectors::Avx512 && is_x86_feature_detected!("avx512ifma")
}

/// What has been added, 16 elements at a time.
pub(in crate::reduce) struct Lanes {
    top: i32,
    scale: __m512d,
    low: [__m512i; 2],
    high: [__m512i; 2],
    /// The bits of the largest size, and of the smallest but zero, less 1.
    largest: __m512i,
    smallest: __m512i,
}

impl Lanes {
    /// For elements below 2^`top`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(in crate::reduce) fn new(top: i32) -> Self {
        let zero = _mm512_setzero_si512();
        let scale = f64::from_bits(((52 - top + 1023) as u64) << 52);
        Lanes {
            top,
            scale: _mm512_set1_pd(scale),
            low: [zero; 2],
            high: [zero; 2],
            largest: zero,
            smallest: _mm512_set1_epi32(-1),
        }
    }

    /// Adds the squares of 16 elements.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(in crate::reduce) fn add(&mut self, elements: &[f32; 16]) {
        // SAFETY: 16 elements are read.
        let elements: __m512 = unsafe { _mm512_loadu_ps(elements.as_ptr()) };
        let mask = _mm512_set1_epi32(!SIGN as i32);
        let size = _mm512_and_si512(_mm512_castps_si512(elements), mask);
        self.largest = _mm512_max_epu32(self.largest, size);
        let less = _mm512_sub_epi32(size, _mm512_set1_epi32(1));
        self.smallest = _mm512_min_epu32(self.smallest, less);
        let size = _mm512_castsi512_ps(size);
        let halves = [_mm512_castps512_ps256(size), _mm512_extractf32x8_ps::<1>(size)];
        for (half, x) in halves.into_iter().enumerate() {
            let units = _mm512_set1_pd((1u64 << 52) as f64);
            let i = _mm512_castpd_si512(_mm512_fmadd_pd(_mm512_cvtps_pd(x), self.scale, units));
            self.low[half] = _mm512_madd52lo_epu64(self.low[half], i, i);
            self.high[half] = _mm512_madd52hi_epu64(self.high[half], i, i);
        }
    }

    /// Adds everything to `sum` if it is exact; otherwise nothing. Whether it was, and the bits of
    /// the largest size.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(in crate::reduce) fn finish(self, sum: &mut ExactSum) -> (bool, u32) {
        let largest = _mm512_reduce_max_epu32(self.largest);
        let smallest = _mm512_reduce_min_epu32(self.smallest);
        let limit = |exponent: i32| (exponent + 127).max(0) as u32;
        let below = (limit(self.top) << 23).min(INFINITY_BITS);
        // The bits of 2^(T − 29); from where T is so small that subnormals are exact, of anything.
        let from = (limit(self.top - EXACT) << 23).max(1);
        if largest >= below || smallest < from - 1 {
            return (false, largest);
        }
        let total = |lanes: [__m512i; 2]| {
            _mm512_reduce_add_epi64(_mm512_add_epi64(lanes[0], lanes[1])) as u64
        };
        let unit = 2 * (self.top - 52);
        for (lanes, unit) in [(self.low, unit), (self.high, unit + 52)] {
            let total = total(lanes);
            for (part, unit) in [(total & 0xffff_ffff, unit), (total >> 32, unit + 32)] {
                sum.add(part as f64 * f64::from_bits(((unit + 1023) as u64) << 52));
            }
        }
        (true, largest)
    }
}

/// The exponent that bounds elements up to a size with these bits.
pub(in crate::reduce) fn top_of(largest: u32) -> i32 {
    // A subnormal is below 2^−126.
    (largest >> 23) as i32 - 126
}

/// Adds the squares of at most [`MOST`] elements, the largest of which has these bits. False, and
/// nothing is added, if that would not be exact.
///
/// # Safety
/// The processor has the instructions ([`available`]).
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn add(block: &[f32], largest: u32, sum: &mut ExactSum) -> bool {
    debug_assert!(block.len() <= MOST);
    let mut lanes = Lanes::new(top_of(largest));
    let (whole, tail) = block.as_chunks::<16>();
    whole.iter().for_each(|chunk| lanes.add(chunk));
    let mut last = [0.0; 16];
    last[..tail.len()].copy_from_slice(tail);
    lanes.add(&last);
    lanes.finish(sum).0
}
