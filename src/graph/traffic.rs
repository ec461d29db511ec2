//! The bytes that the vectors of an iteration take between ranks.
//!
//! Counted from who owns what: an all-gather gives each rank the shards of all others, and no way
//! to do it moves less. Within a node the shards are read in place, so only what passes between
//! nodes is sent. The sums of an iteration (0.6 KB a rank) are not counted.

use serde::Serialize;

use crate::communicator::Communicator;
use crate::sharding::Sharding;

/// Bytes over all iterations, of all ranks together. The field names are the JSON keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Traffic {
    /// Values of other ranks that ranks can read, in shared memory or received.
    pub between_ranks: u64,
    /// Values of other nodes that nodes received.
    pub between_nodes: u64,
}

impl Traffic {
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
        Traffic {
            between_ranks: n * (comm.ranks() as u64 - 1) * bytes,
            between_nodes: n * (topology.nodes() as u64 - 1) * bytes,
        }
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
            }
        }
    }
}
