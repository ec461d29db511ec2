//! A whole graph on one rank, for what only one rank can do: write it, and look at all of it.
//!
//! Rows come from their owners in the canonical order, so what is made of them does not depend on
//! the number of ranks. Memory on rank 0: 4 bytes an edge (12 with weights), 24 a node.

use super::ids::Numbering;
use super::order::Order;
use super::partition::{Partition, out_degrees};
use crate::communicator::Communicator;
use crate::error::Result;
use crate::sharding::Sharding;

/// The incoming edges of all nodes. Rows, sources and degrees count nodes by their places.
#[derive(Clone, PartialEq, Debug)]
pub struct Whole {
    /// The nodes.
    pub numbering: Numbering,
    /// Their order, if it is not that of their indices.
    pub order: Option<Order>,
    /// Row `i` is `sources[offsets[i]..offsets[i + 1]]`.
    pub offsets: Vec<u64>,
    /// The sources of all rows.
    pub sources: Vec<u32>,
    /// The weight of each edge; empty when all weigh 1.
    pub weights: Vec<f64>,
    /// The number of edges out of each node.
    pub out_degrees: Vec<u32>,
    /// The sum of their weights.
    pub out_weights: Vec<f64>,
    /// Edges have weights.
    pub weighted: bool,
    /// Each edge is there both ways.
    pub undirected: bool,
    /// No edge is there twice.
    pub merged: bool,
}

impl Whole {
    /// Collects a graph on rank 0; `None` elsewhere. Collective.
    pub fn collect(
        comm: &Communicator,
        numbering: Numbering,
        graph: Partition,
        weighted: bool,
    ) -> Result<Option<Whole>> {
        let degrees = out_degrees(comm, &graph.rows, &graph.sharding)?;
        let rows = &graph.rows;
        let counts = comm.all_gather_vec(&[rows.edges() as u64])?.0;
        let counts: Vec<usize> = counts.into_iter().map(|count| count as usize).collect();
        let edges = Sharding::from_counts(&counts);
        let lengths: Vec<u32> =
            rows.offsets.windows(2).map(|row| (row[1] - row[0]) as u32).collect();
        let first = comm.rank() == 0;
        let space = |n: usize| if first { n } else { 0 };
        let n = graph.sharding.n();
        let mut all_lengths = vec![0u32; space(n)];
        comm.gather(&graph.sharding, &lengths[..], &mut all_lengths, 0)?;
        let mut sources = vec![0u32; space(edges.n())];
        comm.gather(&edges, &rows.sources[..], &mut sources, 0)?;
        let mut weights = Vec::new();
        if weighted {
            weights = vec![0.0f64; space(edges.n())];
            comm.gather(&edges, &rows.weights[..], &mut weights, 0)?;
        }
        let mut out_degrees = vec![0u32; space(n)];
        comm.gather(&graph.sharding, &degrees[..], &mut out_degrees, 0)?;
        let mut out_weights = vec![0.0f64; space(n)];
        comm.gather(&graph.sharding, &graph.out_weights[..], &mut out_weights, 0)?;
        if !first {
            return Ok(None);
        }
        let mut offsets = Vec::with_capacity(n + 1);
        let mut end = 0;
        offsets.push(end);
        for length in all_lengths {
            end += u64::from(length);
            offsets.push(end);
        }
        let (order, undirected, merged) = (graph.order, false, false);
        Ok(Some(Whole {
            numbering,
            order,
            offsets,
            sources,
            weights,
            out_degrees,
            out_weights,
            weighted,
            undirected,
            merged,
        }))
    }

    /// The same graph with every node at the place of its index: rows again in canonical order.
    pub fn in_order_of_ids(self) -> Whole {
        let Some(order) = &self.order else {
            return self;
        };
        let mut offsets = vec![0u64];
        let (mut sources, mut weights) = (Vec::new(), Vec::new());
        let (mut out_degrees, mut out_weights) = (Vec::new(), Vec::new());
        let mut row: Vec<(u32, f64)> = Vec::new();
        for &place in &order.place_of {
            let edges = self.row(place as usize);
            row.clear();
            row.extend(edges.map(|edge| {
                let node = order.node_at[self.sources[edge] as usize];
                (node, self.weights.get(edge).copied().unwrap_or(1.0))
            }));
            row.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
            sources.extend(row.iter().map(|edge| edge.0));
            if self.weighted {
                weights.extend(row.iter().map(|edge| edge.1));
            }
            offsets.push(sources.len() as u64);
            out_degrees.push(self.out_degrees[place as usize]);
            out_weights.push(self.out_weights[place as usize]);
        }
        Whole { order: None, offsets, sources, weights, out_degrees, out_weights, ..self }
    }

    /// The number of nodes.
    pub fn nodes(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The number of edges.
    pub fn edges(&self) -> usize {
        self.sources.len()
    }

    /// The positions of the edges into the node at `place`.
    pub fn row(&self, place: usize) -> std::ops::Range<usize> {
        self.offsets[place] as usize..self.offsets[place + 1] as usize
    }

    /// The index of the node at `place`.
    pub fn node_at(&self, place: usize) -> usize {
        self.order.as_ref().map_or(place, |order| order.node_at[place] as usize)
    }
}
