//! Which rank owns which nodes, and the edges that end there.
//!
//! One-dimensional, by target: a rank owns a contiguous range of nodes and all their incoming
//! edges, so the sum over a node's in-edges happens on one rank, in one order. Ranges are cut so
//! that edges, plus a constant for each node, are balanced; cuts are multiples of [`GRAIN`] nodes,
//! the block that sums are made of (see `pagerank`).
//!
//! Traffic: two all-reduces of 8 bytes a node, and each edge moves once (8 bytes, 16 with weights)
//! to the owner of its target; with weights once more to the owner of its source, where weights
//! are added up in the canonical order. Where nodes are ordered by degree (see `order`), the final
//! edges move a second time, and 16 bytes a node are gathered.

use rayon::prelude::*;

use super::ids::Edges;
use super::order::{Order, Relabel, is_local};
use super::rows::{Duplicates, Rows, key};
use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::{Error, Result};
use crate::sharding::Sharding;

/// Cuts between ranks are multiples of this many nodes.
pub const GRAIN: usize = 16;

/// The cost of a node in edges, for the balance: its rank, contribution and row bounds are
/// streamed, which takes about as long as the gathers of this many edges.
const EDGES_PER_NODE: u64 = 4;

/// How the lines of a file become edges.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PartitionOptions {
    /// Edges carry weights. Said here since a rank without edges could not tell.
    pub weighted: bool,
    /// Each line is an edge both ways; a self-loop is one edge.
    pub undirected: bool,
    /// What repeated edges mean.
    pub duplicates: Duplicates,
    /// Whether nodes are ordered by degree.
    pub relabel: Relabel,
}

/// The part of a graph that a rank owns. Nodes are counted by their places in `order`.
#[derive(Clone, PartialEq, Debug)]
pub struct Partition {
    /// The order of the nodes, if it is not that of their indices.
    pub order: Option<Order>,
    /// Who owns which nodes.
    pub sharding: Sharding,
    /// The incoming edges of the own nodes.
    pub rows: Rows,
    /// The sum of the weights of the outgoing edges of each own node.
    pub out_weights: Vec<f64>,
    /// The number of directed edges of the whole graph.
    pub edges: u64,
}

/// Distributes the edges of all ranks of a graph of `n` nodes. Collective.
pub fn partition(
    comm: &Communicator,
    n: usize,
    edges: Edges,
    options: PartitionOptions,
) -> Result<Partition> {
    let bad = |&&(from, to): &&(u32, u32)| from as usize >= n || to as usize >= n;
    comm.agree(match edges.edges.iter().find(bad) {
        Some(edge) => Err(Error::internal(format!("the edge {edge:?} leaves the {n} nodes"))),
        None => Ok(()),
    })?;
    let mut edges = if options.undirected { both_ways(edges) } else { edges };
    let degrees = Degrees::count(comm, n, &edges)?;
    let order = options.relabel.pays(n, degrees.edges, degrees.local).then(|| {
        let order = Order::by_degree(&degrees.into, &degrees.out);
        let place = |node: u32| order.place_of[node as usize];
        edges.edges.par_iter_mut().for_each(|edge| *edge = (place(edge.0), place(edge.1)));
        order
    });
    let ranks = comm.ranks();
    let sharding = match &order {
        Some(order) => {
            balance(order.node_at.iter().map(|&node| degrees.into[node as usize]), ranks)
        }
        None => balance(degrees.into.iter().copied(), ranks),
    };
    drop(degrees);

    let own = sharding.range(comm.rank());
    let moved = to_owners(comm, edges, &sharding, options.weighted)?;
    let rows = Rows::build(own.clone(), &moved.keys, &moved.weights, options.duplicates);
    drop(moved);

    // Counted again, because repeated edges may have become one.
    let out_weights = out_weights(comm, &rows, &sharding, options.weighted)?;
    let edges = comm.all_reduce_vec(&[rows.edges() as u64], Op::Sum)?[0];
    Ok(Partition { order, sharding, rows, out_weights, edges })
}

/// The sum of the weights of the outgoing edges of each own node. Collective.
pub(super) fn out_weights(
    comm: &Communicator,
    rows: &Rows,
    sharding: &Sharding,
    weighted: bool,
) -> Result<Vec<f64>> {
    if weighted {
        return sum_out_weights(comm, rows, sharding);
    }
    Ok(out_degrees(comm, rows, sharding)?.into_iter().map(f64::from).collect())
}

