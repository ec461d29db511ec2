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

/// Over pairs of values that are both there: their number, Σ x, Σ y, Σ x², Σ y², Σ x y. A value
/// that is not there is 0 in `x` or `y`, and its mark `p` or `q` is 0; other marks are 1.
#[inline(always)]
pub(crate) fn sum_pairs(x: &[f64], p: &[f64], y: &[f64], q: &[f64]) -> [f64; 6] {
    let mut lanes = [[0.0; LANES]; 6];
    let n = x.len();
    let (y, p, q) = (&y[..n], &p[..n], &q[..n]);
    let whole = n - n % LANES;
    for start in (0..whole).step_by(LANES) {
        for lane in 0..LANES {
            add_pair(
                &mut lanes,
                lane,
                x[start + lane],
                p[start + lane],
                y[start + lane],
                q[start + lane],
            );
        }
    }
    for i in whole..n {
        add_pair(&mut lanes, i - whole, x[i], p[i], y[i], q[i]);
    }
    lanes.map(total)
}

#[inline(always)]
fn add_pair(lanes: &mut [[f64; LANES]; 6], lane: usize, x: f64, p: f64, y: f64, q: f64) {
    lanes[0][lane] += p * q;
    lanes[1][lane] += x * q;
    lanes[2][lane] += y * p;
    lanes[3][lane] += x * x * q;
    lanes[4][lane] += y * y * p;
    lanes[5][lane] += x * y;
}
