//! The contributions of an iteration, moved as the chosen partition says.
//!
//! In one dimension all values move to all nodes, or those that are read; in a grid those that the
//! tile reads, and sums besides. Which of them it is, `step` and `pagerank` need not know: they see
//! a vector of contributions and, in a grid, sums that come from outside.

use super::cost::{self, Decision, PartitionReport};
use super::grid::{self, Tile};
use super::options::PageRankOptions;
use super::partition::Partition;
use super::rows::Rows;
use super::scheme::Scheme;
use super::traffic::Traffic;
use crate::communicator::{Communicator, Resend, SharedVector};
use crate::element::Element;
use crate::error::Result;
use crate::reduce::gather::Precision;
use crate::sharding::Sharding;

/// The contributions, and how they move.
#[derive(Debug)]
pub(super) struct Exchange<P: Precision> {
    /// Of all nodes that this rank reads.
    pub contributions: Values<P::Wire>,
    /// The edges of this rank in a grid.
    pub tile: Option<Tile<P>>,
    /// What was chosen.
    pub report: PartitionReport,
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
        let Decision { scheme, columns, mut report } =
            cost::decide(comm, graph, asked, sizes, exact)?;
        let tile = match (scheme, &columns) {
            (Scheme::Grid(shape), Some(cuts)) => Some(Tile::new(comm, graph, shape, cuts)?),
            _ => None,
        };
        if let Some(tile) = &tile {
            report.balance(&comm.all_gather_vec(&[tile.edges])?.0);
        }
        let own_reads;
        let reads = match &tile {
            _ if scheme == Scheme::OneD => None,
            Some(tile) => Some(&tile.reads[..]),
            None => {
                own_reads = sources(&graph.rows, graph.sharding.n());
                Some(&own_reads[..])
            }
        };
        let resend = if exact { Resend::All } else { Resend::Changed };
        let contributions = Values::new(comm, &graph.sharding, reads, resend)?;
        Ok(Exchange { contributions, tile, report })
    }

    /// What so many gathers and steps moved. Collective.
    pub(super) fn traffic(
        &self,
        comm: &Communicator,
        gathers: usize,
        steps: usize,
    ) -> Result<Traffic> {
        let mut own = self.contributions.own_traffic(gathers);
        let sums = self.tile.as_ref().map_or([0; 2], Tile::bytes_a_step);
        let steps = steps as u64;
        let sums = [sums[0], sums[1], sums[1]];
        own.iter_mut().zip(sums).for_each(|(own, sums)| *own += sums * steps);
        Traffic::of_parts(comm, own)
    }
}

/// The sources of some rows, ascending.
pub(super) fn sources(rows: &Rows, n: usize) -> Vec<u32> {
    let mut read = vec![false; n];
    rows.sources.iter().for_each(|&source| read[source as usize] = true);
    (0..n as u32).filter(|&source| read[source as usize]).collect()
}

/// A vector over all nodes, one-dimensional.
#[derive(Debug)]
pub(super) struct Values<T: Element> {
    pub vector: SharedVector<T>,
    /// Values of other ranks that this rank reads.
    foreign: u64,
}

impl<T: Element> Values<T> {
    /// Of which those that this rank `reads` move, or all. Collective.
    pub(super) fn new(
        comm: &Communicator,
        sharding: &Sharding,
        reads: Option<&[u32]>,
        resend: Resend,
    ) -> Result<Self> {
        let own = sharding.range(comm.rank());
        let Some(reads) = reads else {
            let foreign = (sharding.n() - own.len()) as u64;
            return Ok(Values { vector: comm.shared_vector(sharding)?, foreign });
        };
        let foreign = reads.iter().filter(|&&source| !own.contains(&(source as usize))).count();
        let vector = comm.shared_vector_of(sharding, reads, resend)?;
        Ok(Values { vector, foreign: foreign as u64 })
    }

    /// What this rank received and read in so many gathers.
    pub(super) fn own_traffic(&self, gathers: usize) -> [u64; 3] {
        let gathers = gathers as u64;
        [
            self.foreign * size_of::<T>() as u64 * gathers,
            self.vector.received_bytes(),
            self.vector.bytes_a_gather() * gathers,
        ]
    }
}
