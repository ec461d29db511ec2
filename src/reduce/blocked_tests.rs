//! Blocked sums have the bits of the rule in the module comment, entry by entry.

use super::*;
use crate::element::Element;
use crate::reduce::gather::{Double, Mixed, Real, Single};

struct Example {
    table_len: usize,
    offsets: Vec<usize>,
    sources: Vec<u32>,
    weights: Vec<f64>,
}

impl Example {
    /// `rows` rows of the lengths of `length`, with sources that repeat and crowd at the start.
    fn new(table_len: usize, rows: usize, length: impl Fn(usize) -> usize) -> Self {
        let mut state = 11u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        };
        let (mut offsets, mut sources) = (vec![0], Vec::new());
        for row in 0..rows {
            let mut own: Vec<u32> = (0..length(row))
                .map(|k| {
                    let most = if k % 3 == 0 { table_len.div_ceil(8) } else { table_len };
                    (random() % most as u64) as u32
                })
                .collect();
            own.sort_unstable();
            sources.extend(own);
            offsets.push(sources.len());
        }
        let weights = (0..sources.len()).map(|i| (i % 100) as f64 * 0.37).collect();
        Example { table_len, offsets, sources, weights }
    }

    fn csr(&self, weighted: bool) -> Csr<'_> {
        let weights: &[f64] = if weighted { &self.weights } else { &[] };
        Csr { offsets: &self.offsets, sources: &self.sources, weights }
    }

    fn table<P: Precision>(&self) -> Vec<P::Wire> {
        (0..self.table_len).map(|i| P::Wire::from_f64(1.0 / (i + 3) as f64)).collect()
    }

    fn reference<P: Precision>(&self, weighted: bool, shift: u32) -> Vec<P::Sum> {
        let table = self.table::<P>();
        let value = |at: usize| {
            let value = P::widen(table[self.sources[at] as usize]);
            if weighted { value * P::Sum::from_f64(self.weights[at]) } else { value }
        };
        let row_sum = |row: usize| {
            let mut sum = P::Sum::default();
            for block in 0..=self.table_len >> shift {
                let own: Vec<usize> = (self.offsets[row]..self.offsets[row + 1])
                    .filter(|&at| self.sources[at] as usize >> shift == block)
                    .collect();
                if own.len() < LONG {
                    own.into_iter().for_each(|at| sum = sum + value(at));
                    continue;
                }
                let mut lanes = [P::Sum::default(); LANES];
                for (k, at) in own.into_iter().enumerate() {
                    lanes[k % LANES] = lanes[k % LANES] + value(at);
                }
                for width in [8, 4, 2, 1] {
                    (0..width).for_each(|l| lanes[l] = lanes[l] + lanes[l + width]);
                }
                sum = sum + lanes[0];
            }
            sum
        };
        (0..self.offsets.len() - 1).map(row_sum).collect()
    }

    fn check<P: Precision>(&self) {
        let table = self.table::<P>();
        for weighted in [false, true] {
            // Windows of 4, 64 and 65,536 rows.
            for shift in [30, 26, 16, 5] {
                let csr = self.csr(weighted);
                let rows =
                    BlockedRows::<P>::build_for(self.table_len, csr, shift, P::choose(weighted))
                        .unwrap();
                let expected = self.reference::<P>(weighted, shift);
                let bits = |sums: &[P::Sum]| -> Vec<u64> {
                    sums.iter().map(|s| s.to_f64().to_bits()).collect()
                };
                let mut all = vec![P::Sum::from_f64(9.0); expected.len()];
                rows.sums(0..rows.windows(), &table, &mut all);
                assert_eq!(bits(&all), bits(&expected), "weighted {weighted}, shift {shift}");
                // Window by window they are the same.
                for (window, expected) in expected.chunks(rows.height()).enumerate() {
                    let mut own = vec![P::Sum::default(); expected.len()];
                    rows.sums(window..window + 1, &table, &mut own);
                    assert_eq!(bits(&own), bits(expected), "window {window}");
                }
                let entries = self.sources.len() as u64;
                assert_eq!(rows.prefix().last(), Some(&entries));
                assert_eq!(rows.prefix().len(), rows.windows() + 1);
            }
        }
    }
}

#[test]
fn blocked_sums_follow_the_rule_for_rows_of_every_shape() {
    let examples = [
        Example::new(1, 0, |_| 0),
        Example::new(1, 1, |_| 3),
        Example::new(70, 9, |i| i),
        Example::new(1000, 130, |i| [0, 1, 2, 63, 64, 65, 200][i % 7]),
        Example::new(300, 67, |i| if i % 16 == 1 { 3000 } else { 5 }),
        Example::new(5000, 40, |_| 1500),
    ];
    for example in &examples {
        example.check::<Double>();
        example.check::<Single>();
        example.check::<Mixed>();
    }
}

#[test]
fn rows_in_two_pieces_have_the_bits_of_one() {
    let example = Example::new(300, 67, |i| if i % 16 == 1 { 3000 } else { i * 3 });
    let table = example.table::<Double>();
    for (weighted, shift) in [(false, 30), (true, 30), (false, 6), (true, 8)] {
        let whole = example.csr(weighted);
        let build = |csr: Csr<'_>| {
            BlockedRows::<Double>::build_for(
                example.table_len,
                csr,
                shift,
                Double::choose(weighted),
            )
            .unwrap()
        };
        let expected = example.reference::<Double>(weighted, shift);
        for at in (0..=example.table_len).step_by(17) {
            let (mut offsets, mut sources, mut weights) =
                ([vec![0], vec![0]], [vec![], vec![]], [vec![], vec![]]);
            for row in whole.offsets.windows(2) {
                let cut = BlockedRows::<Double>::cut_for(&whole.sources[row[0]..row[1]], at, shift);
                for (half, range) in [row[0]..row[0] + cut, row[0] + cut..row[1]].iter().enumerate()
                {
                    sources[half].extend_from_slice(&whole.sources[range.clone()]);
                    if weighted {
                        weights[half].extend_from_slice(&whole.weights[range.clone()]);
                    }
                    offsets[half].push(sources[half].len());
                }
            }
            let mut sums = vec![0.0; expected.len()];
            for half in 0..2 {
                let csr = Csr {
                    offsets: &offsets[half],
                    sources: &sources[half],
                    weights: &weights[half],
                };
                let rows = build(csr);
                rows.add(0..rows.windows(), &table, &mut sums);
            }
            let bits = |sums: &[f64]| sums.iter().map(|s| s.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&sums), bits(&expected), "cut at {at}, shift {shift}");
        }
    }
}

#[test]
fn bad_rows_are_refused() {
    let build = |table_len, offsets: &[usize], sources: &[u32], weights: &[f64]| {
        let csr = Csr { offsets, sources, weights };
        BlockedRows::<Single>::build(table_len, csr).map(|_| ())
    };
    assert_eq!(build(5, &[0, 2], &[1, 4], &[]), Ok(()));
    assert_eq!(build(5, &[0, 2], &[1, 5], &[]), Err(BadIndex), "a source beyond the table");
    assert_eq!(build(5, &[0, 2], &[4, 1], &[]), Err(BadIndex), "sources that descend");
    assert_eq!(build(5, &[0, 1], &[1, 4], &[]), Err(BadIndex), "more sources than rows have");
    assert_eq!(build(5, &[0, 2], &[1, 4], &[1.0]), Err(BadIndex), "too few weights");
    assert_eq!(build(5, &[1, 0, 2], &[1, 4], &[]), Err(BadIndex), "offsets that descend");
}
