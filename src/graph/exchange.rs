//! The contributions of an iteration, moved as the chosen partition says.
//!
//! In one dimension all values move to all nodes, or those that are read; in a grid those that the
//! tile reads, and sums besides. Which of them it is, `step` and `pagerank` need not know: they see
//! a vector of contributions and, in a grid, sums that come from outside.

use super::cost::{self, Decision, PartitionReport};
use super::grid::{self, Tile};
use super::options::PageRankOptions;
use super::partition::Partition;
use super::scheme::Scheme;
use super::traffic::Traffic;
use crate::communicator::{Communicator, Resend, SharedVector};
use crate::element::Op;
use crate::error::Result;
use crate::reduce::gather::Precision;

/// The contributions, and how they move.
#[derive(Debug)]
pub(super) struct Exchange<P: Precision> {
    /// Of all nodes that this rank reads.
    pub contributions: SharedVector<P::Wire>,
    /// The edges of this rank in a grid.
    pub tile: Option<Tile<P>>,
    /// What was chosen.
    pub report: PartitionReport,
    scheme: Scheme,
    /// Values of other ranks that this rank reads in place or receives.
    foreign: u64,
}

impl<P: Precision> Exchange<P> {
    /// Chooses a partition and lays it out. Collective.
    pub(super) fn new(
        comm: &Communicator,
        graph: &Partition,
        options: &PageRankOptions,
    ) -> Result<Self> {
        let sizes = grid::sizes::<P>(graph.sharding.n());
        let (asked, exact) = (options.partition, options.delta.is_none());
        let Decision { scheme, columns, report } = cost::decide(comm, graph, asked, sizes, exact)?;
        let tile = match (scheme, &columns) {
            (Scheme::Grid(shape), Some(cuts)) => Some(Tile::new(comm, graph, shape, cuts)?),
            _ => None,
        };
        if scheme == Scheme::OneD {
            let contributions = comm.shared_vector(&graph.sharding)?;
            return Ok(Exchange { contributions, tile, report, scheme, foreign: 0 });
        }
        let own_reads;
        let reads = match &tile {
            Some(tile) => &tile.reads,
            None => {
                own_reads = sources(graph);
                &own_reads
            }
        };
        let own = graph.sharding.range(comm.rank());
        let foreign = reads.iter().filter(|&&source| !own.contains(&(source as usize))).count();
        let resend = if exact { Resend::All } else { Resend::Changed };
        let contributions = comm.shared_vector_of(&graph.sharding, reads, resend)?;
        Ok(Exchange { contributions, tile, report, scheme, foreign: foreign as u64 })
    }

    /// What so many gathers and steps moved. Collective.
    pub(super) fn traffic(
        &self,
        comm: &Communicator,
        gathers: usize,
        steps: usize,
    ) -> Result<Traffic> {
        let wire = size_of::<P::Wire>();
        if self.scheme == Scheme::OneD {
            return Ok(Traffic::of_gathers(comm, self.contributions.sharding(), wire, gathers));
        }
        let (gathers, steps) = (gathers as u64, steps as u64);
        let sums = self.tile.as_ref().map_or([0; 2], Tile::bytes_a_step);
        let own = [
            self.foreign * wire as u64 * gathers + sums[0] * steps,
            self.contributions.received_bytes() + sums[1] * steps,
            self.contributions.bytes_a_gather() * gathers + sums[1] * steps,
        ];
        let all = comm.all_reduce_vec(&own, Op::Sum)?;
        Ok(Traffic { between_ranks: all[0], between_nodes: all[1], lower_bound: all[2] })
    }
}

/// The sources of the own edges, ascending.
fn sources(graph: &Partition) -> Vec<u32> {
    let n = graph.sharding.n();
    let mut read = vec![false; n];
    graph.rows.sources.iter().for_each(|&source| read[source as usize] = true);
    (0..n as u32).filter(|&source| read[source as usize]).collect()
}
