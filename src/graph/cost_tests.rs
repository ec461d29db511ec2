//! Estimates against counts by hand, and the choice between them.

use super::*;
use crate::select::{Header, Row};

const SIZES: Sizes = Sizes { wire: 8, sum: 8, grain: GRAIN, cuttable: true };

fn network() -> Network {
    Network { latency_us: 1.0, gbytes_per_s: 1.0, source: "test".into() }
}

/// Sources that each rank reads: a few of everything.
fn reads_of(rank: usize, n: usize) -> Vec<u32> {
    (0..n as u32 / 3).map(|i| (i * i + 5 * rank as u32) % n as u32).collect()
}

fn example(n: usize, ranks: usize) -> Reads {
    let blocks = Sharding::even(n.div_ceil(GRAIN), ranks);
    let end = |rank: usize| (blocks.range(rank).end * GRAIN).min(n);
    let counts: Vec<usize> =
        (0..ranks).map(|rank| end(rank) - if rank == 0 { 0 } else { end(rank - 1) }).collect();
    let mut reads = Reads::new(&Sharding::from_counts(&counts));
    (0..ranks).for_each(|rank| reads.push(&reads_of(rank, n)));
    reads
}

/// Values that nodes receive, where rank `r` reads `wanted(r)`.
fn count(reads: &Reads, topology: &Topology, wanted: impl Fn(usize) -> Vec<u32>) -> u64 {
    let mut count = 0;
    for node in 0..topology.nodes() {
        let ranks = topology.ranks_of(node).iter();
        let mut all: Vec<u32> = ranks.flat_map(|&rank| wanted(rank)).collect();
        all.sort_unstable();
        all.dedup();
        let owner = |i: u32| reads.sharding.owner(i as usize).unwrap();
        count += all.iter().filter(|&&i| topology.node(owner(i)) != node).count() as u64;
    }
    count
}

#[test]
fn bytes_are_those_of_values_and_sums_between_nodes() {
    for (n, ranks, a_node) in [(1000, 4, 1), (1000, 6, 2), (3000, 8, 2), (200, 7, 3), (40, 5, 1)] {
        let (reads, topology) = (example(n, ranks), Topology::blocks(ranks, a_node));
        let found = |scheme| reads.candidate(scheme, &topology, SIZES, &network());
        let dense = found(Scheme::OneD);
        assert_eq!(dense.bytes_between_nodes, 8 * (n * (topology.nodes() - 1)) as u64);
        let needed = count(&reads, &topology, |rank| reads_of(rank, n));
        assert_eq!(found(Scheme::Needed).bytes_between_nodes, 8 * needed, "{n} {ranks}");
        for shape in GridShape::all(ranks) {
            let (columns, cuts) = (shape.columns, reads.columns(shape.columns));
            let values = count(&reads, &topology, |rank| {
                let row = rank / columns * columns..(rank / columns + 1) * columns;
                let all = row.flat_map(|other| reads_of(other, n));
                let column = cuts.range(rank % columns);
                all.filter(|&source| column.contains(&(source as usize))).collect()
            });
            let mut sums = 0;
            for rank in 0..ranks {
                let (row, last) = (rank / columns, rank / columns * columns + columns - 1);
                if rank != last && !topology.same_node(rank, rank + 1) {
                    sums += reads.group_rows(row, columns);
                }
                if !topology.same_node(rank, last) {
                    sums += reads.sharding.count(rank);
                }
            }
            let grid = found(Scheme::Grid(shape));
            assert_eq!(grid.bytes_between_nodes, 8 * (values + sums as u64), "{n} {shape:?}");
            assert!(grid.busiest_node_bytes <= grid.bytes_between_nodes);
        }
    }
}

