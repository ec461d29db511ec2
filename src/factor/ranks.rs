//! Sorted orders of cross-sections, with their ties.
//!
//! The values of a date lie in a known range, so a key is (x - min) · scale, rounded to as many
//! bits as make collisions rare (n · 128 steps), above the position of x: one 32-bit word. Two
//! counting passes sort the words, and an insertion pass on the true values settles what the
//! rounding left open; it also makes the order exact, whatever the keys. Values that crowd in a
//! small part of their range (raw, heavy-tailed factors) need many shifts: then, and beyond 2¹⁶
//! values, a comparison sort does it. Cost: five passes over words in the first cache level.

use crate::reduce::simd::vectorised;

/// Most bits of a position in a key.
const POSITION_BITS: u32 = 16;
/// Shifts per value after which the insertion pass gives up.
const SHIFTS: usize = 8;

/// The sorted order of some values, and its room.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// The label of each value, in ascending order of values; equal values in the order of labels.
    pub labels: Vec<u32>,
    /// Runs of equal values: their first place in `labels` and the place after their last.
    pub ties: Vec<(u32, u32)>,
    sorted: Vec<f64>,
    keys: Vec<u32>,
    passed: Vec<u32>,
    counts: [Vec<u32>; 2],
    pairs: Vec<(u64, u32)>,
}

impl Order {
    /// Sorts `labels`, ascending ones, by `values`, which are finite and without -0.
    pub fn sort(&mut self, values: &[f64], labels: &[u32]) {
        let n = values.len();
        // What is in the room is written over; clearing it would cost a pass.
        self.ties.clear();
        self.labels.resize(n, 0);
        self.sorted.resize(n, 0.0);
        if n == 0 {
            return;
        }
        // Compiled for shifts by a register as much as for vectors.
        let sorted = vectorised(
            #[inline(always)]
            || self.by_counting(values, labels),
        );
        if !sorted {
            self.by_comparison(values, labels);
        }
        self.find_ties();
    }

    /// False if the values do not suit it.
    #[inline(always)]
    fn by_counting(&mut self, values: &[f64], labels: &[u32]) -> bool {
        let n = values.len();
        let position_bits = usize::BITS - (n - 1).leading_zeros();
        if position_bits > POSITION_BITS {
            return false;
        }
        let half_bits = (position_bits + 8).min(32 - position_bits) / 2;
        if !self.fill_keys(values, position_bits, 2 * half_bits) {
            return false;
        }
        self.passed.resize(n, 0);
        let Order { keys, passed, counts, .. } = self;
        by_digits(keys, passed, counts, position_bits, half_bits);
        self.settle(values, labels, (1u32 << position_bits) - 1)
    }

    /// Keys that never fall where values rise.
    #[inline(always)]
    fn fill_keys(&mut self, values: &[f64], position_bits: u32, bits: u32) -> bool {
        let (low, high) = super::preprocess::range(values);
        let scale = f64::from((1u32 << bits) - 1) / (high - low);
        self.keys.resize(values.len(), 0);
        if high <= low {
            // All alike: positions alone.
            (0..).zip(&mut self.keys).for_each(|(i, key)| *key = i);
            return true;
        }
        if !scale.is_finite() || scale <= 0.0 {
            return false;
        }
        for (i, (key, &x)) in self.keys.iter_mut().zip(values).enumerate() {
            // Adding 2⁵² leaves the rounded number in the low bits of the fraction.
            let step = ((x - low) * scale + 4_503_599_627_370_496.0).to_bits() as u32;
            *key = step << position_bits | i as u32;
        }
        true
    }

