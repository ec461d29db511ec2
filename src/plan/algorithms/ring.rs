//! Ring: partial results travel once round a circle and grow at every stop.
//!
//! ```text
//! reduce_scatter, rank r of p:                    all_gather, rank r of p:
//!   outgoing = block r-1 of Input                   copy Input to block r of Output
//!   for k in 1..p:                                  for k in 1..p:
//!     send outgoing to r+1                            send block r-k+1 to r+1
//!     receive partial of block r-k-1 from r-1         receive block r-k from r-1
//!     outgoing = partial + own block r-k-1
//!   the last one, block r, is the result
//! ```
//!
//! | | messages a rank | elements sent a rank | reduced a rank |
//! | --- | --- | --- | --- |
//! | reduce_scatter, all_gather | p - 1 | n - c, about (p-1)/p n: the least | n - c, none |
//! | all_reduce = both | 2 (p-1) | 2 (p-1)/p n: the least | n - c |
//!
//! Any p, any shards. Every message goes to a neighbour, so no link carries more than its own.
//! Workspace: two of the largest shards. Reference: P. Patarasuk, X. Yuan, Bandwidth optimal
//! all-reduce algorithms for clusters of workstations, JPDC 69 (2009).

use super::embed::two_halves;
use super::{after, alone, before, copy, receive, reduce_two, send};
use crate::plan::{Plan, Problem, Slice};
use crate::topology::Topology;

/// Block r arrives at its owner r after it has visited everybody else.
pub fn reduce_scatter(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let (shards, p) = (&problem.sharding, problem.ranks());
    if p == 1 {
        return alone(problem);
    }
    let (left, right) = (before(rank, 1, p), after(rank, 1, p));
    let slot = shards.max_count();
    let mut plan = Plan::new(rank);
    plan.scratch = 2 * slot;
    let mut outgoing = Slice::input(shards.range(left));
    for k in 1..p {
        let block = before(rank, k + 1, p);
        // Two slots: the one that is being sent, and the one that is being received.
        let incoming = Slice::workspace(k % 2 * slot, shards.count(block));
        let own = Slice::input(shards.range(block));
        let last = block == rank;
        let sum = if last { Slice::output(0..own.len) } else { incoming };
        plan.round(vec![send(right, outgoing), receive(left, incoming)]);
        plan.round(vec![reduce_two(rank, incoming, own, sum, last)]);
        outgoing = incoming;
    }
    plan
}

/// Every block visits everybody.
pub fn all_gather(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let (shards, p) = (&problem.sharding, problem.ranks());
    if p == 1 {
        return alone(problem);
    }
    let (left, right) = (before(rank, 1, p), after(rank, 1, p));
    let block = |owner| Slice::output(shards.range(owner));
    let own = Slice::input(0..shards.count(rank));
    let mut plan = Plan::new(rank);
    for k in 1..p {
        let incoming = receive(left, block(before(rank, k, p)));
        plan.round(match k {
            1 => vec![copy(own, block(rank)), send(right, own), incoming],
            _ => vec![send(right, block(before(rank, k - 1, p))), incoming],
        });
    }
    plan
}

/// A ring reduce_scatter, then a ring all_gather.
pub fn all_reduce(problem: &Problem, topology: &Topology, rank: usize) -> Plan {
    two_halves(problem, topology, rank, reduce_scatter, all_gather)
}
