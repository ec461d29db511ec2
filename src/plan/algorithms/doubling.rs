//! Recursive doubling: each round doubles the group whose data a rank has.
//!
//! ```text
//! for d = 1, 2, 4, … p/2:
//!   exchange with rank r xor d:
//!     all_gather: the shards of the own group of d ranks
//!     all_reduce: the partial result of the whole vector, combined with that of the lower rank
//!                 first, so that all ranks get the same bits
//! ```
//!
//! log2 p messages a rank. all_gather sends n - c elements, about (p-1)/p n, the least possible,
//! and needs no workspace. all_reduce sends and reduces n log2 p elements: for short vectors.
//! p must be a power of two; any shards. Reference: Thakur, Rabenseifner, Gropp (2005).

use super::{alone, copy, receive, reduce_two, send, span};
use crate::plan::{Plan, Problem, Slice};
use crate::topology::Topology;

/// The shards of a group of ranks double in each round.
pub fn all_gather(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let (shards, p) = (&problem.sharding, problem.ranks());
    if p == 1 {
        return alone(problem);
    }
    let own = Slice::input(0..shards.count(rank));
    let mut plan = Plan::new(rank);
    let mut d = 1;
    while d < p {
        let group = |member: usize| {
            let first = member / d * d;
            Slice::output(span(shards, first..first + d))
        };
        let (mine, incoming) = (group(rank), receive(rank ^ d, group(rank ^ d)));
        plan.round(match d {
            1 => vec![copy(own, mine), send(rank ^ d, own), incoming],
            _ => vec![send(rank ^ d, mine), incoming],
        });
        d *= 2;
    }
    plan
}

/// Whole vectors are exchanged and combined.
pub fn all_reduce(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let (n, p) = (problem.sharding.n(), problem.ranks());
    if p == 1 {
        return alone(problem);
    }
    let (incoming, sum) = (Slice::workspace(0, n), Slice::output(0..n));
    let mut plan = Plan::new(rank);
    plan.scratch = n;
    let mut partial = Slice::input(0..n);
    let mut d = 1;
    while d < p {
        let partner = rank ^ d;
        let [first, second] =
            if rank < partner { [partial, incoming] } else { [incoming, partial] };
        plan.round(vec![send(partner, partial), receive(partner, incoming)]);
        plan.round(vec![reduce_two(rank, first, second, sum, 2 * d == p)]);
        partial = sum;
        d *= 2;
    }
    plan
}
