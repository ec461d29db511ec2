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
//! a date computes its row (`sections`); every rank averages the gathered rows in the order of
//! dates.

use serde::{Deserialize, Serialize};

use super::config::{self, Binning};
use super::preprocess::quantile;
use super::ranks::Order;
use super::stability::column_means;
use super::standing::{group_of, standing};
use super::statistics::{Summary, summary};

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

/// Cuts a sorted cross-section, whose labels are assets, into groups: writes the [`standing`] of
/// each of its assets, with its rank among those that have a group, and leaves the others alone.
/// False, with nothing written, if there are no groups.
pub(super) fn cut(order: &Order, count: usize, binning: Binning, into: &mut [u32]) -> bool {
    let n = order.labels.len();
    // qcut spreads even fewer values over its bins.
    if n == 0 || n < count && binning != Binning::Qcut {
        return false;
    }
    match binning {
        Binning::Rank => {
            let (mut group, mut next) = (0, 2 * n);
            order.each_rank(|asset, doubled| {
                // The group is (rank - 1/2) · count / n, rounded down, in integers.
                while (doubled as usize - 1) * count >= next {
                    (group, next) = (group + 1, next + 2 * n);
                }
                into[asset as usize] = standing(doubled, group);
            });
            true
        }
        Binning::Tails => {
            cut_tails(order, count, into);
            // Of two tails the asset in the middle is in none, and counts for no rank.
            let mut below = 0;
            order.each_run(|run| {
                let many = run.iter().filter(|&&asset| into[asset as usize] != 0).count() as u32;
                let rank = 2 * below + many + 1;
                below += many;
                for &asset in run {
                    let stands = &mut into[asset as usize];
                    *stands |= if *stands != 0 { rank } else { 0 };
                }
            });
            true
        }
        Binning::Qcut => {
            let mut room = order.sorted().to_vec();
            let edges: Vec<f64> =
                (0..=count).map(|i| quantile(&mut room, i as f64 / count as f64)).collect();
            if !edges.windows(2).all(|pair| pair[0] < pair[1]) {
                return false;
            }
            let (mut group, mut values) = (0, order.sorted().iter());
            order.each_rank(|asset, doubled| {
                // Intervals are closed above; the lowest one is closed below as well.
                let x = values.next().copied().unwrap_or(f64::NAN);
                while group + 1 < count && x > edges[group + 1] {
                    group += 1;
                }
                into[asset as usize] = standing(doubled, group);
            });
            true
        }
    }
}

/// The n / count lowest and highest assets, and the rest in inner groups, still without ranks.
fn cut_tails(order: &Order, count: usize, into: &mut [u32]) {
    let n = order.labels.len();
    let tail = n / count;
    // What is left is cut evenly into the inner groups; two groups have none.
    for (place, &asset) in order.labels.iter().enumerate() {
        let inner = place.saturating_sub(tail) * (count - 2) / (n - 2 * tail).max(1);
        let group = if count > 2 { 1 + inner.min(count - 3) } else { 0 };
        into[asset as usize] = if count > 2 { standing(0, group) } else { 0 };
    }
    order.labels[..tail].iter().for_each(|&asset| into[asset as usize] = standing(0, 0));
    // From the highest run of equal values down, the first assets of each are taken.
    let (mut end, mut left) = (n, tail);
    let mut ties = order.ties.iter().rev().peekable();
    while left > 0 {
        let start = match ties.next_if(|tie| tie.1 as usize == end) {
            Some(tie) => tie.0 as usize,
            None => end - 1,
        };
        let taken = left.min(end - start);
        for &asset in &order.labels[start..start + taken] {
            into[asset as usize] = standing(0, count - 1);
        }
        (end, left) = (start, left - taken);
    }
}

/// The mean return of each group, less the mean of its industry on the date, over assets with a
/// return and a group. [`super::earnings`] does the same without industries.
pub(super) fn by_industry(
    returns: &[f64],
    standings: &[u32],
    industry: &[u16],
    count: usize,
    into: &mut [f64],
) {
    let key = |a: usize| industry.get(a).map_or(0, |&g| usize::from(g));
    let counts = |&a: &usize| returns[a].is_finite() && standings[a] != 0;
    let most = (0..returns.len()).map(key).max().unwrap_or(0);
    let mut industries = vec![(0.0, 0u32); most + 1];
    for a in (0..returns.len()).filter(counts) {
        let sum = &mut industries[key(a)];
        *sum = (sum.0 + returns[a], sum.1 + 1);
    }
    let mut groups = vec![(0.0, 0u32); count];
    for a in (0..returns.len()).filter(counts) {
        let (sum, n) = industries[key(a)];
        let group = &mut groups[group_of(standings[a]) - 1];
        *group = (group.0 + (returns[a] - sum / f64::from(n)), group.1 + 1);
    }
    let means = groups.into_iter().map(|(sum, n)| sum / f64::from(n));
    into.iter_mut().zip(means).for_each(|(into, mean)| *into = mean);
}

/// What mean returns by date (for each horizon dates × groups) are like.
pub(super) fn summarise(
    by_date: Vec<Vec<f64>>,
    horizons: &[usize],
    options: &config::Quantiles,
) -> Quantiles {
    let count = options.count;
    let spread: Vec<Vec<f64>> = by_date
        .iter()
        .map(|table| {
            let spread = |row: &[f64]| (row[count - 1] - row[0]) / options.spread_divisor;
            table.chunks_exact(count).map(spread).collect()
        })
        .collect();
    Quantiles {
        count,
        mean: by_date.iter().map(|table| column_means(table, count)).collect(),
        spread_summary: spread
            .iter()
            .zip(horizons)
            .map(|(series, h)| summary(series, 1, h.saturating_sub(1)))
            .collect(),
        standard_error: by_date.iter().map(|table| standard_errors(table, count)).collect(),
        spread,
        by_date,
    }
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
    use crate::factor::config::Demean;
    use crate::factor::evaluation_tests::{alphalens, evaluate};
    use crate::factor::fixtures::{close_to, number, table};
    use crate::factor::standing::rank_of;

    /// The group of each value, from 0; NaN for values that are missing.
    fn groups(row: &[f64], count: usize, binning: Binning) -> Vec<f64> {
        let known: Vec<u32> =
            (0..row.len() as u32).filter(|&a| row[a as usize].is_finite()).collect();
        let values: Vec<f64> = known.iter().map(|&a| row[a as usize]).collect();
        let mut order = Order::default();
        order.sort(&values, &known);
        let mut found = vec![0; row.len()];
        let any = cut(&order, count, binning, &mut found);
        assert!(any || found.iter().all(|&standing| standing == 0));
        for (&standing, x) in found.iter().zip(row).filter(|_| any) {
            let ranked = || row.iter().zip(&found).filter(|pair| *pair.1 != 0).map(|pair| pair.0);
            let below = ranked().filter(|&y| y < x).count() as u32;
            let alike = ranked().filter(|&y| y == x).count() as u32;
            let rank = if standing == 0 { 0 } else { 2 * below + alike + 1 };
            assert_eq!(rank_of(standing), rank);
        }
        let group = |&s: &u32| if s == 0 { f64::NAN } else { group_of(s) as f64 - 1.0 };
        found.iter().map(group).collect()
    }

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
