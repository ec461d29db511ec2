//! A reduce_scatter over the ranks of one node that hands each block of the own shard to a visitor
//! while it is in the first-level cache.
//!
//! What an owner does with the sums (the norm, the step of an optimizer) then costs no pass over
//! memory of its own. The ranks meet twice: once to tell each other where their buffers lie, once
//! when all have read. Between, a rank reads all parts of its shard once and writes, if at all, the
//! own shard of its own buffer.

use std::ops::Range;

use super::Communicator;
use super::contributions::{middle, subtrees};
use crate::element::{Element, Op};
use crate::error::{Error, Result};
use crate::reduce;
use crate::sharding::Sharding;
use crate::transport::memory::{Located, SharedBuffer};
use crate::transport::node_reduce::{NodeReduce, PartAt, Tree};

/// Words by which a rank tells where a part is.
const WORDS: usize = 3;

impl Communicator {
    /// Sums the partial results of all ranks over the canonical tree of `held`, as
    /// `reduce_scatter_partials` does. This rank's, one for each of [`subtrees`] of its part of
    /// `held`, are the first of `buffers`; each has `sharding.n()` elements. `visit` gets the own
    /// shard in order, block by block: the range in the shard, and its sums, or up to `most`
    /// parts which the canonical tree adds up to them. If `keep`, it gets the sums, and they
    /// replace the own shard of the last buffer, which need hold no partial result.
    ///
    /// All ranks must be on one node. Collective.
    #[track_caller]
    pub(crate) fn reduce_scatter_blocks<T: Element>(
        &self,
        sharding: &Sharding,
        held: &Sharding,
        buffers: &mut [&mut SharedBuffer<T>],
        (keep, most): (bool, usize),
        mut visit: impl FnMut(Range<usize>, &[&[T]]),
    ) -> Result<()> {
        let (n, own) = (sharding.n(), sharding.range(self.rank()));
        self.agree(self.check_blocks(sharding, held, buffers))?;
        let parts = self.all_parts(held, buffers)?;
        let trees: Vec<Range<usize>> =
            (0..self.ranks()).flat_map(|rank| subtrees(held.n(), held.range(rank))).collect();
        let tree = tree_of(&(0..held.n()), &trees, 0);
        let keep = buffers.last_mut().filter(|_| keep).map(|buffer| &mut **buffer);
        let kernel = reduce::kernel(T::DTYPE, Op::Sum);
        let registry = &self.context().registry;
        let Some(mut sums) =
            NodeReduce::new(registry, &parts, keep, (n, own.clone()), kernel, &tree)
        else {
            let what = format!("reduce_scatter_blocks: the parts {parts:?} are not {n} elements");
            return Err(Error::internal(what).on_rank(self.rank()));
        };
        let len = sums.block_len(&tree, most);
        for start in (0..own.len()).step_by(len) {
            let block = start..own.len().min(start + len);
            visit(block.clone(), &sums.parts(&tree, block, most));
        }
        drop(sums);
        self.barrier()
    }

    fn check_blocks<T: Element>(
        &self,
        sharding: &Sharding,
        held: &Sharding,
        buffers: &[&mut SharedBuffer<T>],
    ) -> Result<()> {
        let (nodes, ranks) = (self.topology().nodes(), self.ranks());
        if nodes != 1 || sharding.ranks() != ranks || held.ranks() != ranks || held.n() == 0 {
            return Err(Error::input(format!(
                "reduce_scatter_blocks: {ranks} ranks of one node are needed, and shardings of \
                 something over them; there are {nodes} nodes, {} and {} ranks",
                sharding.ranks(),
                held.ranks()
            )));
        }
        let many = subtrees(held.n(), held.range(self.rank())).len();
        let short = buffers.iter().find(|buffer| buffer.len() != sharding.n());
        if buffers.len() < many || short.is_some() {
            return Err(Error::input(format!(
                "reduce_scatter_blocks: {many} buffers of {} elements are needed; there are {} of \
                 {:?}",
                sharding.n(),
                buffers.len(),
                buffers.iter().map(|buffer| buffer.len()).collect::<Vec<_>>()
            ))
            .on_rank(self.rank()));
        }
        Ok(())
    }

    /// Where the partial results of all ranks are, in the order of the tree. Collective; all ranks
    /// have met afterwards.
    fn all_parts<T: Element>(
        &self,
        held: &Sharding,
        buffers: &[&mut SharedBuffer<T>],
    ) -> Result<Vec<PartAt>> {
        let counts: Vec<usize> =
            (0..self.ranks()).map(|r| subtrees(held.n(), held.range(r)).len()).collect();
        let told: Vec<u64> = buffers[..counts[self.rank()]]
            .iter()
            .flat_map(|buffer| {
                let at = buffer.locate(0);
                [at.key, at.offset as u64, buffer.len() as u64]
            })
            .collect();
        let words: Vec<usize> = counts.iter().map(|count| count * WORDS).collect();
        let mut all = vec![0u64; words.iter().sum()];
        self.all_gather_by(&Sharding::from_counts(&words), &told, &mut all)?;
        let ranks = counts.iter().enumerate().flat_map(|(r, &count)| vec![r; count]);
        let world = |rank: usize| self.context().world[rank];
        let parts = ranks.zip(all.chunks_exact(WORDS)).map(|(rank, words)| PartAt {
            world_rank: world(rank),
            located: Located { key: words[0], offset: words[1] as usize },
            n: words[2] as usize,
        });
        Ok(parts.collect())
    }
}

