//! Edges on their way to the owners of their targets, in rounds of bounded size.
//!
//! Each rank takes the next edges from its supply, groups them by owner, and exchanges them with
//! all others; what comes goes straight to its row ([`Filling`]). So besides the supply, which
//! shrinks, and the rows, no edge is held twice: [`EDGES_A_ROUND`] are under way, 32 bytes each, or
//! of large graphs one in [`ROUNDS`], since ranks that share cores wait for each other in each.
//!
//! Each edge moves once, 8 bytes (16 with weights). On one rank nothing is grouped or moved.

use std::sync::Arc;

use super::partition::GRAIN;
use super::rows::{Filling, ends};
use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::Result;
use crate::sharding::Sharding;

/// Edges that a rank takes in a round: their keys stay in the second-level cache.
const EDGES_A_ROUND: usize = 1 << 16;
/// At least so many for each rank, so that messages are worth their start.
const EDGES_A_RANK: usize = 1 << 9;
/// At most so many rounds.
const ROUNDS: usize = 128;

/// Edges as keys (see `rows::key`), with their weights if they have any.
#[derive(Default, Debug)]
pub(super) struct Batch {
    pub keys: Vec<u64>,
    pub weights: Vec<f64>,
}

/// Edges that are taken in portions, and need no memory afterwards.
pub(super) trait Supply {
    /// How many there are to take.
    fn len(&self) -> usize;

    /// Takes up to `count`, and appends what they stand for.
    fn take(&mut self, count: usize, into: &mut Batch);
}

/// Moves every edge to its row on the owner of its target. Collective.
pub(super) fn to_owners(
    comm: &Communicator,
    sharding: &Sharding,
    weighted: bool,
    supply: &mut impl Supply,
    filling: &mut Filling,
) -> Result<()> {
    let ranks = comm.ranks();
    let share = comm.all_reduce_vec(&[supply.len() as u64], Op::Max)?[0] as usize;
    let most = EDGES_A_ROUND.max(EDGES_A_RANK * ranks).max(share.div_ceil(ROUNDS));
    let rounds = share.div_ceil(most);
    let owners = Owners::new(sharding);
    let (mut batch, mut grouped) = (Batch::default(), Batch::default());
    for _ in 0..rounds {
        batch.keys.clear();
        batch.weights.clear();
        supply.take(most, &mut batch);
        if ranks == 1 {
            filling.place(&batch.keys, &batch.weights);
            continue;
        }
        let counts = owners.group(&batch, &mut grouped);
        let mut matrix = vec![0u64; ranks * ranks];
        comm.all_gather(&counts[..], &mut matrix)?;
        let matrix: Arc<[usize]> = matrix.iter().map(|&count| count as usize).collect();
        let received = (0..ranks).map(|from| matrix[from * ranks + comm.rank()]).sum();
        // What was sent is grouped elsewhere by now, so its memory takes what comes.
        batch.keys.resize(received, 0);
        comm.all_to_all_by(&matrix, &grouped.keys[..], &mut batch.keys)?;
        if weighted {
            batch.weights.resize(received, 0.0);
            comm.all_to_all_by(&matrix, &grouped.weights[..], &mut batch.weights)?;
        }
        filling.place(&batch.keys, &batch.weights);
    }
    Ok(())
}

/// The owner of each node, one look-up away.
struct Owners {
    ranks: usize,
    /// Cuts are multiples of the grain.
    of_grain: Vec<u32>,
}

impl Owners {
    fn new(sharding: &Sharding) -> Self {
        let owner = |node| sharding.owner(node).unwrap_or(0) as u32;
        let of_grain = (0..sharding.n()).step_by(GRAIN).map(owner).collect();
        Owners { ranks: sharding.ranks(), of_grain }
    }

    fn of(&self, key: u64) -> usize {
        self.of_grain[ends(key).1 as usize / GRAIN] as usize
    }

