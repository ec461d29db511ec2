//! How fast a factor changes: turnover of its groups and autocorrelation of its ranks.
//!
//! Both compare a date with the one `period` rows before, as alphalens-reloaded does
//! (`quantile_turnover`, `factor_rank_autocorrelation`); a date without groups on either side has
//! no result. Turnover of a group is the share of its assets that were not in it. Autocorrelation
//! is the correlation of average ranks, made on each date's own assets, over the assets that both
//! dates have; doubled ranks are integers, so its sums are exact.
//!
//! Rows of earlier dates come from the ranks that own them, as many as the longest period, and
//! results are all-gathered. Cost: a sort of each cross-section, and two walks for each period.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::panel::Panel;
use super::past::Past;
use super::ranks::Order;
use crate::communicator::Communicator;
use crate::error::Result;

/// What one factor changes over some dates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stability {
    /// Dates between both sides.
    pub period: usize,
    /// Dates × groups: the share of assets that are new in the group.
    pub turnover: Vec<f64>,
    /// The mean turnover of each group.
    pub mean_turnover: Vec<f64>,
    /// By date.
    pub autocorrelation: Vec<f64>,
    /// Its mean.
    pub mean_autocorrelation: f64,
}

/// Compares `groups` (from [`super::quantiles::cut`]) and the ranks of the `factor` that was cut
/// over each period. Collective.
pub fn run(
    comm: &Communicator,
    past: &mut Past,
    panel: &Panel,
    factor: &[f64],
    groups: &[f64],
    count: usize,
    periods: &[usize],
) -> Result<Vec<Stability>> {
    let (own, n) = (panel.own_dates().len(), panel.assets.len());
    // Rows before the panel are missing anyway.
    let reach = periods.iter().max().map_or(0, |&most| most.min(past.dates(panel).len()));
    let ranks: Vec<f64> = (0..own)
        .into_par_iter()
        .flat_map_iter(|date| doubled_ranks(&factor[date * n..(date + 1) * n]))
        .collect();
    let groups = past.rows_before(comm, panel, groups, reach)?;
    let ranks = past.rows_before(comm, panel, &ranks, reach)?;
    let mut found = Vec::new();
    for &period in periods {
        let compare = |date: usize| {
            let Some(before) = (date + reach).checked_sub(period) else {
                return vec![f64::NAN; count + 1];
            };
            let (before, now) = (before * n..(before + 1) * n, date + reach);
            let now = now * n..(now + 1) * n;
            let mut values = new_members(&groups[before.clone()], &groups[now.clone()], count);
            values.push(rank_correlation(&ranks[before], &ranks[now]));
            values
        };
        let mine: Vec<f64> = (0..own).into_par_iter().flat_map_iter(compare).collect();
        let all = past.gather(comm, &mine)?;
        let rows = || all.chunks_exact(count + 1);
        let means = column_means(&all, count + 1);
        found.push(Stability {
            period,
            turnover: rows().flat_map(|row| &row[..count]).copied().collect(),
            mean_turnover: means[..count].to_vec(),
            autocorrelation: rows().map(|row| row[count]).collect(),
            mean_autocorrelation: means[count],
        });
    }
    Ok(found)
}

/// The share of each group that was not in it before; NaN for an empty group, and for all of them
/// if there were no groups before.
fn new_members(before: &[f64], now: &[f64], count: usize) -> Vec<f64> {
    let mut members = vec![(0u32, 0u32); count];
    let mut known = false;
    for (before, now) in before.iter().zip(now) {
        known |= !before.is_nan();
        if !now.is_nan() {
            let group = &mut members[*now as usize];
            *group = (group.0 + u32::from(before != now), group.1 + 1);
        }
    }
    let share = |(new, all)| if known { f64::from(new) / f64::from(all) } else { f64::NAN };
    members.into_iter().map(share).collect()
}

/// The doubled average rank of each value; NaN for missing ones.
fn doubled_ranks(row: &[f64]) -> Vec<f64> {
    let known: Vec<u32> = (0..row.len() as u32).filter(|&a| row[a as usize].is_finite()).collect();
    let values: Vec<f64> = known.iter().map(|&a| row[a as usize] + 0.0).collect();
    let mut order = Order::default();
    order.sort(&values, &known);
    let mut ranks = vec![f64::NAN; row.len()];
    order.doubled_ranks().for_each(|(asset, rank)| ranks[asset as usize] = rank as f64);
    ranks
}

