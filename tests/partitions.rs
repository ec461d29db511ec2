//! PageRank by every partition: the same bits on any ranks, nodes and grids, and no more bytes
//! between nodes than the partition needs.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::Path;

use rankwise::communicator::Settings;
use rankwise::error::Result;
use rankwise::graph::options::{Number, PageRankOptions, Stop};
use rankwise::graph::order::Relabel;
use rankwise::graph::scheme::Partitioning;
use rankwise::graph::{PageRankJob, PageRankSummary, run};
use rankwise::launch;

/// Which node each rank is on.
const PLACES: [&[usize]; 6] =
    [&[0, 0], &[0, 1], &[0, 0, 1], &[0, 1, 2, 3], &[0, 0, 1, 1, 2, 2], &[0, 1, 0, 1, 2]];

/// A graph with hubs, self-loops, repeated edges and weights, in which every `every`-th node has
/// edges out.
fn random_graph(edges: u64, nodes: u64, every: u64) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut state = 5u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    let mut text = String::new();
    for i in 0..edges {
        let from = random(nodes) / every * every;
        let to = if i % 4 == 0 { random(5) } else { random(nodes) };
        text += &format!("{from}\t{to}\t{}\n", random(9) as f64 * 0.3);
    }
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn with(graph: &Path, options: PageRankOptions) -> PageRankJob {
    PageRankJob { options, weighted: true, top: 100_000, ..PageRankJob::new(graph) }
}

fn run_on(places: &[usize], job: &PageRankJob) -> Result<PageRankSummary> {
    let all = launch::threads_on_nodes(places, Settings::default(), |comm| run(comm, job))?;
    assert!(all.iter().all(|one| one == &all[0]), "the summary is the same on every rank");
    Ok(all[0].clone())
}

/// All bits of a result.
fn bits(summary: &PageRankSummary) -> (Vec<String>, Vec<u64>, Vec<u64>) {
    let nodes = summary.top.iter().map(|top| top.node.to_string()).collect();
    let ranks = summary.top.iter().map(|top| top.rank.to_bits()).collect();
    (nodes, ranks, summary.residuals.iter().map(|residual| residual.to_bits()).collect())
}

/// Every partition for so many ranks.
fn partitions(ranks: usize) -> Vec<Partitioning> {
    let grids = (1..=ranks).filter(|columns| ranks.is_multiple_of(*columns));
    let grids = grids.map(|columns| format!("2d:{}x{columns}", ranks / columns));
    let names = ["auto", "1d", "1d-needed", "2d"].map(String::from).into_iter().chain(grids);
    names.map(|name| name.parse().unwrap()).collect()
}

#[test]
fn every_partition_has_the_same_bits() {
    let graph = random_graph(3000, 600, 3);
    for (number, relabel, tolerance) in [
        (Number::F64, Relabel::Always, 1e-6),
        (Number::F64, Relabel::Never, 1e-4),
        (Number::F32, Relabel::Always, 1e-4),
        (Number::Mixed, Relabel::Never, 1e-4),
    ] {
        let options = PageRankOptions { number, stop: Stop::L1, tolerance, ..Default::default() };
        let job = PageRankJob { relabel, ..with(graph.path(), options) };
        let expected = bits(&run_on(&[0], &job).unwrap());
        assert!(expected.0.len() > 500);
        for places in PLACES {
            for partition in partitions(places.len()) {
                let options = PageRankOptions { partition, ..job.options };
                let found = run_on(places, &PageRankJob { options, ..job.clone() }).unwrap();
                assert_eq!(bits(&found), expected, "{partition:?} on {places:?}");
            }
        }
    }
}

/// A million nodes: sums go by blocks of sources, and grids cut inside of blocks.
#[test]
fn grids_of_a_graph_beyond_the_caches_have_the_same_bits() {
    let options = PageRankOptions { stop: Stop::L1, tolerance: 1e-3, ..Default::default() };
    let job = PageRankJob { options, undirected: true, top: 500, ..PageRankJob::new("kron:20:2") };
    let expected = bits(&run_on(&[0], &job).unwrap());
    let places = [0, 0, 1, 1];
    for partition in ["1d-needed", "2d:2x2", "2d:1x4", "auto"] {
        let partition = partition.parse().unwrap();
        let options = PageRankOptions { partition, ..options };
        let found = run_on(&places, &PageRankJob { options, ..job.clone() }).unwrap();
        assert_eq!(bits(&found), expected, "{partition:?}");
        assert_eq!(found.bytes_moved.between_nodes, found.bytes_moved.lower_bound);
    }
}

