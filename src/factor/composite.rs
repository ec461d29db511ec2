//! Composites: factors made of factors, with weights from what was known at the time.
//!
//! A coefficient of date s for horizon h is known only at the close of date s + delay + h, when its
//! return is. So the weights of date t look at dates s ≤ t - delay - h, the last `window` of them:
//!
//! | weights | of factor k |
//! | --- | --- |
//! | equal | 1 / K |
//! | ic | mean of its coefficients |
//! | ir | mean / standard deviation |
//! | max_ir | V⁻¹ m, V their covariance shrunk by a tenth to its diagonal |
//!
//! Weights are scaled to Σ abs w = 1. A date whose look-back holds fewer than [`LEAST`] complete
//! rows has no weights, but equal ones, which look at nothing. Every rank computes all weights from
//! the gathered table, and composites of its own dates. An asset's composite is over the factors
//! that it has, at least half of all weight.

use rayon::prelude::*;

use super::config::CompositeWeights;
use super::panel::Factor;
use super::study::Study;

/// The fewest dates of a look-back.
pub const LEAST: usize = 3;
/// The share of the diagonal in the covariance of maximal IR.
const SHRINKAGE: f64 = 0.1;

/// What weights look at.
#[derive(Clone, Copy, Debug)]
pub struct LookBack {
    /// How many dates, at most.
    pub window: usize,
    /// After how many dates a coefficient is known: delay + horizon.
    pub known_after: usize,
}

/// Weights by date and factor: dates × factors, NaN where nothing is known yet. `series` holds the
/// coefficients of each factor by date.
pub fn weights(series: &[Vec<f64>], kind: CompositeWeights, look: LookBack) -> Vec<Vec<f64>> {
    weights_from(series, kind, look, 0)
}

/// [`weights`] of the dates from `first` on; those before have none at all.
pub fn weights_from(
    series: &[Vec<f64>],
    kind: CompositeWeights,
    look: LookBack,
    first: usize,
) -> Vec<Vec<f64>> {
    let dates = series.first().map_or(0, Vec::len);
    let of = |date| if date < first { Vec::new() } else { weights_of(series, kind, look, date) };
    (0..dates).into_par_iter().map(of).collect()
}

fn weights_of(
    series: &[Vec<f64>],
    kind: CompositeWeights,
    look: LookBack,
    date: usize,
) -> Vec<f64> {
    let k = series.len();
    if kind == CompositeWeights::Equal {
        return vec![1.0 / k as f64; k];
    }
    // Dates before `end` are known.
    let end = (date + 1).saturating_sub(look.known_after);
    let start = end.saturating_sub(look.window);
    let rows: Vec<Vec<f64>> = (start..end)
        .map(|s| series.iter().map(|column| column[s]).collect::<Vec<f64>>())
        .filter(|row| row.iter().all(|x| !x.is_nan()))
        .collect();
    if rows.len() < LEAST {
        return vec![f64::NAN; k];
    }
    let n = rows.len() as f64;
    let mean: Vec<f64> = (0..k).map(|f| rows.iter().map(|row| row[f]).sum::<f64>() / n).collect();
    let covariance = |a: usize, b: usize| {
        rows.iter().map(|row| (row[a] - mean[a]) * (row[b] - mean[b])).sum::<f64>() / (n - 1.0)
    };
    let raw = match kind {
        CompositeWeights::Ir => (0..k).map(|f| mean[f] / covariance(f, f).sqrt()).collect(),
        CompositeWeights::MaxIr => {
            let matrix = (0..k)
                .map(|a| {
                    let entry = |b| covariance(a, b) * if a == b { 1.0 } else { 1.0 - SHRINKAGE };
                    (0..k).map(entry).collect()
                })
                .collect();
            solve(matrix, &mean)
        }
        CompositeWeights::Equal | CompositeWeights::Ic => mean,
    };
    let size: f64 = raw.iter().map(|w: &f64| w.abs()).sum();
    if size > 0.0 && size.is_finite() {
        raw.into_iter().map(|w| w / size).collect()
    } else {
        vec![f64::NAN; k]
    }
}

/// Solves a symmetric positive definite system by Cholesky; NaN where it is not definite.
fn solve(mut a: Vec<Vec<f64>>, b: &[f64]) -> Vec<f64> {
    let n = b.len();
    for j in 0..n {
        for i in j..n {
            let dot: f64 = (0..j).map(|k| a[i][k] * a[j][k]).sum();
            let rest = a[i][j] - dot;
            a[i][j] = if i == j {
                if rest <= 1e-14 * a[i][i].abs() {
                    return vec![f64::NAN; n];
                }
                rest.sqrt()
            } else {
                rest / a[j][j]
            };
        }
    }
    let mut x = b.to_vec();
    for i in 0..n {
        let dot: f64 = (0..i).map(|k| a[i][k] * x[k]).sum();
        x[i] = (x[i] - dot) / a[i][i];
    }
    for i in (0..n).rev() {
        let dot: f64 = (i + 1..n).map(|k| a[k][i] * x[k]).sum();
        x[i] = (x[i] - dot) / a[i][i];
    }
    x
}

