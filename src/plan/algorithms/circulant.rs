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

use super::embed::two_halves;
use super::{
    after, alone, before, bruck, circular_span, copy, largest_circular_span, receive, reduce_two,
    send,
};
use crate::plan::{Plan, Problem, Slice, Step};
use crate::topology::Topology;

/// The circle of shards that a rank still sums up shrinks by half in each round.
pub fn reduce_scatter(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let (shards, p) = (&problem.sharding, problem.ranks());
    if p == 1 {
        return alone(problem);
    }
    let mut d = p.next_power_of_two() / 2;
    let mut count = p - d;
    let sums = largest_circular_span(shards, d);
    let mut plan = Plan::new(rank);
    plan.scratch = sums + largest_circular_span(shards, count.max(d / 2));

    // Elements of the `count` shards from the own one, and so where the next shard is packed.
    let len = |count| circular_span(shards, rank, count).map(|range| range.len()).iter().sum();
    let sum_of = |first, end| Slice::scratch(len(first)..len(end));
    let incoming = |end: usize| Slice::workspace(sums, len(end));
    let input = |first, count| circular_span(shards, after(rank, first, p), count);

    // The first round reads the input, in place; the others read the packed sums.
    let mut exchange: Vec<Step> = Vec::new();
    exchange.extend(input(d, count).map(|range| send(after(rank, d, p), Slice::input(range))));
    let seams = pack(input(0, count), incoming(count));
    exchange.extend(seams.map(|(_, packed)| receive(before(rank, d, p), packed)));
    let waiting = pack(input(count, d - count), sum_of(count, d));
    exchange.extend(waiting.map(|(own, packed)| copy(own, packed)));
    plan.round(exchange);
    let sum = if d == 1 { Slice::output(0..len(1)) } else { sum_of(0, count) };
    let sums_of_input = pack(input(0, count), sum).into_iter().zip(seams);
    let add = |((own, sum), (_, incoming))| reduce_two(rank, incoming, own, sum, d == 1);
    plan.round(sums_of_input.map(add).collect());

    while d > 1 {
        (d, count) = (d / 2, d / 2);
        let (mine, theirs) = (sum_of(0, count), sum_of(d, d + count));
        let sum = if d == 1 { Slice::output(0..mine.len) } else { mine };
        let incoming = incoming(count);
        plan.round(vec![send(after(rank, d, p), theirs), receive(before(rank, d, p), incoming)]);
        plan.round(vec![reduce_two(rank, incoming, mine, sum, d == 1)]);
    }
    plan
}

/// Both ranges of the input, each with its place when they are packed into `whole`.
fn pack(ranges: [std::ops::Range<usize>; 2], whole: Slice) -> [(Slice, Slice); 2] {
    let seam = ranges[0].len();
    let [first, second] = ranges.map(Slice::input);
    [(first, whole.part(0..seam)), (second, whole.part(seam..whole.len))]
}

/// A circulant reduce_scatter, then Bruck's all_gather.
pub fn all_reduce(problem: &Problem, topology: &Topology, rank: usize) -> Plan {
    two_halves(problem, topology, rank, reduce_scatter, bruck::all_gather)
}
