//! exp, expm1, tanh, sigmoid and erf for f32 loops: branch-free polynomials that the compiler
//! turns into vector code, and sums in a fixed order.
//!
//! None uses a fused multiply-add, so all targets give the same bits (see `reduce::simd`). Errors
//! against f64 are at most 2 units in the last place (sigmoid: 3), as the tests check.
//! NaN goes in and comes out.
//!
//! Coefficients: exp and tanh are those of the Cephes library (S. Moshier), which are minimax on
//! |r| ≤ ln 2 / 2 and |x| ≤ 0.625; erf is N. Juffa's pair of polynomials. About 15 to 30
//! operations an element.

/// Partial sums that run side by side: one AVX-512 register, or two or four of the narrower ones.
const LANES: usize = 16;

/// e^r − 1 − r on |r| ≤ ln 2 / 2.
#[inline(always)]
fn exp_tail(r: f32) -> f32 {
    let p = 1.987_569_2e-4 * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    p * (r * r)
}

/// (e^r − 1, n) with x = n · ln 2 + r and |r| ≤ ln 2 / 2.
#[inline(always)]
fn reduced(x: f32) -> (f32, i32) {
    // Adding 1.5 · 2^23 rounds to an integer, which then sits in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, the first so short that n times it is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    (exp_tail(r) + r, (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32))
}

/// 2^n for n within −126 and 127.
#[inline(always)]
fn two_to(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// e^x = 2^n · e^r with n = round(x / ln 2).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let (y, n) = reduced(x);
    // Two factors, so that results below the normal range are rounded and not flushed.
    let half = n >> 1;
    (y + 1.0) * two_to(half) * two_to(n.wrapping_sub(half))
}

/// e^x − 1 = 2^n · (e^r − 1) + (2^n − 1), without cancellation near 0.
#[inline(always)]
pub fn exp_minus_one(x: f32) -> f32 {
    let (y, n) = reduced(x);
    let scale = two_to(n.clamp(-126, 127));
    let most = y * scale + (scale - 1.0);
    if x > 88.0 { exp(x) } else { most }
}

/// 1 / (1 + e^−x).
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The hyperbolic tangent.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let z = x * x;
    let p = -5.704_988_7e-3 * z + 2.063_909e-2;
    let p = p * z - 5.373_971_5e-2;
    let p = p * z + 1.333_144_2e-1;
    let p = p * z - 3.333_328e-1;
    let small = p * z * x + x;
    let magnitude = x.abs();
    let large = (1.0 - 2.0 / (exp(2.0 * magnitude) + 1.0)).copysign(x);
    if magnitude < 0.625 { small } else { large }
}

/// The error function.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let s = x * x;
    let p = -5.967_617e-4 * s + 4.991_194e-3;
    let p = p * s - 2.676_813_5e-2;
    let p = p * s + 1.128_199_25e-1;
    let p = p * s - 3.761_253_4e-1;
    let p = p * s + 1.283_791_7e-1;
    let small = p * x + x;
    // From 4 on the result rounds to 1; the polynomial must not overflow beyond.
    let t = if x.abs() > 4.0 { 4.0 } else { x.abs() };
    let s = t * t;
    let q = (-1.728_534_7e-5 * t + 3.831_971_3e-4) * s + (-3.883_964_4e-3 * t + 2.425_462_2e-2);
    let q = q * t - 1.067_778_8e-1;
    let q = q * t - 6.348_467e-1;
    let q = q * t - 1.287_175_1e-1;
    let large = (1.0 - exp(q * t - t)).copysign(x);
    if x.abs() > 0.927_734_4 { large } else { small }
}

