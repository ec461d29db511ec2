//! Staged: the ranks of a node meet in the workspace, because their buffers are private.
//!
//! ```text
//! for each piece of the vector, as a pipeline with one meet a piece:
//!   fill:    copy into the own workspace what peers need of the piece
//!   drain:   fold (reduce_scatter) or pull (the others) from the workspace of the peers
//! all_reduce has three stages: fill, fold the own part of the piece into the workspace, pull
//! flat all_reduce has two: fill, fold the whole piece
//! ```
//!
//! The own part is never staged where only the rank itself reads it. A rank copies n - c elements
//! more than `direct` (reduce_scatter) or c more (all_gather); with pieces that fit the cache,
//! these copies do not reach main memory. `flat` has one meet for a vector of one piece, but every
//! rank folds n elements instead of c: for short vectors. All reductions round once and fold in
//! rank order. Workspace: two slots of a piece. Any counts, private buffers, one node.

use super::pieces::{Parts, pipeline};
use super::{copy, others, pull, reduce};
use crate::plan::{Operand, Plan, Problem, Slice, Step};
use crate::sharding::Sharding;
use crate::topology::Topology;

/// Parts for the other owners go through the workspace; each owner folds its own.
pub fn reduce_scatter(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let parts = Parts::new(&problem.sharding, problem.piece);
    let mut plan = Plan::new(rank);
    plan.scratch = parts.scratch();
    let drain = |k| vec![fold(&parts, problem, rank, rank, k, Slice::output(parts.part(rank, k)))];
    pipeline(&mut plan, parts.pieces(), &[&|k| fill(&parts, problem, rank, k), &drain]);
    plan
}

/// Own parts go through the workspace; everybody pulls them.
pub fn all_gather(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    gather_to(problem, rank, |_| true)
}

/// Own parts go through the workspace; the root pulls them.
pub fn gather(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let root = problem.collective.root();
    gather_to(problem, rank, |reader| Some(reader) == root)
}

fn gather_to(problem: &Problem, rank: usize, reads: impl Fn(usize) -> bool) -> Plan {
    let (parts, p) = (Parts::new(&problem.sharding, problem.piece), problem.ranks());
    let mut plan = Plan::new(rank);
    plan.scratch = parts.scratch();
    let own = Slice::input(0..problem.sharding.count(rank));
    if reads(rank) {
        plan.round(vec![copy(own, Slice::output(problem.sharding.range(rank)))]);
    }
    let staged = others(rank, p).any(&reads);
    let fill = |k| match staged {
        true => vec![copy(own.part(parts.part(rank, k)), parts.place(rank, k))],
        false => vec![],
    };
    let drain = |k| {
        let peers = others(rank, p).filter(|_| reads(rank));
        peers.map(|q| pull(q, parts.place(q, k), Slice::output(parts.elements(q, k)))).collect()
    };
    pipeline(&mut plan, parts.pieces(), &[&fill, &drain]);
    plan
}

/// The parts of the others go through the workspace of the root.
pub fn scatter(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let parts = Parts::new(&problem.sharding, problem.piece);
    let root = problem.collective.root().unwrap_or(0);
    let mut plan = Plan::new(rank);
    plan.scratch = parts.scratch();
    let own = Slice::output(0..problem.sharding.count(rank));
    if rank == root {
        plan.round(vec![copy(Slice::input(problem.sharding.range(rank)), own)]);
    }
    let fill_others = |k| if rank == root { fill(&parts, problem, rank, k) } else { vec![] };
    let drain = |k| match rank == root {
        true => vec![],
        false => vec![pull(root, parts.place(rank, k), own.part(parts.part(rank, k)))],
    };
    pipeline(&mut plan, parts.pieces(), &[&fill_others, &drain]);
    plan
}

/// The vector of the root goes through its workspace; everybody else pulls it.
pub fn broadcast(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let parts = Parts::new(&Sharding::even(problem.sharding.n(), 1), problem.piece);
    let root = problem.collective.root().unwrap_or(0);
    let mut plan = Plan::new(rank);
    if problem.ranks() == 1 {
        return plan;
    }
    plan.scratch = parts.scratch();
    let home = |k| Slice::output(parts.part(0, k));
    let fill = |k| if rank == root { vec![copy(home(k), parts.place(0, k))] } else { vec![] };
    let drain =
        |k| if rank == root { vec![] } else { vec![pull(root, parts.place(0, k), home(k))] };
    pipeline(&mut plan, parts.pieces(), &[&fill, &drain]);
    plan
}

