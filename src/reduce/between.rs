//! Collects the values between two bounds, in their order, and counts those below: the pass of a
//! selection that knows about where to look.
//!
//! With AVX-512 a vector is compressed by a mask in a register and stored whole; the next one
//! overwrites what was not kept. 0.2 ns a value in the first cache level on Zen 4, where the
//! loop without a branch takes 0.6 and one with a branch guesses wrongly as often as a coin.

#![allow(unsafe_code)] // wide loads and stores, and functions that may be called once detected

use super::kernels::{Vectors, vectors};

/// Values of a vector of AVX-512.
const LANES: usize = 8;

/// Puts `of(x)` of each of `values` at the start of `room` where `low <= of(x) <= high`; returns
/// how many are below `low`, and how many are between. What `room` held is lost.
#[inline(always)]
pub fn between(
    values: &[f64],
    of: impl Fn(f64) -> f64,
    (low, high): (f64, f64),
    room: &mut Vec<f64>,
) -> (usize, usize) {
    // A vector is stored whole wherever the last value kept may be.
    if room.len() < values.len() + LANES {
        room.resize(values.len() + LANES, 0.0);
    }
    #[cfg(target_arch = "x86_64")]
    if vectors() == Vectors::Avx512 {
        // SAFETY: the features were detected on this processor.
        return unsafe { avx512(values, of, (low, high), room) };
    }
    one_by_one(values, of, (low, high), (0, 0), room)
}

/// Goes on after `below` and `inside` values.
#[inline(always)]
fn one_by_one(
    values: &[f64],
    of: impl Fn(f64) -> f64,
    (low, high): (f64, f64),
    (mut below, mut inside): (usize, usize),
    room: &mut [f64],
) -> (usize, usize) {
    for &x in values {
        let x = of(x);
        // Written always and kept if inside.
        room[inside] = x;
        inside += usize::from(x >= low && x <= high);
        below += usize::from(x < low);
    }
    (below, inside)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma,popcnt")]
fn avx512(
    values: &[f64],
    of: impl Fn(f64) -> f64,
    (low, high): (f64, f64),
    room: &mut [f64],
) -> (usize, usize) {
    use std::arch::x86_64::*;
    assert!(room.len() >= values.len() + LANES, "room for {} of {}", room.len(), values.len());
    let (lows, highs) = (_mm512_set1_pd(low), _mm512_set1_pd(high));
    let (chunks, rest) = values.as_chunks::<LANES>();
    let (mut below, mut inside) = (0, 0);
    for chunk in chunks {
        let made = chunk.map(&of);
        // SAFETY: `made` has LANES values.
        let x = unsafe { _mm512_loadu_pd(made.as_ptr()) };
        let not_below = _mm512_cmp_pd_mask::<_CMP_GE_OQ>(x, lows);
        let kept = _mm512_mask_cmp_pd_mask::<_CMP_LE_OQ>(not_below, x, highs);
        // SAFETY: `inside` is at most the number of values before this chunk, and `room` is
        // longer than all values by LANES, which was checked.
        unsafe {
            let to = room.as_mut_ptr().add(inside);
            _mm512_storeu_pd(to, _mm512_maskz_compress_pd(kept, x));
        }
        inside += kept.count_ones() as usize;
        below += _mm512_cmp_pd_mask::<_CMP_LT_OQ>(x, lows).count_ones() as usize;
    }
    one_by_one(rest, of, (low, high), (below, inside), room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_a_loop_keeps() {
        for n in [0, 1, 7, 8, 9, 63, 64, 100] {
            let mut values: Vec<f64> = (0..n).map(|i| f64::from(i * 37 % 41 - 20)).collect();
            if n > 9 {
                (values[3], values[9]) = (f64::NAN, -0.0);
            }
            for (low, high) in [(-5.0, 6.0), (0.0, 0.0), (-99.0, 99.0), (3.0, -3.0), (99.0, 100.0)]
            {
                let of = |x: f64| (x - 1.0).abs() - 4.0;
                let made = || values.iter().map(|&x| of(x));
                let expected: Vec<f64> = made().filter(|x| (low..=high).contains(x)).collect();
                let below = made().filter(|&x| x < low).count();
                let mut room = vec![f64::NAN; 3];
                let found = between(&values, of, (low, high), &mut room);
                assert_eq!(found, (below, expected.len()), "{n} values in {low}..={high}");
                assert_eq!(room[..expected.len()], expected);
                let found = one_by_one(&values, of, (low, high), (0, 0), &mut room);
                assert_eq!(found, (below, expected.len()));
                assert_eq!(room[..expected.len()], expected);
            }
        }
    }
}
