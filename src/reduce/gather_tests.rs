//! All loops give the bits of a slow reference, for rows of every shape.

use super::*;

/// Rows of the given lengths over a table of `n` elements.
struct Example {
    n: usize,
    lengths: Vec<u32>,
    rows: Vec<Vec<(u32, f64)>>,
}

impl Example {
    fn new(n: usize, lengths: Vec<u32>) -> Self {
        let mut state = 7u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        };
        let rows = lengths
            .iter()
            .map(|&l| {
                let entry = |_| ((random() % n as u64) as u32, (random() % 100) as f64 * 0.37);
                (0..l).map(entry).collect()
            })
            .collect();
        Example { n, lengths, rows }
    }

    fn build<P: Precision>(&self, weighted: bool, kernel: BlockSums<P>) -> GatherRows<P> {
        let fill = |row: usize, sources: &mut Vec<u32>, weights: &mut Vec<f64>| {
            sources.extend(self.rows[row].iter().map(|e| e.0));
            if weighted {
                weights.extend(self.rows[row].iter().map(|e| e.1));
            }
        };
        GatherRows::build_for(self.n, &self.lengths, weighted, fill, kernel).unwrap()
    }

    fn table<P: Precision>(&self) -> Vec<P::Wire> {
        (0..self.n).map(|i| P::Wire::from_f64(1.0 / (i + 3) as f64)).collect()
    }

    /// The sums by the rule of the module comment, entry by entry.
    fn reference<P: Precision>(&self, weighted: bool) -> Vec<P::Sum> {
        let table = self.table::<P>();
        let mut sums = Vec::new();
        for (block, lengths) in self.rows.chunks(LANES).zip(self.lengths.chunks(LANES)) {
            let total: usize = lengths.iter().map(|&l| l as usize).sum();
            let longest = lengths.iter().copied().max().unwrap() as usize;
            let across = LANES * longest <= total + total / 8 + LANES;
            for row in block {
                let mut lanes = [P::Sum::default(); LANES];
                for (k, &(source, weight)) in row.iter().enumerate() {
                    let value = P::widen(table[source as usize]);
                    let value = if weighted { value * P::Sum::from_f64(weight) } else { value };
                    let lane = if across { 0 } else { k % LANES };
                    lanes[lane] = lanes[lane] + value;
                }
                for width in [8, 4, 2, 1] {
                    (0..width).for_each(|l| lanes[l] = lanes[l] + lanes[l + width]);
                }
                sums.push(lanes[0]);
            }
        }
        sums
    }
}

fn examples() -> Vec<Example> {
    let many = |f: fn(u32) -> u32, rows: u32| (0..rows).map(f).collect::<Vec<u32>>();
    vec![
        Example::new(1, vec![]),
        Example::new(1, vec![1]),
        Example::new(5, vec![0; 17]),
        Example::new(40, many(|i| i, 100)),
        Example::new(1000, many(|i| 100 - i, 100)),
        Example::new(1000, many(|_| 33, 64)),
        Example::new(1000, many(|i| i * i % 71, 333)),
        Example::new(300, many(|i| if i == 40 { 5000 } else { 3 }, 55)),
        Example::new(300, many(|i| [15, 16, 17, 31, 32, 33][i as usize % 6], 95)),
    ]
}

/// Every loop that this processor can run.
fn kernels<P: Precision>(weighted: bool, avx2: fn(bool) -> BlockSums<P>) -> Vec<BlockSums<P>> {
    let mut kernels = vec![plain(weighted), P::choose(weighted)];
    if is_x86_feature_detected!("avx2") {
        kernels.push(avx2(weighted));
    }
    kernels
}

fn check<P: Precision>(avx2: fn(bool) -> BlockSums<P>)
where
    P::Sum: bytemuck::Pod,
{
    for example in examples() {
        let table = example.table::<P>();
        for weighted in [false, true] {
            let expected = example.reference::<P>(weighted);
            for kernel in kernels(weighted, avx2) {
                let rows = example.build(weighted, kernel);
                assert_eq!(rows.rows(), expected.len());
                assert_eq!(rows.prefix().len(), rows.blocks() + 1);
                let mut sums = Vec::new();
                for block in 0..rows.blocks() {
                    let mut part = [P::Sum::default(); LANES];
                    rows.sums(block, &table, &mut part);
                    sums.extend(part);
                }
                sums.truncate(rows.rows());
                let bytes = bytemuck::cast_slice::<P::Sum, u8>;
                assert_eq!(bytes(&sums), bytes(&expected), "{:?}", example.lengths);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn all_loops_give_the_same_bits() {
    check::<Double>(wide::avx2_double);
    check::<Single>(wide::avx2_single);
    check::<Mixed>(wide::avx2_mixed);
}

#[test]
fn indices_outside_the_table_are_refused() {
    for source in [3, 4, u32::MAX] {
        let build = |n| {
            GatherRows::<Double>::build(n, &[1, 2], false, |row, sources, _| {
                sources.extend([[0].as_slice(), &[1, source]][row]);
            })
        };
        assert!(build(3).is_err(), "{source}");
        assert_eq!(build(5).is_err(), source == u32::MAX);
    }
    let short = GatherRows::<Double>::build(5, &[2], false, |_, sources, _| sources.push(1));
    assert_eq!(short.err(), Some(BadIndex));
    let unweighted = GatherRows::<Double>::build(5, &[1], true, |_, sources, _| sources.push(1));
    assert_eq!(unweighted.err(), Some(BadIndex));
}

#[test]
#[should_panic(expected = "rows are built for a table")]
fn another_table_is_refused() {
    let rows =
        GatherRows::<Double>::build(5, &[1], false, |_, sources, _| sources.push(4)).unwrap();
    rows.sums(0, &[0.0; 4], &mut [0.0; LANES]);
}
