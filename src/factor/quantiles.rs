//! Returns by quantile of a factor.
//!
//! Assets of a date are cut into `count` groups of equal size by average rank: equal values stay
//! together, in the group of their average rank, floor((rank - ½) · count / n), so the order of
//! assets decides nothing and ties drop no date. `qcut` cuts at the edges that pandas computes,
//! and a date whose edges coincide has no groups, as in alphalens.
//!
//! Returns are relative to their mean of the date (or of the industry on the date) and averaged
//! over each group, then over dates; the standard error is that of the mean over dates. `tails`
//! puts the ⌊n / count⌋ highest and lowest assets into the outer groups, as qlib does. The owner of
//! a date computes its row. Rows are all-gathered, and every rank averages them in the order of
//! dates.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::config::{self, Binning, Demean};
use super::panel::Panel;
use super::past::Past;
use super::preprocess::quantile;
use super::ranks::Order;
use super::returns::Forward;
use super::stability::column_means;
use super::statistics::{Summary, summary};
use crate::communicator::Communicator;
use crate::error::Result;

/// Returns of the groups of one factor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// How many groups.
    pub count: usize,
    /// For each horizon: dates × groups mean returns, NaN for an empty group.
    pub by_date: Vec<Vec<f64>>,
    /// For each horizon: the mean over dates of each group.
    pub mean: Vec<Vec<f64>>,
    /// For each horizon: the standard error of each mean.
    pub standard_error: Vec<Vec<f64>>,
    /// For each horizon: the highest less the lowest group, by date, divided as configured.
    pub spread: Vec<Vec<f64>>,
    /// For each horizon: what the spread is like, with Newey-West lags of horizon - 1.
    pub spread_summary: Vec<Summary>,
}

/// The group of each value, from 0; NaN for values that are missing.
pub fn groups(row: &[f64], count: usize, binning: Binning) -> Vec<f64> {
    let mut groups = vec![f64::NAN; row.len()];
    let known: Vec<u32> = (0..row.len() as u32).filter(|&a| row[a as usize].is_finite()).collect();
    let values: Vec<f64> = known.iter().map(|&a| row[a as usize]).collect();
    let n = known.len();
    // qcut spreads even fewer values over its bins.
    if n == 0 || n < count && binning != Binning::Qcut {
        return groups;
    }
    match binning {
        Binning::Rank => {
            let mut order = Order::default();
            order.sort(&values, &known);
            for (asset, doubled) in order.doubled_ranks() {
                // (rank - 1/2) · count / n, in integers.
                let group = (doubled as usize - 1) * count / (2 * n);
                groups[asset as usize] = group as f64;
            }
        }
        Binning::Tails => {
            let mut order = Order::default();
            order.sort(&values, &known);
            // Equal values at the upper edge: the first assets are taken.
            let mut highest = order.labels.clone();
            highest.sort_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]));
            let tail = n / count;
            // What is left is cut evenly into the inner groups; two groups have none.
            for (place, &asset) in order.labels.iter().enumerate().filter(|_| count > 2) {
                let inner = place.saturating_sub(tail) * (count - 2) / (n - 2 * tail).max(1);
                groups[asset as usize] = (1 + inner.min(count - 3)) as f64;
            }
            order.labels[..tail].iter().for_each(|&asset| groups[asset as usize] = 0.0);
            let top = (count - 1) as f64;
            highest[..tail].iter().for_each(|&asset| groups[asset as usize] = top);
        }
        Binning::Qcut => {
            let mut room = values.clone();
            let edges: Vec<f64> =
                (0..=count).map(|i| quantile(&mut room, i as f64 / count as f64)).collect();
            if edges.windows(2).all(|pair| pair[0] < pair[1]) {
                for (&asset, x) in known.iter().zip(&values) {
                    // Intervals are closed above; the lowest one is closed below as well.
                    let group = edges[1..count].iter().filter(|&edge| x > edge).count();
                    groups[asset as usize] = group as f64;
                }
            }
        }
    }
    groups
}

