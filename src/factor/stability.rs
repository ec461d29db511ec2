//! How fast a factor changes: turnover of its groups and autocorrelation of its ranks.
//!
//! Both compare a date with the one `period` rows before, as alphalens-reloaded does
//! (`quantile_turnover`, `factor_rank_autocorrelation`); a date without groups on either side has
//! no result. Turnover of a group is the share of its assets that were not in it. Autocorrelation
//! is the correlation of average ranks, made on each date's own assets, over the assets that both
//! dates have; doubled ranks are integers, so its sums are exact.
//!
//! Rows of earlier dates come from the ranks that own them, as many as the longest period, and
//! results are all-gathered. Ranks and groups come from the pass that needs them anyway
//! (`sections`), 4 bytes an asset. Cost: two passes over 8 bytes a cell and period.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::panel::Panel;
use super::past::Past;
use super::standing::{group_of, rank_of};
use crate::communicator::Communicator;
use crate::error::Result;
use crate::reduce::simd::vectorised;

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

/// Compares the [`standing`](super::standing) of the assets (own dates × factors × assets) over
/// each period, by factor and period. Collective.
pub(super) fn run(
    comm: &Communicator,
    past: &mut Past,
    panel: &Panel,
    standings: &[u32],
    (factors, count): (usize, usize),
    periods: &[usize],
) -> Result<Vec<Vec<Stability>>> {
    let (own, n) = (panel.own_dates().len(), panel.assets.len());
    // Rows before the panel are missing anyway.
    let reach = periods.iter().max().map_or(0, |&most| most.min(past.dates(panel).len()));
    let earlier = past.rows_before(comm, panel, factors * n, standings, reach)?;
    let (one, width) = (count + 1, factors * periods.len() * (count + 1));
    let row = |date: usize, factor: usize| {
        let at = |date: usize| (date * factors + factor) * n..(date * factors + factor + 1) * n;
        if date < reach { &earlier[at(date)] } else { &standings[at(date - reach)] }
    };
    let mut mine = vec![f64::NAN; own * width];
    let dates = mine.par_chunks_mut(width.max(1)).enumerate();
    dates.for_each_init(Vec::new, |counts, (date, into)| {
        for (i, into) in into.chunks_exact_mut(one).enumerate() {
            let (factor, period) = (i / periods.len(), periods[i % periods.len()]);
            let now = date + reach;
            if let Some(before) = now.checked_sub(period) {
                let (before, now) = (row(before, factor), row(now, factor));
                new_members(before, now, counts, &mut into[..count]);
                into[count] = rank_correlation(before, now);
            }
        }
    });
    let all = past.gather(comm, &mine)?;
    let summarise = |factor: usize, p: usize| {
        let at = (factor * periods.len() + p) * one;
        let rows = || all.chunks_exact(width).map(|row| &row[at..at + one]);
        let means = column_means(rows().flatten().copied().collect::<Vec<f64>>().as_slice(), one);
        Stability {
            period: periods[p],
            turnover: rows().flat_map(|row| &row[..count]).copied().collect(),
            mean_turnover: means[..count].to_vec(),
            autocorrelation: rows().map(|row| row[count]).collect(),
            mean_autocorrelation: means[count],
        }
    };
    let of_factor = |factor| (0..periods.len()).map(|p| summarise(factor, p)).collect();
    Ok((0..factors).into_par_iter().map(of_factor).collect())
}

/// The share of each group that was not in it before; NaN for an empty group, and for all of them
/// if there were no groups before.
fn new_members(before: &[u32], now: &[u32], counts: &mut Vec<[u32; 2]>, into: &mut [f64]) {
    const TABLES: usize = 4;
    // Members of each group, new and old ones, in tables that take turns: an addition would wait
    // for the one before, to the same place.
    let groups = into.len() + 1;
    counts.clear();
    counts.resize(TABLES * groups, [0; 2]);
    let mut known = 0;
    for (i, (&before, &now)) in before.iter().zip(now).enumerate() {
        known |= before;
        let (was, is) = (group_of(before), group_of(now));
        counts[i % TABLES * groups + is][usize::from(was == is)] += 1;
    }
    for (group, share) in (1..groups).zip(into) {
        let count = |which: usize| -> u32 {
            (0..TABLES).map(|table| counts[table * groups + group][which]).sum()
        };
        let (new, old) = (count(0), count(1));
        *share = if known != 0 { f64::from(new) / f64::from(new + old) } else { f64::NAN };
    }
}

/// The correlation of doubled ranks, over the pairs that are there; NaN for fewer than 3 or a
/// constant side. Sums of squares of n of them are at most 4 n³: exact for all of `MOST_ASSETS`.
fn rank_correlation(before: &[u32], now: &[u32]) -> f64 {
    let sums = vectorised(
        #[inline(always)]
        || rank_sums(before, now),
    );
    let [n, a, b, aa, bb, ab] = sums.map(i128::from);
    let (xx, yy) = (n * aa - a * a, n * bb - b * b);
    if n < 3 || xx == 0 || yy == 0 {
        return f64::NAN;
    }
    (n * ab - a * b) as f64 / ((xx as f64).sqrt() * (yy as f64).sqrt())
}

