//! One file an algorithm, and the few words that all of them share.
//!
//! An algorithm is a pure function `(problem, topology, rank) -> Plan`. It has no special case for
//! empty shards: steps and rounds of zero elements vanish, on both sides of a message alike.
//! Read `ring` first; `embed` is how algorithms are built from others, `pieces` how a large vector
//! goes through a small workspace.

pub mod binomial;
pub mod bruck;
pub mod circulant;
pub mod direct;
pub mod dissemination;
pub mod doubling;
pub mod embed;
#[cfg(test)]
mod formulas;
pub mod halving;
pub mod hierarchical;
pub mod linear;
pub mod pairwise;
pub mod pieces;
pub mod ring;
pub mod staged;

use std::ops::Range;

use super::{Operand, Plan, Problem, Slice, Step};
use crate::sharding::Sharding;
use crate::topology::Topology;

/// What every algorithm is.
pub type Builder = fn(&Problem, &Topology, usize) -> Plan;

/// The rank `distance` places after `rank` on a circle of `p`.
pub fn after(rank: usize, distance: usize, p: usize) -> usize {
    (rank + distance) % p
}

/// The rank `distance` places before `rank` on a circle of `p`.
pub fn before(rank: usize, distance: usize, p: usize) -> usize {
    (rank + p - distance % p) % p
}

/// The other ranks, starting after `rank`, so that not all ranks turn to the same peer at once.
pub fn others(rank: usize, p: usize) -> impl Iterator<Item = usize> {
    (1..p).map(move |distance| after(rank, distance, p))
}

/// The elements of consecutive shards.
pub fn span(shards: &Sharding, ranks: Range<usize>) -> Range<usize> {
    if ranks.is_empty() {
        return 0..0;
    }
    shards.range(ranks.start).start..shards.range(ranks.end - 1).end
}

/// The elements of `count` shards from that of `first` round the circle: the second range is what
/// lies beyond the end, and often empty.
pub fn circular_span(shards: &Sharding, first: usize, count: usize) -> [Range<usize>; 2] {
    let (p, end) = (shards.ranks(), first + count);
    [span(shards, first..end.min(p)), span(shards, 0..end.saturating_sub(p))]
}

/// The most elements that `count` consecutive shards have, anywhere on the circle.
pub fn largest_circular_span(shards: &Sharding, count: usize) -> usize {
    let len = |first| circular_span(shards, first, count).map(|range| range.len()).iter().sum();
    (0..shards.ranks()).map(len).max().unwrap_or(0)
}

/// Sends `from` to rank `to`.
pub fn send(to: usize, from: Slice) -> Step {
    Step::Send { to, from }
}

/// Receives `into` from rank `from`.
pub fn receive(from: usize, into: Slice) -> Step {
    Step::Receive { from, into }
}

/// Reads `from` in the memory of `peer`.
pub fn pull(peer: usize, from: Slice, into: Slice) -> Step {
    Step::Pull { peer, from, into }
}

/// Copies inside the own memory.
pub fn copy(from: Slice, into: Slice) -> Step {
    Step::Copy { from, into }
}

/// Folds `sources`, from the first to the last.
pub fn reduce(sources: Vec<Operand>, into: Slice, last: bool) -> Step {
    Step::Reduce { sources, into, last }
}

/// Folds two operands of `rank` itself.
pub fn reduce_two(rank: usize, first: Slice, second: Slice, into: Slice, last: bool) -> Step {
    let own = |slice| Operand { rank, slice };
    reduce(vec![own(first), own(second)], into, last)
}

/// The plan of a rank that is alone: the result is the input.
pub fn alone(problem: &Problem) -> Plan {
    let mut plan = Plan::new(0);
    let n = problem.output_len(0);
    plan.round(vec![copy(Slice::input(0..n), Slice::output(0..n))]);
    plan
}

impl Slice {
    /// `len` elements of the workspace from `start`.
    pub fn workspace(start: usize, len: usize) -> Self {
        Slice::scratch(start..start + len)
    }

    /// The elements `range` of this slice, counted from its start.
    pub fn part(&self, range: Range<usize>) -> Self {
        debug_assert!(range.end <= self.len, "{range:?} of {self}");
        Slice::new(self.buffer, self.start + range.start..self.start + range.end)
    }
}