/// Fill, fold the own part of a piece, pull the folded parts.
pub fn all_reduce(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let (parts, p) = (Parts::new(&problem.sharding, problem.piece), problem.ranks());
    let staged = parts.scratch();
    let mut plan = Plan::new(rank);
    plan.scratch = staged + parts.pieces().min(2) * parts.width();
    let result = |owner, k: usize| {
        Slice::workspace(staged + k % 2 * parts.width(), parts.part(owner, k).len())
    };
    let home = |owner, k| Slice::output(parts.elements(owner, k));
    let reduce = |k| vec![fold(&parts, problem, rank, rank, k, result(rank, k))];
    let gather = |k| {
        let mut steps = vec![copy(result(rank, k), home(rank, k))];
        steps.extend(others(rank, p).map(|q| pull(q, result(q, k), home(q, k))));
        steps
    };
    let fill = |k| fill(&parts, problem, rank, k);
    pipeline(&mut plan, parts.pieces(), &[&fill, &reduce, &gather]);
    plan
}

/// Everybody folds everything: one meet for a vector of one piece.
pub fn flat(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let parts = Parts::new(&Sharding::even(problem.sharding.n(), 1), problem.piece);
    let mut plan = Plan::new(rank);
    plan.scratch = parts.scratch();
    let own = |k| Slice::input(parts.part(0, k));
    let fill = |k| match problem.ranks() {
        1 => vec![],
        _ => vec![copy(own(k), parts.place(0, k))],
    };
    let drain = |k| vec![fold(&parts, problem, rank, 0, k, Slice::output(parts.part(0, k)))];
    pipeline(&mut plan, parts.pieces(), &[&fill, &drain]);
    plan
}

/// Messages go through the workspace of their sender.
pub fn all_to_all(problem: &Problem, _: &Topology, rank: usize) -> Plan {
    let p = problem.ranks();
    let largest = problem.counts.iter().flat_map(|counts| counts.iter()).max().copied();
    let parts = Parts::new(&Sharding::even(largest.unwrap_or(0) * p, p), problem.piece);
    let mut plan = Plan::new(rank);
    plan.scratch = parts.scratch();
    let (sent, received) = (problem.sent(rank, rank), problem.received(rank, rank));
    plan.round(vec![copy(Slice::input(sent), Slice::output(received))]);
    // Piece k of the message between two ranks: of the whole message, and in the workspace.
    let piece = |message: Slice, to, k| {
        let range = parts.part(to, k);
        let range = range.start.min(message.len)..range.end.min(message.len);
        (message.part(range.clone()), parts.place(to, k).part(0..range.len()))
    };
    let fill = |k| {
        let message = |to| piece(Slice::input(problem.sent(rank, to)), to, k);
        others(rank, p).map(message).map(|(from, into)| copy(from, into)).collect()
    };
    let drain = |k| {
        let message = |from| piece(Slice::output(problem.received(from, rank)), rank, k);
        others(rank, p)
            .map(|peer| (peer, message(peer)))
            .map(|(peer, (into, from))| pull(peer, from, into))
            .collect()
    };
    pipeline(&mut plan, parts.pieces(), &[&fill, &drain]);
    plan
}

/// Copies what the others need of piece `k` of the own input to the workspace.
fn fill(parts: &Parts, problem: &Problem, rank: usize, k: usize) -> Vec<Step> {
    others(rank, problem.ranks())
        .map(|owner| copy(Slice::input(parts.elements(owner, k)), parts.place(owner, k)))
        .collect()
}

/// Folds piece `k` of the shard of `owner`: the own contribution from the input, those of the
/// peers from their workspaces, in rank order.
fn fold(
    parts: &Parts,
    problem: &Problem,
    rank: usize,
    owner: usize,
    k: usize,
    into: Slice,
) -> Step {
    let source = |peer| match peer == rank {
        true => Slice::input(parts.elements(owner, k)),
        false => parts.place(owner, k),
    };
    let operands = (0..problem.ranks()).map(|peer| Operand { rank: peer, slice: source(peer) });
    reduce(operands.collect(), into, true)
}