#[test]
fn bytes_between_nodes_are_the_least_of_the_partition() {
    let graph = random_graph(2000, 1500, 3);
    for places in PLACES {
        let nodes = places.iter().max().unwrap() + 1;
        let of = |partition: &str| {
            let partition = partition.parse().unwrap();
            let options = PageRankOptions { partition, ..Default::default() };
            run_on(places, &with(graph.path(), options)).unwrap()
        };
        let (dense, needed) = (of("1d"), of("1d-needed"));
        let gathers = dense.iterations as u64;
        let all = 8 * dense.vertices * (nodes as u64 - 1) * gathers;
        assert_eq!(dense.bytes_moved.between_nodes, all);
        if nodes == 1 {
            assert_eq!((needed.bytes_moved.between_nodes, &needed.partition.chosen[..]), (0, "1d"));
            continue;
        }
        assert!(needed.bytes_moved.between_nodes < all / 2, "{:?}", needed.bytes_moved);
        assert!(needed.bytes_moved.between_nodes > 0);
        for summary in [&dense, &needed, &of("2d"), &of("auto")] {
            let (moved, chosen) = (summary.bytes_moved, &summary.partition.chosen);
            assert_eq!(moved.between_nodes, moved.lower_bound, "{chosen} on {places:?}");
            assert!(moved.between_nodes <= moved.between_ranks, "{chosen} on {places:?}");
            let choices = &summary.partition.choices;
            let estimate = choices.iter().find(|one| &one.partition == chosen).unwrap();
            // The rows of hubs are not cut in a graph of this size, so a grid reads more.
            let exact = estimate.bytes_between_nodes * gathers;
            let right = moved.between_nodes == exact || chosen.starts_with("2d");
            assert!(right, "{chosen}: {moved:?}, estimated {exact}");
        }
    }
}

#[test]
fn the_balance_and_the_reason_are_told() {
    let graph = random_graph(2000, 1500, 3);
    let options = PageRankOptions { partition: "2d:2x2".parse().unwrap(), ..Default::default() };
    let report = run_on(&[0, 0, 1, 1], &with(graph.path(), options)).unwrap().partition;
    assert_eq!((&report.chosen[..], &report.reason[..]), ("2d:2x2", "asked for"));
    assert!(report.edges_min > 0 && report.edges_min as f64 <= report.edges_mean);
    assert_eq!(report.edges_mean, 500.0);
    let names: Vec<&str> = report.choices.iter().map(|one| &one.partition[..]).collect();
    assert_eq!(names, ["1d", "1d-needed", "2d:2x2", "2d:1x4"]);
}

#[test]
fn a_grid_needs_as_many_ranks_as_it_has_places() {
    let graph = random_graph(20, 10, 3);
    let options = PageRankOptions { partition: "2d:2x3".parse().unwrap(), ..Default::default() };
    for places in PLACES.into_iter().filter(|places| places.len() != 6) {
        let error = run_on(places, &with(graph.path(), options)).unwrap_err();
        let what = format!("2d:2x3 needs 6 ranks; there are {}", places.len());
        assert!(error.message.contains(&what), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}

#[test]
fn withheld_changes_stay_within_the_bound_and_give_the_same_bits_anywhere() {
    let graph = random_graph(6000, 1200, 1);
    let bound = |tolerance, delta| PageRankOptions {
        stop: Stop::Bound,
        tolerance,
        delta,
        max_iterations: 1000,
        ..Default::default()
    };
    let exact = run_on(&[0], &with(graph.path(), bound(1e-13, None))).unwrap();
    let exact: std::collections::BTreeMap<String, f64> =
        exact.top.iter().map(|top| (top.node.to_string(), top.rank)).collect();
    for (tolerance, delta) in [(1e-6, 0.5), (1e-4, 0.9), (1e-9, 0.1)] {
        let job = with(graph.path(), bound(tolerance, Some(delta)));
        let one = run_on(&[0], &job).unwrap();
        let error: f64 =
            one.top.iter().map(|top| (exact[&top.node.to_string()] - top.rank).abs()).sum();
        assert!(error < tolerance, "{error} of {tolerance}");
        assert!(one.withheld > 0.0 && one.withheld < delta * 0.15 / 0.85 * tolerance);
        for places in PLACES {
            for partition in ["auto", "1d-needed", "2d"] {
                let partition = partition.parse().unwrap();
                let options = PageRankOptions { partition, ..job.options };
                let found = run_on(places, &PageRankJob { options, ..job.clone() }).unwrap();
                assert_eq!(bits(&found), bits(&one), "{partition:?} on {places:?}");
                assert_eq!(found.withheld.to_bits(), one.withheld.to_bits());
                let moved = found.bytes_moved;
                let many_nodes = places.iter().any(|&node| node > 0);
                let fewer = moved.between_nodes < moved.lower_bound;
                assert!(!many_nodes || fewer, "{moved:?}, {partition:?} on {places:?}");
            }
        }
    }
}

#[test]
fn graphs_with_less_than_a_node_a_rank_are_ranked_by_every_partition() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"1 2 1\n2 3 1\n3 1 2\n3 3 0.5\n").unwrap();
    let empty = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/edgeless.txt");
    for graph in [file.path(), &empty] {
        let expected = bits(&run_on(&[0], &with(graph, PageRankOptions::default())).unwrap());
        for places in PLACES {
            for partition in partitions(places.len()) {
                let options = PageRankOptions { partition, ..Default::default() };
                let found = run_on(places, &with(graph, options)).unwrap();
                assert_eq!(bits(&found), expected, "{partition:?} on {places:?}");
            }
        }
    }
}