    /// The edges grouped by the owner of their target, and how many each rank gets.
    fn group(&self, batch: &Batch, grouped: &mut Batch) -> Vec<u64> {
        let mut counts = vec![0u64; self.ranks];
        batch.keys.iter().for_each(|&key| counts[self.of(key)] += 1);
        let mut next: Vec<usize> = vec![0; counts.len()];
        (1..counts.len()).for_each(|rank| next[rank] = next[rank - 1] + counts[rank - 1] as usize);
        grouped.keys.resize(batch.keys.len(), 0);
        grouped.weights.resize(batch.weights.len(), 0.0);
        for (i, &key) in batch.keys.iter().enumerate() {
            let at = &mut next[self.of(key)];
            grouped.keys[*at] = key;
            if let Some(&weight) = batch.weights.get(i) {
                grouped.weights[*at] = weight;
            }
            *at += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::partition::balance;
    use crate::graph::rows::{Duplicates, Rows, key};
    use crate::launch;

    #[test]
    fn every_edge_goes_to_the_owner_of_its_target() {
        for ranks in 1..=9 {
            for n in [2u32, 15, 16, 17, 100, 1000] {
                let edge = |i: u32| (i * i % n, i * 31 % (n - 1));
                let keys: Vec<u64> = (0..500).map(edge).map(|(a, b)| key(a, b)).collect();
                let weights = (0..500).map(|i| f64::from(i % 7) * 0.1).collect();
                let batch = Batch { keys, weights };
                let mut degrees = vec![0u32; n as usize];
                batch.keys.iter().for_each(|&key| degrees[ends(key).1 as usize] += 1);
                let sharding = balance(degrees.iter().copied(), ranks);
                let mut grouped = Batch::default();
                let counts = Owners::new(&sharding).group(&batch, &mut grouped);
                let counts: Vec<usize> = counts.iter().map(|&count| count as usize).collect();
                let moves = Sharding::from_counts(&counts);
                assert_eq!((moves.ranks(), moves.n()), (ranks, 500));
                for rank in 0..ranks {
                    for &key in &grouped.keys[moves.range(rank)] {
                        assert_eq!(sharding.owner(ends(key).1 as usize), Some(rank));
                    }
                }
                let pairs = |batch: &Batch| {
                    let weights = batch.weights.iter().map(|w| w.to_bits());
                    let mut pairs: Vec<_> = batch.keys.iter().copied().zip(weights).collect();
                    pairs.sort_unstable();
                    pairs
                };
                assert_eq!(pairs(&batch), pairs(&grouped));
            }
        }
    }

    /// The edges `first`, `first + step`, … of a graph that needs several rounds.
    struct Numbers {
        next: u32,
        step: u32,
        end: u32,
    }

    const NODES: u32 = 1000;

    impl Supply for Numbers {
        fn len(&self) -> usize {
            (self.end - self.next.min(self.end)).div_ceil(self.step) as usize
        }

        fn take(&mut self, count: usize, into: &mut Batch) {
            for _ in 0..count.min(self.len()) {
                let i = self.next;
                into.keys.push(key(i.wrapping_mul(7919) % NODES, i.wrapping_mul(31) % NODES));
                into.weights.push(f64::from(i % 5));
                self.next += self.step;
            }
        }
    }

    #[test]
    fn all_rounds_arrive_whatever_the_ranks_and_their_shares() {
        let count = 3 * EDGES_A_ROUND as u32 + 5;
        let mut all = Batch::default();
        Numbers { next: 0, step: 1, end: count }.take(count as usize, &mut all);
        let n = NODES as usize;
        let expected = Rows::build(0..n, &all.keys, &all.weights, Duplicates::Sum);
        for ranks in [1, 2, 3] {
            // Rank 0 has all edges, or each its share.
            for shared in [false, true] {
                let rows = launch::threads(ranks, |comm| {
                    let rank = comm.rank() as u32;
                    let (next, step) = if shared { (rank, ranks as u32) } else { (0, 1) };
                    let end = if shared || rank == 0 { count } else { 0 };
                    let mut supply = Numbers { next, step, end };
                    let sharding = balance(vec![1u32; n].into_iter(), comm.ranks());
                    let own = sharding.range(comm.rank());
                    let lengths = expected.offsets[own.start..=own.end].windows(2);
                    let lengths = lengths.map(|row| (row[1] - row[0]) as u32);
                    let mut filling = Filling::new(own, lengths, true);
                    to_owners(comm, &sharding, true, &mut supply, &mut filling)?;
                    filling.finish(Duplicates::Sum)
                });
                let rows = rows.unwrap();
                let found = rows.iter().flat_map(Rows::iter);
                assert!(found.eq(expected.iter()), "{ranks} ranks, shared: {shared}");
            }
        }
    }
}
