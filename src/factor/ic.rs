//! Information coefficients: the correlation of a factor with the returns that follow.
//!
//! A rank coefficient (Spearman) is the Pearson correlation of average ranks. Ranks are doubled, so
//! that average ones are integers, and all their sums are exact integers: only the last division
//! rounds, and the coefficient has the same bits in any order of assets. With n pairs, doubled
//! ranks a, b and runs of t equal values,
//!
//! ```text
//! Σ a b - n (n+1)²,   Σ (a - n - 1)² = (n³ - n - Σ (t³ - t)) / 3.
//! ```
//!
//! Only assets with a value and a return count, and ranks are among them. Nothing is sorted again
//! for that: one walk along the order of the factor counts the live assets of three horizons at
//! once, in three fields of one word, and one walk along the order of each return multiplies.
//! So K factors and H horizons need K + H sorts, not 2KH, and a factor costs one walk for three
//! horizons and one more for each.

use std::collections::VecDeque;

use super::preprocess::{range, sum_pairs};
use super::ranks::Order;
use crate::reduce::simd::vectorised;

/// Bits of a horizon's field in a word.
const FIELD: u32 = 21;
/// Horizons in a word.
const HORIZONS: usize = 3;
const MASK: u64 = (1 << FIELD) - 1;
/// One in each field.
const ONES: u64 = 1 | 1 << FIELD | 1 << (2 * FIELD);
/// The most assets whose doubled ranks fit a field.
pub const MOST_ASSETS: usize = (1 << (FIELD - 1)) - 2;
/// Deviations below this share of the largest return are rounding.
const ROUNDING: f64 = 1e-12;

/// Values by place as sums over pairs want them.
#[derive(Clone, Debug, Default)]
pub(super) struct Column {
    /// The value less the mean, 0 where there is none.
    pub(super) centred: Vec<f64>,
    /// 1 where there is a value, else 0.
    pub(super) there: Vec<f64>,
}

impl Column {
    /// Puts `values` at their places among `n`, less their mean.
    fn scatter(&mut self, n: usize, values: &[f64], places: &[u32]) {
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        let Column { centred, there } = self;
        for column in [&mut *centred, &mut *there] {
            column.clear();
            column.resize(n, 0.0);
        }
        for (&place, x) in places.iter().zip(values) {
            centred[place as usize] = x - mean;
            there[place as usize] = 1.0;
        }
    }
}

/// The returns over one horizon.
#[derive(Clone, Debug, Default)]
struct Returns {
    order: Order,
    column: Column,
    /// The largest in size.
    largest: f64,
}

/// The returns of one date over all horizons, by place.
#[derive(Clone, Debug, Default)]
pub struct DayReturns {
    horizons: VecDeque<Returns>,
    /// For each three horizons and each place: 2 in the field of a horizon with a return.
    live: Vec<Vec<u64>>,
    row: Vec<f64>,
    known: Vec<f64>,
    labels: Vec<u32>,
}

impl DayReturns {
    /// Takes the returns of each horizon at the places of `order`.
    pub fn prepare(&mut self, order: &[u32], returns: &[&[f64]]) {
        self.horizons.resize_with(returns.len(), Returns::default);
        for (horizon, row) in returns.iter().enumerate() {
            let mut taken = std::mem::take(&mut self.horizons[horizon]);
            self.take(order, row, &mut taken);
            self.horizons[horizon] = taken;
        }
        self.find_live(order.len());
    }

    /// Each horizon takes the returns of the next one, and the last one those of `row`: what was
    /// sorted is not sorted again. The places stay the same.
    pub fn follow(&mut self, order: &[u32], row: &[f64]) {
        if let Some(mut taken) = self.horizons.pop_front() {
            self.take(order, row, &mut taken);
            self.horizons.push_back(taken);
        }
        self.find_live(order.len());
    }

