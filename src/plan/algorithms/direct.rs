//! Direct: the ranks of a node read straight from each other's buffers.
//!
//! ```text
//! meet                    now all inputs are there
//! reduce_scatter: Output = fold of the own shard of every rank's Input, in rank order
//! all_gather, all_to_all, gather, scatter, broadcast: pull what is mine from its owner
//! meet                    now nobody reads my buffers any more
//! ```
//!
//! One pass over the data, which is the least that memory can do: a rank reads n and writes c
//! (reduce_scatter), reads n and writes n (all_gather). all_reduce reduces the own shard into the
//! workspace, meets, and pulls the shards of the others: 2 n read, n + c written. No messages, two
//! meets. Needs one node and buffers that lie in its shared memory. Pulls start at the next rank,
//! so that not all ranks read the same peer at once.

use super::{copy, others, pull, reduce};
use crate::plan::{Operand, Plan, Problem, Slice, Step};
use crate::topology::Topology;

/// One fold over the own shard of all inputs.
pub fn reduce_scatter(problem: &Problem, topology: &Topology, rank: usize) -> Plan {
    let mut plan = reduce_scatter_open(problem, topology, rank);
    plan.meet(vec![]);
    plan
}

/// The same without the last meet: for use inside a plan that has another one later.
pub fn reduce_scatter_open(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let count = problem.sharding.count(rank);
    let mut plan = Plan::new(rank);
    plan.meet(vec![fold(problem, rank, Slice::output(0..count))]);
    plan
}

/// Every shard is pulled from its owner.
pub fn all_gather(problem: &Problem, topology: &Topology, rank: usize) -> Plan {
    let mut plan = all_gather_open(problem, topology, rank);
    plan.meet(vec![]);
    plan
}

/// The same without the last meet: for an input that is workspace of an outer plan.
pub fn all_gather_open(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let shards = &problem.sharding;
    let mut plan = Plan::new(rank);
    plan.meet(collect(
        rank,
        problem.ranks(),
        |owner| Slice::input(0..shards.count(owner)),
        |owner| Slice::output(shards.range(owner)),
    ));
    plan
}

/// The own shard is folded, and then the shards of the others are pulled from their workspace, so
/// that the result needs no shared memory.
pub fn all_reduce(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let shards = &problem.sharding;
    let result = |owner| Slice::workspace(0, shards.count(owner));
    let mut plan = Plan::new(rank);
    plan.scratch = shards.max_count();
    plan.meet(vec![fold(problem, rank, result(rank))]);
    let home = |owner| Slice::output(shards.range(owner));
    plan.meet(collect(rank, problem.ranks(), result, home));
    plan
}

/// Every message is pulled from its sender.
pub fn all_to_all(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let mut plan = Plan::new(rank);
    plan.meet(collect(
        rank,
        problem.ranks(),
        |from| Slice::input(problem.sent(from, rank)),
        |from| Slice::output(problem.received(from, rank)),
    ));
    plan.meet(vec![]);
    plan
}

/// The root pulls every shard.
pub fn gather(problem: &Problem, topology: &Topology, rank: usize) -> Plan {
    if problem.collective.root() == Some(rank) {
        return all_gather(problem, topology, rank);
    }
    let mut plan = Plan::new(rank);
    plan.meet(vec![]);
    plan.meet(vec![]);
    plan
}

/// Every rank pulls its shard from the root.
pub fn scatter(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let root = problem.collective.root().unwrap_or(0);
    let shard = Slice::input(problem.sharding.range(rank));
    let mut plan = Plan::new(rank);
    plan.meet(vec![fetch(rank, root, shard, Slice::output(0..shard.len))]);
    plan.meet(vec![]);
    plan
}

/// Every rank pulls the whole vector from the root's `Output`.
pub fn broadcast(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let root = problem.collective.root().unwrap_or(0);
    let whole = Slice::output(0..problem.sharding.n());
    let mut plan = Plan::new(rank);
    plan.meet(if rank == root { vec![] } else { vec![pull(root, whole, whole)] });
    plan.meet(vec![]);
    plan
}

/// A meet is a barrier.
pub fn barrier(_: &Problem, _: &Topology, rank: usize) -> Plan {
    let mut plan = Plan::new(rank);
    plan.meet(vec![]);
    plan
}

/// Folds the own shard of all inputs, in rank order.
fn fold(problem: &Problem, rank: usize, into: Slice) -> Step {
    let slice = Slice::input(problem.sharding.range(rank));
    reduce((0..problem.ranks()).map(|rank| Operand { rank, slice }).collect(), into, true)
}

/// Gets something from every rank, the own one included.
fn collect(
    rank: usize,
    p: usize,
    from: impl Fn(usize) -> Slice,
    into: impl Fn(usize) -> Slice,
) -> Vec<Step> {
    let mut steps = vec![copy(from(rank), into(rank))];
    steps.extend(others(rank, p).map(|peer| pull(peer, from(peer), into(peer))));
    steps
}

/// Gets something from a rank that may be the own one.
fn fetch(rank: usize, peer: usize, from: Slice, into: Slice) -> Step {
    if rank == peer { copy(from, into) } else { pull(peer, from, into) }
}
