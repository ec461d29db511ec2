//! Hubs and authorities: networkx's power iteration (tests/data/hits-oracle.txt, written by
//! bench/peers/hits_oracle.py), the same bits on any number of ranks, and what is refused.

#![allow(clippy::unwrap_used)]

#[path = "support/graphs.rs"]
mod graphs;

use std::path::Path;

use graphs::{RANKS, data, input};
use rankwise::error::Result;
use rankwise::graph::hits::{HitsJob, HitsSummary, run};
use rankwise::graph::order::Relabel;
use rankwise::graph::partition::PartitionOptions;
use rankwise::graph::rows::Duplicates;
use rankwise::graph::scheme::Partitioning;
use rankwise::launch;

fn job(graph: &Path, options: PartitionOptions) -> HitsJob {
    HitsJob {
        input: input(graph, options),
        tolerance: 1e-13,
        max_iterations: 10_000,
        partition: Partitioning::Auto,
        output: None,
        top: 5,
        command: "hits".into(),
    }
}

fn hits_on(ranks: usize, job: &HitsJob) -> Result<HitsSummary> {
    let all = launch::threads(ranks, |comm| run(comm, job))?;
    assert!(all.iter().all(|summary| *summary == all[0]));
    Ok(all[0].clone())
}

/// Node, hub and authority of all nodes.
fn scores(ranks: usize, job: &HitsJob) -> Vec<(String, f64, f64)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scores.csv");
    hits_on(ranks, &HitsJob { output: Some(path.clone()), ..job.clone() }).unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(text.lines().next(), Some("node,hub,authority"));
    let row = |line: &str| {
        let fields: Vec<&str> = line.rsplitn(3, ',').collect();
        (fields[2].to_string(), fields[1].parse().unwrap(), fields[0].parse().unwrap())
    };
    text.lines().skip(1).map(row).collect()
}

#[test]
fn scores_agree_with_networkx_and_have_the_same_bits_on_any_ranks() {
    let oracle = std::fs::read_to_string(data("hits-oracle.txt")).unwrap();
    let mut cases = 0;
    for line in oracle.lines().filter(|line| !line.starts_with('#')) {
        let (name, numbers) = line.split_once(':').unwrap();
        let (file, weighted) = name.split_once(',').unwrap();
        let parse = |text: &str| -> Vec<f64> {
            text.split_whitespace().map(|number| number.parse().unwrap()).collect()
        };
        let (hubs, authorities) = numbers.split_once(';').unwrap();
        let (hubs, authorities) = (parse(hubs), parse(authorities));
        for relabel in [Relabel::Always, Relabel::Never] {
            let weighted = weighted == "1";
            let options = PartitionOptions { weighted, relabel, ..PartitionOptions::default() };
            let job = job(&data(file), options);
            let one = scores(1, &job);
            assert_eq!((one.len(), hubs.len()), (authorities.len(), authorities.len()));
            for (row, (hub, authority)) in one.iter().zip(hubs.iter().zip(&authorities)) {
                let near = |a: f64, b: f64| (a - b).abs() < 1e-11;
                assert!(near(row.1, *hub) && near(row.2, *authority), "{name}: {row:?} {hub}");
            }
            for sum in [one.iter().map(|r| r.1).sum::<f64>(), one.iter().map(|r| r.2).sum()] {
                assert!((sum - 1.0).abs() < 1e-12, "{sum}");
            }
            for ranks in RANKS {
                assert_eq!(scores(ranks, &job), one, "{name} on {ranks}");
            }
        }
        cases += 1;
    }
    assert_eq!(cases, 5);
}

#[test]
fn undirected_graphs_have_one_score_and_any_ranks_the_same() {
    let options = PartitionOptions {
        undirected: true,
        duplicates: Duplicates::Merge,
        ..PartitionOptions::default()
    };
    let mut job = job(Path::new("kron:9:8:2"), options);
    job.tolerance = 1e-10;
    let one = hits_on(1, &job).unwrap();
    assert_eq!(one.hubs.len(), 5);
    for (hub, authority) in one.hubs.iter().zip(&one.authorities) {
        assert!(hub.node == authority.node && (hub.rank - authority.rank).abs() < 1e-7);
    }
    assert!(one.residuals.windows(2).filter(|pair| pair[1] < pair[0]).count() > 2);
    for ranks in &RANKS[1..] {
        let other = hits_on(*ranks, &job).unwrap();
        assert_eq!((&other.hubs, &other.authorities), (&one.hubs, &one.authorities));
        assert_eq!(other.residuals, one.residuals);
    }
}

#[test]
fn what_has_no_scores_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let zero = folder.path().join("zero.txt");
    std::fs::write(&zero, "1 2 0\n2 3 0\n").unwrap();
    let weighted = PartitionOptions { weighted: true, ..PartitionOptions::default() };
    let plain = job(&data("langville-meyer.txt"), PartitionOptions::default());
    for (job, code, what) in [
        (job(&zero, weighted), 2, "an edge with a weight above 0"),
        (HitsJob { tolerance: 0.0, ..plain.clone() }, 2, "tolerance = 0"),
        (HitsJob { max_iterations: 0, ..plain.clone() }, 2, "allowed is 1 or more"),
        (HitsJob { max_iterations: 2, ..plain.clone() }, 1, "hits did not converge within 2"),
        (HitsJob { partition: Partitioning::AnyGrid, ..plain.clone() }, 2, "hits has no grids"),
        (HitsJob { output: Some("scores.txt".into()), ..plain.clone() }, 2, "ends in .csv"),
    ] {
        for ranks in [1, 3] {
            let error = hits_on(ranks, &job).unwrap_err();
            assert!(error.message.contains(what), "{error}");
            assert_eq!(error.exit_code(), code);
        }
    }
    let empty = job(&data("edgeless.txt"), PartitionOptions::default());
    let summary = hits_on(3, &empty).unwrap();
    assert_eq!((summary.vertices, summary.iterations), (0, 0));
}

#[test]
fn needed_values_alone_give_the_same_scores() {
    let graph = data("debian-core.txt");
    let job = job(&graph, PartitionOptions::default());
    let one = hits_on(1, &job).unwrap();
    for nodes in [vec![0, 1], vec![0, 0, 1], vec![0, 1, 2]] {
        let mut moved = Vec::new();
        for partition in [Partitioning::OneD, Partitioning::Needed, Partitioning::Auto] {
            let job = HitsJob { partition, ..job.clone() };
            let work = |comm: &rankwise::communicator::Communicator| run(comm, &job);
            let all = launch::threads_on_nodes(&nodes, Default::default(), work).unwrap();
            let found = &all[0];
            assert_eq!((&found.hubs, &found.authorities), (&one.hubs, &one.authorities));
            assert_eq!(found.residuals, one.residuals);
            assert_eq!(found.bytes_moved.between_nodes, found.bytes_moved.lower_bound);
            moved.push(found.bytes_moved.between_nodes);
        }
        let gathers = 2 * one.iterations as u64;
        let most = *nodes.iter().max().unwrap() as u64;
        assert_eq!(moved[0], 8 * one.vertices * most * gathers);
        assert!(0 < moved[1] && moved[1] < moved[0], "{moved:?}");
    }
}
