//! One scale for all cross-sections: z-scores, or normal scores of ranks.
//!
//! | method | value |
//! | --- | --- |
//! | zscore | (x - mean) / standard deviation around the plain mean, ddof 0 or 1 |
//! | … mean = cap | (x - mean weighted by capitalisation) / the same deviation (Barra) |
//! | rank_normal | Φ⁻¹((rank - ½) / n), average ranks for ties |

use statrs::distribution::{ContinuousCDF, Normal};

use super::ROUNDING;
use super::lanes;
use crate::factor::config::{Standardise, StandardiseMethod};

/// Brings values to one scale. `size` is the largest value that went into them; false if they are
/// constant up to rounding.
#[inline(always)]
pub(super) fn standardise(
    values: &mut [f64],
    mean_weight: &[f64],
    size: f64,
    options: &Standardise,
    room: &mut Vec<u32>,
) -> bool {
    let Some((mean, deviation)) = moments(values, size, options.ddof) else {
        return false;
    };
    match options.method {
        StandardiseMethod::None => {}
        StandardiseMethod::Zscore if mean_weight.is_empty() => scale(values, mean, deviation),
        StandardiseMethod::Zscore => {
            let whole: f64 = lanes::sum(mean_weight, |w| w);
            let weighted = lanes::sum2(values, mean_weight, |x, w| x * w) / whole;
            scale(values, weighted, deviation);
        }
        StandardiseMethod::RankNormal => normal_scores(values, room),
    }
    true
}

/// The mean and the standard deviation, unless the values are constant up to rounding.
#[inline(always)]
pub(super) fn moments(values: &[f64], size: f64, ddof: u32) -> Option<(f64, f64)> {
    let n = values.len() as f64;
    let mean = lanes::sum(
        values,
        #[inline(always)]
        |x| x,
    ) / n;
    let squares = lanes::sum(
        values,
        #[inline(always)]
        |x| (x - mean) * (x - mean),
    );
    let deviation = (squares / (n - f64::from(ddof))).sqrt();
    (deviation > ROUNDING * size).then_some((mean, deviation))
}

#[inline(always)]
pub(super) fn scale(values: &mut [f64], mean: f64, deviation: f64) {
    values.iter_mut().for_each(|x| *x = (*x - mean) / deviation);
}

fn normal_scores(values: &mut [f64], order: &mut Vec<u32>) {
    let n = values.len();
    order.clear();
    order.extend(0..n as u32);
    order.sort_by(|&a, &b| values[a as usize].total_cmp(&values[b as usize]));
    let normal = Normal::standard();
    let mut start = 0;
    while start < n {
        let value = values[order[start] as usize];
        let run = order[start..].iter().take_while(|&&i| values[i as usize] == value).count();
        // The average rank of the run, less a half.
        let rank = start as f64 + run as f64 / 2.0;
        let score = normal.inverse_cdf(rank / n as f64);
        order[start..start + run].iter().for_each(|&i| values[i as usize] = score);
        start += run;
    }
}
