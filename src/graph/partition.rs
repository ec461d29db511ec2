//! Which rank owns which nodes, and the edges that end there.
//!
//! One-dimensional, by target: a rank owns a contiguous range of nodes and all their incoming
//! edges, so the sum over a node's in-edges happens on one rank, in one order. Ranges are cut so
//! that edges, plus a constant for each node, are balanced; cuts are multiples of [`GRAIN`] nodes,
//! the block that sums are made of (see `pagerank`).
//!
//! Traffic: an all-reduce of 4 to 8 bytes a node and a reduce-scatter of 4, and each edge moves
//! once (8 bytes, 16 with weights) to the owner of its target; with weights of a directed graph
//! once more to the owner of its source, where weights are added up in the canonical order.
//!
//! Memory: degrees by lines come first, so rows have their places before an edge moves, and edges
//! go to them in rounds (`rounds`), while the list they came from shrinks. At most, on all ranks
//! together: 8 bytes a listed edge and 4 a directed one, which is 8 for an undirected graph; with
//! weights 16 and 12. Besides, 16 bytes a node on every rank, 24 while nodes are ordered.

use rayon::prelude::*;

use super::ids::Edges;
use super::order::{Order, Relabel, is_local};
use super::rounds::{Batch, Supply, to_owners};
use super::rows::{Duplicates, Filling, Rows, key};
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
    let degrees = Degrees::count(comm, n, &edges, options.undirected)?;
    let order = options
        .relabel
        .pays(n, degrees.edges, degrees.local)
        .then(|| Order::by_degree(&degrees.into, degrees.out()));
    let node_at =
        |place: usize| order.as_ref().map_or(place, |order| order.node_at[place] as usize);
    let sharding = balance((0..n).map(|place| degrees.into[node_at(place)]), comm.ranks());
    let own = sharding.range(comm.rank());
    let lengths = own.clone().map(|place| degrees.into[node_at(place)]);
    let mut filling = Filling::new(own, lengths, options.weighted);
    drop(degrees);

    let place_of = order.as_ref().map(|order| &order.place_of[..]);
    let mut listed = Listed { edges, place_of, both_ways: options.undirected };
    to_owners(comm, &sharding, options.weighted, &mut listed, &mut filling)?;
    drop(listed);
    let rows = comm.agree(filling.finish(options.duplicates))?;

    // Counted again, because repeated edges may have become one.
    let out_weights = if options.undirected {
        comm.agree(row_weights(&rows))?
    } else {
        out_weights(comm, &rows, &sharding, options.weighted)?
    };
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
        // In the order of the targets.
        let out = out_rows(comm, rows, sharding, true)?;
        return comm.agree(row_weights(&out));
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
    let mut own = vec![0; sharding.count(comm.rank())];
    comm.reduce_scatter_by(sharding, &degrees[..], &mut own, Op::Sum)?;
    Ok(own)
}

/// Degrees of all nodes by the lines of the input, in which repeated edges are still several. The
/// same on every rank.
struct Degrees {
    into: Vec<u32>,
    /// Empty where they are those of `into`, since every edge goes both ways.
    out: Vec<u32>,
    /// Edges in all, and those between nodes with near indices.
    edges: u64,
    local: u64,
}

/// Degrees that a thread counts have 8 bytes a node, so there are few at a time.
const MOST_COUNTERS: usize = 4;

impl Degrees {
    /// Counts them; self-loops once. Collective.
    fn count(comm: &Communicator, n: usize, edges: &Edges, both_ways: bool) -> Result<Degrees> {
        let threads = rayon::current_num_threads().min(MOST_COUNTERS);
        let share = edges.edges.len().div_ceil(threads).max(1 << 16);
        let nothing = || Counts::new(n, both_ways);
        let count = |edges: &[(u32, u32)]| {
            let mut counts = nothing();
            edges.iter().for_each(|&edge| counts.add(edge, both_ways));
            counts
        };
        let counts = edges.edges.par_chunks(share).map(count).reduce_with(Counts::plus);
        let mut counts = counts.unwrap_or_else(nothing);
        comm.agree(match counts.bad {
            Some(edge) => Err(Error::internal(format!("the edge {edge:?} leaves the {n} nodes"))),
            None => Ok(()),
        })?;
        comm.all_reduce_in_place(&mut counts.into, Op::Sum)?;
        comm.all_reduce_in_place(&mut counts.out, Op::Sum)?;
        let sums = comm.all_reduce_vec(&[counts.edges, counts.local], Op::Sum)?;
        Ok(Degrees { into: counts.into, out: counts.out, edges: sums[0], local: sums[1] })
    }

