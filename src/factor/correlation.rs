//! How alike factors are: correlations of their cross-sections, averaged over dates.
//!
//! The owner of a date correlates every pair of its factors over the assets that have both. Sums
//! over dates are exact (`reduce::exact`) and all-reduced as integers, 568 bytes a pair, so the
//! mean has the same bits at any number of ranks, and less crosses than a table by dates would.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::ic::Column;
use super::panel::{Factor, Panel};
use super::past::Past;
use super::preprocess::sum_pairs;
use crate::communicator::Communicator;
use crate::error::Result;
use crate::reduce::exact::{ExactSum, LIMBS};
use crate::reduce::simd::vectorised;

/// Mean correlations of factors; none by default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Correlations {
    /// The names of the factors.
    pub factors: Vec<String>,
    /// Factors × factors; NaN for a pair that no date knows.
    pub mean: Vec<f64>,
    /// Factors × factors: how many dates know the pair.
    pub dates: Vec<u64>,
}

impl Correlations {
    /// The mean correlation of two factors (numbers).
    pub fn of(&self, a: usize, b: usize) -> f64 {
        self.mean[a * self.factors.len() + b]
    }
}

/// Correlates processed factors of the own dates. Collective.
pub fn run(
    comm: &Communicator,
    past: &mut Past,
    panel: &Panel,
    factors: &[Factor],
) -> Result<Correlations> {
    let (k, n) = (factors.len(), panel.assets.len());
    let pairs: Vec<(usize, usize)> = (0..k).flat_map(|a| (0..a).map(move |b| (a, b))).collect();
    let dates = panel.own_dates().len();
    let mut by_date = vec![f64::NAN; dates * pairs.len()];
    let rows = by_date.par_chunks_mut(pairs.len().max(1)).enumerate();
    rows.for_each_init(Vec::new, |columns, (date, row)| of_date(factors, columns, date, n, row));
    let mut limbs: Vec<i64> = Vec::with_capacity(pairs.len() * (LIMBS + 1));
    for pair in 0..pairs.len() {
        let mut sum = ExactSum::new();
        let mut known = 0;
        let of_pair = by_date.iter().skip(pair).step_by(pairs.len());
        for &coefficient in of_pair.filter(|x| !x.is_nan()) {
            sum.add(coefficient);
            known += 1;
        }
        limbs.extend(sum.limbs());
        limbs.push(known);
    }
    let limbs = past.sum(comm, &limbs)?;
    let mut result = Correlations {
        factors: factors.iter().map(|f| f.name.clone()).collect(),
        mean: vec![1.0; k * k],
        dates: vec![past.dates(panel).len() as u64; k * k],
    };
    for (&(a, b), limbs) in pairs.iter().zip(limbs.chunks_exact(LIMBS + 1)) {
        let known = limbs[LIMBS];
        let mean = ExactSum::from_limbs(&limbs[..LIMBS]).value() / known as f64;
        for place in [a * k + b, b * k + a] {
            result.mean[place] = mean;
            result.dates[place] = known as u64;
        }
    }
    Ok(result)
}

/// The correlation of each pair on one date, by the first and then the second factor.
fn of_date(factors: &[Factor], columns: &mut Vec<Column>, date: usize, n: usize, into: &mut [f64]) {
    columns.resize_with(factors.len(), Column::default);
    for (factor, column) in factors.iter().zip(columns.iter_mut()) {
        centre(&factor.values[date * n..(date + 1) * n], column);
    }
    let mut rest = into;
    for (a, column) in columns.iter().enumerate() {
        let (row, after) = rest.split_at_mut(a);
        rest = after;
        let mut b = 0;
        while b < a {
            b += match a - b {
                1 => together::<1>(column, &columns[b..], &mut row[b..]),
                2 => together::<2>(column, &columns[b..], &mut row[b..]),
                _ => together::<3>(column, &columns[b..], &mut row[b..]),
            };
        }
    }
}

/// The correlations of a column with some others; returns how many.
fn together<const M: usize>(column: &Column, others: &[Column], into: &mut [f64]) -> usize {
    let of: [&Column; M] = std::array::from_fn(|m| &others[m]);
    let sums = vectorised(
        #[inline(always)]
        || {
            let (y, q) = (of.map(|other| &other.centred[..]), of.map(|other| &other.there[..]));
            sum_pairs(&column.centred, &column.there, y, q)
        },
    );
    for (coefficient, [n, x, y, xx, yy, xy]) in into.iter_mut().zip(sums) {
        let (vx, vy) = (xx - x * x / n, yy - y * y / n);
        let constant = |left: f64, all: f64| left.is_nan() || left <= 1e-20 * all;
        let none = n < 3.0 || constant(vx, xx) || constant(vy, yy);
        *coefficient = if none { f64::NAN } else { (xy - x * y / n) / (vx * vy).sqrt() };
    }
    M
}

/// The values of a row less their mean.
fn centre(row: &[f64], into: &mut Column) {
    let (mut sum, mut count) = (0.0, 0u32);
    for x in row.iter().filter(|x| !x.is_nan()) {
        (sum, count) = (sum + x, count + 1);
    }
    let mean = sum / f64::from(count.max(1));
    let Column { centred, there } = into;
    centred.resize(row.len(), 0.0);
    there.resize(row.len(), 0.0);
    vectorised(
        #[inline(always)]
        || {
            for ((&x, centred), there) in row.iter().zip(&mut centred[..]).zip(&mut there[..]) {
                *centred = if x.is_nan() { 0.0 } else { x - mean };
                *there = if x.is_nan() { 0.0 } else { 1.0 };
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::factor::fixtures::Small;
    use crate::factor::statistics::pearson;
    use crate::launch;
    use crate::sharding::Sharding;

    #[test]
    fn means_match_the_definition_at_any_number_of_ranks() {
        let small = Small::load();
        let mut first: Option<Vec<u64>> = None;
        for ranks in [1, 2, 3, 4, 7, 41] {
            let sharding = Sharding::even(small.dates, ranks);
            let all = launch::threads(ranks, |comm| {
                let panel = small.panel(&sharding, comm.rank());
                run(comm, &mut Past::default(), &panel, &panel.factors)
            })
            .unwrap();
            for found in all {
                let bits: Vec<u64> = found.mean.iter().map(|x| x.to_bits()).collect();
                assert_eq!(*first.get_or_insert_with(|| bits.clone()), bits, "{ranks}");
                let of_date = |date: usize| {
                    let (x, y) =
                        (small.row(&small.factors[0], date), small.row(&small.factors[6], date));
                    let pairs = x.iter().copied().zip(y.iter().copied());
                    pearson(&pairs.filter(|p| !(p.0 + p.1).is_nan()).collect::<Vec<_>>())
                };
                let known: Vec<f64> =
                    (0..small.dates).map(of_date).filter(|x| !x.is_nan()).collect();
                let mean = known.iter().sum::<f64>() / known.len() as f64;
                assert!((found.of(0, 6) - mean).abs() < 1e-13);
                assert_eq!(found.dates[6], known.len() as u64);
            }
        }
    }
}
