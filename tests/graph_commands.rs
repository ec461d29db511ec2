//! The commands `graph`, `hits` and the new options of `pagerank` as scripts see them: exit codes,
//! one line on stderr, JSON keys, files, and the same bytes under MPI.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a skipped test says so

mod support;

use std::path::Path;

use serde_json::Value;
use support::{Ended, ended, no_mpi, rankwise, repository};

fn run(ranks: usize, arguments: &[&str]) -> Ended {
    ended(&mut rankwise(false, ranks, arguments))
}

fn json_of(ranks: usize, arguments: &[&str]) -> Value {
    let end = run(ranks, &[arguments, &["--json"]].concat());
    assert_eq!((end.code, end.stderr.as_str()), (0, ""), "{arguments:?}: {end:#?}");
    serde_json::from_str(&end.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn wrong_input_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("g.rwg");
    let output = text(&output);
    let graph = repository("tests/data/langville-meyer.txt");
    let graph = text(&graph);
    let web = repository("tests/data/web-little.graph");
    let cut = folder.path().join("cut.rwg");
    std::fs::write(&cut, b"rwgraph\n1234").unwrap();
    let table = folder.path().join("t.parquet");
    std::fs::write(&table, b"PAR1 but no more").unwrap();
    let cases: [(&[&str], &str); 24] = [
        (&["graph"], "a command is needed"),
        (
            &["graph", "draw"],
            "unrecognized subcommand 'draw'; choose one of generate, convert, info",
        ),
        (&["graph", "generate", "tree:5", "--output", output], "tree:5: no random graph; expected"),
        (&["graph", "generate", "kron:40", "--output", output], "scale 40: allowed is 1 to 31"),
        (&["graph", "generate", "kron:4", "--output", "g"], "ends in .rwg (binary), .txt"),
        (&["graph", "generate", "kron:4", "--weights", "--output", output], "graphs have none"),
        (&["graph", "convert", graph, "no/such/g.rwg"], "does not exist"),
        (&["graph", "convert", "missing.txt", output], "missing.txt: cannot open"),
        (&["graph", "info", text(&web)], "endianness=little; expected"),
        (&["graph", "info", graph, "--parts", "0"], "0 ranks: allowed is 1"),
        (&["graph", "info", text(&cut)], "byte 12: the file ends inside the header"),
        (&["pagerank", text(&table)], "t.parquet: not a whole Parquet file"),
        (&["pagerank", graph, "--sources", "1,99"], "sources: node '99' is not in the graph"),
        (&["pagerank", graph, "--sources", "1", "--nstart", "x"], "cannot be used with"),
        (&["pagerank", graph, "--report", "no/such/page.html"], "does not exist"),
        (&["pagerank", graph, "--partition", "3d"], "expected auto, 1d, 1d-needed, 2d or 2d:RxC"),
        (&["pagerank", graph, "--partition", "2d:2x2"], "2d:2x2 needs 4 ranks; there are"),
        (&["pagerank", graph, "--delta", "1"], "delta = 1: allowed is 0 < delta < 1"),
        (&["pagerank", graph, "--delta", "0.5", "--partition", "1d"], "partition 1d sends all"),
        (&["graph", "info", graph, "--nodes", "0"], "ranks need at least 1 node"),
        (
            &["graph", "info", graph, "--parts", "3", "--nodes", "7"],
            "3 ranks on 7 nodes: a node needs at least 1 rank",
        ),
        (&["graph", "info", graph, "--parts", "8,2", "--nodes", "3"], "2 ranks on 3 nodes"),
        (&["hits", graph, "--tol", "0"], "tolerance = 0"),
        (&["hits", graph, "--output", "scores.txt"], "ends in .csv or .parquet or .npy"),
    ];
    for (arguments, what) in cases {
        for ranks in [1, 3] {
            let end = run(ranks, arguments);
            assert_eq!((end.code, end.lines.len()), (2, 1), "{arguments:?}: {end:#?}");
            assert!(end.lines[0].contains(what), "{what}: {}", end.lines[0]);
        }
    }
    assert!(!Path::new(output).exists(), "nothing is left behind");
}

#[test]
fn documents_have_the_keys_that_scripts_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("k.rwg");
    let summary = json_of(2, &["graph", "generate", "kron:6:4", "--output", text(&path)]);
    assert_eq!((&summary["vertices"], &summary["edges"]), (&64.into(), &256.into()));
    assert_eq!(summary["bytes"], std::fs::metadata(&path).unwrap().len());
    let info = json_of(3, &["graph", "info", text(&path), "--parts", "1,3"]);
    let generated = json_of(1, &["graph", "info", "kron:6:4", "--parts", "1,3"]);
    assert_eq!(info["in_degree"], generated["in_degree"]);
    for key in ["dangling", "isolated", "self_loops", "duplicate_edges", "out_degree"] {
        assert_eq!((info.get(key).is_some(), &info[key]), (true, &generated[key]), "{key}");
    }
    let parts = info["partitions"].as_array().unwrap();
    assert_eq!((parts.len(), &parts[0]["all_gather_bytes"]), (2, &0.into()));
    assert_eq!(parts[1]["all_gather_bytes"], 64 * 8 * 2);
    assert!(parts[1]["needed_bytes"].as_u64().unwrap() <= 64 * 8 * 2);
    let ranks = json_of(3, &["pagerank", text(&path)]);
    assert_eq!(ranks["residuals"].as_array().unwrap().len() as u64, ranks["iterations"]);
    assert_eq!(ranks["peak_rss_bytes_by_rank"].as_array().unwrap().len(), 3);
    let steps = ranks["iterations"].as_u64().unwrap();
    assert_eq!(ranks["bytes_moved"]["between_ranks"], steps * 64 * 8 * 2);
    assert_eq!(ranks["bytes_moved"]["between_nodes"], 0);
    let graph = repository("tests/data/debian-core.txt");
    let hits = json_of(2, &["hits", text(&graph), "--top", "2"]);
    assert_eq!(hits["authorities"][0]["node"], "libc6");
    let list = folder.path().join("sources.txt");
    std::fs::write(&list, "# two\nlibc6\nlibgcc-s1\n").unwrap();
    for sources in ["libc6,libgcc-s1", text(&list)] {
        let all = json_of(2, &["pagerank", text(&graph), "--sources", sources, "--top", "1"]);
        assert_eq!(all["sources"].as_array().unwrap().len(), 2);
        assert_eq!(all["sources"][1]["source"], "libgcc-s1");
        assert!(all["sources"][1]["top"][0]["rank"].as_f64().unwrap() > 0.3);
    }
}

