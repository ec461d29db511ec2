//! Pairwise exchange: in round k every rank deals with the rank k after it and the rank k before.
//!
//! ```text
//! for k in 1..p:
//!   send what rank r+k needs of the own input to it
//!   receive what rank r-k has for this rank
//! reduce_scatter: then fold all p contributions at once, in rank order
//! ```
//!
//! | | messages a rank | elements sent a rank | workspace |
//! | --- | --- | --- | --- |
//! | all_to_all | p - 1 | its row without the own part: the least possible | none |
//! | reduce_scatter | p - 1 | n - c | (p-1) of the largest shard |
//! | all_reduce (the above, then ring) | 2 (p-1) | about 2 (p-1)/p n | the same |
//!
//! Any p, any counts. The reductions round once and fold in rank order, so that the bits are those
//! of any other row of the table with `single_rounding`; the price is workspace of about n.

use super::embed::two_halves;
use super::{after, alone, before, copy, receive, reduce, ring, send};
use crate::plan::{Operand, Plan, Problem, Slice};
use crate::topology::Topology;

/// Every message goes straight from its sender to its receiver.
pub fn all_to_all(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let p = problem.ranks();
    let mut plan = Plan::new(rank);
    let own =
        copy(Slice::input(problem.sent(rank, rank)), Slice::output(problem.received(rank, rank)));
    plan.round(vec![own]);
    for k in 1..p {
        let (to, from) = (after(rank, k, p), before(rank, k, p));
        plan.round(vec![
            send(to, Slice::input(problem.sent(rank, to))),
            receive(from, Slice::output(problem.received(from, rank))),
        ]);
    }
    plan
}

/// All contributions to the own shard come in, and are folded in one step.
pub fn reduce_scatter(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let (shards, p) = (&problem.sharding, problem.ranks());
    if p == 1 {
        return alone(problem);
    }
    let count = shards.count(rank);
    let mut plan = Plan::new(rank);
    plan.scratch = (p - 1) * shards.max_count();
    let mut sources = vec![Operand { rank, slice: Slice::input(shards.range(rank)) }; p];
    for k in 1..p {
        let (to, from) = (after(rank, k, p), before(rank, k, p));
        let incoming = Slice::workspace((k - 1) * count, count);
        plan.round(vec![send(to, Slice::input(shards.range(to))), receive(from, incoming)]);
        sources[from].slice = incoming;
    }
    plan.round(vec![reduce(sources, Slice::output(0..count), true)]);
    plan
}

/// A pairwise reduce_scatter, then a ring all_gather.
pub fn all_reduce(problem: &Problem, topology: &Topology, rank: usize) -> Plan {
    two_halves(problem, topology, rank, reduce_scatter, ring::all_gather)
}
