//! Recursive halving: each round halves the group and the part of the vector that is still open.
//!
//! ```text
//! group = all ranks; partial = Input
//! while the group has more than one rank:
//!   keep, give = my half of the group, the other half
//!   send partial[shards of give] to the partner in the other half
//!   receive its partial[shards of keep]
//!   partial = the two combined, that of the lower rank first
//!   group = keep
//! ```
//!
//! log2 p messages a rank and n - c elements sent and reduced, about (p-1)/p n: the least
//! possible of both. p must be a power of two; any shards. Workspace: half the vector and a
//! quarter. Followed by recursive doubling it is Rabenseifner's all_reduce: 2 log2 p messages,
//! 2 (p-1)/p n elements. Reference: R. Thakur, R. Rabenseifner, W. Gropp, Optimization of
//! collective communication operations in MPICH, IJHPCA 19 (2005).

use super::embed::two_halves;
use super::{alone, doubling, receive, reduce_two, send, span};
use crate::plan::{Buffer, Plan, Problem, Slice};
use crate::sharding::Sharding;
use crate::topology::Topology;

/// The largest part of the vector that a group of `size` aligned ranks owns.
fn largest(shards: &Sharding, size: usize) -> usize {
    let groups = shards.ranks() / size.max(1);
    (0..groups).map(|g| span(shards, g * size..(g + 1) * size).len()).max().unwrap_or(0)
}

/// The group shrinks to the own rank, and the partial result to the own shard.
pub fn reduce_scatter(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let (shards, p) = (&problem.sharding, problem.ranks());
    if p == 1 {
        return alone(problem);
    }
    let sums = largest(shards, p / 2);
    let mut plan = Plan::new(rank);
    plan.scratch = sums + if p > 2 { largest(shards, p / 4) } else { 0 };
    let mut group = 0..p;
    let mut partial = Slice::input(0..shards.n());
    while group.len() > 1 {
        let half = group.len() / 2;
        let (low, high) = (group.start..group.start + half, group.start + half..group.end);
        let lower = low.contains(&rank);
        let (keep, give) = if lower { (low, high) } else { (high, low) };
        let base = span(shards, group).start;
        let part = |ranks| {
            let elements = span(shards, ranks);
            partial.part(elements.start - base..elements.end - base)
        };
        let (mine, theirs) = (part(keep.clone()), part(give));
        // The input may not be written, so the first sum replaces what came in.
        let first = partial.buffer == Buffer::Input;
        let incoming = Slice::workspace(if first { 0 } else { sums }, mine.len);
        let last = half == 1;
        let sum = match (last, first) {
            (true, _) => Slice::output(0..mine.len),
            (false, true) => incoming,
            (false, false) => mine,
        };
        let operands = if lower { [mine, incoming] } else { [incoming, mine] };
        plan.round(vec![send(rank ^ half, theirs), receive(rank ^ half, incoming)]);
        plan.round(vec![reduce_two(rank, operands[0], operands[1], sum, last)]);
        (group, partial) = (keep, sum);
    }
    plan
}

/// Rabenseifner: recursive halving, then recursive doubling.
pub fn all_reduce(problem: &Problem, topology: &Topology, rank: usize) -> Plan {
    two_halves(problem, topology, rank, reduce_scatter, doubling::all_gather)
}
