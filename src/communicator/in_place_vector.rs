//! A vector that exists once a node, in one copy, and is changed in place.
//!
//! Where shards are updated from what they hold, as the parameters of a training run are, one copy
//! is enough: all ranks read, meet, change their shards, and meet again. See `shared_vector` for
//! two copies that take turns, which needs one meeting less.

use super::Communicator;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::sharding::Sharding;
use crate::transport::Parts;
use crate::transport::memory::Allocation;
use crate::transport::node_in_place::NodeInPlace;

/// A vector of which each rank changes its shard and all ranks of the node read the whole.
///
/// ```
/// use rankwise::{launch, sharding::Sharding};
///
/// launch::threads(2, |comm| {
///     let mut vector = comm.in_place_vector::<u32>(&Sharding::even(5, 2))?;
///     vector.open()?;
///     vector.own_mut().fill(comm.rank() as u32 + 1);
///     vector.close()?;
///     assert_eq!(vector.whole(), [1, 1, 1, 2, 2]);
///     Ok(())
/// })
/// .unwrap();
/// ```
#[derive(Debug)]
pub struct InPlaceVector<T: Element> {
    vector: NodeInPlace<T>,
    communicator: Communicator,
}

impl Communicator {
    /// A zeroed vector over `sharding`; all ranks must be on one node. Collective.
    pub fn in_place_vector<T: Element>(&self, sharding: &Sharding) -> Result<InPlaceVector<T>> {
        let (ranks, nodes, n) = (self.ranks(), self.topology().nodes(), sharding.n());
        if sharding.ranks() != ranks || nodes != 1 {
            return Err(Error::input(format!(
                "in_place_vector: the sharding is for {} ranks of one node, the communicator has \
                 {ranks} on {nodes} nodes",
                sharding.ranks()
            )));
        }
        let bytes = n.checked_mul(size_of::<T>()).ok_or_else(|| {
            Error::input(format!("a vector in place of {n} {} is too large", T::DTYPE))
        })?;
        let segment = match &self.context().node {
            Some(peers) => peers.allocate(bytes, Parts::Common)?,
            None => Allocation::private(bytes)?,
        };
        let vector = NodeInPlace::new(segment, n, sharding.range(self.rank()));
        Ok(InPlaceVector { vector, communicator: self.clone() })
    }
}

impl<T: Element> InPlaceVector<T> {
    /// From here until [`InPlaceVector::close`] each rank writes its shard and none reads the
    /// whole. Collective.
    #[track_caller]
    pub fn open(&mut self) -> Result<()> {
        self.communicator.barrier()?;
        self.vector.turn(true);
        Ok(())
    }

    /// From here on all ranks read. Collective.
    #[track_caller]
    pub fn close(&mut self) -> Result<()> {
        self.communicator.barrier()?;
        self.vector.turn(false);
        Ok(())
    }

    /// The own shard.
    ///
    /// # Panics
    /// Unless the vector is open.
    pub fn own_mut(&mut self) -> &mut [T] {
        self.vector.own_mut()
    }

    /// The whole vector.
    ///
    /// # Panics
    /// If the vector is open.
    pub fn whole(&self) -> &[T] {
        self.vector.whole()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::communicator::Settings;
    use crate::launch;

    #[test]
    fn every_rank_reads_what_all_have_written() {
        for ranks in 1..=5 {
            for n in [0, 1, ranks - 1, ranks, ranks + 1, 1000] {
                let run = launch::threads(ranks, |c| {
                    let sharding = Sharding::even(n, ranks);
                    let mut vector = c.in_place_vector::<u64>(&sharding)?;
                    assert!(vector.whole().iter().all(|&x| x == 0));
                    for turn in 1..4u64 {
                        vector.open()?;
                        let own = vector.own_mut().iter_mut().zip(sharding.range(c.rank()));
                        // What was written in the turn before is still there.
                        own.for_each(|(x, i)| *x += turn * (i as u64 + 1));
                        vector.close()?;
                        let sum = turn * (turn + 1) / 2;
                        let expected = (0..n as u64).map(|i| sum * (i + 1));
                        assert!(vector.whole().iter().copied().eq(expected), "{n} on {ranks}");
                    }
                    Ok(())
                });
                run.unwrap();
            }
        }
    }

    #[test]
    fn it_is_for_one_node_and_a_sharding_of_its_ranks() {
        let refused = |nodes: &[usize], ranks: usize| {
            let made = launch::threads_on_nodes(nodes, Settings::default(), |c| {
                c.in_place_vector::<f32>(&Sharding::even(8, ranks)).map(|_| ())
            });
            made.unwrap_err().message
        };
        assert!(refused(&[0, 1], 2).contains("on 2 nodes"));
        assert!(refused(&[0, 0], 3).contains("for 3 ranks"));
    }

    #[test]
    fn nobody_reads_while_it_is_open() {
        let read = launch::threads(1, |c| {
            let mut vector = c.in_place_vector::<f32>(&Sharding::even(3, 1))?;
            vector.open()?;
            Ok(vector.whole().len())
        });
        let message = read.unwrap_err().message;
        assert!(message.contains("read before `open`"), "{message}");
    }
}
