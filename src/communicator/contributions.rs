//! Reductions over logical contributions, of which a rank holds none, one or several.
//!
//! The contributions of all ranks, in rank order, are the leaves of the canonical tree
//! (`plan::table::Canonical`). A rank combines what it can: the largest subtrees that lie wholly in
//! its range, at most two for each power of two. These partial results go to the owners of their
//! shards, who finish the tree. So the bits depend on the contributions and their order only, not
//! on the number of ranks or on who holds which: a batch of 64 micro-batches has the same gradient
//! on 1, 2, 3 or 64 ranks. Where each rank holds an aligned power of two, one vector a rank moves,
//! as in an ordinary reduce_scatter.

use std::ops::Range;

use super::Communicator;
use crate::element::{DType, Element, Op};
use crate::error::{Error, Result};
use crate::reduce::combine;
use crate::sharding::Sharding;

impl Communicator {
    /// Reduces all contributions of all ranks; returns this rank's shard of the result. All
    /// contributions have `sharding.n()` elements. Collective.
    ///
    /// 16-bit floats and averages are an input error: partial results need more than they hold;
    /// widen to f32, and divide the sum.
    #[track_caller]
    pub fn reduce_scatter_contributions<T: Element>(
        &self,
        sharding: &Sharding,
        contributions: &[&[T]],
        op: Op,
    ) -> Result<Vec<T>> {
        if matches!(T::DTYPE, DType::Bf16 | DType::F16) || op == Op::Average {
            return Err(Error::input(format!(
                "contributions of {} cannot be combined by {} in several steps; widen to f32, and \
                 take the sum",
                T::DTYPE,
                op.name()
            )));
        }
        let wrong = contributions.iter().position(|c| c.len() != sharding.n());
        if sharding.ranks() != self.ranks() || wrong.is_some() {
            return Err(Error::input(format!(
                "contributions need {} elements and a sharding for {} ranks; contribution {:?} or \
                 the sharding ({} ranks) differs",
                sharding.n(),
                self.ranks(),
                wrong,
                sharding.ranks()
            )));
        }
        let counts = self.all_gather_vec(&[contributions.len() as u64])?.0;
        let counts: Vec<usize> = counts.into_iter().map(|c| c as usize).collect();
        let held = Sharding::from_counts(&counts);
        if held.n() == 0 {
            return Err(Error::input("no rank has a contribution: there is nothing to reduce"));
        }
        let own = held.range(self.rank());
        let partials: Vec<Vec<T>> = subtrees(held.n(), own.clone())
            .into_iter()
            .map(|tree| {
                let part = &contributions[tree.start - own.start..tree.end - own.start];
                let mut result = vec![T::default(); sharding.n()];
                combine(part, &mut result, op);
                result
            })
            .collect();
        self.reduce_scatter_partials(sharding, &held, &partials, op)
    }

    /// [`Communicator::reduce_scatter_contributions`] of which this rank has combined what it can:
    /// one vector for each of [`subtrees`] of its part of `held`. Collective.
    pub(crate) fn reduce_scatter_partials<T: Element>(
        &self,
        sharding: &Sharding,
        held: &Sharding,
        partials: &[Vec<T>],
        op: Op,
    ) -> Result<Vec<T>> {
        let pieces = self.send_to_owners(sharding, partials)?;
        let trees: Vec<Range<usize>> =
            (0..self.ranks()).flat_map(|rank| subtrees(held.n(), held.range(rank))).collect();
        let mut parts = trees.into_iter().zip(pieces).collect::<Vec<_>>().into_iter().peekable();
        Ok(finish(0..held.n(), &mut parts, op))
    }