/// The number of outgoing edges of each own node. Collective.
pub(super) fn out_degrees(
    comm: &Communicator,
    rows: &Rows,
    sharding: &Sharding,
) -> Result<Vec<u32>> {
    let mut degrees = vec![0u32; sharding.n()];
    rows.sources.iter().for_each(|&from| degrees[from as usize] += 1);
    let degrees = comm.all_reduce_vec(&degrees, Op::Sum)?;
    Ok(degrees[sharding.range(comm.rank())].to_vec())
}

/// Degrees of all nodes by the lines of the input, in which repeated edges are still several. The
/// same on every rank.
struct Degrees {
    into: Vec<u32>,
    out: Vec<u32>,
    /// Edges in all, and those between nodes with near indices.
    edges: u64,
    local: u64,
}

impl Degrees {
    /// Counts them. Collective.
    fn count(comm: &Communicator, n: usize, edges: &Edges) -> Result<Degrees> {
        let mut both = vec![0u32; 2 * n];
        let mut local = 0u64;
        for &(from, to) in &edges.edges {
            both[to as usize] += 1;
            both[n + from as usize] += 1;
            local += u64::from(is_local(from, to));
        }
        let mut into = comm.all_reduce_vec(&both, Op::Sum)?;
        let out = into.split_off(n);
        let counts = comm.all_reduce_vec(&[edges.edges.len() as u64, local], Op::Sum)?;
        Ok(Degrees { into, out, edges: counts[0], local: counts[1] })
    }
}

/// Each edge and its reverse; a self-loop once.
fn both_ways(edges: Edges) -> Edges {
    let mut both = Edges::default();
    both.edges.reserve_exact(2 * edges.edges.len());
    both.weights.reserve_exact(2 * edges.weights.len());
    for (i, &(from, to)) in edges.edges.iter().enumerate() {
        let copies = if from == to { 1 } else { 2 };
        both.edges.extend_from_slice(&[(from, to), (to, from)][..copies]);
        if let Some(&weight) = edges.weights.get(i) {
            both.weights.extend_from_slice(&[weight; 2][..copies]);
        }
    }
    both
}

/// Ranges of nodes with about equal numbers of in-edges, which are given in order.
pub(super) fn balance(in_degrees: impl Iterator<Item = u32>, ranks: usize) -> Sharding {
    let mut prefix = vec![0];
    let mut cost = 0;
    for in_degree in in_degrees {
        cost += u64::from(in_degree) + EDGES_PER_NODE;
        prefix.push(cost);
    }
    Sharding::balanced(&prefix, ranks, GRAIN)
}

/// Edges as keys, with their weights if there are any.
struct Keys {
    keys: Vec<u64>,
    weights: Vec<f64>,
}

/// Moves every edge to the owner of its target. Collective.
fn to_owners(
    comm: &Communicator,
    edges: Edges,
    sharding: &Sharding,
    weighted: bool,
) -> Result<Keys> {
    let (sorted, counts) = by_owner(&edges, sharding);
    drop(edges);
    let (keys, _) = comm.all_to_all_vec(&sorted.keys, &counts)?;
    let weights =
        if weighted { comm.all_to_all_vec(&sorted.weights, &counts)?.0 } else { Vec::new() };
    Ok(Keys { keys, weights })
}

/// The edges grouped by the owner of their target, and how many each rank gets.
fn by_owner(edges: &Edges, sharding: &Sharding) -> (Keys, Vec<usize>) {
    // Cuts are multiples of the grain, so an owner is one look-up away.
    let owners: Vec<u32> = (0..sharding.n())
        .step_by(GRAIN)
        .map(|node| sharding.owner(node).unwrap_or(0) as u32)
        .collect();
    let owner = |to: u32| owners[to as usize / GRAIN] as usize;
    let mut counts = vec![0usize; sharding.ranks()];
    edges.edges.iter().for_each(|&(_, to)| counts[owner(to)] += 1);
    let mut next: Vec<usize> = vec![0; counts.len()];
    (1..counts.len()).for_each(|rank| next[rank] = next[rank - 1] + counts[rank - 1]);
    let mut keys = vec![0; edges.edges.len()];
    let mut weights = vec![0.0; edges.weights.len()];
    for (i, &(from, to)) in edges.edges.iter().enumerate() {
        let at = &mut next[owner(to)];
        keys[*at] = key(from, to);
        if let Some(&weight) = edges.weights.get(i) {
            weights[*at] = weight;
        }
        *at += 1;
    }
    (Keys { keys, weights }, counts)
}