/// The composite of processed factors on the own dates of a rank, which start at `first`.
pub fn combine(
    name: &str,
    factors: &[&Factor],
    weights: &[Vec<f64>],
    first: usize,
    assets: usize,
) -> Factor {
    let cells = factors.first().map_or(0, |f| f.values.len());
    let mut values = vec![f64::NAN; cells];
    if assets > 0 {
        values.par_chunks_mut(assets).enumerate().for_each(|(date, row)| {
            let weights = &weights[first + date];
            for (asset, value) in row.iter_mut().enumerate() {
                let (mut sum, mut size) = (0.0, 0.0);
                for (factor, w) in factors.iter().zip(weights) {
                    let x = factor.values[date * assets + asset];
                    if !x.is_nan() {
                        sum += w * x;
                        size += w.abs();
                    }
                }
                *value = if size >= 0.5 { sum / size } else { f64::NAN };
            }
        });
    }
    Factor { name: name.to_owned(), values }
}

/// The coefficients of chosen factors (numbers) of a study for one horizon (number).
pub fn series(study: &Study, factors: &[usize], horizon: usize, rank: bool) -> Vec<Vec<f64>> {
    let one = |&k: &usize| {
        if rank { study.rank_series(k, horizon) } else { study.pearson_series(k, horizon) }
    };
    factors.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [CompositeWeights; 4] = [
        CompositeWeights::Equal,
        CompositeWeights::Ic,
        CompositeWeights::Ir,
        CompositeWeights::MaxIr,
    ];

    fn made_up(dates: usize) -> Vec<Vec<f64>> {
        let value = |k: usize, t: usize| ((t * 37 + k * 101 + t * t * 13) % 97) as f64 / 97.0 - 0.4;
        (0..3).map(|k| (0..dates).map(|t| value(k, t)).collect()).collect()
    }

    /// Changing any coefficient that is not known at a date must leave its weights alone; changing
    /// the latest known one must not.
    #[test]
    fn planted_look_ahead_is_caught() {
        let series = made_up(40);
        for known_after in [1, 5, 21] {
            let look = LookBack { window: 10, known_after };
            for kind in KINDS {
                let honest = weights(&series, kind, look);
                for planted in 0..40 {
                    let mut changed = series.clone();
                    changed[1][planted] += 0.9;
                    let found = weights(&changed, kind, look);
                    for date in 0..40 {
                        let same = format!("{:?}", found[date]) == format!("{:?}", honest[date]);
                        let seen = planted + known_after <= date
                            && date < planted + known_after + look.window;
                        let any = honest[date].iter().all(|w| !w.is_nan());
                        let moves = seen && any && kind != CompositeWeights::Equal;
                        assert_eq!(same, !moves, "{kind:?} {known_after}: {planted} at {date}");
                    }
                }
            }
        }
    }

    #[test]
    fn maximal_ir_is_not_beaten_by_its_neighbours() {
        let series = made_up(60);
        let look = LookBack { window: 50, known_after: 1 };
        let w = &weights(&series, CompositeWeights::MaxIr, look)[59];
        let rows: Vec<Vec<f64>> = (9..59).map(|t| series.iter().map(|s| s[t]).collect()).collect();
        let ir = |w: &[f64]| {
            let mean = |f: &dyn Fn(&[f64]) -> f64| rows.iter().map(|r| f(r)).sum::<f64>() / 50.0;
            let m: Vec<f64> = (0..3).map(|k| mean(&|r| r[k])).collect();
            let cov = |a: usize, b: usize| {
                let shrunk = if a == b { 1.0 } else { 1.0 - SHRINKAGE };
                mean(&|r| (r[a] - m[a]) * (r[b] - m[b])) * 50.0 / 49.0 * shrunk
            };
            let variance: f64 = (0..9).map(|i| w[i / 3] * w[i % 3] * cov(i / 3, i % 3)).sum();
            (0..3).map(|k| w[k] * m[k]).sum::<f64>() / variance.sqrt()
        };
        let best = ir(w);
        assert!((w.iter().map(|w| w.abs()).sum::<f64>() - 1.0).abs() < 1e-12);
        for k in 0..3 {
            for step in [-0.05, 0.05] {
                let mut near = w.clone();
                near[k] += step;
                assert!(ir(&near) < best, "{k} {step}");
            }
        }
    }

    #[test]
    fn composites_use_the_factors_that_an_asset_has() {
        let nan = f64::NAN;
        let a = Factor { name: "a".into(), values: vec![1.0, 2.0, nan, nan] };
        let b = Factor { name: "b".into(), values: vec![3.0, nan, 4.0, nan] };
        let weights = vec![vec![nan, nan], vec![0.75, 0.25], vec![0.75, -0.25]];
        let made = combine("c", &[&a, &b], &weights, 1, 2);
        assert_eq!(made.values[..2], [1.5, 2.0]);
        assert!(made.values[2].is_nan() && made.values[3].is_nan());
    }
}
