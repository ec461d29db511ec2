//! Bruck: logarithmic all_gather, all_reduce and all_to_all for any p.
//!
//! ```text
//! all_gather: I have the shards of ranks r, r+1, … r+d-1 (mod p); at first d = 1
//!   while d < p: send the first min(d, p-d) of them to r-d
//!                receive as many from r+d, which start at its own
//!                d = 2 d, at most p
//! all_to_all: block i is what has still to travel i ranks; at first the one for rank r+i
//!   for d = 1, 2, 4, … < p: send all blocks i that have bit d to r+d, in one message,
//!                           receive their successors from r-d
//!   now block i is what rank r-i sent me
//! all_reduce: all_gather the whole vectors to the workspace, fold them in rank order
//! ```
//!
//! | | rounds | elements sent a rank | needs |
//! | --- | --- | --- | --- |
//! | all_gather | ceil(log2 p) | n - c, the least possible; at most 2 messages a round | nothing |
//! | all_reduce | ceil(log2 p) | (p-1) n: for the shortest vectors | workspace of p n |
//! | all_to_all | ceil(log2 p) | about (p/2) log2 p counts: for short messages | equal counts |
//!
//! The all_gather puts every shard at its place at once, so that nothing is turned round at the
//! end; the price is a second message in rounds where the shards wrap round the end of the vector.
//! Reference: J. Bruck et al., Efficient algorithms for all-to-all communications in multiport
//! message-passing systems, IEEE TPDS 8 (1997).

use super::embed::{Names, Place, embed};
use super::{after, alone, before, circular_span, copy, receive, reduce, send};
use crate::plan::{Collective, Operand, Plan, Problem, Slice, Step};
use crate::sharding::Sharding;
use crate::topology::Topology;

/// The number of shards that a rank has doubles in each round.
pub fn all_gather(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let (shards, p) = (&problem.sharding, problem.ranks());
    if p == 1 {
        return alone(problem);
    }
    let own = Slice::input(0..shards.count(rank));
    let mut plan = Plan::new(rank);
    let mut d = 1;
    while d < p {
        let (to, from, count) = (before(rank, d, p), after(rank, d, p), d.min(p - d));
        let mut steps = Vec::new();
        if d == 1 {
            steps.extend([copy(own, Slice::output(shards.range(rank))), send(to, own)]);
        } else {
            steps.extend(circular_span(shards, rank, count).map(|r| send(to, Slice::output(r))));
        }
        steps.extend(circular_span(shards, from, count).map(|r| receive(from, Slice::output(r))));
        plan.round(steps);
        d *= 2;
    }
    plan
}

/// All vectors come to all ranks, and are folded in one step: it rounds once, and gives the same
/// bits on any placement, in the fewest rounds.
pub fn all_reduce(problem: &Problem, topology: &Topology, rank: usize) -> Plan {
    let (n, p) = (problem.sharding.n(), problem.ranks());
    if p == 1 {
        return alone(problem);
    }
    let sharding = Sharding::even(p * n, p);
    let gather = Problem { collective: Collective::AllGather, sharding, ..problem.clone() };
    let ranks: Vec<usize> = (0..p).collect();
    let vector = |peer| Slice::workspace(peer * n, n);
    let mut plan = Plan::new(rank);
    plan.scratch = p * n;
    let names = Names {
        ranks: &ranks,
        input: Place::at(Slice::input(0..n)),
        output: Place::at(Slice::workspace(0, p * n)),
        scratch: 0,
        complete: true,
    };
    embed(&mut plan, &all_gather(&gather, topology, rank), &names);
    let sources = (0..p).map(|peer| Operand { rank, slice: vector(peer) }).collect();
    plan.round(vec![reduce(sources, Slice::output(0..n), true)]);
    plan
}

/// Blocks travel the bits of their distance, many in one message.
pub fn all_to_all(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let (p, count) = (problem.ranks(), problem.count(0, 0));
    let mut plan = Plan::new(rank);
    // A block stays where it came in until it travels on; only what is sent is copied together.
    let mut blocks: Vec<Slice> =
        (0..p).map(|i| Slice::input(problem.sent(rank, after(rank, i, p)))).collect();
    let outgoing = Slice::workspace(0, p / 2 * count);
    plan.scratch = outgoing.len;
    let mut d = 1;
    while d < p {
        let travellers: Vec<usize> = (0..p).filter(|i| i & d != 0).collect();
        let len = travellers.len() * count;
        let incoming = Slice::workspace(plan.scratch, len);
        plan.scratch += len;
        let mut packing = Vec::new();
        for (at, &i) in travellers.iter().enumerate() {
            let place = at * count..(at + 1) * count;
            packing.push(copy(blocks[i], outgoing.part(place.clone())));
            blocks[i] = incoming.part(place);
        }
        let message = outgoing.part(0..len);
        plan.round(packing);
        plan.round(vec![send(after(rank, d, p), message), receive(before(rank, d, p), incoming)]);
        d *= 2;
    }
    let home = |i| Slice::output(problem.received(before(rank, i, p), rank));
    let arrivals: Vec<Step> = blocks.iter().enumerate().map(|(i, &b)| copy(b, home(i))).collect();
    plan.round(arrivals);
    plan
}