    fn take(&mut self, order: &[u32], row: &[f64], into: &mut Returns) {
        self.known.clear();
        self.labels.clear();
        // Near, before it is read in another order.
        self.row.clear();
        self.row.extend_from_slice(row);
        for (place, &asset) in order.iter().enumerate() {
            let r = self.row[asset as usize];
            if r.is_finite() {
                self.known.push(r + 0.0);
                self.labels.push(place as u32);
            }
        }
        into.order.sort(&self.known, &self.labels);
        into.column.scatter(order.len(), &self.known, &self.labels);
        into.largest = self.known.iter().fold(0.0, |most, r| r.abs().max(most));
    }

    fn find_live(&mut self, n: usize) {
        self.live.resize(self.horizons.len().div_ceil(HORIZONS), Vec::new());
        for (word, live) in self.live.iter_mut().enumerate() {
            live.clear();
            live.resize(n, 0);
            for field in 0..HORIZONS {
                if let Some(returns) = self.horizons.get(word * HORIZONS + field) {
                    let shift = FIELD * field as u32 + 1;
                    let marks = live.iter_mut().zip(&returns.column.there);
                    marks.for_each(|(live, there)| *live |= u64::from(*there != 0.0) << shift);
                }
            }
        }
    }
}

/// The coefficients of one factor on one date. Its room is used again for the next.
#[derive(Clone, Debug, Default)]
pub struct Correlator {
    order: Order,
    ranks: Vec<u64>,
    column: Column,
}

/// Sums over the live pairs of a horizon.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    pairs: i64,
    products: i64,
    /// Σ (t³ - t) of both sides.
    factor_ties: i64,
    return_ties: i64,
}

impl Correlator {
    /// Rank coefficients: one for each horizon, NaN where there are fewer than `least` pairs or
    /// a side is constant. `places` are ascending.
    pub fn ranks(
        &mut self,
        values: &[f64],
        places: &[u32],
        returns: &DayReturns,
        least: usize,
        into: &mut [f64],
    ) {
        let mut order = std::mem::take(&mut self.order);
        order.sort(values, places);
        self.ranks_of(&order, returns, least, into);
        self.order = order;
    }

    /// [`Correlator::ranks`] of values that are sorted already; their labels are places.
    pub fn ranks_of(
        &mut self,
        order: &Order,
        returns: &DayReturns,
        least: usize,
        into: &mut [f64],
    ) {
        for (word, live) in returns.live.iter().enumerate() {
            // Places without a value keep rank 0.
            self.ranks.clear();
            self.ranks.resize(live.len(), 0);
            let factor_ties = rank_live(order, live, &mut self.ranks);
            for (field, &ties) in factor_ties.iter().enumerate() {
                let horizon = word * HORIZONS + field;
                if let Some(returns) = returns.horizons.get(horizon) {
                    let mut sums = walk(&returns.order, &self.ranks, FIELD * field as u32);
                    sums.factor_ties = ties;
                    into[horizon] = sums.coefficient(least);
                }
            }
        }
    }

    /// Pearson coefficients, as [`Correlator::ranks`].
    pub fn pearson(
        &mut self,
        values: &[f64],
        places: &[u32],
        returns: &DayReturns,
        least: usize,
        into: &mut [f64],
    ) {
        let Some(first) = returns.horizons.front() else {
            return;
        };
        self.column.scatter(first.column.there.len(), values, places);
        let (low, high) = vectorised(
            #[inline(always)]
            || range(values),
        );
        let largest = if values.is_empty() { 0.0 } else { high.abs().max(low.abs()) };
        // Three horizons at once: their sums fit the vectors of the processor.
        let mut horizon = 0;
        while horizon < returns.horizons.len() {
            let left = returns.horizons.len() - horizon;
            horizon += match left {
                1 => self.together::<1>(returns, horizon, largest, least, into),
                2 => self.together::<2>(returns, horizon, largest, least, into),
                _ => self.together::<3>(returns, horizon, largest, least, into),
            };
        }
    }