    fn out(&self) -> &[u32] {
        if self.out.is_empty() { &self.into } else { &self.out }
    }
}

/// [`Degrees`] of some lines.
struct Counts {
    into: Vec<u32>,
    out: Vec<u32>,
    edges: u64,
    local: u64,
    /// An edge that has an end which is no node.
    bad: Option<(u32, u32)>,
}

impl Counts {
    fn new(n: usize, both_ways: bool) -> Self {
        let out = vec![0; if both_ways { 0 } else { n }];
        Counts { into: vec![0; n], out, edges: 0, local: 0, bad: None }
    }

    #[inline]
    fn add(&mut self, (from, to): (u32, u32), both_ways: bool) {
        let copies = if both_ways && from != to { 2 } else { 1 };
        let back = if both_ways { &mut self.into } else { &mut self.out };
        let Some(back) = back.get_mut(from as usize) else {
            self.bad = Some((from, to));
            return;
        };
        // Of an edge both ways, unless it is a loop, this is the reverse.
        *back += u32::from(copies == 2 || !both_ways);
        let Some(into) = self.into.get_mut(to as usize) else {
            self.bad = Some((from, to));
            return;
        };
        *into += 1;
        self.edges += copies;
        self.local += if is_local(from, to) { copies } else { 0 };
    }

    fn plus(mut self, other: Self) -> Self {
        self.into.iter_mut().zip(&other.into).for_each(|(a, b)| *a += b);
        self.out.iter_mut().zip(&other.out).for_each(|(a, b)| *a += b);
        self.edges += other.edges;
        self.local += other.local;
        self.bad = self.bad.or(other.bad);
        self
    }
}

/// Lines of the input, the last ones first: so their list can shrink.
struct Listed<'o> {
    edges: Edges,
    /// The places of nodes, if not their indices.
    place_of: Option<&'o [u32]>,
    /// Each stands for an edge and its reverse; a self-loop for one edge.
    both_ways: bool,
}

impl Supply for Listed<'_> {
    fn len(&self) -> usize {
        self.edges.edges.len()
    }

    fn take(&mut self, count: usize, into: &mut Batch) {
        let at = self.len().saturating_sub(count);
        let tail = &mut self.edges.edges[at..];
        if let Some(place_of) = self.place_of {
            let place = |node: u32| place_of[node as usize];
            let work = tail.par_iter_mut().with_min_len(1 << 13);
            work.for_each(|edge| *edge = (place(edge.0), place(edge.1)));
        }
        let Batch { keys, weights } = into;
        if self.both_ways {
            keys.reserve(2 * tail.len());
            for (i, &(from, to)) in tail.iter().enumerate() {
                let copies = if from == to { 1 } else { 2 };
                keys.extend_from_slice(&[key(from, to), key(to, from)][..copies]);
                if let Some(&weight) = self.edges.weights.get(at + i) {
                    weights.extend_from_slice(&[weight; 2][..copies]);
                }
            }
        } else {
            keys.extend(tail.iter().map(|&(from, to)| key(from, to)));
            weights.extend_from_slice(self.edges.weights.get(at..).unwrap_or_default());
        }
        self.edges.truncate(at);
    }
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

/// The edges out of the own nodes, as rows of targets. Collective.
pub(super) fn out_rows(
    comm: &Communicator,
    rows: &Rows,
    sharding: &Sharding,
    weighted: bool,
) -> Result<Rows> {
    let lengths = out_degrees(comm, rows, sharding)?;
    let own = sharding.range(comm.rank());
    let mut filling = Filling::new(own, lengths.into_iter(), weighted);
    let mut reversed = Reversed { rows, row: 0, edge: 0 };
    to_owners(comm, sharding, weighted, &mut reversed, &mut filling)?;
    comm.agree(filling.finish(Duplicates::Sum))
}

/// The edges of some rows, turned round.
struct Reversed<'r> {
    rows: &'r Rows,
    /// The row of the next edge, or one before it.
    row: usize,
    /// The next edge.
    edge: usize,
}

