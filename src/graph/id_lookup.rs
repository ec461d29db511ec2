//! Where ids stand in the sorted list of all of them.
//!
//! | ids | structure | bytes an id | look-up |
//! | --- | --- | --- | --- |
//! | dense | a bit for each number, with counts of those before | 1.5 bits a number | one access |
//! | sparse | starts of runs with equal high bits, and the list | 8 | two; at worst a search |

use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use crate::communicator::Communicator;
use crate::error::Result;

/// A set of numbers, a bit each.
#[derive(Debug)]
pub(super) struct DenseIds {
    words: Vec<u64>,
    /// The numbers before each word. With more nodes than 32 bits can count they are wrong, but the
    /// graph is refused then.
    before: Vec<u32>,
}

impl DenseIds {
    /// The ids that any rank has in `own`; none is above `largest`. Collective.
    pub(super) fn collect(
        comm: &Communicator,
        largest: u64,
        own: impl FnOnce(&OwnIds),
    ) -> Result<DenseIds> {
        let ranks = comm.ranks();
        let count = (largest as usize / 64 + 1).next_multiple_of(ranks);
        let found = OwnIds { words: (0..count).map(|_| AtomicU64::new(0)).collect() };
        own(&found);
        let mut words: Vec<u64> = found.words.into_iter().map(AtomicU64::into_inner).collect();
        if ranks > 1 {
            // Each rank unites a part of the words for all.
            let mut parts = vec![0u64; count];
            comm.all_to_all(&words[..], &mut parts)?;
            let (united, others) = parts.split_at_mut(count / ranks);
            for other in others.chunks(united.len()) {
                united.iter_mut().zip(other).for_each(|(word, other)| *word |= other);
            }
            comm.all_gather(&*united, &mut words)?;
        }
        let mut sum = 0u32;
        let counts = words.iter().map(|word| {
            let before = sum;
            sum = sum.wrapping_add(word.count_ones());
            before
        });
        let before = counts.collect();
        Ok(DenseIds { words, before })
    }

    /// All ids in order.
    pub(super) fn list(&self) -> Vec<u64> {
        let count = self.words.iter().map(|word| word.count_ones() as usize).sum();
        let mut ids = Vec::with_capacity(count);
        for (base, &word) in (0u64..).step_by(64).zip(&self.words) {
            let mut word = word;
            while word != 0 {
                ids.push(base + u64::from(word.trailing_zeros()));
                word &= word - 1;
            }
        }
        ids
    }

    /// The position of an id that is in the set.
    #[inline]
    pub(super) fn position(&self, id: u64) -> u32 {
        let word = id as usize / 64;
        let lower = self.words[word] & ((1 << (id % 64)) - 1);
        self.before[word].wrapping_add(lower.count_ones())
    }
}

/// The ids of a rank, which several threads may add to.
#[derive(Debug)]
pub(super) struct OwnIds {
    words: Vec<AtomicU64>,
}

impl OwnIds {
    /// Adds an id.
    #[inline]
    pub(super) fn insert(&self, id: u64) {
        let (word, bit) = (&self.words[id as usize / 64], 1 << (id % 64));
        // Most ids are there already, and a look does not take the cache line from others.
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }
}

/// Positions of ids in a sorted list: the high bits of an id lead to a short run to search.
///
/// Hashed ids need about one step; in the worst case it is a binary search.
#[derive(Debug)]
pub(super) struct SparseIds<'i> {
    ids: &'i [u64],
    base: u64,
    shift: u32,
    /// `starts[b]` is the first position whose id has high bits `b` or more.
    starts: Vec<u32>,
}

