//! Who owns which range: the only partition arithmetic of the project.
//!
//! A sharding of `n` elements over `ranks` ranks is a list of `ranks + 1` boundaries
//! `0 = b₀ ≤ b₁ ≤ … = n`; rank `r` owns `[b_r, b_{r+1})`. Shards may be empty.
//! Owner look-up is a binary search, O(log ranks); everything else is O(1) or linear in its output.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};

/// Contiguous ranges of `0..n`, one for each rank, in rank order. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Sharding {
    bounds: Arc<[usize]>,
}

/// A range of elements that changes its owner between two shardings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Move {
    /// The owner before.
    pub from: usize,
    /// The owner after.
    pub to: usize,
    /// The elements, in global indices; never empty.
    pub range: Range<usize>,
}

impl Sharding {
    /// Sizes that differ by at most one, the larger ones first.
    ///
    /// # Panics
    /// If `ranks` is zero.
    pub fn even(n: usize, ranks: usize) -> Self {
        assert!(ranks > 0, "a sharding needs at least one rank");
        let (size, larger) = (n / ranks, n % ranks);
        Sharding { bounds: (0..=ranks).map(|r| r * size + r.min(larger)).collect() }
    }

    /// Sizes proportional to `weights` (one for each rank), each within one element of its share
    /// of the prefix. All weights zero means an even sharding.
    ///
    /// # Panics
    /// If `weights` is empty.
    pub fn weighted(n: usize, weights: &[u64]) -> Self {
        assert!(!weights.is_empty(), "a sharding needs at least one rank");
        let total: u128 = weights.iter().map(|&w| u128::from(w)).sum();
        if total == 0 {
            return Sharding::even(n, weights.len());
        }
        let mut before = 0u128;
        let mut bounds = vec![0];
        for &weight in weights {
            before += u128::from(weight);
            let bound = n as u128 * before / total;
            bounds.push(usize::try_from(bound).unwrap_or(n));
        }
        Sharding { bounds: bounds.into() }
    }

    /// Given sizes, one for each rank.
    ///
    /// # Panics
    /// If `counts` is empty or its sum overflows.
    pub fn from_counts(counts: &[usize]) -> Self {
        assert!(!counts.is_empty(), "a sharding needs at least one rank");
        let mut bounds = vec![0usize];
        let mut end = 0usize;
        for &count in counts {
            end = end.checked_add(count).expect("the counts of a sharding overflow");
            bounds.push(end);
        }
        Sharding { bounds: bounds.into() }
    }

    /// Given boundaries: `ranks + 1` numbers that start at 0 and never fall.
    pub fn from_bounds(bounds: Vec<usize>) -> Result<Self> {
        if bounds.len() < 2 || bounds[0] != 0 || bounds.windows(2).any(|w| w[0] > w[1]) {
            return Err(Error::input(format!(
                "boundaries of a sharding start at 0 and never fall; got {bounds:?}"
            )));
        }
        Ok(Sharding { bounds: bounds.into() })
    }

    /// Ranges of about equal cost, where element `i` costs `prefix[i + 1] - prefix[i]`.
    /// Boundaries are multiples of `grain` (or `n`), so that blocks of `grain` elements stay whole.
    ///
    /// # Panics
    /// If `prefix` is empty or `ranks` or `grain` is zero.
    pub fn balanced(prefix: &[u64], ranks: usize, grain: usize) -> Self {
        assert!(!prefix.is_empty() && ranks > 0 && grain > 0, "balanced needs ranks and a grain");
        let n = prefix.len() - 1;
        let (base, total) = (prefix[0], u128::from(prefix[n] - prefix[0]));
        let mut bounds = vec![0];
        for rank in 1..ranks {
            let target = base + (total * rank as u128 / ranks as u128) as u64;
            let after = prefix.partition_point(|&p| p < target).min(n);
            let (low, high) = (after / grain * grain, after.next_multiple_of(grain).min(n));
            let nearer = if target.abs_diff(prefix[low]) <= target.abs_diff(prefix[high]) {
                low
            } else {
                high
            };
            bounds.push(nearer.max(bounds[rank - 1]));
        }
        bounds.push(n);
        Sharding { bounds: bounds.into() }
    }

    /// The number of elements.
    pub fn n(&self) -> usize {
        self.bounds[self.ranks()]
    }

    /// The number of ranks.
    pub fn ranks(&self) -> usize {
        self.bounds.len() - 1
    }

    /// The elements that `rank` owns.
    pub fn range(&self, rank: usize) -> Range<usize> {
        self.bounds[rank]..self.bounds[rank + 1]
    }

    /// How many elements `rank` owns.
    pub fn count(&self, rank: usize) -> usize {
        self.bounds[rank + 1] - self.bounds[rank]
    }

    /// The largest shard.
    pub fn max_count(&self) -> usize {
        (0..self.ranks()).map(|r| self.count(r)).max().unwrap_or(0)
    }

    /// True when all shards have the same size.
    pub fn is_uniform(&self) -> bool {
        (1..self.ranks()).all(|r| self.count(r) == self.count(0))
    }

    /// The rank that owns element `index`; `None` beyond the end.
    pub fn owner(&self, index: usize) -> Option<usize> {
        (index < self.n()).then(|| self.bounds.partition_point(|&b| b <= index) - 1)
    }