impl Supply for Reversed<'_> {
    fn len(&self) -> usize {
        self.rows.edges() - self.edge
    }

    fn take(&mut self, count: usize, into: &mut Batch) {
        let end = self.rows.edges().min(self.edge + count);
        into.weights.extend_from_slice(self.rows.weights.get(self.edge..end).unwrap_or_default());
        while self.edge < end {
            let row_end = self.rows.offsets[self.row + 1];
            if self.edge == row_end {
                self.row += 1;
                continue;
            }
            let target = (self.rows.range.start + self.row) as u32;
            let part = &self.rows.sources[self.edge..row_end.min(end)];
            into.keys.extend(part.iter().map(|&source| key(target, source)));
            self.edge += part.len();
        }
    }
}

/// The sum of the weights of each row, in its order.
fn row_weights(rows: &Rows) -> Result<Vec<f64>> {
    let lengths = rows.offsets.windows(2);
    if rows.weights.is_empty() {
        return Ok(lengths.map(|row| (row[1] - row[0]) as f64).collect());
    }
    // The sum of no weights is -0 in Rust.
    let sum = |row: &[usize]| rows.weights[row[0]..row[1]].iter().sum::<f64>() + 0.0;
    let sums: Vec<f64> = lengths.map(sum).collect();
    // A rank is divided by the sum: it and its reciprocal have to be finite.
    match sums.iter().find(|&&sum| sum != 0.0 && !sum.is_normal()) {
        Some(sum) => Err(Error::input(format!(
            "the weights of the edges out of a node add up to {sum:e}, which is beyond the range \
             of floating-point numbers; scale all weights"
        ))),
        None => Ok(sums),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch;

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
        let edges = Edges { edges: vec![(1, 2), (3, 3), (0, 1)], weights: vec![0.5, 2.0, 4.0] };
        let expected = [(1, 0, 4.0), (0, 1, 4.0), (2, 1, 0.5), (1, 2, 0.5), (3, 3, 2.0)];
        for weighted in [true, false] {
            let options = PartitionOptions {
                weighted,
                undirected: true,
                relabel: Relabel::Never,
                ..PartitionOptions::default()
            };
            let weights = if weighted { edges.weights.clone() } else { Vec::new() };
            let edges = Edges { edges: edges.edges.clone(), weights };
            let graph = launch::threads(1, |comm| partition(comm, 4, edges.clone(), options));
            let graph = graph.unwrap().remove(0);
            let weigh = |weight| if weighted { weight } else { 1.0 };
            assert!(graph.rows.iter().eq(expected.map(|(a, b, w)| (a, b, weigh(w)))));
            let out = if weighted { [4.0, 4.5, 0.5, 2.0] } else { [1.0, 2.0, 1.0, 1.0] };
            assert_eq!((&graph.out_weights[..], graph.edges), (&out[..], 5));
        }
    }

    #[test]
    fn out_weights_of_undirected_graphs_are_those_of_their_out_rows() {
        let n = 100u32;
        let list = (0..3000u32).map(|i| (i * i % n, i * 31 % (n - 1))).collect();
        let weights = (0..3000).map(|i| f64::from(i % 7) * 0.1).collect();
        let edges = Edges { edges: list, weights };
        for duplicates in [Duplicates::Sum, Duplicates::Merge] {
            let options = PartitionOptions {
                weighted: true,
                undirected: true,
                duplicates,
                ..PartitionOptions::default()
            };
            let all = launch::threads(3, |comm| {
                let edges = if comm.rank() == 1 { edges.clone() } else { Edges::default() };
                let graph = partition(comm, n as usize, edges, options)?;
                let again = out_weights(comm, &graph.rows, &graph.sharding, true)?;
                Ok((graph.out_weights, again))
            });
            for (short, long) in all.unwrap() {
                let bits = |sums: Vec<f64>| sums.into_iter().map(f64::to_bits).collect::<Vec<_>>();
                assert_eq!(bits(short), bits(long), "{duplicates:?}");
            }
        }
    }

    #[test]
    fn an_edge_beyond_the_nodes_is_refused_on_all_ranks() {
        for undirected in [false, true] {
            for edge in [(4, 0), (0, 4)] {
                let options = PartitionOptions { undirected, ..PartitionOptions::default() };
                let found = launch::threads(2, |comm| {
                    let edges = vec![(0, 1); 3];
                    let mut edges = Edges { edges, weights: Vec::new() };
                    edges.edges.extend((comm.rank() == 1).then_some(edge));
                    let found = partition(comm, 4, edges, options);
                    Ok(found.is_err_and(|error| error.message.contains("leaves the 4 nodes")))
                });
                assert_eq!(found.unwrap(), [true; 2]);
            }
        }
    }
}