/// The correlation of doubled ranks, over the pairs that are there; NaN for fewer than 3 or a
/// constant side. Sums of squares of n of them are at most 4 n³: exact for all of `MOST_ASSETS`.
fn rank_correlation(x: &[f64], y: &[f64]) -> f64 {
    let [mut n, mut a, mut b, mut aa, mut bb, mut ab] = [0i64; 6];
    for (x, y) in x.iter().zip(y).filter(|(x, y)| !x.is_nan() && !y.is_nan()) {
        let (x, y) = (*x as i64, *y as i64);
        n += 1;
        (a, b) = (a + x, b + y);
        (aa, bb, ab) = (aa + x * x, bb + y * y, ab + x * y);
    }
    let [n, a, b, aa, bb, ab] = [n, a, b, aa, bb, ab].map(i128::from);
    let (xx, yy) = (n * aa - a * a, n * bb - b * b);
    if n < 3 || xx == 0 || yy == 0 {
        return f64::NAN;
    }
    (n * ab - a * b) as f64 / ((xx as f64).sqrt() * (yy as f64).sqrt())
}

/// Means of the columns of a table, over the rows that are known.
pub(super) fn column_means(table: &[f64], columns: usize) -> Vec<f64> {
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
    use crate::factor::config::{self, Binning, Demean};
    use crate::factor::evaluation_tests::alphalens;
    use crate::factor::fixtures::{close_to, number, table};

    #[test]
    fn turnover_and_autocorrelation_match_alphalens_date_by_date() {
        for (k, name) in [(0, "f00"), (1, "f01")] {
            let found = alphalens(3, k, Demean::Date).remove(1);
            let turnover = table(&format!("al_{name}_turnover.csv"));
            let correlation = table(&format!("al_{name}_autocorr.csv"));
            assert_eq!((turnover.len(), correlation.len()), (35, 35));
            let mut compared = 0;
            for t in 0..35 {
                for (p, stability) in found.stability.iter().enumerate() {
                    let wanted = number(&correlation[t][1 + p]);
                    let correlation = stability.autocorrelation[t];
                    assert!(close_to(correlation, wanted, 1e-14), "{name} {t}: {correlation}");
                    compared += usize::from(wanted.is_finite());
                    for (column, group) in [(1 + p, 0), (3 + p, 4)] {
                        let wanted = number(&turnover[t][column]);
                        let share = stability.turnover[t * 5 + group];
                        assert!(close_to(share, wanted, 0.0), "{name} {t} {group}: {share}");
                    }
                }
            }
            assert!(compared > 55, "{compared}");
        }
    }

    #[test]
    fn all_ranks_have_the_same_bits() {
        let one = alphalens(1, 0, Demean::Date).remove(0);
        assert!(one.stability.iter().all(|s| s.mean_autocorrelation.is_finite()));
        for ranks in [2, 3, 4, 7, 41] {
            for found in alphalens(ranks, 0, Demean::Date) {
                assert_eq!(format!("{found:?}"), format!("{one:?}"), "{ranks}");
            }
        }
    }

    #[test]
    fn groups_by_rank_change_by_hand() {
        let rank = config::Quantiles { count: 2, binning: Binning::Rank, ..Default::default() };
        let row = |values: &[f64]| super::super::quantiles::groups(values, 2, rank.binning);
        let (before, now) = (row(&[1.0, 2.0, 3.0, 4.0]), row(&[1.0, 3.0, 2.0, f64::NAN]));
        assert_eq!(new_members(&before, &now, 2), [0.0, 0.5]);
        let ranks = (doubled_ranks(&[1.0, 2.0, 3.0, 4.0]), doubled_ranks(&[1.0, 3.0, 2.0, 0.0]));
        assert!(close_to(rank_correlation(&ranks.0, &ranks.1), -0.4, 1e-15));
        assert!(rank_correlation(&ranks.0[..2], &ranks.1[..2]).is_nan());
    }
}
