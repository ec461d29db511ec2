//! What ranking a graph takes in memory, from the first byte that is read to the last that is
//! written: at most 12 bytes a directed edge and 40 a node on all ranks together, besides the
//! program itself. Each measurement has a process of its own, whose high-water mark tells.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a skipped test says so

mod support;

use serde_json::Value;
use support::{no_mpi, rankwise, stdout_of};

/// What does not grow with the graph: edges under way, text being parsed, tasks of threads.
const BYTES_A_RANK: u64 = 12 << 20;

fn document(processes: bool, ranks: usize, arguments: &[&str]) -> Value {
    let arguments = [&["pagerank", "--json", "--top", "3"], arguments].concat();
    serde_json::from_str(&stdout_of(&mut rankwise(processes, ranks, &arguments))).unwrap()
}

/// The largest resident memory of all processes together; 0 if the system does not say.
fn peak(document: &Value, processes: bool) -> u64 {
    let by_rank = document["peak_rss_bytes_by_rank"].as_array().unwrap();
    let by_rank = by_rank.iter().map(|bytes| bytes.as_u64().unwrap());
    if processes { by_rank.sum() } else { by_rank.max().unwrap_or(0) }
}

#[test]
fn loading_and_ranking_take_12_bytes_an_edge_and_40_a_node() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("graph.txt");
    let text = text.to_str().unwrap();
    let output = folder.path().join("ranks.csv");
    let random = ["kron:18", "--undirected", "--duplicates", "merge"];
    let generate = [&["graph", "generate"], &random[..], &["--quiet", "--output", text]].concat();
    stdout_of(&mut rankwise(false, 2, &generate));
    let mut runs = vec![(false, 1), (false, 2)];
    match no_mpi() {
        Some(reason) => println!("skipped under MPI: {reason}"),
        None => runs.push((true, 2)),
    }
    for (processes, ranks) in runs {
        let base = peak(&document(processes, ranks, &["kron:4"]), processes);
        for graph in [&random[..], &[text]] {
            let write = ["--output", output.to_str().unwrap()];
            let found = document(processes, ranks, &[graph, &write].concat());
            let number = |key: &str| found[key].as_u64().unwrap();
            let (n, m) = (number("vertices"), number("edges"));
            assert!(n > 170_000 && m > 7_500_000, "{found}");
            let took = peak(&found, processes).saturating_sub(base);
            let limit = 12 * m + 40 * n + BYTES_A_RANK * ranks as u64;
            println!(
                "{graph:?} on {ranks} ranks, processes: {processes}: {:.2} bytes an edge, limit \
                 {:.2}, program {} MiB",
                took as f64 / m as f64,
                limit as f64 / m as f64,
                base >> 20
            );
            assert!(took <= limit, "{took} bytes, allowed are {limit}");
        }
    }
}
