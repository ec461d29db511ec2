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

/// The returns of one date over all horizons, by place.
#[derive(Clone, Debug, Default)]
pub struct DayReturns {
    orders: Vec<Order>,
    /// For each three horizons and each place: 2 in the field of a horizon with a return.
    live: Vec<Vec<u64>>,
    /// For each horizon and place: the return less the mean, 0 where there is none.
    centred: Vec<Vec<f64>>,
    /// For each horizon and place: 1 where there is a return, else 0.
    there: Vec<Vec<f64>>,
    largest: Vec<f64>,
    row: Vec<f64>,
    known: Vec<f64>,
    labels: Vec<u32>,
}

impl DayReturns {
    /// Takes the returns of each horizon at the places of `order`.
    pub fn prepare(&mut self, order: &[u32], returns: &[&[f64]]) {
        let (n, horizons) = (order.len(), returns.len());
        self.orders.resize(horizons, Order::default());
        self.live.resize(horizons.div_ceil(HORIZONS), Vec::new());
        for field in [&mut self.centred, &mut self.there] {
            field.resize(horizons, Vec::new());
        }
        self.largest.resize(horizons, 0.0);
        self.live.iter_mut().for_each(|live| {
            live.clear();
            live.resize(n, 0);
        });
        for (h, row) in returns.iter().enumerate() {
            let (live, bit) = (&mut self.live[h / HORIZONS], 2 << (FIELD * (h % HORIZONS) as u32));
            self.known.clear();
            self.labels.clear();
            // Near, before it is read in another order.
            self.row.clear();
            self.row.extend_from_slice(row);
            let row = &self.row[..];
            for (place, &asset) in order.iter().enumerate() {
                let r = row[asset as usize];
                if r.is_finite() {
                    self.known.push(r + 0.0);
                    self.labels.push(place as u32);
                    live[place] |= bit;
                }
            }
            self.orders[h].sort(&self.known, &self.labels);
            let mean = self.known.iter().sum::<f64>() / self.known.len().max(1) as f64;
            let (centred, there) = (&mut self.centred[h], &mut self.there[h]);
            for column in [&mut *centred, &mut *there] {
                column.clear();
                column.resize(n, 0.0);
            }
            for (&place, r) in self.labels.iter().zip(&self.known) {
                centred[place as usize] = r - mean;
                there[place as usize] = 1.0;
            }
            self.largest[h] = self.known.iter().fold(0.0, |most, r| r.abs().max(most));
        }
    }
}

/// The coefficients of one factor on one date. Its room is used again for the next.
#[derive(Clone, Debug, Default)]
pub struct Correlator {
    order: Order,
    ranks: Vec<u64>,
    values: Vec<f64>,
    there: Vec<f64>,
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
        self.order.sort(values, places);
        for (word, live) in returns.live.iter().enumerate() {
            self.ranks.clear();
            self.ranks.resize(live.len(), 0);
            let factor_ties = self.rank_live(live);
            for (field, &ties) in factor_ties.iter().enumerate() {
                let horizon = word * HORIZONS + field;
                if let Some(order) = returns.orders.get(horizon) {
                    let mut sums = walk(order, &self.ranks, FIELD * field as u32);
                    sums.factor_ties = ties;
                    into[horizon] = sums.coefficient(least);
                }
            }
        }
    }

    /// Writes doubled ranks among the live assets of three horizons; returns Σ (t³ - t) of each.
    fn rank_live(&mut self, live: &[u64]) -> [i64; HORIZONS] {
        let (labels, ranks) = (&self.order.labels[..], &mut self.ranks[..]);
        let mut ties = [0i64; HORIZONS];
        let (mut seen, mut place) = (0u64, 0);
        for &(start, end) in &self.order.ties {
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

    /// Pearson coefficients, as [`Correlator::ranks`].
    pub fn pearson(
        &mut self,
        values: &[f64],
        places: &[u32],
        returns: &DayReturns,
        least: usize,
        into: &mut [f64],
    ) {
        let n = returns.centred.first().map_or(0, Vec::len);
        for column in [&mut self.values, &mut self.there] {
            column.clear();
            column.resize(n, 0.0);
        }
        let count = values.len().max(1) as f64;
        let mean = values.iter().sum::<f64>() / count;
        for (&place, &x) in places.iter().zip(values) {
            self.values[place as usize] = x - mean;
            self.there[place as usize] = 1.0;
        }
        let (low, high) = vectorised(
            #[inline(always)]
            || range(values),
        );
        let largest = if values.is_empty() { 0.0 } else { high.abs().max(low.abs()) };
        for (h, coefficient) in into.iter_mut().enumerate() {
            let sums = vectorised(
                #[inline(always)]
                || sum_pairs(&self.values, &self.there, &returns.centred[h], &returns.there[h]),
            );
            let [n, x, y, xx, yy, xy] = sums;
            let (xx, yy, xy) = (xx - x * x / n, yy - y * y / n, xy - x * y / n);
            let constant = |squares: f64, largest: f64| {
                let least = ROUNDING * largest;
                squares.is_nan() || squares <= n * least * least
            };
            let none =
                n < least as f64 || constant(xx, largest) || constant(yy, returns.largest[h]);
            *coefficient = if none { f64::NAN } else { xy / (xx * yy).sqrt() };
        }
    }
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
