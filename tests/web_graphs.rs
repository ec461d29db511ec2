//! BVGraphs that the `webgraph` crate wrote (tests/data/web*, with the edges in web.txt): the same
//! graph with several codes, with and without offsets, on any ranks; damaged files never crash.

#![allow(clippy::unwrap_used)]

#[path = "support/graphs.rs"]
mod graphs;

use std::path::Path;

use graphs::{Random, data, ranks_of, run_on};
use rankwise::error::ErrorKind;
use rankwise::graph::PageRankJob;

/// Copies a BVGraph; returns how its files are named.
fn copy(name: &str, folder: &Path, offsets: bool) {
    for ending in ["graph", "properties", "offsets"] {
        let from = data(&format!("{name}.{ending}"));
        if from.exists() && (offsets || ending != "offsets") {
            std::fs::copy(from, folder.join(format!("g.{ending}"))).unwrap();
        }
    }
}

#[test]
fn every_code_gives_the_edges_that_were_compressed() {
    let expected = ranks_of(1, &PageRankJob::new(data("web.txt")));
    assert_eq!(expected.len(), 400, "no node is isolated, so the list has all");
    let folder = tempfile::tempdir().unwrap();
    for (name, offsets) in [
        ("web", true),
        ("web", false),
        ("web-delta", false),
        ("web-plain", true),
        ("web-plain", false),
    ] {
        std::fs::remove_file(folder.path().join("g.offsets")).ok();
        copy(name, folder.path(), offsets);
        for form in ["g.graph", "g", "g.properties"] {
            for ranks in [1, 2, 3, 4, 7] {
                let job = PageRankJob::new(folder.path().join(form));
                assert_eq!(ranks_of(ranks, &job), expected, "{name} {form} on {ranks}");
            }
        }
    }
}

#[test]
fn what_is_wrong_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("g.graph");
    let message = |weighted: bool| {
        let job = PageRankJob { weighted, ..PageRankJob::new(&graph) };
        let messages = [1, 2, 3].map(|ranks| {
            let error = run_on(ranks, &job).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Input, "{error}");
            error.message
        });
        assert!(messages.iter().all(|m| m == &messages[0]), "{messages:?}");
        messages[0].clone()
    };
    copy("web", folder.path(), true);
    assert!(message(true).contains("weights: a BVGraph has none"));
    let properties = std::fs::read_to_string(data("web.properties")).unwrap();
    let change = |from: &str, to: &str| {
        assert!(properties.contains(from), "{properties}");
        std::fs::write(folder.path().join("g.properties"), properties.replace(from, to)).unwrap();
    };
    change("nodes=400", "nodes=4000000");
    assert!(message(false).contains("fewer bits than the properties promise"));
    change("nodes=400", "nodes=401");
    assert!(message(false).contains("no list of 402 offsets within the graph"));
    change("arcs=", "arcs=1");
    assert!(message(false).contains("edges, but the graph has 8355"));
    copy("web-little", folder.path(), true);
    assert!(message(false).contains("endianness=little; expected a graph in big-endian order"));
}

#[test]
fn damaged_web_graphs_never_crash() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(11);
    let mut refused = 0;
    for name in ["web", "web-delta", "web-plain"] {
        copy(name, folder.path(), false);
        let graph = std::fs::read(data(&format!("{name}.graph"))).unwrap();
        let path = folder.path().join("g.graph");
        let mut check = |bytes: &[u8], ranks: usize| {
            std::fs::write(&path, bytes).unwrap();
            if let Err(error) = run_on(ranks, &PageRankJob::new(&path)) {
                assert_eq!(error.kind, ErrorKind::Input, "{error}");
                refused += 1;
            }
        };
        for length in (0..graph.len()).step_by(97) {
            check(&graph[..length], 1 + length % 3);
        }
        for case in 0..200 {
            let mut changed = graph.clone();
            for _ in 0..1 + case % 3 {
                changed[random.below(graph.len() as u64) as usize] = random.below(256) as u8;
            }
            check(&changed, 1 + case % 3);
        }
        for case in 0..60 {
            let noise: Vec<u8> = (0..600).map(|_| random.below(256) as u8).collect();
            check(&noise, 1 + case % 3);
        }
        let offsets = folder.path().join("g.offsets");
        std::fs::write(&path, &graph).unwrap();
        for case in 0..60 {
            // Offsets that ascend but lead to the middle of lists.
            let noise: Vec<u8> = (0..200 + case).map(|_| random.below(256) as u8 | 0x55).collect();
            std::fs::write(&offsets, noise).unwrap();
            if let Err(error) = run_on(1 + case % 3, &PageRankJob::new(&path)) {
                assert_eq!(error.kind, ErrorKind::Input, "{error}");
                refused += 1;
            }
        }
        std::fs::remove_file(offsets).unwrap();
    }
    assert!(refused > 500, "{refused} refused");
}
