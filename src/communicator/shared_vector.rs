//! A vector that exists once a node: its all-gather is a synchronisation, not a copy.
//!
//! Between nodes either all values move, or those alone that some rank of the other node reads (see
//! `needed`).

use super::Communicator;
use super::needed::{self, Needed, Resend};
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
    between: Option<Between<T>>,
    many_nodes: bool,
    /// Bytes from other nodes so far; on the speaker.
    received_bytes: u64,
}

/// What the speaker of a node knows.
#[derive(Debug)]
struct Between<T> {
    speakers: Communicator,
    /// The shards of each node one after another, as global ranges.
    ranges: Vec<Vec<std::ops::Range<usize>>>,
    /// How many elements each node has.
    nodes: Sharding,
    /// Whether node after node is also element after element.
    in_order: bool,
    /// What moves, if not all.
    needed: Option<Needed<T>>,
}

impl Communicator {
    /// A zeroed vector over `sharding`, once a node. Collective.
    pub fn shared_vector<T: Element>(&self, sharding: &Sharding) -> Result<SharedVector<T>> {
        self.new_shared_vector(sharding, None)
    }

    /// [`Communicator::shared_vector`] of which this rank reads, outside its own node, only the
    /// elements `reads`, in any order. The others keep whatever they were. Collective.
    pub fn shared_vector_of<T: Element>(
        &self,
        sharding: &Sharding,
        reads: &[u32],
        resend: Resend,
    ) -> Result<SharedVector<T>> {
        let wrong = reads.iter().find(|&&i| i as usize >= sharding.n());
        self.agree(match wrong {
            Some(i) => Err(Error::input(format!(
                "shared_vector_of: element {i} of {} is no element",
                sharding.n()
            ))),
            None => Ok(()),
        })?;
        self.new_shared_vector(sharding, Some((reads, resend)))
    }

    fn new_shared_vector<T: Element>(
        &self,
        sharding: &Sharding,
        only: Option<(&[u32], Resend)>,
    ) -> Result<SharedVector<T>> {
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
        let mut between = match many_nodes {
            false => None,
            true => {
                let speakers = self.split(usize::from(!speaks), rank)?;
                speaks.then(|| Between::new(speakers, self, sharding))
            }
        };
        if let Some((reads, resend)) = only.filter(|_| many_nodes) {
            let node_of = |i: usize| topology.node(sharding.owner(i).unwrap_or(0));
            let own = topology.node(rank);
            let wanted = needed::collect(&node, reads, |i| node_of(i) == own, n)?;
            if let Some(between) = &mut between {
                let needed = Needed::new(&between.speakers, wanted, node_of, resend)?;
                between.needed = Some(needed);
            }
        }
        let bytes = NodeVector::<T>::bytes(n).ok_or_else(|| {
            Error::input(format!("a shared vector of {n} {} is too large", T::DTYPE))
        })?;
        let segment = match &self.context().node {
            Some(peers) => peers.allocate(bytes, Parts::Common)?,
            None => Allocation::private(bytes)?,
        };
        let vector = NodeVector::new(segment, n, sharding.range(rank));
        let sharding = sharding.clone();
        Ok(SharedVector { vector, sharding, node, between, many_nodes, received_bytes: 0 })
    }
}

impl<T: Element> Between<T> {
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
        let nodes = Sharding::from_counts(&counts);
        Between { speakers, ranges, nodes, in_order, needed: None }
    }

    /// Bytes that a full exchange brings to this node.
    fn bytes(&self) -> u64 {
        let others = self.nodes.n() - self.nodes.count(self.speakers.rank());
        self.needed.as_ref().map_or((others * size_of::<T>()) as u64, Needed::bytes)
    }

    /// Fills in the shards of the other nodes, or what is needed of them; returns the bytes
    /// received.
    fn exchange(&mut self, whole: &mut [T]) -> Result<u64> {
        if let Some(needed) = &mut self.needed {
            return needed.exchange(&self.speakers, whole);
        }
        self.gather(whole)?;
        Ok(self.bytes())
    }

    fn gather(&self, whole: &mut [T]) -> Result<()> {
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
            if let Some(between) = &mut self.between {
                self.received_bytes += between.exchange(self.vector.open_mut())?;
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

    /// Bytes of values that came from other nodes so far, counted on the rank of this node that
    /// receives them; 0 on the others.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Bytes that a gather brings from other nodes when every value is sent, counted in the same
    /// way: no exchange of the values that the ranks of this node read can do with less.
    pub fn bytes_a_gather(&self) -> u64 {
        self.between.as_ref().map_or(0, Between::bytes)
    }

    /// Who owns which part.
    pub fn sharding(&self) -> &Sharding {
        &self.sharding
    }
}
