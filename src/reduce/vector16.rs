//! Sixteen sums at once: the few vector operations that `gather` is written in.
//!
//! Each kind of vector does the same additions and multiplications on the same lanes, so the bits
//! are the same; only the number of instructions differs.

#![allow(unsafe_code)] // vector instructions; see `Vector`

use super::gather::{LANES, PAD, Precision};

/// Sixteen sums.
///
/// # Safety
/// Of every method: the processor has the instructions of the type; 16 indices (and weights) can be
/// read at the given places; indices that are used are below the length of the table, and the table
/// has at most 2³¹ − 1 elements unless the type is [`Plain`].
pub(super) trait Vector<P: Precision>: Copy {
    /// Sixteen times +0.
    unsafe fn zero() -> Self;
    /// The values at 16 indices.
    unsafe fn gather(table: &[P::Wire], at: *const u32) -> Self;
    /// The values at 16 indices; +0 where the index is [`PAD`].
    unsafe fn gather_padded(table: &[P::Wire], at: *const u32) -> Self;
    /// The values at the first `count` < 16 indices, then +0.
    unsafe fn gather_first(table: &[P::Wire], at: *const u32, count: usize) -> Self;
    /// Lane by lane.
    unsafe fn plus(self, other: Self) -> Self;
    /// Times 16 finite weights, lane by lane.
    unsafe fn times(self, weights: *const P::Sum) -> Self;
    /// Into memory.
    unsafe fn store(self, into: &mut [P::Sum; LANES]);
}

/// Plain code, for any processor.
#[derive(Clone, Copy)]
pub(super) struct Plain<P: Precision>([P::Sum; LANES]);

/// The values that a masked gather reads, one by one.
///
/// # Safety
/// See [`Vector`].
#[inline(always)]
unsafe fn picked<P: Precision>(
    table: &[P::Wire],
    at: *const u32,
    wanted: impl Fn(usize, u32) -> bool,
) -> [P::Sum; LANES] {
    std::array::from_fn(|lane| {
        // SAFETY: 16 indices are readable; the wanted ones are inside the table.
        unsafe {
            let index = *at.add(lane);
            if wanted(lane, index) {
                P::widen(*table.get_unchecked(index as usize))
            } else {
                P::Sum::default()
            }
        }
    })
}

