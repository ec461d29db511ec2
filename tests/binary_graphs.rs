//! The binary format and the other formats that are written: what was converted has the ranks of
//! its source to the last bit, files do not depend on ranks, and damaged ones are refused.

#![allow(clippy::unwrap_used)]

#[path = "support/graphs.rs"]
mod graphs;

use std::path::{Path, PathBuf};

use graphs::{RANKS, Random, convert_on, data, input, ranks_of, run_on};
use rankwise::error::ErrorKind;
use rankwise::graph::PageRankJob;
use rankwise::graph::order::Relabel;
use rankwise::graph::partition::PartitionOptions;
use rankwise::graph::rows::Duplicates;

/// An edge list with hubs, sinks, self-loops and repeated edges.
fn edge_list(folder: &Path, edges: u64, nodes: u64, name: impl Fn(u64) -> String) -> PathBuf {
    let mut random = Random(edges + nodes);
    let line = |random: &mut Random, i: u64| {
        let from = name(random.below(nodes) / 3 * 3);
        let to = name(if i.is_multiple_of(4) { random.below(5) } else { random.below(nodes) });
        format!("{from}\t{to}\t{}\n", random.below(9) as f64 * 0.3)
    };
    let text: String = (0..edges).map(|i| line(&mut random, i)).collect();
    let path = folder.join(format!("list-{edges}-{nodes}.txt"));
    std::fs::write(&path, text).unwrap();
    path
}

fn all_options() -> impl Iterator<Item = PartitionOptions> {
    (0..16).map(|case| PartitionOptions {
        weighted: case & 1 != 0,
        undirected: case & 2 != 0,
        duplicates: if case & 4 != 0 { Duplicates::Merge } else { Duplicates::Sum },
        relabel: if case & 8 != 0 { Relabel::Never } else { Relabel::Always },
    })
}

fn job(graph: &Path, options: PartitionOptions) -> PageRankJob {
    PageRankJob {
        weighted: options.weighted,
        undirected: options.undirected,
        duplicates: options.duplicates,
        relabel: options.relabel,
        ..PageRankJob::new(graph)
    }
}

#[test]
fn a_converted_graph_has_the_ranks_of_its_source_to_the_last_bit() {
    let folder = tempfile::tempdir().unwrap();
    let graphs = [
        edge_list(folder.path(), 3000, 500, |i| (i * i).to_string()),
        edge_list(folder.path(), 900, 200, |i| format!("node-{}é", i * 7919 % 1000)),
        edge_list(folder.path(), 1, 1, |i| i.to_string()),
        PathBuf::from("kron:8:6:3"),
    ];
    let binary = folder.path().join("graph.rwg");
    for graph in &graphs {
        for options in all_options() {
            if options.weighted && graph.starts_with("kron:8:6:3") {
                continue;
            }
            let one = convert_on(1, &input(graph, options), &binary).unwrap();
            let bytes = std::fs::read(&binary).unwrap();
            let expected = ranks_of(1, &job(graph, options));
            assert_eq!((one.vertices, one.lost_vertices), (expected.len() as u64, 0));
            let three = convert_on(3, &input(graph, options), &binary).unwrap();
            assert_eq!((&one, bytes == std::fs::read(&binary).unwrap()), (&three, true));
            for ranks in RANKS {
                assert_eq!(ranks_of(ranks, &job(&binary, options)), expected, "{options:?}");
            }
            // What the file decides need not be said again; weights can be left out.
            let auto = PartitionOptions { relabel: Relabel::Auto, ..options };
            let silent = PartitionOptions { undirected: false, ..auto };
            assert_eq!(ranks_of(2, &job(&binary, silent)), expected, "{options:?}");
            let plain = PartitionOptions { weighted: false, ..options };
            let expected = ranks_of(1, &job(graph, plain));
            assert_eq!(ranks_of(3, &job(&binary, plain)), expected, "{options:?}");
        }
    }
}

#[test]
fn repeated_edges_of_a_binary_graph_can_be_merged_when_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let graph = edge_list(folder.path(), 2000, 60, |i| i.to_string());
    let binary = folder.path().join("graph.rwg");
    for weighted in [false, true] {
        let options = PartitionOptions { weighted, ..PartitionOptions::default() };
        convert_on(2, &input(&graph, options), &binary).unwrap();
        let merged = PartitionOptions { duplicates: Duplicates::Merge, ..options };
        let expected = ranks_of(1, &job(&graph, merged));
        let edges = run_on(1, &job(&graph, merged)).unwrap().edges;
        for ranks in RANKS {
            assert_eq!(ranks_of(ranks, &job(&binary, merged)), expected);
            assert_eq!(run_on(ranks, &job(&binary, merged)).unwrap().edges, edges);
        }
    }
}

