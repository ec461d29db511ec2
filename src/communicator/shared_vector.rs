//! A vector that exists once a node: its all-gather is a synchronisation, not a copy.

use super::Communicator;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::sharding::Sharding;
use crate::transport::Parts;
use crate::transport::memory::Allocation;
use crate::transport::node_vector::NodeVector;

/// A vector of which each rank writes its shard and all ranks read the whole.
///
/// On one node [`SharedVector::gather`] only lets the ranks meet; between nodes one rank a node
/// exchanges the shards. Memory: two copies a node.
#[derive(Debug)]
pub struct SharedVector<T: Element> {
    vector: NodeVector<T>,
    sharding: Sharding,
    /// The ranks of the own node.
    node: Communicator,
    /// One rank of each node, on that rank; `None` elsewhere and on one node.
    between: Option<Between>,
    many_nodes: bool,
}

/// What the speaker of a node knows.
#[derive(Debug)]
struct Between {
    speakers: Communicator,
    /// The shards of each node one after another, as global ranges.
    ranges: Vec<Vec<std::ops::Range<usize>>>,
    /// How many elements each node has.
    nodes: Sharding,
    /// Whether node after node is also element after element.
    in_order: bool,
}

impl Communicator {
    /// A zeroed vector over `sharding`, once a node. Collective.
    pub fn shared_vector<T: Element>(&self, sharding: &Sharding) -> Result<SharedVector<T>> {
        let (rank, n, topology) = (self.rank(), sharding.n(), self.topology());
        if sharding.ranks() != self.ranks() {
            return Err(Error::input(format!(
                "shared_vector: the sharding is for {} ranks, the communicator has {}",
                sharding.ranks(),
                self.ranks()
            )));
        }
        let node = self.split_by_node()?;
        let many_nodes = topology.nodes() > 1;
        let speaks = topology.local(rank) == 0;
        let between = match many_nodes {
            false => None,
            true => {
                let speakers = self.split(usize::from(!speaks), rank)?;
                speaks.then(|| Between::new(speakers, self, sharding))
            }
        };
        let bytes = NodeVector::<T>::bytes(n).ok_or_else(|| {
            Error::input(format!("a shared vector of {n} {} is too large", T::DTYPE))
        })?;
        let segment = match &self.context().node {
            Some(peers) => peers.allocate(bytes, Parts::Common)?,
            None => Allocation::private(bytes)?,
        };
        let vector = NodeVector::new(segment, n, sharding.range(rank));
        Ok(SharedVector { vector, sharding: sharding.clone(), node, between, many_nodes })
    }
}

impl Between {
    fn new(speakers: Communicator, all: &Communicator, sharding: &Sharding) -> Self {
        let topology = all.topology();
        // Speakers are ordered by rank, and nodes are numbered by their lowest rank: the same.
        let ranges: Vec<Vec<_>> = (0..topology.nodes())
            .map(|node| topology.ranks_of(node).iter().map(|&r| sharding.range(r)).collect())
            .collect();
        let counts: Vec<usize> =
            ranges.iter().map(|ranges| ranges.iter().map(|r| r.len()).sum()).collect();
        let filled = ranges.iter().flatten().filter(|range| !range.is_empty());
        let in_order = filled.map(|range| range.start).is_sorted();
        Between { speakers, ranges, nodes: Sharding::from_counts(&counts), in_order }
    }

    /// Fills in the shards of the other nodes.
    fn exchange<T: Element>(&self, whole: &mut [T]) -> Result<()> {
        if self.in_order {
            return self.speakers.all_gather_in_place(&self.nodes, whole);
        }
        let mut packed = vec![T::default(); whole.len()];
        let own = self.nodes.range(self.speakers.rank());
        let mut at = own.start;
        for range in &self.ranges[self.speakers.rank()] {
            packed[at..at + range.len()].copy_from_slice(&whole[range.clone()]);
            at += range.len();
        }
        self.speakers.all_gather_in_place(&self.nodes, &mut packed)?;
        let mut at = 0;
        for range in self.ranges.iter().flatten() {
            whole[range.clone()].copy_from_slice(&packed[at..at + range.len()]);
            at += range.len();
        }
        Ok(())
    }
}

impl<T: Element> SharedVector<T> {
    /// The own shard, to be written before the next [`SharedVector::gather`]. It holds what was
    /// written before the last gather but one.
    pub fn own_mut(&mut self) -> &mut [T] {
        self.vector.own_mut()
    }

    /// Makes the shards that all ranks have written since the last time the vector that all can
    /// read. Collective.
    #[track_caller]
    pub fn gather(&mut self) -> Result<()> {
        if self.many_nodes {
            self.node.barrier()?;
            if let Some(between) = &self.between {
                between.exchange(self.vector.open_mut())?;
            }
        }
        self.node.barrier()?;
        self.vector.turn();
        Ok(())
    }

    /// The whole vector as of the last gather; zeros before the first.
    pub fn whole(&self) -> &[T] {
        self.vector.whole()
    }

    /// The whole as of the last gather, and the own shard for the next one.
    pub fn split(&mut self) -> (&[T], &mut [T]) {
        self.vector.split()
    }

    /// Who owns which part.
    pub fn sharding(&self) -> &Sharding {
        &self.sharding
    }
}