// Every method has the contract of the trait, and the loops below stay inside 16 lanes.
impl<P: Precision> Vector<P> for Plain<P> {
    #[inline(always)]
    unsafe fn zero() -> Self {
        Plain([P::Sum::default(); LANES])
    }
    #[inline(always)]
    unsafe fn gather(table: &[P::Wire], at: *const u32) -> Self {
        // SAFETY: passed on.
        Plain(unsafe { picked::<P>(table, at, |_, _| true) })
    }
    #[inline(always)]
    unsafe fn gather_padded(table: &[P::Wire], at: *const u32) -> Self {
        // SAFETY: passed on.
        Plain(unsafe { picked::<P>(table, at, |_, index| index != PAD) })
    }
    #[inline(always)]
    unsafe fn gather_first(table: &[P::Wire], at: *const u32, count: usize) -> Self {
        // SAFETY: passed on.
        Plain(unsafe { picked::<P>(table, at, |lane, _| lane < count) })
    }
    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        Plain(std::array::from_fn(|lane| self.0[lane] + other.0[lane]))
    }
    #[inline(always)]
    unsafe fn times(self, weights: *const P::Sum) -> Self {
        // SAFETY: 16 weights are readable.
        Plain(std::array::from_fn(|lane| self.0[lane] * unsafe { *weights.add(lane) }))
    }
    #[inline(always)]
    unsafe fn store(self, into: &mut [P::Sum; LANES]) {
        *into = self.0;
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    //! AVX2 and AVX-512.

    use std::arch::x86_64::*;

    use super::super::gather::{Double, LANES, Mixed, PAD, Precision, Single};
    use super::{Vector, picked};

    /// Sixteen f64 sums, of an f64 or f32 table.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx512Double(__m512d, __m512d);
    /// Sixteen f32 sums.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx512Single(__m512);
    /// Sixteen f64 sums.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx2Double([__m256d; 4]);
    /// Sixteen f64 sums of an f32 table.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx2Mixed([__m256d; 4]);
    /// Sixteen f32 sums.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx2Single([__m256; 2]);

    /// Bit l is set where index l is none.
    #[inline(always)]
    unsafe fn present(indices: __m512i) -> __mmask16 {
        // SAFETY: the caller's processor has AVX-512.
        unsafe { _mm512_cmpneq_epi32_mask(indices, _mm512_set1_epi32(PAD as i32)) }
    }

    #[inline(always)]
    unsafe fn indices(at: *const u32) -> __m512i {
        // SAFETY: 16 indices are readable.
        unsafe { _mm512_loadu_si512(at.cast()) }
    }

    fn first(count: usize) -> __mmask16 {
        ((1u32 << count) - 1) as u16
    }

    /// Widens 16 f32.
    #[inline(always)]
    unsafe fn widened(values: __m512) -> Avx512Double {
        // SAFETY: the caller's processor has AVX-512.
        unsafe {
            let (low, high) = (_mm512_castps512_ps256(values), _mm512_extractf32x8_ps::<1>(values));
            Avx512Double(_mm512_cvtps_pd(low), _mm512_cvtps_pd(high))
        }
    }

    #[inline(always)]
    unsafe fn gather_f32(table: &[f32], indices: __m512i, mask: __mmask16) -> __m512 {
        // SAFETY: the indices under the mask are inside the table.
        unsafe {
            let zero = _mm512_setzero_ps();
            _mm512_mask_i32gather_ps::<4>(zero, mask, indices, table.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn gather_f64(table: &[f64], indices: __m512i, mask: __mmask16) -> Avx512Double {
        // SAFETY: the indices under the mask are inside the table.
        unsafe {
            let (low, high) =
                (_mm512_castsi512_si256(indices), _mm512_extracti32x8_epi32::<1>(indices));
            let (zero, at) = (_mm512_setzero_pd(), table.as_ptr());
            Avx512Double(
                _mm512_mask_i32gather_pd::<8>(zero, mask as u8, low, at),
                _mm512_mask_i32gather_pd::<8>(zero, (mask >> 8) as u8, high, at),
            )
        }
    }

    macro_rules! gathers_512 {
        ($wire:ty, $finish:expr) => {
            #[inline(always)]
            unsafe fn gather(table: &[$wire], at: *const u32) -> Self {
                // SAFETY: the contract of the trait.
                unsafe { $finish(table, indices(at), u16::MAX) }
            }
            #[inline(always)]
            unsafe fn gather_padded(table: &[$wire], at: *const u32) -> Self {
                // SAFETY: the contract of the trait.
                unsafe {
                    let indices = indices(at);
                    $finish(table, indices, present(indices))
                }
            }
            #[inline(always)]
            unsafe fn gather_first(table: &[$wire], at: *const u32, count: usize) -> Self {
                // SAFETY: the contract of the trait.
                unsafe { $finish(table, indices(at), first(count)) }
            }
        };
    }

    macro_rules! arithmetic_512_double {
        () => {
            #[inline(always)]
            unsafe fn zero() -> Self {
                // SAFETY: the contract of the trait.
                unsafe { Avx512Double(_mm512_setzero_pd(), _mm512_setzero_pd()) }
            }
            #[inline(always)]
            unsafe fn plus(self, other: Self) -> Self {
                // SAFETY: the contract of the trait.
                unsafe {
                    Avx512Double(_mm512_add_pd(self.0, other.0), _mm512_add_pd(self.1, other.1))
                }
            }
            #[inline(always)]
            unsafe fn times(self, weights: *const f64) -> Self {
                // SAFETY: 16 weights are readable.
                unsafe {
                    Avx512Double(
                        _mm512_mul_pd(self.0, _mm512_loadu_pd(weights)),
                        _mm512_mul_pd(self.1, _mm512_loadu_pd(weights.add(8))),
                    )
                }
            }
            #[inline(always)]
            unsafe fn store(self, into: &mut [f64; LANES]) {
                // SAFETY: the array has 16 elements.
                unsafe {
                    _mm512_storeu_pd(into.as_mut_ptr(), self.0);
                    _mm512_storeu_pd(into.as_mut_ptr().add(8), self.1);
                }
            }
        };
    }

    impl Vector<Double> for Avx512Double {
        gathers_512!(f64, gather_f64);
        arithmetic_512_double!();
    }

    impl Vector<Mixed> for Avx512Double {
        gathers_512!(f32, |table, indices, mask| widened(gather_f32(table, indices, mask)));
        arithmetic_512_double!();
    }

    impl Vector<Single> for Avx512Single {
        gathers_512!(f32, |table, indices, mask| Avx512Single(gather_f32(table, indices, mask)));
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the contract of the trait.
            unsafe { Avx512Single(_mm512_setzero_ps()) }
        }
        #[inline(always)]
        unsafe fn plus(self, other: Self) -> Self {
            // SAFETY: the contract of the trait.
            unsafe { Avx512Single(_mm512_add_ps(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn times(self, weights: *const f32) -> Self {
            // SAFETY: 16 weights are readable.
            unsafe { Avx512Single(_mm512_mul_ps(self.0, _mm512_loadu_ps(weights))) }
        }
        #[inline(always)]
        unsafe fn store(self, into: &mut [f32; LANES]) {
            // SAFETY: the array has 16 elements.
            unsafe { _mm512_storeu_ps(into.as_mut_ptr(), self.0) }
        }
    }

    // Masked gathers of AVX2 need a mask in a vector: they are rare, and go one by one.
    macro_rules! avx2 {
        ($name:ident, $precision:ty, $sum:ty, $parts:literal, $gather:expr, $zero:ident,
         $add:ident, $mul:ident, $load:ident, $store:ident) => {
            impl $name {
                const WIDTH: usize = LANES / $parts;

                #[inline(always)]
                unsafe fn load(values: *const $sum) -> Self {
                    // SAFETY: 16 values are readable.
                    $name(std::array::from_fn(|i| unsafe { $load(values.add(i * Self::WIDTH)) }))
                }
            }

            impl Vector<$precision> for $name {
                #[inline(always)]
                unsafe fn zero() -> Self {
                    // SAFETY: the contract of the trait.
                    $name([unsafe { $zero() }; $parts])
                }
                #[inline(always)]
                unsafe fn gather(
                    table: &[<$precision as Precision>::Wire],
                    at: *const u32,
                ) -> Self {
                    let table = table.as_ptr();
                    // SAFETY: 16 indices are readable and inside the table.
                    $name(std::array::from_fn(|i| unsafe {
                        $gather(table, at.add(i * Self::WIDTH))
                    }))
                }
                #[inline(always)]
                unsafe fn gather_padded(
                    table: &[<$precision as Precision>::Wire],
                    at: *const u32,
                ) -> Self {
                    // SAFETY: the contract of the trait.
                    unsafe {
                        let values = picked::<$precision>(table, at, |_, index| index != PAD);
                        Self::load(values.as_ptr())
                    }
                }
                #[inline(always)]
                unsafe fn gather_first(
                    table: &[<$precision as Precision>::Wire],
                    at: *const u32,
                    count: usize,
                ) -> Self {
                    // SAFETY: the contract of the trait.
                    unsafe {
                        let values = picked::<$precision>(table, at, |lane, _| lane < count);
                        Self::load(values.as_ptr())
                    }
                }
                #[inline(always)]
                unsafe fn plus(self, other: Self) -> Self {
                    // SAFETY: the contract of the trait.
                    $name(std::array::from_fn(|i| unsafe { $add(self.0[i], other.0[i]) }))
                }
                #[inline(always)]
                unsafe fn times(self, weights: *const $sum) -> Self {
                    // SAFETY: 16 weights are readable.
                    $name(std::array::from_fn(|i| unsafe {
                        $mul(self.0[i], $load(weights.add(i * Self::WIDTH)))
                    }))
                }
                #[inline(always)]
                unsafe fn store(self, into: &mut [$sum; LANES]) {
                    for (i, part) in self.0.into_iter().enumerate() {
                        // SAFETY: the array has 16 elements.
                        unsafe { $store(into.as_mut_ptr().add(i * Self::WIDTH), part) };
                    }
                }
            }
        };
    }

    avx2!(
        Avx2Double,
        Double,
        f64,
        4,
        |table, at: *const u32| _mm256_i32gather_pd::<8>(table, _mm_loadu_si128(at.cast())),
        _mm256_setzero_pd,
        _mm256_add_pd,
        _mm256_mul_pd,
        _mm256_loadu_pd,
        _mm256_storeu_pd
    );
    avx2!(
        Avx2Mixed,
        Mixed,
        f64,
        4,
        |table, at: *const u32| {
            _mm256_cvtps_pd(_mm_i32gather_ps::<4>(table, _mm_loadu_si128(at.cast())))
        },
        _mm256_setzero_pd,
        _mm256_add_pd,
        _mm256_mul_pd,
        _mm256_loadu_pd,
        _mm256_storeu_pd
    );
    avx2!(
        Avx2Single,
        Single,
        f32,
        2,
        |table, at: *const u32| _mm256_i32gather_ps::<4>(table, _mm256_loadu_si256(at.cast())),
        _mm256_setzero_ps,
        _mm256_add_ps,
        _mm256_mul_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps
    );
}