#[test]
fn text_is_the_same_on_any_ranks_and_has_the_ranks_of_its_source() {
    let folder = tempfile::tempdir().unwrap();
    let graph = edge_list(folder.path(), 2000, 300, |i| (i * 3).to_string());
    let named = edge_list(folder.path(), 500, 90, |i| format!("é{i}"));
    for (graph, name) in [(&graph, "a"), (&named, "b")] {
        for ending in ["txt", "tsv.gz", "el.zst", "csv", "csv.zst"] {
            let output = folder.path().join(format!("{name}.{ending}"));
            let options = PartitionOptions { weighted: true, ..PartitionOptions::default() };
            let summary = convert_on(1, &input(graph, options), &output).unwrap();
            let bytes = std::fs::read(&output).unwrap();
            for ranks in [2, 3, 7] {
                assert_eq!(convert_on(ranks, &input(graph, options), &output).unwrap(), summary);
                assert_eq!(std::fs::read(&output).unwrap(), bytes, "{ending} on {ranks}");
            }
            let expected = ranks_of(1, &job(graph, options));
            assert_eq!(ranks_of(3, &job(&output, options)), expected, "{ending}");
        }
    }
    // A binary graph that is ordered by degree gives the same text as its source.
    let (binary, back) = (folder.path().join("o.rwg"), folder.path().join("o.tsv"));
    let weighted = PartitionOptions { weighted: true, ..PartitionOptions::default() };
    let ordered = PartitionOptions { relabel: Relabel::Always, ..weighted };
    convert_on(2, &input(&graph, ordered), &binary).unwrap();
    convert_on(3, &input(&binary, weighted), &back).unwrap();
    let direct = folder.path().join("d.tsv");
    convert_on(1, &input(&graph, weighted), &direct).unwrap();
    assert!(std::fs::read(&back).unwrap() == std::fs::read(&direct).unwrap());
    // All nodes of a generated graph are in a matrix, those with edges in a list.
    let (matrix, list) = (folder.path().join("k.mtx.gz"), folder.path().join("k.txt"));
    let kron = input(Path::new("kron:7:3:1"), PartitionOptions::default());
    let of = |path| convert_on(3, &kron, path).unwrap();
    let (matrix, list) = (of(&matrix), of(&list));
    assert_eq!((matrix.vertices, matrix.lost_vertices, matrix.edges), (128, 0, 384));
    assert!(list.lost_vertices > 10 && list.vertices + list.lost_vertices == 128, "{list:?}");
    let mut job = PageRankJob::new(folder.path().join("k.mtx.gz"));
    let first: Vec<u64> = ranks_of(2, &job).into_iter().map(|row| row.1).collect();
    job.graph = "kron:7:3:1".into();
    let second: Vec<u64> = ranks_of(1, &job).into_iter().map(|row| row.1).collect();
    assert_eq!(first, second);
}

#[test]
fn a_graph_without_edges_survives_every_format() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["e.rwg", "e.txt", "e.csv.gz"] {
        let output = folder.path().join(name);
        let empty = input(&data("edgeless.txt"), PartitionOptions::default());
        assert_eq!(convert_on(3, &empty, &output).unwrap().vertices, 0);
        let summary = run_on(2, &PageRankJob::new(&output)).unwrap();
        assert_eq!((summary.vertices, summary.edges), (0, 0));
    }
}

#[test]
fn what_cannot_be_converted_or_asked_of_a_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let graph = edge_list(folder.path(), 100, 30, |i| i.to_string());
    let named = edge_list(folder.path(), 50, 20, |i| format!("n{i}"));
    let options = PartitionOptions::default();
    let path = |name: &str| folder.path().join(name);
    std::fs::copy(&graph, path("copy.txt")).unwrap();
    let always = PartitionOptions { relabel: Relabel::Always, ..options };
    for (graph, options, output, what) in [
        (&graph, options, path("g.parquet"), "ends in .rwg"),
        (&graph, options, path("no/g.rwg"), "does not exist"),
        (&path("copy.txt"), options, path("copy.txt"), "is the graph itself"),
        (&graph, always, path("g.txt"), "leave --relabel out"),
        (&graph, options, path("g.mtx"), "ids of this graph would be lost"),
        (&named, options, path("g.mtx"), "ids of this graph would be lost"),
        (&path("missing"), options, path("g.rwg"), "cannot open"),
    ] {
        for ranks in [1, 3] {
            let error = convert_on(ranks, &input(graph, options), &output).unwrap_err();
            assert!(error.message.contains(what), "{error}");
            assert_eq!(error.exit_code(), 2, "{error}");
        }
    }
    let binary = path("g.rwg");
    convert_on(2, &input(&graph, options), &binary).unwrap();
    let weighted = PartitionOptions { weighted: true, ..options };
    let undirected = PartitionOptions { undirected: true, ..options };
    let never = PartitionOptions { relabel: Relabel::Never, ..options };
    for (options, what) in [
        (weighted, "this graph has none; convert the graph with --weights first"),
        (undirected, "this graph is directed; convert the graph with --undirected first"),
        (never, "ordered by degree; convert the graph with --relabel never first"),
    ] {
        let error = run_on(3, &job(&binary, options)).unwrap_err();
        assert!(error.message.contains(what), "{error}");
    }
}

