//! Sums in eight lanes: a fixed order of additions that vectors of any width can follow, so the
//! bits do not depend on the processor.

/// Lanes of a sum: one vector of AVX-512, two of AVX2.
const LANES: usize = 8;

/// The lanes added up, always in this order.
#[inline(always)]
fn total(lanes: [f64; LANES]) -> f64 {
    let four = [lanes[0] + lanes[4], lanes[1] + lanes[5], lanes[2] + lanes[6], lanes[3] + lanes[7]];
    (four[0] + four[2]) + (four[1] + four[3])
}

/// The sum of `term(x)`.
#[inline(always)]
pub(crate) fn sum(x: &[f64], term: impl Fn(f64) -> f64) -> f64 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += term(x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += term(x);
    }
    total(lanes)
}

/// The sum of `term(x, y)` over two slices of one length.
#[inline(always)]
pub(crate) fn sum2(x: &[f64], y: &[f64], term: impl Fn(f64, f64) -> f64) -> f64 {
    let mut lanes = [0.0; LANES];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in x.iter().zip(y) {
        for i in 0..LANES {
            lanes[i] += term(x[i], y[i]);
        }
    }
    for (i, (&x, &y)) in x_rest.iter().zip(y_rest).enumerate() {
        lanes[i] += term(x, y);
    }
    total(lanes)
}

/// The least and the largest value; (∞, -∞) of nothing.
#[inline(always)]
pub(crate) fn range(x: &[f64]) -> (f64, f64) {
    let (mut low, mut high) = ([f64::INFINITY; LANES], [f64::NEG_INFINITY; LANES]);
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks.iter().map(|c| &c[..]).chain([rest]) {
        for (i, &x) in chunk.iter().enumerate() {
            low[i] = if x < low[i] { x } else { low[i] };
            high[i] = if x > high[i] { x } else { high[i] };
        }
    }
    (
        low.into_iter().fold(f64::INFINITY, f64::min),
        high.into_iter().fold(f64::NEG_INFINITY, f64::max),
    )
}

/// The sum of products of three slices of one length.
#[inline(always)]
pub(crate) fn sum3(w: &[f64], x: &[f64], y: &[f64]) -> f64 {
    let mut lanes = [0.0; LANES];
    for (i, ((w, x), y)) in w.iter().zip(x).zip(y).enumerate() {
        lanes[i % LANES] += w * x * y;
    }
    total(lanes)
}

/// Over pairs of values that are both there, for each of several columns `y` with the marks `q`:
/// their number, Σ x, Σ y, Σ x², Σ y², Σ x y. A value that is not there is 0 in `x` or `y`, and its
/// mark `p` or `q` is 0; other marks are 1. Several columns at once read `x` and `p` once, and add
/// up side by side.
#[inline(always)]
pub(crate) fn sum_pairs<const M: usize>(
    x: &[f64],
    p: &[f64],
    y: [&[f64]; M],
    q: [&[f64]; M],
) -> [[f64; 6]; M] {
    let n = x.len();
    let whole = n - n % LANES;
    let ((x, x_rest), (p, p_rest)) = (x.as_chunks::<LANES>(), p[..n].as_chunks::<LANES>());
    let y_chunks = y.map(|y| &y[..n].as_chunks::<LANES>().0[..x.len()]);
    let q_chunks = q.map(|q| &q[..n].as_chunks::<LANES>().0[..x.len()]);
    let mut lanes = [[[0.0; LANES]; 6]; M];
    for (i, (x, p)) in x.iter().zip(p).enumerate() {
        for m in 0..M {
            add_pairs(&mut lanes[m], x, p, &y_chunks[m][i], &q_chunks[m][i]);
        }
    }
    for (i, (&x, &p)) in x_rest.iter().zip(p_rest).enumerate() {
        for m in 0..M {
            let (y, q, lanes) = (y[m][whole + i], q[m][whole + i], &mut lanes[m]);
            lanes[0][i] += p * q;
            lanes[1][i] += x * q;
            lanes[2][i] += y * p;
            lanes[3][i] += x * x * q;
            lanes[4][i] += y * y * p;
            lanes[5][i] += x * y;
        }
    }
    lanes.map(|sums| sums.map(total))
}

/// One vector of pairs.
#[inline(always)]
fn add_pairs(
    lanes: &mut [[f64; LANES]; 6],
    x: &[f64; LANES],
    p: &[f64; LANES],
    y: &[f64; LANES],
    q: &[f64; LANES],
) {
    // A loop for each sum: each is one vector.
    for i in 0..LANES {
        lanes[0][i] += p[i] * q[i];
    }
    for i in 0..LANES {
        lanes[1][i] += x[i] * q[i];
    }
    for i in 0..LANES {
        lanes[2][i] += y[i] * p[i];
    }
    for i in 0..LANES {
        lanes[3][i] += x[i] * x[i] * q[i];
    }
    for i in 0..LANES {
        lanes[4][i] += y[i] * y[i] * p[i];
    }
    for i in 0..LANES {
        lanes[5][i] += x[i] * y[i];
    }
}

/// Σ x y for each of several columns `y`, each with the additions of [`sum2`].
#[inline(always)]
pub(crate) fn dots<const M: usize>(x: &[f64], y: [&[f64]; M]) -> [f64; M] {
    let n = x.len();
    let whole = n - n % LANES;
    let (x, x_rest) = x.as_chunks::<LANES>();
    let chunks = y.map(|y| &y[..n].as_chunks::<LANES>().0[..x.len()]);
    let mut lanes = [[0.0; LANES]; M];
    for (i, x) in x.iter().enumerate() {
        for m in 0..M {
            let y = &chunks[m][i];
            for lane in 0..LANES {
                lanes[m][lane] += x[lane] * y[lane];
            }
        }
    }
    for (i, &x) in x_rest.iter().enumerate() {
        for m in 0..M {
            lanes[m][i] += x * y[m][whole + i];
        }
    }
    lanes.map(total)
}