#[test]
fn columns_have_about_equal_edges_and_end_between_words() {
    let mut reads = Reads::new(&Sharding::even(1 << 17, 1));
    // Hubs first: source i has about 2²⁰/(i + 1000) edges.
    let sources = (0..1u32 << 17).flat_map(|i| vec![i; (1usize << 20) / (i as usize + 1000)]);
    reads.push(&sources.collect::<Vec<_>>());
    let total: u64 = reads.bins.iter().sum();
    for columns in [1, 2, 3, 8] {
        let cuts = reads.columns(columns);
        assert_eq!((cuts.n(), cuts.ranks()), (1 << 17, columns));
        for column in 0..columns {
            let range = cuts.range(column);
            assert!(range.start.is_multiple_of(64));
            let bins = range.start / reads.bin..range.end.div_ceil(reads.bin);
            let edges: u64 = reads.bins[bins].iter().sum();
            assert!(edges.abs_diff(total / columns as u64) < total / 10, "{columns}: {edges}");
        }
    }
    assert_eq!(Reads::new(&Sharding::even(5, 2)).columns(3).n(), 5);
}

#[test]
fn a_sample_of_words_stands_for_all() {
    let n = 1 << 16;
    let exact = example(n, 4);
    let mut sample = Reads { stride: 4, words: n / 64 / 4, ..Reads::new(&exact.sharding) };
    (0..4).for_each(|rank| sample.push(&reads_of(rank, n)));
    let topology = Topology::flat(4);
    let bytes = |reads: &Reads| {
        let one = reads.candidate(Scheme::Needed, &topology, SIZES, &network());
        one.bytes_between_nodes as f64
    };
    let ratio = bytes(&sample) / bytes(&exact);
    assert!((ratio - 1.0).abs() < 0.1, "{ratio}");
}

#[test]
fn the_network_is_that_of_the_table() {
    let row = |bytes: usize, time_us: f64| Row {
        op: "all_gather".into(),
        ranks: 4,
        ranks_per_node: 1,
        buffers: "plain".into(),
        dtype_bytes: 4,
        order: None,
        bytes,
        bytes_up_to: bytes,
        algorithm: "ring".into(),
        time_us,
        runner_up: None,
        runner_up_us: None,
    };
    let header = |nodes| Header {
        version: 1,
        library: String::new(),
        ranks: 4,
        nodes,
        cores: 1,
        date: String::new(),
        noise: String::new(),
    };
    let rows = vec![row(8, 100.0), row(4 << 20, 25_265.824)];
    let table = Table::new("t.toml", header(4), rows.clone()).unwrap();
    let network = Network::of(Some(&table));
    assert_eq!(network.latency_us, 50.0);
    assert!((network.gbytes_per_s - 0.125).abs() < 1e-6, "{network:?}");
    assert_eq!(network.source, "table t.toml");
    let one_node = Table::new("t.toml", header(1), rows).unwrap();
    for table in [None, Some(&one_node)] {
        assert_eq!(Network::of(table).gbytes_per_s, Machine::default().gbytes_per_s);
    }
}

#[test]
fn the_cheapest_of_those_allowed_is_chosen() {
    let grid = Scheme::Grid(GridShape { rows: 2, columns: 2 });
    let wide = Scheme::Grid(GridShape { rows: 1, columns: 4 });
    let priced = |prices: [f64; 4]| -> Vec<(Scheme, Candidate)> {
        let schemes = [Scheme::OneD, Scheme::Needed, grid, wide];
        let price = |(scheme, time_us): (Scheme, f64)| {
            let partition = scheme.to_string();
            let (bytes_between_nodes, busiest_node_bytes, messages) = (0, 0, 0);
            let candidate =
                Candidate { partition, bytes_between_nodes, busiest_node_bytes, messages, time_us };
            (scheme, candidate)
        };
        schemes.into_iter().zip(prices).map(price).collect()
    };
    let all = priced([1.0, 2.0, 0.5, 0.7]);
    assert_eq!(cheapest(&all, Partitioning::Auto, true, true), Some(grid));
    assert_eq!(cheapest(&all, Partitioning::Auto, false, true), Some(Scheme::OneD));
    assert_eq!(cheapest(&all, Partitioning::Auto, false, false), Some(Scheme::Needed));
    assert_eq!(cheapest(&all, Partitioning::AnyGrid, false, false), Some(grid));
    let ties = priced([1.0, 1.0, 1.0, 1.0]);
    assert_eq!(cheapest(&ties, Partitioning::Auto, true, true), Some(Scheme::OneD));
}
