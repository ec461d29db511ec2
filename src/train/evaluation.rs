//! Evaluations that have the same bits at any number of ranks.
//!
//! Of the places where held-out data can be looked at, an evaluation takes so many at equal
//! distances, in blocks that do not depend on the ranks. Each block is one rank's, and numbers are
//! gathered in the order of the places. Cost: one all-gather of a number for each place.

use crate::communicator::Communicator;
use crate::error::Result;
use crate::sharding::Sharding;

/// Which places are looked at, and how many at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Places {
    /// How many there are.
    pub all: usize,
    /// How many are looked at, at most.
    pub most: usize,
    /// How many side by side.
    pub block: usize,
}

impl Places {
    /// How many are looked at.
    pub fn len(&self) -> usize {
        self.all.min(self.most)
    }

    /// Whether there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One of those that are looked at.
    pub fn place(&self, index: usize) -> usize {
        index * self.all / self.len()
    }

    /// Gives each block of places to `work` on one of the ranks; it returns a number for each. All
    /// ranks get all numbers, in the order of the places. Collective.
    pub fn each_block(
        &self,
        communicator: &Communicator,
        mut work: impl FnMut(&[usize]) -> Result<Vec<f64>>,
    ) -> Result<Vec<f64>> {
        let many = self.len();
        let blocks = Sharding::even(many.div_ceil(self.block), communicator.ranks());
        let own = blocks.range(communicator.rank()).map(|block| {
            let indices = block * self.block..((block + 1) * self.block).min(many);
            work(&indices.map(|index| self.place(index)).collect::<Vec<usize>>())
        });
        let own = communicator.agree(own.collect::<Result<Vec<_>>>())?;
        Ok(communicator.all_gather_vec(&own.concat())?.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::launch;

    #[test]
    fn every_place_is_one_ranks_and_all_get_all_numbers() {
        for (all, most, block) in
            [(0, 5, 2), (5, 0, 2), (1, 9, 4), (10, 9, 4), (100, 7, 1), (8, 8, 4)]
        {
            let places = Places { all, most, block };
            let expected: Vec<f64> = (0..places.len()).map(|i| places.place(i) as f64).collect();
            let mut rising = expected.windows(2);
            assert!(rising.all(|w| w[0] < w[1]) && expected.iter().all(|p| *p < all as f64));
            for ranks in 1..=4 {
                let found = launch::threads(ranks, |comm| {
                    places.each_block(comm, |own| {
                        assert!((1..=block).contains(&own.len()));
                        Ok(own.iter().map(|&place| place as f64).collect())
                    })
                });
                assert!(found.unwrap().iter().all(|found| *found == expected), "{places:?}");
            }
        }
    }

    #[test]
    fn an_error_on_one_rank_is_one_on_all() {
        let places = Places { all: 3, most: 3, block: 1 };
        let found = launch::threads(3, |comm| {
            let found = places.each_block(comm, |own| match own[0] {
                1 => Err(Error::input("no such place")),
                place => Ok(vec![place as f64]),
            });
            Ok(found.unwrap_err().message)
        });
        assert!(found.unwrap().iter().all(|message| message.contains("no such place")));
    }
}