    /// The parts of `range` with their owners, in order, without empty ones.
    pub fn intersections(
        &self,
        range: Range<usize>,
    ) -> impl Iterator<Item = (usize, Range<usize>)> {
        let end = range.end.min(self.n());
        let first = self.owner(range.start).unwrap_or(self.ranks());
        (first..self.ranks())
            .map_while(move |rank| {
                let own = self.range(rank);
                (own.start < end).then(|| (rank, own.start.max(range.start)..own.end.min(end)))
            })
            .filter(|(_, part)| !part.is_empty())
    }

    /// What has to move, or stay, to get from this sharding to `to`: every element exactly once,
    /// in index order, as the longest ranges that have one owner before and one after.
    ///
    /// # Panics
    /// If the two shardings have different lengths.
    pub fn moves(&self, to: &Sharding) -> Vec<Move> {
        assert_eq!(self.n(), to.n(), "resharding keeps the number of elements");
        let mut moves = Vec::new();
        for from in 0..self.ranks() {
            for (owner, range) in to.intersections(self.range(from)) {
                moves.push(Move { from, to: owner, range });
            }
        }
        moves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_partition(sharding: &Sharding) {
        let mut next = 0;
        for rank in 0..sharding.ranks() {
            let range = sharding.range(rank);
            assert_eq!(range.start, next);
            assert_eq!(range.len(), sharding.count(rank));
            for index in range.clone() {
                assert_eq!(sharding.owner(index), Some(rank));
            }
            next = range.end;
        }
        assert_eq!(next, sharding.n());
        assert_eq!(sharding.owner(next), None);
    }

    #[test]
    fn even_is_a_partition_with_sizes_that_differ_by_at_most_one() {
        for n in 0..=40 {
            for ranks in 1..=40 {
                let sharding = Sharding::even(n, ranks);
                assert_partition(&sharding);
                let smallest = (0..ranks).map(|r| sharding.count(r)).min().unwrap();
                assert!(sharding.max_count() - smallest <= 1);
                assert_eq!(sharding.is_uniform(), n % ranks == 0);
            }
        }
    }

    #[test]
    fn weighted_follows_the_weights() {
        for n in 0..=30 {
            for weights in
                [vec![1], vec![0, 0, 0], vec![0, 3, 1], vec![5, 0, 0, 7], vec![u64::MAX; 3]]
            {
                let sharding = Sharding::weighted(n, &weights);
                assert_partition(&sharding);
                let total: u128 = weights.iter().map(|&w| u128::from(w)).sum();
                for (rank, &weight) in weights.iter().enumerate().filter(|_| total > 0) {
                    let share = (n as f64) * weight as f64 / total as f64;
                    assert!((sharding.count(rank) as f64 - share).abs() <= 1.0);
                }
            }
        }
    }

    #[test]
    fn balanced_keeps_blocks_whole_and_costs_near_the_share() {
        for n in 0..=40usize {
            for ranks in 1..=9 {
                for grain in [1, 2, 3, 8] {
                    let cost = |i: usize| (i as u64 * 7919 + 13) % 11;
                    let mut prefix = vec![0u64];
                    (0..n).for_each(|i| prefix.push(prefix[i] + cost(i)));
                    let sharding = Sharding::balanced(&prefix, ranks, grain);
                    assert_partition(&sharding);
                    for rank in 0..ranks {
                        let start = sharding.range(rank).start;
                        assert!(start.is_multiple_of(grain) || start == n);
                        let ideal = prefix[n] as f64 * rank as f64 / ranks as f64;
                        let slack = 11.0 * grain as f64;
                        assert!((prefix[start] as f64 - ideal).abs() <= slack);
                    }
                }
            }
        }
    }

    #[test]
    fn explicit_bounds_are_checked() {
        assert!(Sharding::from_bounds(vec![0]).is_err());
        assert!(Sharding::from_bounds(vec![1, 2]).is_err());
        assert!(Sharding::from_bounds(vec![0, 3, 2]).is_err());
        assert_partition(&Sharding::from_bounds(vec![0, 0, 3, 3, 5]).unwrap());
        assert_partition(&Sharding::from_counts(&[0, 4, 0, 1, 0]));
    }

    #[test]
    fn intersections_tile_every_range() {
        let sharding = Sharding::from_counts(&[2, 0, 3, 0, 0, 1]);
        for start in 0..=8 {
            for end in start..=8 {
                let parts: Vec<_> = sharding.intersections(start..end).collect();
                let flat: Vec<usize> = parts.iter().flat_map(|(_, r)| r.clone()).collect();
                assert_eq!(flat, (start..end.min(6)).collect::<Vec<_>>());
                for (rank, part) in parts {
                    assert!(!part.is_empty());
                    assert!(part.clone().all(|i| sharding.owner(i) == Some(rank)));
                }
            }
        }
    }

    #[test]
    fn moves_bring_every_element_from_its_owner_to_its_owner() {
        for n in 0..=17 {
            for (before, after) in [(1, 4), (4, 1), (3, 5), (5, 3), (7, 7), (2, 20)] {
                for from in [Sharding::even(n, before), Sharding::weighted(n, &vec![3; before])] {
                    let mut weights = vec![1; after];
                    weights[0] = 0;
                    let to = Sharding::weighted(n, &weights);
                    let mut next = 0;
                    for m in from.moves(&to) {
                        assert_eq!(m.range.start, next);
                        assert!(!m.range.is_empty());
                        for index in m.range.clone() {
                            assert_eq!(from.owner(index), Some(m.from));
                            assert_eq!(to.owner(index), Some(m.to));
                        }
                        next = m.range.end;
                    }
                    assert_eq!(next, n);
                }
            }
        }
    }
}