/// Over the pairs of ranks a, b that are there: their number, Σ a, Σ b, Σ a², Σ b², Σ a b.
#[inline(always)]
fn rank_sums(before: &[u32], now: &[u32]) -> [u64; 6] {
    let ((before, before_rest), (now, now_rest)) =
        (before.as_chunks::<LANES>(), now.as_chunks::<LANES>());
    let mut sums = [[0u64; LANES]; 6];
    for (before, now) in before.iter().zip(now) {
        add_ranks(&mut sums, before, now);
    }
    // What is left, filled up with nothing.
    let (mut before, mut now) = ([0; LANES], [0; LANES]);
    before[..before_rest.len()].copy_from_slice(before_rest);
    now[..now_rest.len()].copy_from_slice(now_rest);
    add_ranks(&mut sums, &before, &now);
    sums.map(|sums| sums.iter().sum())
}

const LANES: usize = 8;

/// One vector of pairs.
#[inline(always)]
fn add_ranks(sums: &mut [[u64; LANES]; 6], before: &[u32; LANES], now: &[u32; LANES]) {
    let (mut a, mut b) = ([0u64; LANES], [0u64; LANES]);
    // A loop for each sum: each is one vector.
    for i in 0..LANES {
        let both = before[i] != 0 && now[i] != 0;
        a[i] = if both { u64::from(rank_of(before[i])) } else { 0 };
        b[i] = if both { u64::from(rank_of(now[i])) } else { 0 };
    }
    for i in 0..LANES {
        sums[0][i] += u64::from(a[i] != 0);
    }
    for i in 0..LANES {
        sums[1][i] += a[i];
    }
    for i in 0..LANES {
        sums[2][i] += b[i];
    }
    for i in 0..LANES {
        sums[3][i] += a[i] * a[i];
    }
    for i in 0..LANES {
        sums[4][i] += b[i] * b[i];
    }
    for i in 0..LANES {
        sums[5][i] += a[i] * b[i];
    }
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
    use crate::factor::config::{Binning, Demean};
    use crate::factor::evaluation_tests::alphalens;
    use crate::factor::fixtures::{close_to, number, table};
    use crate::factor::quantiles::cut;
    use crate::factor::ranks::Order;
    use crate::factor::standing::standing;

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
        let nan = f64::NAN;
        let row = |values: &[f64]| -> Vec<u32> {
            let known: Vec<u32> = (0..4).filter(|&a| values[a as usize].is_finite()).collect();
            let values: Vec<f64> = known.iter().map(|&a| values[a as usize]).collect();
            let (mut order, mut found) = (Order::default(), vec![0; 4]);
            order.sort(&values, &known);
            cut(&order, 2, Binning::Rank, &mut found);
            found
        };
        let (before, now) = (row(&[1.0, 2.0, 3.0, 4.0]), row(&[1.0, 3.0, 2.0, nan]));
        let shares = |before: &[u32], now: &[u32]| {
            let mut found = [0.0; 2];
            new_members(before, now, &mut Vec::new(), &mut found);
            found
        };
        assert_eq!(shares(&before, &now), [0.0, 0.5]);
        assert!(shares(&[0; 4], &now).iter().all(|share| share.is_nan()));
        assert!(shares(&before, &[0; 4]).iter().all(|share| share.is_nan()));
        let now = row(&[1.0, 3.0, 2.0, 0.0]);
        assert!(close_to(rank_correlation(&before, &now), -0.4, 1e-15));
        assert!(rank_correlation(&before[..2], &now[..2]).is_nan());
    }

    #[test]
    fn sums_of_ranks_are_those_of_the_definition_for_any_length() {
        for n in 0..40u32 {
            let row = |seed: u32| -> Vec<u32> {
                let rank = |a: u32| (a * 7 + seed) * 104_729 % 2_097_000 + 2;
                let one = |a: u32| {
                    if (a + seed).is_multiple_of(5) { 0 } else { standing(rank(a).into(), 3) }
                };
                (0..n).map(one).collect()
            };
            let (x, y) = (row(1), row(3));
            let pairs = || x.iter().zip(&y).filter(|p| *p.0 != 0 && *p.1 != 0);
            let sum = |term: fn(u64, u64) -> u64| -> u64 {
                pairs().map(|(&a, &b)| term(rank_of(a).into(), rank_of(b).into())).sum()
            };
            let terms: [fn(u64, u64) -> u64; 6] =
                [|_, _| 1, |a, _| a, |_, b| b, |a, _| a * a, |_, b| b * b, |a, b| a * b];
            assert_eq!(rank_sums(&x, &y), terms.map(sum), "{n}");
        }
    }
}