fn crc32(bytes: &[u8]) -> [u8; 4] {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum().to_le_bytes()
}

/// The same bytes with checksums that fit; the body is less than a MiB.
fn summed(mut bytes: Vec<u8>) -> Vec<u8> {
    let checks = bytes.len() - 4;
    let sum = crc32(&bytes[64..checks]);
    bytes[checks..].copy_from_slice(&sum);
    let sum = crc32(&bytes[checks..]);
    bytes[48..52].copy_from_slice(&sum);
    let sum = crc32(&bytes[..60]);
    bytes[60..64].copy_from_slice(&sum);
    bytes
}

#[test]
fn damaged_binary_graphs_are_refused_and_forged_ones_never_crash() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.rwg");
    let run = |bytes: &[u8], weighted: bool, ranks: usize| {
        std::fs::write(&path, bytes).unwrap();
        run_on(ranks, &PageRankJob { weighted, ..PageRankJob::new(&path) })
    };
    let lists = [
        edge_list(folder.path(), 120, 40, |i| (i * i).to_string()),
        edge_list(folder.path(), 90, 30, |i| format!("node{i}")),
    ];
    let mut random = Random(3);
    let (mut forged_refused, mut forged_taken) = (0, 0);
    for (list, relabel) in lists.iter().zip([Relabel::Always, Relabel::Never]) {
        let options = PartitionOptions { weighted: true, relabel, ..PartitionOptions::default() };
        let whole = folder.path().join("whole.rwg");
        convert_on(1, &input(list, options), &whole).unwrap();
        let whole = std::fs::read(&whole).unwrap();
        assert_eq!(summed(whole.clone()), whole, "the test knows the format");
        assert!(run(&whole, true, 2).is_ok());
        for length in (0..whole.len()).step_by(3) {
            let error = run(&whole[..length], true, 1 + length % 3).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Input, "{error}");
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert!(run(&longer, true, 2).unwrap_err().message.contains("but the file has"));
        for case in 0..300 {
            let mut changed = whole.clone();
            let at = random.below(whole.len() as u64) as usize;
            changed[at] ^= 1 << random.below(8);
            let error = run(&changed, true, 1 + case % 3).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Input, "byte {at}: {error}");
            let fields = [12, 16, 24, 32, 40];
            let at = if case % 3 == 0 { fields[case % 5] + random.below(2) as usize } else { at };
            let mut forged = whole.clone();
            forged[at] = random.below(256) as u8;
            match run(&summed(forged), case % 2 == 0, 1 + case % 3) {
                Ok(_) => forged_taken += 1,
                Err(error) => {
                    let expected = [ErrorKind::Input, ErrorKind::Failed];
                    assert!(expected.contains(&error.kind), "byte {at}: {error}");
                    forged_refused += 1;
                }
            }
        }
    }
    assert!(forged_refused > 100 && forged_taken > 50, "{forged_refused} {forged_taken}");
}

#[test]
fn a_changed_bit_far_in_a_large_graph_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.rwg");
    let kron = input(Path::new("kron:14:60"), PartitionOptions::default());
    convert_on(2, &kron, &path).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    assert!(bytes.len() > 3 << 20);
    let expected = run_on(3, &PageRankJob::new("kron:14:60")).unwrap();
    assert_eq!(run_on(3, &PageRankJob::new(&path)).unwrap().top, expected.top);
    let at = (2 << 20) + 777;
    bytes[at] ^= 16;
    std::fs::write(&path, bytes).unwrap();
    for ranks in [1, 3] {
        let error = run_on(ranks, &PageRankJob::new(&path)).unwrap_err();
        let place = format!("byte {}: the data from here do not fit", 64 + (2 << 20));
        assert!(error.message.contains(&place), "{error}");
    }
}
