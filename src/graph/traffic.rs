//! The bytes that the vectors of an iteration take between ranks.
//!
//! An all-gather is counted from who owns what: it gives each rank the shards of all others, and no
//! way to do it moves less. Where only some values move, what was received is counted, and beside
//! it the least that the partition can do with: each value of another node that a node reads once
//! a gather, and in a grid each sum that passes to another node. Within a node values are read in
//! place, so only what passes between nodes is sent. The residual and the other sums over all nodes
//! (0.6 KB a rank and iteration) are not counted, nor are the headers of messages.

use serde::Serialize;

use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::Result;
use crate::sharding::Sharding;

/// Bytes over all iterations, of all ranks together. The field names are the JSON keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Traffic {
    /// Values of other ranks that ranks can read, in shared memory or received.
    pub between_ranks: u64,
    /// Values of other nodes that nodes received, and sums in a grid.
    pub between_nodes: u64,
    /// The least between nodes for this partition, if every value is sent in every iteration.
    pub lower_bound: u64,
}

impl Traffic {
    /// From what each rank counted: values of other ranks that it can read, bytes that it received
    /// from other nodes, and the least of that. Collective.
    pub(super) fn of_parts(comm: &Communicator, own: [u64; 3]) -> Result<Traffic> {
        let all = comm.all_reduce_vec(&own, Op::Sum)?;
        Ok(Traffic { between_ranks: all[0], between_nodes: all[1], lower_bound: all[2] })
    }

    /// Of so many all-gathers of a vector over `sharding`.
    pub(super) fn of_gathers(
        comm: &Communicator,
        sharding: &Sharding,
        element_bytes: usize,
        gathers: usize,
    ) -> Traffic {
        let (topology, n) = (comm.topology(), sharding.n() as u64);
        let bytes = element_bytes as u64 * gathers as u64;
        // Each value is missing on all ranks, or nodes, but one.
        let between_nodes = n * (topology.nodes() as u64 - 1) * bytes;
        let between_ranks = n * (comm.ranks() as u64 - 1) * bytes;
        Traffic { between_ranks, between_nodes, lower_bound: between_nodes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::communicator::Settings;
    use crate::launch;

    #[test]
    fn bytes_are_those_of_the_values_that_others_own() {
        for nodes in [vec![0], vec![0, 0, 0], vec![0, 1], vec![0, 0, 1, 1, 2]] {
            let (ranks, count) = (nodes.len(), nodes.iter().max().unwrap() + 1);
            let all = launch::threads_on_nodes(&nodes, Settings::default(), |comm| {
                let sharding = Sharding::even(101, comm.ranks());
                Ok(Traffic::of_gathers(comm, &sharding, 4, 3))
            });
            for traffic in all.unwrap() {
                assert_eq!(traffic.between_ranks, 101 * 12 * (ranks as u64 - 1));
                assert_eq!(traffic.between_nodes, 101 * 12 * (count as u64 - 1));
                assert_eq!(traffic.lower_bound, traffic.between_nodes);
            }
        }
    }
}