#[test]
fn partitions_are_chosen_told_and_compared() {
    let graph = "kron:8:4";
    let expected = json_of(1, &["pagerank", graph]);
    assert_eq!(expected["partition"]["chosen"], "1d");
    let on = |partition: &str| {
        let nodes = ["--ranks-per-node", "2"];
        json_of(8, &[&["pagerank", graph, "--partition", partition][..], &nodes].concat())
    };
    for partition in ["auto", "1d", "1d-needed", "2d", "2d:2x4"] {
        let found = on(partition);
        assert_eq!(found["top"], expected["top"], "{partition}");
        let moved = &found["bytes_moved"];
        assert_eq!(moved["between_nodes"], moved["lower_bound"], "{partition}");
        assert!(moved["between_nodes"].as_u64().unwrap() > 0);
    }
    // What `graph info` says beforehand is what a run compares.
    let info = json_of(1, &["graph", "info", graph, "--parts", "8", "--nodes", "4"]);
    let part = &info["partitions"][0];
    let found = on("auto");
    assert_eq!((&part["nodes"], &part["chosen"]), (&4.into(), &found["partition"]["chosen"]));
    assert_eq!(part["choices"], found["partition"]["choices"]);
    assert_eq!(part["choices"].as_array().unwrap().len(), 5);
    let here = json_of(8, &["graph", "info", graph, "--nodes", "4"]);
    assert_eq!(here["partitions"], info["partitions"]);
    let text = run(8, &["pagerank", graph, "--ranks-per-node", "2", "--partition", "1d-needed"]);
    assert!(text.stdout.contains("partition 1d-needed (asked for); edges a rank: "), "{text:?}");
    assert!(text.stdout.contains("received between 4 nodes: "), "{text:?}");
    let text = run(1, &["graph", "info", graph, "--parts", "8", "--nodes", "4"]);
    assert!(text.stdout.contains("8 ranks on 4 nodes: "), "{text:?}");
}

