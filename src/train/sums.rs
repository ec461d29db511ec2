//! Sums and counts that come out the same however samples are spread over ranks and batches.
//!
//! Sums are exact until they are read (`reduce::exact`), and counts are integers, so neither order
//! nor grouping shows. Cost: 3 ns a value; one all-reduce of 71 integers a sum for the whole job.

use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::{Error, Result};
use crate::reduce::exact::{ExactSum, LIMBS};

/// A fixed list of sums and of counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sums {
    sums: Vec<ExactSum>,
    counts: Vec<u64>,
}

impl Sums {
    /// So many sums and counts, all zero.
    pub fn new(sums: usize, counts: usize) -> Self {
        Sums { sums: vec![ExactSum::new(); sums], counts: vec![0; counts] }
    }

    /// Adds a value to a sum.
    #[inline]
    pub fn add(&mut self, sum: usize, value: f64) {
        self.sums[sum].add(value);
    }

    /// Adds to a count.
    #[inline]
    pub fn count(&mut self, count: usize, more: u64) {
        self.counts[count] += more;
    }

    /// A sum, rounded once.
    pub fn sum(&self, sum: usize) -> f64 {
        self.sums[sum].value()
    }

    /// A count.
    pub fn counted(&self, count: usize) -> u64 {
        self.counts[count]
    }

    /// A sum over a count; `None` where nothing was counted.
    pub fn mean(&self, sum: usize, count: usize) -> Option<f64> {
        let n = self.counts[count];
        (n > 0).then(|| self.sum(sum) / n as f64)
    }

    /// Adds what `other` has added.
    pub fn merge(&mut self, other: &Sums) {
        self.sums.iter_mut().zip(&other.sums).for_each(|(mine, theirs)| mine.merge(theirs));
        self.counts.iter_mut().zip(&other.counts).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// The sums and counts of all ranks together, the same bits on each. Collective.
    pub fn combine(&self, comm: &Communicator) -> Result<Sums> {
        let mut numbers: Vec<i64> = self.sums.iter().flat_map(ExactSum::limbs).collect();
        let counts = self.counts.iter().map(|&c| i64::try_from(c));
        let counts: std::result::Result<Vec<i64>, _> = counts.collect();
        let too_many = |_| Error::internal("a count beyond 2^63");
        numbers.extend(comm.agree(counts.map_err(too_many))?);
        comm.all_reduce_in_place(&mut numbers[..], Op::Sum)?;
        let (limbs, counts) = numbers.split_at(self.sums.len() * LIMBS);
        Ok(Sums {
            sums: limbs.chunks_exact(LIMBS).map(ExactSum::from_limbs).collect(),
            counts: counts.iter().map(|&c| c.unsigned_abs()).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch;

    /// Values of very different sizes, so that a sum in another order has other bits.
    fn value(i: usize) -> f64 {
        let size = [1e-9, 1.0, 1e12, -1e12, 3e5][i % 5];
        size * (1.0 + i as f64 / 7.0)
    }

    fn of(indices: impl Iterator<Item = usize>) -> Sums {
        let mut sums = Sums::new(2, 2);
        for i in indices {
            sums.add(i % 2, value(i));
            sums.count(i % 2, i as u64);
        }
        sums
    }

    #[test]
    fn ranks_and_order_do_not_show() {
        for n in [0, 1, 3, 4, 5, 100] {
            let whole = of(0..n);
            assert_eq!(of((0..n).rev()).sum(0).to_bits(), whole.sum(0).to_bits());
            for ranks in 1..=4 {
                let all = launch::threads(ranks, |comm| {
                    of((0..n).skip(comm.rank()).step_by(ranks)).combine(comm)
                })
                .unwrap();
                for sums in all {
                    for i in 0..2 {
                        assert_eq!(sums.sum(i).to_bits(), whole.sum(i).to_bits(), "{n} {ranks}");
                        assert_eq!(sums.counted(i), whole.counted(i));
                        assert_eq!(sums.mean(i, i), whole.mean(i, i));
                    }
                }
            }
            let mut merged = of(0..n / 3);
            merged.merge(&of(n / 3..n));
            assert_eq!(merged.sum(1).to_bits(), whole.sum(1).to_bits());
        }
        assert_eq!(Sums::new(1, 1).mean(0, 0), None);
    }
}
