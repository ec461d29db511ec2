//! Outliers: values beyond two bounds become the bounds.
//!
//! | method | bounds |
//! | --- | --- |
//! | mad | median ± n · scale · MAD, MAD = median of abs (x - median) |
//! | sigma | mean ± n · standard deviation |
//! | quantile | two quantiles, linear between order statistics (numpy's default) |
//!
//! A MAD of 0 (more than half of the values alike) would make the factor a constant; by default
//! nothing is bounded then.

use super::lanes;
use super::median::{Bracket, median};
use crate::factor::config::{Winsorise, WinsoriseMethod, ZeroMad};

/// What is remembered of a factor from one date to the next: where its median and MAD were.
#[derive(Clone, Copy, Debug, Default)]
pub struct Brackets {
    median: Bracket,
    deviation: Bracket,
}

/// The room that bounds need.
#[derive(Clone, Debug, Default)]
pub(super) struct Room {
    chosen: Vec<f64>,
}

/// The bounds of values, or none.
#[inline(always)]
pub(super) fn bounds(
    values: &[f64],
    options: &Winsorise,
    brackets: &mut Brackets,
    room: &mut Room,
) -> Option<(f64, f64)> {
    match options.method {
        WinsoriseMethod::None => None,
        WinsoriseMethod::Mad => {
            let middle = median(
                values,
                #[inline(always)]
                |x| x,
                &mut brackets.median,
                &mut room.chosen,
            );
            let mad = median(
                values,
                #[inline(always)]
                |x| (x - middle).abs(),
                &mut brackets.deviation,
                &mut room.chosen,
            );
            let reach = options.n * options.scale * mad;
            let keep = mad == 0.0 && options.zero_mad == ZeroMad::Keep;
            (!keep).then_some((middle - reach, middle + reach))
        }
        WinsoriseMethod::Sigma => {
            let n = values.len() as f64;
            let mean = lanes::sum(values, |x| x) / n;
            let squares = lanes::sum(values, |x| (x - mean) * (x - mean));
            let deviation = (squares / (n - f64::from(options.ddof))).sqrt();
            let reach = options.n * deviation;
            Some((mean - reach, mean + reach))
        }
        WinsoriseMethod::Quantile => {
            room.chosen.clear();
            room.chosen.extend_from_slice(values);
            let low = quantile(&mut room.chosen, options.lower);
            Some((low, quantile(&mut room.chosen, options.upper)))
        }
    }
}

/// The quantile `q` of finite values, linear between its neighbours.
pub(crate) fn quantile(values: &mut [f64], q: f64) -> f64 {
    let place = q * (values.len() - 1) as f64;
    let below = (place.floor() as usize).min(values.len() - 1);
    let (_, &mut a, above) = values.select_nth_unstable_by(below, f64::total_cmp);
    let b = above.iter().copied().fold(f64::INFINITY, f64::min);
    if b.is_infinite() {
        return a;
    }
    // numpy's interpolation, which is exact at both ends.
    let (t, gap) = (place - below as f64, b - a);
    if t >= 0.5 { b - gap * (1.0 - t) } else { a + gap * t }
}
