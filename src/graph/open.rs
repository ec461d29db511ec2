//! A graph from any source, ready to be computed on.
//!
//! Most formats list edges, which are moved to their owners (`partition`). A `.rwg` file holds them
//! as their owners need them (`binary`), so there is nothing left to do.

use std::path::Path;

use super::binary;
use super::columns::Columns;
use super::ids::Numbering;
use super::load::{self, Listing, Loaded};
use super::partition::{Partition, PartitionOptions, partition};
use super::rows::Duplicates;
use crate::communicator::Communicator;
use crate::error::Result;

/// A graph that was read.
#[derive(Debug)]
pub enum Opened {
    /// As edges that lie anywhere.
    Listed(Loaded),
    /// As the rows of their owners.
    Ready(Graph),
}

/// A graph whose rows lie with their owners.
#[derive(Debug)]
pub struct Graph {
    /// Its nodes.
    pub numbering: Numbering,
    /// The part of this rank.
    pub partition: Partition,
    /// Each edge is there both ways.
    pub undirected: bool,
    /// No edge is there twice.
    pub merged: bool,
}

impl Opened {
    /// Reads the graph at `path`, or makes the random graph of this name. Collective.
    pub fn open(
        comm: &Communicator,
        path: &Path,
        options: PartitionOptions,
        columns: &Columns,
    ) -> Result<Opened> {
        if load::is_binary(comm, path)? {
            return Ok(Opened::Ready(binary::load(comm, path, options)?));
        }
        Ok(Opened::Listed(load::load(comm, path, options.weighted, columns)?))
    }

    /// Its nodes.
    pub fn numbering(&self) -> &Numbering {
        match self {
            Opened::Listed(loaded) => &loaded.numbering,
            Opened::Ready(graph) => &graph.numbering,
        }
    }

    /// Gives each edge to the owner of its target. Collective.
    pub fn partition(self, comm: &Communicator, options: PartitionOptions) -> Result<Graph> {
        match self {
            Opened::Ready(graph) => Ok(graph),
            Opened::Listed(Loaded { numbering, edges, listing }) => {
                let both = listing.undirected(options.undirected);
                let options = PartitionOptions { undirected: both, ..options };
                let partition = partition(comm, numbering.len(), edges, options)?;
                let undirected = both || listing == Listing::BothWays;
                let merged = options.duplicates == Duplicates::Merge;
                Ok(Graph { numbering, partition, undirected, merged })
            }
        }
    }
}