#[test]
fn a_page_and_an_array_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let (page, array) = (folder.path().join("page.html"), folder.path().join("ranks.npy"));
    let graph = repository("tests/data/debian-core.txt");
    let arguments = ["pagerank", text(&graph), "--report", text(&page), "--output", text(&array)];
    let summary = json_of(3, &arguments);
    let html = std::fs::read_to_string(&page).unwrap();
    let steps = summary["iterations"].as_u64().unwrap() as usize;
    assert_eq!(html.matches("<circle").count(), steps);
    assert!(html.contains("<td>libc6</td>") && !html.contains("<script"), "{html}");
    let bytes = std::fs::read(&array).unwrap();
    let numbers: Vec<f64> =
        bytes[128..].as_chunks::<8>().0.iter().map(|&b| f64::from_le_bytes(b)).collect();
    let nodes = std::fs::read_to_string(folder.path().join("ranks.nodes.csv")).unwrap();
    let at = nodes.lines().skip(1).position(|node| node == "libc6").unwrap();
    assert_eq!(numbers[at], summary["top"][0]["rank"].as_f64().unwrap());
    let manifest = std::fs::read_to_string(folder.path().join("ranks.npy.manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["files"].as_array().unwrap().len(), 2);
}

#[test]
fn every_format_is_read_and_written_alike_under_mpi() {
    if let Some(reason) = no_mpi() {
        println!("skipped: {reason}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let debian = repository("tests/data/debian-core.txt");
    let web = repository("tests/data/web");
    let graphs = [text(&debian), text(&web), "kron:8:5", &path("k.rwg")].map(str::to_string);
    for (processes, ranks, name) in [(false, 1, "one"), (true, 2, "two"), (true, 3, "three")] {
        let run = |arguments: &[&str]| {
            let end = ended(&mut rankwise(processes, ranks, arguments));
            assert_eq!(end.code, 0, "{arguments:?}: {end:#?}");
        };
        run(&["graph", "generate", "kron:8:5", "--output", &path("k.rwg"), "--quiet"]);
        std::fs::copy(path("k.rwg"), path(&format!("{name}-k.rwg"))).unwrap();
        for (i, graph) in graphs.iter().enumerate() {
            run(&["pagerank", graph, "--output", &path(&format!("{name}-{i}.csv"))]);
            run(&["hits", graph, "--tol", "1e-4", "--output", &path(&format!("{name}-h{i}.csv"))]);
        }
        run(&["graph", "convert", &graphs[1], &path(&format!("{name}-c.txt.gz"))]);
    }
    let read = |name: String| std::fs::read(path(&name)).unwrap();
    for other in ["two", "three"] {
        for file in ["k.rwg", "c.txt.gz", "0.csv", "1.csv", "2.csv", "3.csv", "h0.csv", "h3.csv"] {
            assert!(read(format!("{other}-{file}")) == read(format!("one-{file}")), "{file}");
        }
    }
    assert_eq!(read("one-2.csv".into()), read("one-3.csv".into()), "a file and its source");
}