/// The edges out of the own nodes, as rows of targets. Collective.
pub(super) fn out_rows(
    comm: &Communicator,
    rows: &Rows,
    sharding: &Sharding,
    weighted: bool,
) -> Result<Rows> {
    let mut reversed = Edges::default();
    reversed.edges.reserve_exact(rows.edges());
    reversed.edges.extend(rows.iter().map(|(from, to, _)| (to, from)));
    reversed.weights.extend_from_slice(&rows.weights);
    let moved = to_owners(comm, reversed, sharding, weighted)?;
    let own = sharding.range(comm.rank());
    Ok(Rows::build(own, &moved.keys, &moved.weights, Duplicates::Sum))
}

/// The sum of the weights of the out-edges of each own node, in the order of their targets.
fn sum_out_weights(comm: &Communicator, rows: &Rows, sharding: &Sharding) -> Result<Vec<f64>> {
    let out_edges = out_rows(comm, rows, sharding, true)?;
    let sums: Vec<f64> = out_edges
        .offsets
        .windows(2)
        .map(|row| out_edges.weights[row[0]..row[1]].iter().sum())
        .collect();
    // A rank is divided by the sum: it and its reciprocal have to be finite.
    let bad = sums.iter().find(|&&sum| sum != 0.0 && !sum.is_normal());
    comm.agree(match bad {
        Some(sum) => Err(Error::input(format!(
            "the weights of the edges out of a node add up to {sum:e}, which is beyond the range \
             of floating-point numbers; scale all weights"
        ))),
        None => Ok(()),
    })?;
    // The sum of no weights is -0 in Rust.
    Ok(sums.into_iter().map(|sum| sum + 0.0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::rows::ends;

    fn edges(count: u32, n: u32) -> Edges {
        let edges: Vec<(u32, u32)> = (0..count).map(|i| (i * i % n, i * 31 % (n - 1))).collect();
        let weights = (0..count).map(|i| f64::from(i % 7) * 0.1).collect();
        Edges { edges, weights }
    }

    #[test]
    fn every_edge_goes_to_the_owner_of_its_target() {
        for ranks in 1..=9 {
            for n in [2u32, 15, 16, 17, 100, 1000] {
                let edges = edges(500, n);
                let mut degrees = vec![0u32; n as usize];
                edges.edges.iter().for_each(|&(_, to)| degrees[to as usize] += 1);
                let sharding = balance(degrees.iter().copied(), ranks);
                assert!((0..ranks).all(|r| {
                    let start = sharding.range(r).start;
                    start.is_multiple_of(GRAIN) || start == n as usize
                }));
                let (sorted, counts) = by_owner(&edges, &sharding);
                let moves = Sharding::from_counts(&counts);
                assert_eq!((moves.ranks(), moves.n()), (ranks, 500));
                for rank in 0..ranks {
                    for &key in &sorted.keys[moves.range(rank)] {
                        assert_eq!(sharding.owner(ends(key).1 as usize), Some(rank));
                    }
                }
                let pairs = |keys: &[u64], weights: &[f64]| {
                    let mut pairs: Vec<(u64, u64)> =
                        keys.iter().copied().zip(weights.iter().map(|w| w.to_bits())).collect();
                    pairs.sort_unstable();
                    pairs
                };
                let keys: Vec<u64> = edges.edges.iter().map(|&(a, b)| key(a, b)).collect();
                let (before, after) =
                    (pairs(&keys, &edges.weights), pairs(&sorted.keys, &sorted.weights));
                assert_eq!(before, after);
            }
        }
    }

    #[test]
    fn in_edges_are_balanced_up_to_a_block() {
        let degrees: Vec<u32> = (0..4096).map(|i| i * i % 97).collect();
        let cost = |d: &u32| u64::from(*d) + EDGES_PER_NODE;
        let total: u64 = degrees.iter().map(cost).sum();
        for ranks in 1..=8 {
            let sharding = balance(degrees.iter().copied(), ranks);
            for rank in 0..ranks {
                let own: u64 = degrees[sharding.range(rank)].iter().map(cost).sum();
                assert!(own.abs_diff(total / ranks as u64) < 2 * 16 * 101);
            }
        }
    }

    #[test]
    fn undirected_edges_go_both_ways_and_self_loops_once() {
        let edges = Edges { edges: vec![(1, 2), (3, 3)], weights: vec![0.5, 2.0] };
        let both = both_ways(edges);
        assert_eq!(both.edges, [(1, 2), (2, 1), (3, 3)]);
        assert_eq!(both.weights, [0.5, 0.5, 2.0]);
    }
}