/// Adds up the lanes as a fixed tree.
#[inline(always)]
fn across(mut lanes: [f32; LANES], add: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = add(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// Σ f(x), in 16 chains and a tree: the same order on every machine.
#[inline(always)]
pub fn sum_of(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        for i in 0..LANES {
            lanes[i] += f(block[i]);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += f(x);
    }
    across(lanes, |a, b| a + b)
}

/// Σ f(x, y) of two slices of one length, in the order of [`sum_of`].
#[inline(always)]
pub fn sum_of_two(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let ((xs, x_rest), (ys, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in xs.iter().zip(ys) {
        for i in 0..LANES {
            lanes[i] += f(x[i], y[i]);
        }
    }
    for (lane, (&x, &y)) in lanes.iter_mut().zip(x_rest.iter().zip(y_rest)) {
        *lane += f(x, y);
    }
    across(lanes, |a, b| a + b)
}

/// The largest value, or −∞ of none; NaN is passed over.
#[inline(always)]
pub fn maximum(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        for i in 0..LANES {
            lanes[i] = larger(lanes[i], block[i]);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = larger(*lane, x);
    }
    across(lanes, larger)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reduce::simd::vectorised;

    /// The error in units in the last place of the result.
    fn error(got: f32, want: f64) -> f64 {
        let rounded = want as f32;
        if got == rounded || (got.is_nan() && want.is_nan()) {
            return 0.0;
        }
        let unit =
            f64::from(f32::from_bits(rounded.abs().to_bits() + 1)) - f64::from(rounded.abs());
        (f64::from(got) - want).abs() / unit
    }

    /// Numbers of all sizes up to `limit`, of both signs.
    fn numbers(limit: f32) -> impl Iterator<Item = f32> {
        let even = (-200_000..=200_000).map(move |i| i as f32 / 200_000.0 * limit);
        let small = (0..120).flat_map(|e| [1.0, 1.37, 1.9].map(|m| m * 2f32.powi(-e)));
        even.chain(small.flat_map(|x| [x, -x])).filter(move |x| x.abs() <= limit)
    }

    fn worst(limit: f32, got: fn(f32) -> f32, want: fn(f64) -> f64) -> f64 {
        numbers(limit).map(|x| error(got(x), want(f64::from(x)))).fold(0.0, f64::max)
    }

    /// erf in f64: its Taylor series near 0, a continued fraction of erfc beyond.
    fn erf_reference(x: f64) -> f64 {
        let square = x * x;
        if square < 9.0 {
            let (mut term, mut sum) = (x, x);
            for n in 1..120 {
                term *= -square / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            return sum * std::f64::consts::FRAC_2_SQRT_PI;
        }
        let fraction = (1..200).rev().fold(x.abs(), |f, n| x.abs() + f64::from(n) / 2.0 / f);
        let tail = (-square).exp() / fraction / std::f64::consts::PI.sqrt();
        (1.0 - tail).copysign(x)
    }

    #[test]
    fn errors_are_a_few_units_in_the_last_place() {
        assert!(worst(87.0, exp, f64::exp) <= 2.0);
        assert!(worst(87.0, exp_minus_one, f64::exp_m1) <= 2.0);
        assert!(worst(20.0, tanh, f64::tanh) <= 2.0);
        assert!(worst(80.0, sigmoid, |x| 1.0 / (1.0 + (-x).exp())) <= 3.0);
        assert!(worst(6.0, erf, erf_reference) <= 2.0);
    }

    #[test]
    fn ends_of_the_range_are_exact() {
        for (x, want) in [(f32::INFINITY, f32::INFINITY), (f32::NEG_INFINITY, 0.0), (0.0, 1.0)] {
            assert_eq!(exp(x), want);
        }
        assert_eq!(exp(100.0), f32::INFINITY);
        assert_eq!(exp(-103.0), (-103f64).exp() as f32); // below the normal range
        for x in [5.0f32, 50.0, f32::MAX, f32::INFINITY] {
            assert_eq!((erf(x), erf(-x)), (1.0, -1.0));
            assert_eq!((tanh(4.0 * x), tanh(-4.0 * x)), (1.0, -1.0));
        }
        assert_eq!((sigmoid(200.0), sigmoid(-200.0), exp_minus_one(-200.0)), (1.0, 0.0, -1.0));
        for f in [exp, exp_minus_one, tanh, sigmoid, erf] {
            assert!(f(f32::NAN).is_nan());
        }
    }

    #[test]
    fn wide_vectors_give_the_bits_of_the_plain_target() {
        #[inline(always)]
        fn all(x: &[f32]) -> Vec<f32> {
            let each = x.iter().flat_map(|&x| [exp(x), exp_minus_one(x), tanh(x), erf(x)]);
            let mut all: Vec<f32> = each.collect();
            all.extend([sum_of(x, |x| x * x), sum_of_two(x, &all, |x, y| x * y), maximum(x)]);
            all
        }
        let x: Vec<f32> = numbers(9.0).step_by(7).collect();
        let plain: Vec<u32> = all(&x).into_iter().map(f32::to_bits).collect();
        let wide = vectorised(
            #[inline(always)]
            || all(&x),
        );
        assert_eq!(plain, wide.into_iter().map(f32::to_bits).collect::<Vec<_>>());
    }

    #[test]
    fn sums_and_maxima_take_every_element() {
        for n in [0usize, 1, 15, 16, 17, 31, 32, 33, 100] {
            let x: Vec<f32> = (1..=n).map(|i| i as f32).collect();
            assert_eq!(sum_of(&x, |x| x), (n * (n + 1) / 2) as f32);
            assert_eq!(sum_of_two(&x, &x, |x, y| x + y), (n * (n + 1)) as f32);
            assert_eq!(maximum(&x), if n == 0 { f32::NEG_INFINITY } else { n as f32 });
        }
    }
}