    /// Gives each owner its shard of all partial results, in the order of the tree.
    fn send_to_owners<T: Element>(
        &self,
        sharding: &Sharding,
        partials: &[Vec<T>],
    ) -> Result<Vec<Vec<T>>> {
        let owners = 0..self.ranks();
        let outgoing: Vec<T> = owners
            .clone()
            .flat_map(|owner| partials.iter().flat_map(move |p| &p[sharding.range(owner)]))
            .copied()
            .collect();
        let counts: Vec<usize> = owners.map(|o| partials.len() * sharding.count(o)).collect();
        let (incoming, _) = self.all_to_all_vec(&outgoing, &counts)?;
        let shard = sharding.count(self.rank());
        // An empty shard still has as many pieces as there are partial results.
        let many = self.all_reduce_vec(&[partials.len() as u64], Op::Sum)?[0] as usize;
        Ok((0..many).map(|k| incoming[k * shard..(k + 1) * shard].to_vec()).collect())
    }
}

/// The split of a node of the canonical tree.
pub(super) fn middle(tree: &Range<usize>) -> usize {
    tree.start + tree.len().next_power_of_two() / 2
}

/// Whether `left` and `right`, which follow each other, are the two halves of a subtree of the
/// canonical tree over `n` leaves.
pub(crate) fn are_halves(n: usize, left: &Range<usize>, right: &Range<usize>) -> bool {
    let mut tree = 0..n;
    loop {
        if tree.len() < 2 || left.end != right.start {
            return false;
        }
        let middle = middle(&tree);
        if (tree.start, tree.end) == (left.start, right.end) {
            return middle == left.end;
        }
        tree = if right.end <= middle { tree.start..middle } else { middle..tree.end };
        if left.start < tree.start || right.end > tree.end {
            return false;
        }
    }
}

/// The largest subtrees of the canonical tree over `n` leaves that lie wholly in `own`, in order.
pub(crate) fn subtrees(n: usize, own: Range<usize>) -> Vec<Range<usize>> {
    fn visit(tree: Range<usize>, own: &Range<usize>, found: &mut Vec<Range<usize>>) {
        if tree.end <= own.start || own.end <= tree.start || tree.is_empty() {
            return;
        }
        if own.start <= tree.start && tree.end <= own.end {
            found.push(tree);
            return;
        }
        let middle = middle(&tree);
        visit(tree.start..middle, own, found);
        visit(middle..tree.end, own, found);
    }
    let mut found = Vec::new();
    visit(0..n, &own, &mut found);
    found
}

/// Finishes `tree` from its parts, which come in order.
fn finish<T: Element>(
    tree: Range<usize>,
    parts: &mut std::iter::Peekable<impl Iterator<Item = (Range<usize>, Vec<T>)>>,
    op: Op,
) -> Vec<T> {
    if let Some((_, part)) = parts.next_if(|(range, _)| *range == tree) {
        return part;
    }
    let middle = middle(&tree);
    let left = finish(tree.start..middle, parts, op);
    let right = finish(middle..tree.end, parts, op);
    let mut result = vec![T::default(); left.len()];
    combine(&[&left, &right], &mut result, op);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subtrees_tile_every_range_with_few_parts() {
        for n in 1..=33 {
            for start in 0..=n {
                for end in start..=n {
                    let parts = subtrees(n, start..end);
                    let mut next = start;
                    for part in &parts {
                        assert_eq!(part.start, next);
                        next = part.end;
                    }
                    assert_eq!(next, end.max(start));
                    assert!(parts.len() <= 2 * (n.ilog2() as usize + 1));
                }
            }
        }
        assert_eq!(subtrees(8, 3..8), [3..4, 4..8]);
        assert_eq!(subtrees(8, 2..8), [2..4, 4..8]);
    }

    #[test]
    fn adding_one_leaf_after_another_ends_with_the_subtrees() {
        for n in 1..=40 {
            for start in 0..n {
                for end in start + 1..=n {
                    let mut stack: Vec<Range<usize>> = Vec::new();
                    for leaf in start..end {
                        stack.push(leaf..leaf + 1);
                        while let [.., left, right] = &stack[..]
                            && are_halves(n, left, right)
                        {
                            let whole = left.start..right.end;
                            stack.truncate(stack.len() - 2);
                            stack.push(whole);
                        }
                    }
                    assert_eq!(stack, subtrees(n, start..end), "{n} leaves");
                }
            }
        }
    }
}