/// The tree over `range` of the leaves, of which `parts` are subtrees, numbered from `first`.
fn tree_of(range: &Range<usize>, parts: &[Range<usize>], first: usize) -> Tree {
    let size = parts.first().map_or(0, |part| part.len());
    let equal = size.is_power_of_two() && parts.iter().all(|part| part.len() == size);
    if parts.len() == 1 || equal {
        // The canonical tree over `k` subtrees of one power of two is that over `k` leaves.
        return Tree::Flat(first..first + parts.len());
    }
    let middle = middle(range);
    let left = parts.partition_point(|part| part.end <= middle);
    let half = |range: Range<usize>, parts: &[Range<usize>], first| {
        Box::new(tree_of(&range, parts, first))
    };
    Tree::Pair(
        half(range.start..middle, &parts[..left], first),
        half(middle..range.end, &parts[left..], first + left),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::communicator::Settings;
    use crate::launch;

    /// Values whose sums round differently in every order.
    fn value(leaf: usize, i: usize) -> f32 {
        let mixed = (leaf * 7919 + i * 104_729 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 40) as f32 * 2f32.powi((mixed % 41) as i32 - 20)
    }

    fn leaf(leaf: usize, n: usize) -> Vec<f32> {
        (0..n).map(|i| value(leaf, i)).collect()
    }

    #[test]
    fn blocks_have_the_bits_of_reduce_scatter_of_contributions() {
        for ranks in 1..=5 {
            for leaves in [1, 2, 3, 4, 6, 7, 8, 12] {
                for n in [0, 1, ranks, 3 * ranks + 2, 2048 * ranks, 2048 * ranks + 77] {
                    launch::threads(ranks, |c| check(c, leaves, n)).unwrap();
                }
            }
        }
    }

    fn check(c: &Communicator, leaves: usize, n: usize) -> Result<()> {
        let (held, sharding) = (Sharding::even(leaves, c.ranks()), Sharding::even(n, c.ranks()));
        let own: Vec<Vec<f32>> = held.range(c.rank()).map(|i| leaf(i, n)).collect();
        let own: Vec<&[f32]> = own.iter().map(Vec::as_slice).collect();
        let expected = c.reduce_scatter_contributions(&sharding, &own, Op::Sum)?;
        // Every rank makes as many buffers as the rank with the most partial results.
        let trees = |rank| subtrees(leaves, held.range(rank));
        let most = (0..c.ranks()).map(|rank| trees(rank).len()).max().unwrap_or(1);
        let mut buffers = Vec::new();
        for _ in 0..most {
            buffers.push(c.shared::<f32>(n)?);
        }
        if c.rank() % 2 == 1 {
            buffers.reverse(); // ranks need not use the same segments
        }
        let trees = trees(c.rank());
        for (tree, buffer) in trees.iter().zip(&mut buffers) {
            let start = held.range(c.rank()).start;
            reduce::combine(&own[tree.start - start..tree.end - start], buffer, Op::Sum);
        }
        let before: Vec<Vec<f32>> = buffers.iter().map(|buffer| buffer.to_vec()).collect();
        for (keep, most) in [(false, 0), (false, 2), (false, 4), (true, 4)] {
            let mut lent: Vec<_> = buffers.iter_mut().take(trees.len().max(1)).collect();
            let mut seen = Vec::new();
            c.reduce_scatter_blocks(&sharding, &held, &mut lent, (keep, most), |range, parts| {
                assert!(parts.len() <= most.max(1) && (parts.len() == 1 || !keep));
                let mut sums = vec![0.0; range.len()];
                reduce::combine(parts, &mut sums, Op::Sum);
                assert_eq!(range.start, seen.len());
                seen.extend(sums);
            })?;
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&seen), bits(&expected), "{leaves} leaves on {}", c.ranks());
            let last = trees.len().max(1) - 1;
            for (i, buffer) in buffers.iter().enumerate() {
                let mut whole = before[i].clone();
                if keep && i == last {
                    whole[sharding.range(c.rank())].copy_from_slice(&expected);
                }
                assert_eq!(bits(buffer), bits(&whole), "nothing else is written");
            }
        }
        Ok(())
    }

    #[test]
    fn ranks_of_several_nodes_and_wrong_lengths_are_refused() {
        let run = |nodes: &[usize], n: usize| {
            launch::threads_on_nodes(nodes, Settings::default(), |c| {
                let (held, sharding) = (Sharding::even(2, 2), Sharding::even(8, 2));
                let mut buffer = c.shared::<f32>(n)?;
                c.reduce_scatter_blocks(&sharding, &held, &mut [&mut buffer], (false, 1), |_, _| {})
            })
            .unwrap_err()
            .message
        };
        assert!(run(&[0, 1], 8).contains("there are 2 nodes"));
        assert!(run(&[0, 0], 7).contains("1 buffers of 8 elements"));
    }
}
