//! The factor-weighted portfolio: long what the factor ranks high, short what it ranks low.
//!
//! Weights of a date are the factor less its mean, scaled to Σ abs w = 1; with groups by industry
//! both are done inside each industry first, and the sum is scaled once more (alphalens,
//! `factor_weights`). The return of a date is Σ w r over the assets that have the value and the
//! return. A constant cross-section has no weights.
//!
//! Alpha and beta are those of a regression on the mean return of the same assets, alpha compounded
//! over a year: (1 + a)^(days_per_year / horizon) - 1. The owner of a date computes its row
//! (`sections`); every rank summarises the gathered rows in the order of dates.

use serde::{Deserialize, Serialize};

use super::config::Demean;
use super::statistics::{Summary, summary};

/// Sizes below this share of the largest value are rounding.
pub(super) const ROUNDING: f64 = 1e-12;

/// The portfolio of one factor and horizon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Weighted {
    /// Its return by date, NaN where there is none.
    pub returns: Vec<f64>,
    /// What they are like, with Newey-West lags of horizon - 1.
    pub summary: Summary,
    /// Return in a year that the mean of all assets does not explain.
    pub annual_alpha: f64,
    /// Slope on the mean of all assets.
    pub beta: f64,
}

/// The weights of a cross-section; NaN where it has no value or its industry no spread.
pub fn weights(row: &[f64], industry: &[u16], demean: Demean) -> Vec<f64> {
    let mut weights = row.to_vec();
    match demean {
        Demean::None => scale(&mut weights, &all(row), false),
        Demean::Date => scale(&mut weights, &all(row), true),
        Demean::Industry => {
            let mut members: Vec<(u16, usize)> = all(row)
                .into_iter()
                .map(|asset| (industry.get(asset).copied().unwrap_or(0), asset))
                .collect();
            members.sort_unstable();
            for group in members.chunk_by(|a, b| a.0 == b.0) {
                let assets: Vec<usize> = group.iter().map(|pair| pair.1).collect();
                scale(&mut weights, &assets, true);
            }
            let left = all(&weights);
            scale(&mut weights, &left, false);
        }
    }
    weights
}

fn all(row: &[f64]) -> Vec<usize> {
    (0..row.len()).filter(|&asset| row[asset].is_finite()).collect()
}

/// Takes the mean of some values away if asked, and scales them to Σ abs = 1.
fn scale(values: &mut [f64], assets: &[usize], demean: bool) {
    let n = assets.len() as f64;
    let largest = assets.iter().fold(0.0f64, |most, &a| most.max(values[a].abs()));
    if demean {
        let mean = assets.iter().map(|&a| values[a]).sum::<f64>() / n;
        assets.iter().for_each(|&a| values[a] -= mean);
    }
    let size: f64 = assets.iter().map(|&a| values[a].abs()).sum();
    let size = if size > ROUNDING * largest * n { size } else { f64::NAN };
    assets.iter().for_each(|&a| values[a] /= size);
}

/// What the portfolio of one horizon is like: rows are dates with its return and the mean return
/// of its assets.
pub(super) fn summarise(rows: &[[f64; 2]], horizon: usize, days_per_year: f64) -> Weighted {
    let series: Vec<f64> = rows.iter().map(|row| row[0]).collect();
    let (alpha, beta) = line(rows);
    Weighted {
        summary: summary(&series, 1, horizon.saturating_sub(1)),
        returns: series,
        annual_alpha: (1.0 + alpha).powf(days_per_year / horizon as f64) - 1.0,
        beta,
    }
}

/// The return of the portfolio of a row of values, and the mean return of its assets.
/// [`super::earnings`] does the same for several horizons at once, without industries.
pub(super) fn of_date(
    factor: &[f64],
    returns: &[f64],
    industry: &[u16],
    demean: Demean,
) -> [f64; 2] {
    let both = |(x, r): (&f64, &f64)| if r.is_nan() { f64::NAN } else { *x };
    let row: Vec<f64> = factor.iter().zip(returns).map(both).collect();
    let weights = weights(&row, industry, demean);
    let (mut sum, mut held) = (0.0, false);
    for (w, r) in weights.iter().zip(returns).filter(|pair| pair.0.is_finite()) {
        sum += w * r;
        held = true;
    }
    let assets = all(&row);
    let mean = assets.iter().map(|&a| returns[a]).sum::<f64>() / assets.len() as f64;
    if held { [sum, mean] } else { [f64::NAN; 2] }
}

/// Constant and slope of the first column on the second, over known rows.
fn line(rows: &[[f64; 2]]) -> (f64, f64) {
    let known: Vec<&[f64; 2]> = rows.iter().filter(|row| !row[0].is_nan()).collect();
    let n = known.len() as f64;
    let mean = |c: usize| known.iter().map(|row| row[c]).sum::<f64>() / n;
    let (y, x) = (mean(0), mean(1));
    let product = |a: usize, ma: f64| known.iter().map(|r| (r[a] - ma) * (r[1] - x)).sum::<f64>();
    let slope = product(0, y) / product(1, x);
    (y - slope * x, slope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::factor::evaluation_tests::alphalens;
    use crate::factor::fixtures::{close_to, number, table};

    #[test]
    fn returns_alpha_and_beta_match_alphalens() {
        for (k, name) in [(0, "f00"), (1, "f01")] {
            for (demean, file) in
                [(Demean::Date, "factor_returns"), (Demean::Industry, "factor_returns_groupadj")]
            {
                let found = alphalens(2, k, demean).remove(1).weighted;
                let rows = table(&format!("al_{name}_{file}.csv"));
                let mut compared = 0;
                for (t, row) in rows.iter().enumerate() {
                    for (h, portfolio) in found.iter().enumerate() {
                        let (a, b) = (portfolio.returns[t], number(&row[1 + h]));
                        assert!(close_to(a, b, 1e-14), "{name} {file} {t}: {a} {b}");
                        compared += usize::from(b.is_finite());
                    }
                }
                assert!(compared >= 66, "{compared}");
                assert!(found[0].returns[rows.len()..].iter().all(|r| r.is_nan()));
            }
            let found = alphalens(3, k, Demean::Date).remove(0).weighted;
            let rows = table(&format!("al_{name}_alpha_beta.csv"));
            for (h, portfolio) in found.iter().enumerate() {
                assert!(close_to(portfolio.annual_alpha, number(&rows[0][1 + h]), 1e-12));
                assert!(close_to(portfolio.beta, number(&rows[1][1 + h]), 1e-12));
            }
        }
    }

    #[test]
    fn weights_by_hand() {
        let nan = f64::NAN;
        let found = weights(&[1.0, 2.0, nan, 6.0], &[], Demean::Date);
        assert_eq!(found[..2], [-1.0 / 3.0, -1.0 / 6.0]);
        assert!(found[2].is_nan() && found[3] == 0.5);
        assert_eq!(weights(&[3.0, -1.0], &[], Demean::None), [0.75, -0.25]);
        let found = weights(&[1.0, 3.0, 8.0, 0.0, 5.0], &[0, 0, 1, 1, 2], Demean::Industry);
        assert_eq!(found[..4], [-0.25, 0.25, 0.25, -0.25]);
        assert!(found[4].is_nan());
        assert!(weights(&[0.1; 7], &[], Demean::Date).iter().all(|w| w.is_nan()));
    }
}
