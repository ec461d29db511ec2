//! Dissemination barrier: after round k everybody has heard of the 2^k ranks before it.
//!
//! ```text
//! for d = 1, 2, 4, … < p: signal rank r+d, wait for the signal of rank r-d
//! ```
//!
//! ceil(log2 p) messages of one element a rank, any p; what the element holds does not matter.
//! Reference: D. Hensgen, R. Finkel, U. Manber, Two algorithms for barrier synchronization (1988).

use super::{after, before, receive, send};
use crate::plan::{Plan, Problem, Slice};
use crate::topology::Topology;

/// Nobody leaves before all have come.
pub fn barrier(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let p = problem.ranks();
    let mut plan = Plan::new(rank);
    plan.scratch = 2;
    let (signal, heard) = (Slice::workspace(0, 1), Slice::workspace(1, 1));
    let mut d = 1;
    while d < p {
        plan.round(vec![send(after(rank, d, p), signal), receive(before(rank, d, p), heard)]);
        d *= 2;
    }
    plan
}