/// Returns less the mean of the date or of the industry, over assets that have a group.
fn demeaned(returns: &[f64], groups: &[f64], industry: &[u16], how: Demean) -> Vec<f64> {
    let counts = |a: usize| returns[a].is_finite() && !groups[a].is_nan();
    let key = |a: usize| match how {
        Demean::Industry => industry.get(a).map_or(0, |&g| usize::from(g)),
        Demean::None | Demean::Date => 0,
    };
    let most = (0..returns.len()).map(key).max().unwrap_or(0);
    let mut sums = vec![(0.0, 0u32); most + 1];
    for a in (0..returns.len()).filter(|&a| counts(a)) {
        sums[key(a)].0 += returns[a];
        sums[key(a)].1 += 1;
    }
    let mean = |a: usize| {
        if how == Demean::None { 0.0 } else { sums[key(a)].0 / f64::from(sums[key(a)].1) }
    };
    (0..returns.len()).map(|a| if counts(a) { returns[a] - mean(a) } else { f64::NAN }).collect()
}

/// The mean of each group; NaN for one without values.
fn means(values: &[f64], groups: &[f64], count: usize) -> Vec<f64> {
    let mut sums = vec![(0.0, 0u32); count];
    for (x, group) in values.iter().zip(groups).filter(|(x, group)| !x.is_nan() && !group.is_nan())
    {
        let sum = &mut sums[*group as usize];
        *sum = (sum.0 + x, sum.1 + 1);
    }
    sums.into_iter().map(|(sum, n)| sum / f64::from(n)).collect()
}

/// The groups of a factor (own dates × assets).
pub fn cut(assets: usize, factor: &[f64], options: &config::Quantiles) -> Vec<f64> {
    let rows = factor.par_chunks(assets.max(1));
    rows.flat_map_iter(|row| groups(row, options.count, options.binning)).collect()
}

/// Measures groups that [`cut`] made (own dates × assets, as the panel). Collective.
pub fn run(
    comm: &Communicator,
    past: &mut Past,
    panel: &Panel,
    grouped: &[f64],
    forward: &Forward,
    options: &config::Quantiles,
) -> Result<Quantiles> {
    let (n, count) = (panel.assets.len(), options.count);
    let dates = panel.own_dates().len();
    let cells = |date: usize| date * n..(date + 1) * n;
    let mut by_date = Vec::new();
    for returns in &forward.values {
        let own: Vec<f64> = (0..dates)
            .into_par_iter()
            .flat_map_iter(|date| {
                let industry = panel.industry.get(cells(date)).unwrap_or(&[]);
                let groups = &grouped[cells(date)];
                let relative = demeaned(&returns[cells(date)], groups, industry, options.demean);
                means(&relative, groups, count)
            })
            .collect();
        by_date.push(past.gather(comm, &own)?);
    }
    let spread: Vec<Vec<f64>> = by_date
        .iter()
        .map(|table| {
            let spread = |row: &[f64]| (row[count - 1] - row[0]) / options.spread_divisor;
            table.chunks_exact(count).map(spread).collect()
        })
        .collect();
    Ok(Quantiles {
        count,
        mean: by_date.iter().map(|table| column_means(table, count)).collect(),
        spread_summary: spread
            .iter()
            .zip(&forward.horizons)
            .map(|(series, h)| summary(series, 1, h.saturating_sub(1)))
            .collect(),
        standard_error: by_date.iter().map(|table| standard_errors(table, count)).collect(),
        spread,
        by_date,
    })
}

