//! Linear gather and scatter: the root talks to everybody itself.
//!
//! One round. The root exchanges p - 1 messages and n - c elements, the others one message of
//! their shard. Nothing is forwarded or copied twice, so it wins for large shards; for small ones
//! the p - 1 latencies at the root lose against the tree. Any p, any root, any shards, no
//! workspace.

use super::{copy, others, receive, send};
use crate::plan::{Plan, Problem, Slice, Step};
use crate::topology::Topology;

/// The root receives every shard.
pub fn gather(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let (shards, root) = (&problem.sharding, problem.collective.root().unwrap_or(0));
    let own = Slice::input(0..shards.count(rank));
    let home = |owner| Slice::output(shards.range(owner));
    let mut plan = Plan::new(rank);
    if rank != root {
        plan.round(vec![send(root, own)]);
        return plan;
    }
    let mut steps: Vec<Step> =
        others(root, problem.ranks()).map(|peer| receive(peer, home(peer))).collect();
    steps.push(copy(own, home(root)));
    plan.round(steps);
    plan
}

/// The root sends every shard.
pub fn scatter(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let (shards, root) = (&problem.sharding, problem.collective.root().unwrap_or(0));
    let own = Slice::output(0..shards.count(rank));
    let home = |owner| Slice::input(shards.range(owner));
    let mut plan = Plan::new(rank);
    if rank != root {
        plan.round(vec![receive(root, own)]);
        return plan;
    }
    let mut steps: Vec<Step> =
        others(root, problem.ranks()).map(|peer| send(peer, home(peer))).collect();
    steps.push(copy(home(root), own));
    plan.round(steps);
    plan
}