impl<'i> SparseIds<'i> {
    pub(super) fn new(ids: &'i [u64]) -> Self {
        let base = ids.first().copied().unwrap_or(0);
        let span = ids.last().copied().unwrap_or(0) - base;
        let shift = (0..64).find(|s| span >> s < 2 * ids.len() as u64 + 1).unwrap_or(63);
        let mut starts = vec![0u32; (span >> shift) as usize + 2];
        for &id in ids {
            starts[((id - base) >> shift) as usize + 1] += 1;
        }
        for bucket in 1..starts.len() {
            starts[bucket] += starts[bucket - 1];
        }
        SparseIds { ids, base, shift, starts }
    }

    /// The position of an id that is in the list.
    #[inline]
    pub(super) fn position(&self, id: u64) -> u32 {
        let bucket = ((id - self.base) >> self.shift) as usize;
        let (start, end) = (self.starts[bucket], self.starts[bucket + 1]);
        if end - start <= 1 {
            return start;
        }
        let run = &self.ids[start as usize..end as usize];
        start + run.partition_point(|&other| other < id) as u32
    }
}

/// The distinct of some ids, ascending: sorted in portions, so that repeated ids take no memory
/// for long.
pub(super) fn distinct(ids: impl Iterator<Item = u64>) -> Vec<u64> {
    const PORTION: usize = 1 << 20;
    let (mut all, mut fresh): (Vec<u64>, Vec<u64>) = (Vec::new(), Vec::new());
    let unite = |all: &mut Vec<u64>, fresh: &mut Vec<u64>| {
        fresh.par_sort_unstable();
        fresh.dedup();
        all.append(fresh);
        // Stable, since that sort finds two sorted runs and merges them.
        all.par_sort();
        all.dedup();
    };
    for id in ids {
        fresh.push(id);
        if fresh.len() >= PORTION.max(all.len()) {
            unite(&mut all, &mut fresh);
        }
    }
    unite(&mut all, &mut fresh);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch;

    #[test]
    fn ids_of_all_ranks_are_numbered_in_order() {
        let spread: [fn(u64) -> u64; 4] = [|i| i, |i| i * 3 + 1, |i| i * i, |i| 64 * i + 63];
        for id in spread {
            for (count, ranks) in [(0, 1), (1, 1), (1, 3), (2, 2), (90, 1), (91, 2), (300, 5)] {
                let all: Vec<u64> = (0..count).map(id).collect();
                let largest = all.last().copied().unwrap_or(0);
                let found = launch::threads(ranks, |comm| {
                    let own = |own: &OwnIds| {
                        // Some ids are on several ranks.
                        let of =
                            |i: u64| i as usize * 7 % ranks == comm.rank() || i.is_multiple_of(5);
                        (0..count).filter(|&i| of(i)).for_each(|i| own.insert(id(i)));
                    };
                    let ids = DenseIds::collect(comm, largest, own)?;
                    let places: Vec<u32> = all.iter().map(|&id| ids.position(id)).collect();
                    Ok((ids.list(), places))
                });
                for (list, places) in found.unwrap() {
                    assert_eq!(list, all);
                    assert!(places.into_iter().eq(0..count as u32));
                }
            }
        }
    }

    #[test]
    fn sparse_ids_are_found_at_their_places() {
        let spread: [fn(u64) -> u64; 4] = [
            |i| 1_000_000 + i * 3,
            |i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            |i| u64::MAX - i,
            |i| if i % 2 == 0 { i } else { u64::MAX - i },
        ];
        for id in spread {
            for count in [0, 1, 2, 7, 100] {
                let ids = distinct((0..3 * count).map(|i| id(i % count.max(1))));
                assert_eq!(ids.len() as u64, count);
                assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
                let lookup = SparseIds::new(&ids);
                assert!(ids.iter().zip(0..).all(|(&id, at)| lookup.position(id) == at));
            }
        }
    }

    #[test]
    fn distinct_ids_of_several_portions_are_united() {
        let many = (0..2_500_000u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 1_200_000);
        let found = distinct(many.clone());
        let mut expected: Vec<u64> = many.collect();
        expected.sort_unstable();
        expected.dedup();
        assert!(found == expected);
    }
}