/// Standard errors of the means of columns, n - 1, over the rows that are known.
fn standard_errors(table: &[f64], columns: usize) -> Vec<f64> {
    (0..columns)
        .map(|c| {
            let known: Vec<f64> =
                table.iter().skip(c).step_by(columns).copied().filter(|x| !x.is_nan()).collect();
            let n = known.len() as f64;
            let mean = known.iter().sum::<f64>() / n;
            let squares: f64 = known.iter().map(|x| (x - mean) * (x - mean)).sum();
            (squares / (n - 1.0) / n).sqrt()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::factor::evaluation_tests::{alphalens, evaluate};
    use crate::factor::fixtures::{close_to, number, table};

    #[test]
    fn groups_by_rank_keep_ties_together_and_sizes_equal() {
        let row = [5.0, f64::NAN, 1.0, 4.0, 2.0, 3.0, 0.0];
        let found = groups(&row, 3, Binning::Rank);
        assert_eq!(format!("{found:?}"), "[2.0, NaN, 0.0, 2.0, 1.0, 1.0, 0.0]");
        let tied = groups(&[1.0, 1.0, 1.0, 1.0, 0.0, 2.0], 3, Binning::Rank);
        assert_eq!(tied, [1.0, 1.0, 1.0, 1.0, 0.0, 2.0]);
        assert!(groups(&[1.0, 1.0, 1.0, 2.0], 2, Binning::Qcut).iter().all(|g| g.is_nan()));
        assert_eq!(groups(&[1.0, 2.0, 3.0, 4.0], 2, Binning::Qcut), [0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn tails_hold_as_many_as_qlib_takes() {
        let row = [3.0, f64::NAN, 1.0, 3.0, 2.0, 0.0, 3.0, 0.0];
        let found = groups(&row, 3, Binning::Tails);
        assert_eq!(format!("{found:?}"), "[2.0, NaN, 1.0, 2.0, 1.0, 0.0, 1.0, 0.0]");
        for n in 5..40 {
            let row: Vec<f64> = (0..n).map(|i| (i * 7 % 11) as f64).collect();
            let found = groups(&row, 5, Binning::Tails);
            let size = |g: usize| found.iter().filter(|&&x| x == g as f64).count();
            assert_eq!((size(0), size(4)), (n / 5, n / 5));
            assert_eq!((0..5).map(size).sum::<usize>(), n);
        }
        let found = groups(&[1.0, 2.0, 0.0], 2, Binning::Tails);
        assert!(found[0].is_nan() && found[1..] == [1.0, 0.0]);
    }

    #[test]
    fn more_groups_than_a_byte_can_number() {
        let row: Vec<f64> = (0..1_000).map(|i| (i * 37 % 1_000) as f64).collect();
        for binning in [Binning::Rank, Binning::Qcut, Binning::Tails] {
            let found = groups(&row, 1_000, binning);
            assert_eq!(found, row, "{binning:?}");
            let found = groups(&row, 300, binning);
            assert_eq!(found.iter().copied().fold(0.0, f64::max), 299.0, "{binning:?}");
        }
    }

    #[test]
    fn mean_returns_match_alphalens() {
        for (k, name) in [(0, "f00"), (1, "f01")] {
            let found = alphalens(2, k, Demean::Date).remove(0).quantiles;
            for (group, row) in table(&format!("al_{name}_qret.csv")).iter().enumerate() {
                for h in 0..2 {
                    let (a, b) = (found.mean[h][group], number(&row[1 + h]));
                    assert!(close_to(a, b, 1e-12), "group {group} horizon {h}: {a} {b}");
                    let (a, b) = (found.standard_error[h][group], number(&row[3 + h]));
                    assert!(close_to(a, b, 1e-12), "group {group} horizon {h}: {a} {b}");
                }
            }
        }
    }

    #[test]
    fn all_ranks_have_the_same_bits() {
        for demean in [Demean::None, Demean::Date, Demean::Industry] {
            let mut config = config::Config::default();
            config.quantiles.demean = demean;
            let one = evaluate(1, 5, &config).remove(0);
            assert!(one.quantiles.mean[0].iter().any(|x| x.is_finite()));
            assert!(one.stability[0].mean_turnover.iter().any(|x| x.is_finite()));
            for ranks in [2, 3, 4, 7, 41] {
                for found in evaluate(ranks, 5, &config) {
                    assert_eq!(format!("{found:?}"), format!("{one:?}"), "{ranks}");
                }
            }
        }
    }
}
