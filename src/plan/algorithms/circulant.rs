//! Circulant reduce_scatter: Bruck's all_gather run backwards, so logarithmic for any p.
//!
//! ```text
//! I have partial results of the shards r, r+1, … r+h-1 (mod p); at first h = p: the input
//! for d = the largest power of two below p, … 4, 2, 1:
//!   send the partial results of the shards r+d … r+h-1 to r+d, which owns the first of them
//!   receive as many from r-d, which start at my own, and add them to mine
//!   h = d
//! ```
//!
//! ceil(log2 p) rounds; n - c elements sent and reduced a rank, about (p-1)/p n: the least possible
//! of all three. Any p, any shards, and never worse than recursive halving, but operands are not
//! neighbours in rank order. all_reduce adds Bruck's all_gather: Rabenseifner's costs for any p.
//! Partial results are packed in the workspace from the own shard on, so that all rounds but the
//! first send one message; the first may wrap round the end of the input. Workspace: the largest d
//! shards, and what comes in. Reference: J. L. Träff, Optimal, non-pipelined reduce-scatter and
//! allreduce algorithms, arXiv 2410.14234 (2024), here with powers of two as distances.

use std::ops::Range;

use super::embed::two_halves;
use super::{
    after, alone, before, bruck, circular_span, copy, largest_circular_span, receive, reduce_two,
    send,
};
use crate::plan::{Plan, Problem, Slice};
use crate::topology::Topology;

/// The circle of shards that a rank still sums up shrinks by half in each round.
pub fn reduce_scatter(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let (shards, p) = (&problem.sharding, problem.ranks());
    if p == 1 {
        return alone(problem);
    }
    let half = p.next_power_of_two() / 2;
    let workspace = largest_circular_span(shards, half);
    let mut plan = Plan::new(rank);
    plan.scratch = workspace + largest_circular_span(shards, (p - half).max(half / 2));
    // The elements of the `count` shards from the own one, and so where the next one is packed.
    let len = |count| circular_span(shards, rank, count).map(|range| range.len()).iter().sum();
    let sums = |range: Range<usize>| Slice::scratch(len(range.start)..len(range.end));

    let mut held = p;
    while held > 1 {
        let d = held.next_power_of_two() / 2;
        let count = held - d;
        let (first, last) = (held == p, d == 1);
        // The partial results of some shards, counted from the own one.
        let partial = |range: Range<usize>| match first {
            true => {
                circular_span(shards, after(rank, range.start, p), range.len()).map(Slice::input)
            }
            false => [sums(range), Slice::scratch(0..0)],
        };
        let mine = partial(0..count);
        let incoming = seam_of(mine, Slice::workspace(workspace, len(count)));
        let result = if last { Slice::output(0..len(1)) } else { sums(0..count) };
        let result = seam_of(mine, result);
        let mut exchange = partial(d..held).map(|part| send(after(rank, d, p), part)).to_vec();
        exchange.extend(incoming.map(|part| receive(before(rank, d, p), part)));
        if first {
            // Nothing is added to these shards in the first round; they are packed only.
            let waiting = partial(count..d);
            exchange.extend(
                waiting
                    .into_iter()
                    .zip(seam_of(waiting, sums(count..d)))
                    .map(|(own, packed)| copy(own, packed)),
            );
        }
        plan.round(exchange);
        let add = |i| reduce_two(rank, incoming[i], mine[i], result[i], last);
        plan.round(vec![add(0), add(1)]);
        held = d;
    }
    plan
}

/// Cuts `whole` where `parts` have their seam.
fn seam_of(parts: [Slice; 2], whole: Slice) -> [Slice; 2] {
    [whole.part(0..parts[0].len), whole.part(parts[0].len..whole.len)]
}

/// A circulant reduce_scatter, then Bruck's all_gather.
pub fn all_reduce(problem: &Problem, topology: &Topology, rank: usize) -> Plan {
    two_halves(problem, topology, rank, reduce_scatter, bruck::all_gather)
}
