//! Row sums for several tables at once, whose elements lie side by side: each entry of a row is
//! read once for all of them, and its gather is one cache line (8 columns of 64 bits).
//!
//! Every column is added up exactly as [`GatherRows::sums`] adds up one table, so its bits are the
//! same. Memory traffic: 4 bytes an entry and a cache line of the table, for 8 sums; one table
//! after another takes 4 bytes and 8 gathers of 8 bytes from as many places.

use super::{ACROSS, GatherRows, LANES, PAD, Precision};

impl<P: Precision> GatherRows<P> {
    /// The sums of the rows of a block for `K` tables.
    ///
    /// # Panics
    /// If the table has another length than the rows were built for, or there is no such block.
    pub fn sums_of_columns<const K: usize>(
        &self,
        block: usize,
        table: &[[P::Wire; K]],
        sums: &mut [[P::Sum; K]; LANES],
    ) {
        assert_eq!(table.len(), self.table_len, "rows are built for a table");
        let place = self.places[block];
        *sums = [[P::Sum::default(); K]; LANES];
        if place.along == ACROSS {
            for (lane, sum) in sums.iter_mut().enumerate() {
                for step in 0..place.steps as usize {
                    let at = place.at + step * LANES + lane;
                    if self.entries[at] == PAD {
                        break;
                    }
                    self.add(at, table, sum);
                }
            }
            return;
        }
        let first = place.along as usize * LANES;
        let mut at = place.at;
        for (sum, &length) in sums.iter_mut().zip(&self.lengths[first..first + LANES]) {
            let mut lanes = [[P::Sum::default(); K]; LANES];
            for k in 0..length as usize {
                self.add(at + k, table, &mut lanes[k % LANES]);
            }
            at += length as usize;
            for half in [8, 4, 2, 1] {
                let (low, high) = lanes.split_at_mut(half);
                for (sums, others) in low.iter_mut().zip(high) {
                    for (sum, &other) in sums.iter_mut().zip(others.iter()) {
                        *sum = *sum + other;
                    }
                }
            }
            *sum = lanes[0];
        }
    }

    /// Adds the entry at `at` to a sum of every column.
    #[inline(always)]
    fn add<const K: usize>(&self, at: usize, table: &[[P::Wire; K]], sum: &mut [P::Sum; K]) {
        let values = &table[self.entries[at] as usize];
        match self.weights.get(at) {
            Some(&weight) => {
                for (sum, &value) in sum.iter_mut().zip(values) {
                    *sum = *sum + P::widen(value) * weight;
                }
            }
            None => {
                for (sum, &value) in sum.iter_mut().zip(values) {
                    *sum = *sum + P::widen(value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Double, Mixed, Real, Single};
    use super::*;
    use crate::element::Element;

    /// Rows of about equal and of very different lengths, weighted or not.
    fn check<P: Precision>(weighted: bool) {
        const N: usize = 333;
        let lengths: Vec<u32> = (0..N as u32)
            .map(|row| if row / 16 % 2 == 0 { 20 + row % 2 } else { row * row % 91 })
            .collect();
        let rows = GatherRows::<P>::build(N, &lengths, weighted, |row, sources, weights| {
            for k in 0..lengths[row] as usize {
                sources.push(((row * 31 + k * k * 7) % N) as u32);
                if weighted {
                    weights.push(0.1 + (k % 7) as f64);
                }
            }
        })
        .unwrap();
        let wire = |i: usize| P::narrow(P::Sum::from_f64(1.0 / (1.0 + i as f64)));
        let table: Vec<[P::Wire; 3]> =
            (0..N).map(|i| [wire(i), wire(i * i % 17), wire(i % 5)]).collect();
        let mut all = [[P::Sum::default(); 3]; LANES];
        for block in 0..rows.blocks() {
            rows.sums_of_columns(block, &table, &mut all);
            for column in 0..3 {
                let single: Vec<P::Wire> = table.iter().map(|row| row[column]).collect();
                let mut one = [P::Sum::default(); LANES];
                rows.sums(block, &single, &mut one);
                for lane in 0..LANES.min(N - block * LANES) {
                    let (a, b) = (all[lane][column].to_f64(), one[lane].to_f64());
                    assert_eq!(a.to_bits(), b.to_bits(), "block {block} lane {lane}");
                }
            }
        }
    }

    #[test]
    fn columns_have_the_bits_of_single_tables() {
        for weighted in [false, true] {
            check::<Double>(weighted);
            check::<Single>(weighted);
            check::<Mixed>(weighted);
        }
    }
}