    /// Pearson coefficients of some horizons; returns how many.
    fn together<const M: usize>(
        &self,
        returns: &DayReturns,
        first: usize,
        largest: f64,
        least: usize,
        into: &mut [f64],
    ) -> usize {
        let Column { centred, there } = &self.column;
        let of: [&Returns; M] = std::array::from_fn(|m| &returns.horizons[first + m]);
        let sums = vectorised(
            #[inline(always)]
            || {
                let y = of.map(|returns| &returns.column.centred[..]);
                let q = of.map(|returns| &returns.column.there[..]);
                sum_pairs(centred, there, y, q)
            },
        );
        for ((coefficient, returns), [n, x, y, xx, yy, xy]) in
            into[first..].iter_mut().zip(of).zip(sums)
        {
            let (xx, yy, xy) = (xx - x * x / n, yy - y * y / n, xy - x * y / n);
            let constant = |squares: f64, largest: f64| {
                let least = ROUNDING * largest;
                squares.is_nan() || squares <= n * least * least
            };
            let none = n < least as f64 || constant(xx, largest) || constant(yy, returns.largest);
            *coefficient = if none { f64::NAN } else { xy / (xx * yy).sqrt() };
        }
        M
    }
}

/// Writes doubled ranks among the live assets of three horizons; returns Σ (t³ - t) of each.
fn rank_live(order: &Order, live: &[u64], ranks: &mut [u64]) -> [i64; HORIZONS] {
    let labels = &order.labels[..];
    let mut ties = [0i64; HORIZONS];
    let (mut seen, mut place) = (0u64, 0);
    for &(start, end) in &order.ties {
        let (start, end) = (start as usize, end as usize);
        seen = rank_singles(&labels[place..start], live, ranks, seen);
        let run = &labels[start..end];
        let count: u64 = run.iter().map(|&label| live[label as usize]).sum();
        // The average of the doubled ranks seen + 2 … seen + count.
        let rank = seen + (count >> 1) + ONES;
        run.iter().for_each(|&label| ranks[label as usize] = rank);
        for (field, ties) in ties.iter_mut().enumerate() {
            let t = (count >> (FIELD * field as u32 + 1) & (MASK >> 1)) as i64;
            *ties += t * t * t - t;
        }
        (seen, place) = (seen + count, end);
    }
    rank_singles(&labels[place..], live, ranks, seen);
    ties
}

/// Ranks of values that differ; returns what has been seen after them.
fn rank_singles(labels: &[u32], live: &[u64], ranks: &mut [u64], mut seen: u64) -> u64 {
    for &label in labels {
        seen += live[label as usize];
        ranks[label as usize] = seen;
    }
    seen
}

/// One walk along the returns, in ascending order. Ranks of dead assets are 0 and add nothing.
fn walk(order: &Order, ranks: &[u64], shift: u32) -> Sums {
    let rank = |label: u32| (ranks[label as usize] >> shift & MASK) as i64;
    // Σ rank · pairs of returns that differ, whose own doubled rank is 2 · pairs.
    let singles = |labels: &[u32], mut pairs: i64| {
        let mut half = 0;
        for &label in labels {
            let rank = rank(label);
            pairs += i64::from(rank != 0);
            half += rank * pairs;
        }
        (2 * half, pairs)
    };
    let mut sums = Sums::default();
    let mut place = 0;
    for &(start, end) in &order.ties {
        let (start, end) = (start as usize, end as usize);
        let (products, pairs) = singles(&order.labels[place..start], sums.pairs);
        let (mut live, mut total) = (0, 0);
        for &label in &order.labels[start..end] {
            let rank = rank(label);
            live += i64::from(rank != 0);
            total += rank;
        }
        sums.products += products + total * (2 * pairs + live + 1);
        sums.return_ties += live * live * live - live;
        sums.pairs = pairs + live;
        place = end;
    }
    let (products, pairs) = singles(&order.labels[place..], sums.pairs);
    sums.products += products;
    sums.pairs = pairs;
    sums
}

impl Sums {
    fn coefficient(&self, least: usize) -> f64 {
        let n = self.pairs;
        let all = n * n * n - n;
        let (a, b) = (all - self.factor_ties, all - self.return_ties);
        if n < least as i64 || a <= 0 || b <= 0 {
            return f64::NAN;
        }
        let covariance = self.products - n * (n + 1) * (n + 1);
        covariance as f64 / ((a / 3) as f64 * (b / 3) as f64).sqrt()
    }
}

#[cfg(test)]
#[path = "ic_tests.rs"]
mod tests;