    /// Inserts by true values; false if that takes too long.
    #[inline(always)]
    fn settle(&mut self, values: &[f64], labels: &[u32], mask: u32) -> bool {
        let n = values.len();
        let (values, labels) = (&values[..n], &labels[..n]);
        let (sorted, placed) = (&mut self.sorted[..n], &mut self.labels[..n]);
        for ((sorted, placed), &key) in sorted.iter_mut().zip(&mut *placed).zip(&self.keys[..n]) {
            let position = (key & mask) as usize;
            (*sorted, *placed) = (values[position], labels[position]);
        }
        let mut budget = SHIFTS * n + 64;
        let mut place = 1;
        while let Some(found) = first_fall(sorted, place) {
            let (x, label) = (sorted[found], placed[found]);
            let to = sorted[..found].iter().rposition(|&y| y <= x).map_or(0, |before| before + 1);
            sorted.copy_within(to..found, to + 1);
            placed.copy_within(to..found, to + 1);
            (sorted[to], placed[to]) = (x, label);
            // Finding it costs about as much as eight shifts.
            let cost = found - to + 8;
            if budget < cost {
                return false;
            }
            budget -= cost;
            place = found + 1;
        }
        true
    }

    fn by_comparison(&mut self, values: &[f64], labels: &[u32]) {
        self.pairs.clear();
        self.pairs.extend(values.iter().zip(0..).map(|(x, i)| {
            let bits = x.to_bits();
            // Rises with x: negative values are mirrored.
            (if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }, i)
        }));
        self.pairs.sort_unstable();
        for (place, &(_, position)) in self.pairs.iter().enumerate() {
            self.labels[place] = labels[position as usize];
            self.sorted[place] = values[position as usize];
        }
    }

    fn find_ties(&mut self) {
        let sorted = &self.sorted;
        let equal = vectorised(
            #[inline(always)]
            || sorted.windows(2).map(|pair| usize::from(pair[0] == pair[1])).sum::<usize>(),
        );
        let mut place = 0;
        let mut left = equal;
        while left > 0 {
            let start = place;
            while place + 1 < sorted.len() && sorted[place + 1] == sorted[start] {
                place += 1;
            }
            if place > start {
                self.ties.push((start as u32, place as u32 + 1));
                left -= place - start;
            }
            place += 1;
        }
    }

    /// The values in ascending order.
    pub fn sorted(&self) -> &[f64] {
        &self.sorted
    }

    /// Calls `take` with the labels of each run of equal values, in ascending order.
    pub fn each_run(&self, mut take: impl FnMut(&[u32])) {
        let mut place = 0;
        for &(start, end) in self.ties.iter().chain(&[(self.labels.len() as u32, 0)]) {
            let (start, end) = (start as usize, end as usize);
            self.labels[place..start].chunks_exact(1).for_each(&mut take);
            if end > start {
                take(&self.labels[start..end]);
            }
            place = end;
        }
    }

    /// Calls `take` with the label and the doubled average rank, from 2, of each value in ascending
    /// order.
    #[inline(always)]
    pub fn each_rank(&self, mut take: impl FnMut(u32, u64)) {
        let mut place = 0;
        for &(start, end) in &self.ties {
            let (start, end) = (start as usize, end as usize);
            for (&label, p) in self.labels[place..start].iter().zip(place as u64..) {
                take(label, 2 * p + 2);
            }
            // First and last rank of the run, from 1.
            let rank = (start + end + 1) as u64;
            self.labels[start..end].iter().for_each(|&label| take(label, rank));
            place = end;
        }
        for (&label, p) in self.labels[place..].iter().zip(place as u64..) {
            take(label, 2 * p + 2);
        }
    }
}

/// The first place from `start` whose value is below the one before it.
#[inline(always)]
fn first_fall(sorted: &[f64], start: usize) -> Option<usize> {
    const STEP: usize = 32;
    let mut place = start;
    while place < sorted.len() {
        let end = (place + STEP).min(sorted.len());
        let (before, here) = (&sorted[place - 1..end - 1], &sorted[place..end]);
        let falls = || before.iter().zip(here).map(|(a, b)| b < a);
        // A sum has vectors, a search that ends early has none.
        if falls().map(u64::from).sum::<u64>() > 0 {
            return falls().position(|fall| fall).map(|ahead| place + ahead);
        }
        place = end;
    }
    None
}

