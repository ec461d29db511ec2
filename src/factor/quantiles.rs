//! Returns by quantile of a factor.
//!
//! Assets of a date are cut into `count` groups of equal size by average rank: equal values stay
//! together, in the group of their average rank, floor((rank - ½) · count / n), so the order of
//! assets decides nothing and ties drop no date. `qcut` cuts at the edges that pandas computes,
//! and a date whose edges coincide has no groups, as in alphalens.
//!
//! Returns are relative to their mean of the date (or of the industry on the date) and averaged
//! over each group, then over dates. Turnover of a group is the share of its assets that were not
//! in it the date before. The owner of a date computes its row; turnover reads the row of the date
//! before, from the rank that owns it. Rows are all-gathered, and every rank averages them in the
//! order of dates.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::config::{self, Binning, Demean};
use super::panel::Panel;
use super::past::Past;
use super::preprocess::quantile;
use super::ranks::Order;
use super::returns::Forward;
use super::statistics::{Summary, summary};
use crate::communicator::Communicator;
use crate::error::Result;

/// Returns and turnover of the groups of one factor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// How many groups.
    pub count: usize,
    /// For each horizon: dates × groups mean returns, NaN for an empty group.
    pub by_date: Vec<Vec<f64>>,
    /// For each horizon: the mean over dates of each group.
    pub mean: Vec<Vec<f64>>,
    /// For each horizon: the highest less the lowest group, by date, divided as configured.
    pub spread: Vec<Vec<f64>>,
    /// For each horizon: what the spread is like, with Newey-West lags of horizon - 1.
    pub spread_summary: Vec<Summary>,
    /// Dates × groups: the share of assets that are new in the group.
    pub turnover: Vec<f64>,
    /// The mean turnover of each group.
    pub mean_turnover: Vec<f64>,
}

/// The group of each value, from 0; NaN for values that are missing.
pub fn groups(row: &[f64], count: usize, binning: Binning) -> Vec<f64> {
    let mut groups = vec![f64::NAN; row.len()];
    let known: Vec<u32> = (0..row.len() as u32).filter(|&a| row[a as usize].is_finite()).collect();
    let values: Vec<f64> = known.iter().map(|&a| row[a as usize]).collect();
    let n = known.len();
    if n < count {
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

/// Cuts a factor (own dates × assets, as the panel) and measures its groups. Collective.
pub fn run(
    comm: &Communicator,
    past: &mut Past,
    panel: &Panel,
    factor: &[f64],
    forward: &Forward,
    options: &config::Quantiles,
) -> Result<Quantiles> {
    let (n, count) = (panel.assets.len(), options.count);
    let dates = panel.own_dates().len();
    let cells = |date: usize| date * n..(date + 1) * n;
    let grouped: Vec<f64> = (0..dates)
        .into_par_iter()
        .flat_map_iter(|date| groups(&factor[cells(date)], count, options.binning))
        .collect();
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
    let with_last = past.rows_before(comm, panel, &grouped, 1)?;
    let own: Vec<f64> = (0..dates)
        .flat_map(|date| {
            let (last, now) = (&with_last[cells(date)], &with_last[cells(date + 1)]);
            new_members(last, now, count)
        })
        .collect();
    let turnover = past.gather(comm, &own)?;
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
        spread,
        mean_turnover: column_means(&turnover, count),
        by_date,
        turnover,
    })
}

/// The share of each group that was not in it before; NaN without a date before.
fn new_members(last: &[f64], now: &[f64], count: usize) -> Vec<f64> {
    let mut members = vec![(0u32, 0u32); count];
    let mut known = false;
    for (last, now) in last.iter().zip(now) {
        known |= !last.is_nan();
        if !now.is_nan() {
            let group = &mut members[*now as usize];
            *group = (group.0 + u32::from(last != now), group.1 + 1);
        }
    }
    let share = |(new, all)| if known { f64::from(new) / f64::from(all) } else { f64::NAN };
    members.into_iter().map(share).collect()
}

/// Means of the columns of a table, over the rows that are known.
fn column_means(table: &[f64], columns: usize) -> Vec<f64> {
    (0..columns)
        .map(|c| {
            let known = table.iter().skip(c).step_by(columns).filter(|x| !x.is_nan());
            let (sum, n) = known.fold((0.0, 0u32), |(sum, n), x| (sum + x, n + 1));
            sum / f64::from(n)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::factor::config::Returns;
    use crate::factor::fixtures::{Small, close_to, number, table};
    use crate::factor::returns;
    use crate::launch;
    use crate::sharding::Sharding;

    fn run_on(ranks: usize, k: usize, options: &config::Quantiles) -> Vec<Quantiles> {
        let small = Small::load();
        let sharding = Sharding::even(small.dates, ranks);
        launch::threads(ranks, |comm| {
            let panel = small.panel(&sharding, comm.rank());
            let mut horizons = Returns { horizons: vec![1, 5], ..Returns::default() };
            horizons.fill_prices = true;
            horizons.missing = config::Missing::AllHorizons;
            let forward = returns::forward(comm, &panel, &horizons)?;
            // alphalens cuts what has all returns.
            let factor: Vec<f64> = panel.factors[k]
                .values
                .iter()
                .zip(&forward.values[0])
                .map(|(x, r)| if r.is_nan() { f64::NAN } else { *x })
                .collect();
            run(comm, &mut Past::default(), &panel, &factor, &forward, options)
        })
        .unwrap()
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
    fn mean_returns_match_alphalens() {
        let options = config::Quantiles { binning: Binning::Qcut, ..config::Quantiles::default() };
        let found = run_on(2, 0, &options).remove(0);
        for (group, row) in table("al_f00_qret.csv").iter().enumerate() {
            for h in 0..2 {
                let (a, b) = (found.mean[h][group], number(&row[1 + h]));
                assert!(close_to(a, b, 1e-12), "group {group} horizon {h}: {a} {b}");
            }
        }
    }

    #[test]
    fn all_ranks_have_the_same_bits() {
        for demean in [Demean::None, Demean::Date, Demean::Industry] {
            let options = config::Quantiles { demean, ..config::Quantiles::default() };
            let one = run_on(1, 5, &options).remove(0);
            assert!(one.mean[0].iter().any(|x| x.is_finite()));
            assert!(one.mean_turnover.iter().any(|x| x.is_finite()));
            for ranks in [2, 3, 4, 7, 41] {
                for found in run_on(ranks, 5, &options) {
                    assert_eq!(format!("{found:?}"), format!("{one:?}"), "{ranks}");
                }
            }
        }
    }
}