/// Sorts by the two digits of `half_bits` above the position; `passed` is room for as many keys.
#[inline(always)]
fn by_digits(
    keys: &mut [u32],
    passed: &mut [u32],
    counts: &mut [Vec<u32>; 2],
    position_bits: u32,
    half_bits: u32,
) {
    let mask = (1usize << half_bits) - 1;
    // As many counters as digits: all that are possible would fill the first cache level.
    for counts in counts.iter_mut() {
        counts.clear();
        counts.resize(mask + 1, 0);
    }
    let [low, high] = counts;
    let (low, high) = (&mut low[..=mask], &mut high[..=mask]);
    for &key in keys.iter() {
        let key = (key >> position_bits) as usize;
        low[key & mask] += 1;
        high[key >> half_bits & mask] += 1;
    }
    for counts in [&mut *low, &mut *high] {
        let mut start = 0;
        for count in counts {
            (*count, start) = (start, start + *count);
        }
    }
    scatter(keys, passed, low, position_bits, mask);
    scatter(passed, keys, high, position_bits + half_bits, mask);
}

/// One counting pass: `counts` holds where each digit goes.
#[inline(always)]
fn scatter(from: &[u32], to: &mut [u32], counts: &mut [u32], shift: u32, mask: usize) {
    for &key in from {
        let place = &mut counts[(key >> shift) as usize & mask];
        to[*place as usize] = key;
        *place += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[f64]) {
        let labels: Vec<u32> = (0..values.len() as u32).map(|i| 3 * i + 1).collect();
        let mut order = Order::default();
        order.sort(values, &labels);
        let mut expected = labels.clone();
        let value = |label: &u32| values[(*label as usize - 1) / 3];
        expected.sort_by(|a, b| value(a).total_cmp(&value(b)));
        assert_eq!(order.labels, expected, "{values:?}");
        let mut ranked = Vec::new();
        order.each_rank(|label, rank| {
            let x = value(&label);
            let below = values.iter().filter(|&&y| y < x).count() as u64;
            let alike = values.iter().filter(|&&y| y == x).count() as u64;
            assert_eq!(rank, 2 * below + alike + 1, "{values:?}");
            ranked.push(label);
        });
        assert_eq!(ranked, order.labels);
        let mut runs = Vec::new();
        order.each_run(|run| {
            assert!(run.iter().all(|label| value(label) == value(&run[0])), "{values:?}");
            runs.push(run.to_vec());
        });
        assert!(runs.windows(2).all(|pair| value(&pair[0][0]) < value(&pair[1][0])));
        assert_eq!(runs.concat(), order.labels);
    }

    #[test]
    fn orders_and_average_ranks_of_all_small_cases() {
        for n in 0..7usize {
            for code in 0..5usize.pow(n as u32) {
                let level = |i: usize| (code / 5usize.pow(i as u32) % 5) as f64;
                check(&(0..n).map(|i| level(i) - 1.5).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn orders_of_awkward_values() {
        let mut state = 5u64;
        let mut random = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        for n in [1, 2, 63, 64, 65, 1000, 2048, 2049] {
            let mut even: Vec<f64> = (0..n).map(|_| random() - 0.5).collect();
            check(&even);
            // Heavy tails crowd the keys; one outlier does too.
            check(&even.iter().map(|x| (60.0 * x).exp()).collect::<Vec<_>>());
            even[n / 2] = 1e300;
            check(&even);
            even[n / 3] = -f64::MAX;
            even[n / 2] = f64::MAX;
            check(&even);
            check(&even.iter().map(|x| x * 5e-324 * 1e10).map(|x| x + 0.0).collect::<Vec<_>>());
            check(&(0..n).map(|i| (i * i % 9) as f64).collect::<Vec<_>>());
            check(&(0..n).map(|i| -(i as f64)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn more_values_than_positions_in_a_key() {
        let n = (1 << POSITION_BITS) + 3;
        let values: Vec<f64> = (0..n).map(|i| ((i * 7919) % n) as f64).collect();
        let labels: Vec<u32> = (0..n as u32).collect();
        let mut order = Order::default();
        order.sort(&values, &labels);
        assert!(order.sorted().windows(2).all(|w| w[0] < w[1]));
        assert!(order.ties.is_empty());
    }
}
