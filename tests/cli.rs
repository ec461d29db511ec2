//! The command line as scripts see it: exit codes, one line on stderr, JSON keys, and files whose
//! bytes do not depend on ranks, threads or transport.
#![allow(clippy::print_stdout)] // a skipped test says so

mod support;

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::{Ended, RANKWISE, ended, limited, no_mpi, rankwise, repository};

fn run(arguments: &[&str]) -> Ended {
    ended(limited(120, RANKWISE).args(arguments))
}

/// Wrong input: exit code 2, and one line on stderr that holds `what`. With `--json` the same
/// words are in the one document on stdout.
fn assert_refused(arguments: &[&str], what: &str) {
    let end = run(arguments);
    assert_eq!(end.code, 2, "{arguments:?}: {end:#?}");
    let lines: Vec<&str> = end.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "{arguments:?}: {end:#?}");
    assert!(lines[0].starts_with("rankwise: ") && lines[0].contains(what), "{what}: {}", lines[0]);

    let end = run(&[arguments, &["--json"]].concat());
    assert_eq!(end.code, 2, "{arguments:?}: {end:#?}");
    let error = &json(&end)["error"];
    assert_eq!((&error["kind"], &error["exit_code"]), (&"input".into(), &2.into()), "{error}");
    assert!(error["message"].as_str().is_some_and(|m| m.contains(what)), "{what}: {error}");
}

fn json(end: &Ended) -> Value {
    serde_json::from_str(&end.stdout).unwrap_or_else(|e| panic!("no JSON document: {e}\n{end:#?}"))
}

/// The document of a run that must succeed.
fn json_of(arguments: &[&str]) -> Value {
    let end = run(&[arguments, &["--json"]].concat());
    assert_eq!(end.code, 0, "{arguments:?}: {end:#?}");
    assert_eq!(end.stderr, "", "{arguments:?}");
    json(&end)
}

fn assert_keys(value: &Value, keys: &[&str]) {
    for key in keys {
        assert!(value.get(key).is_some(), "no key '{key}' in {value:#}");
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("the paths of tests are text")
}

fn graph() -> String {
    path(&repository("tests/data/langville-meyer.txt")).to_string()
}

#[test]
fn wrong_graphs_name_file_and_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("a file in a temporary folder");
        path.to_str().expect("text").to_string()
    };
    let missing = path(&folder.path().join("missing.txt")).to_string();
    let binary: Vec<u8> = b"1 2\n".iter().copied().chain((0..=255).cycle().take(4096)).collect();
    let cases = [
        (missing, "missing.txt: cannot open"),
        (file("empty.txt", b""), "empty.txt: the file is empty; expected a text edge list"),
        (file("binary.txt", &binary), "binary.txt line 2: "),
        (file("words.txt", b"1 2\n2 3\nalone\n"), "words.txt line 3: 'alone' is not an edge"),
        (path(folder.path()).to_string(), "not a regular file; expected a graph file"),
    ];
    for (graph, what) in &cases {
        for ranks in ["1", "3"] {
            assert_refused(&["pagerank", graph, "--ranks", ranks], what);
        }
    }
}

#[test]
fn wrong_options_say_what_is_allowed() {
    let graph = graph();
    let machine = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(machine.path(), "latency_us = 1\nspeed = 3\n").expect("a temporary file");
    let cost = ["plan", "cost", "all-gather", "--bytes", "1M", "--machine", path(machine.path())];
    let cases: [(&[&str], &str); 23] = [
        (
            &["tune", "--output", "no/such/folder/t.toml"],
            "its folder no/such/folder does not exist",
        ),
        (&["selftest", "--ranks", "0"], "--ranks 0: a job has at least 1 rank"),
        (&["selftest", "--ranks", "5000"], "at most 1024 ranks as threads; use mpirun"),
        (&["selftest", "--ranks", "two"], "invalid value 'two' for '--ranks <N>'"),
        (&["selftest", "--threads", "0"], "--threads 0: a rank has at least 1 thread"),
        (&["selftest", "--timeout", "0"], "--timeout 0: a number of seconds above 0"),
        (&["selftest", "--timeout", "nan"], "a number of seconds above 0 is needed"),
        (&["selftest", "--ranks-per-node", "0"], "a node has at least 1 rank"),
        (&["selftest", "--colour"], "unexpected argument '--colour' found"),
        (
            &["rank"],
            "unrecognized subcommand 'rank'; choose one of bench, tune, plan, selftest, graph, \
             pagerank, hits, train, factor",
        ),
        (&["plan", "draw"], "unrecognized subcommand 'draw'; choose one of show, check, cost, why"),
        (&["pagerank"], "required arguments were not provided: <GRAPH>; see rankwise --help"),
        (&["pagerank", &graph, "--alpha", "1"], "alpha = 1: allowed is 0 <= alpha < 1"),
        (&["pagerank", &graph, "--tol", "0"], "tolerance = 0"),
        (&["pagerank", &graph, "--output", "ranks.txt"], "ends in .csv or .parquet"),
        (
            &["bench", "reduce-scatter", "--algorithm", "halving", "--ranks", "3"],
            "reduce_scatter/halving needs a power of two; ranks = 3; try",
        ),
        (&["bench", "--algorithm", "quick"], "no algorithm 'quick'; choose one of direct, staged"),
        (&["bench", "--sizes", "4:2"], "not above the second"),
        (&["bench", "--against", "native"], "needs MPI: start it with mpirun"),
        (
            &["plan", "show", "gather", "--algorithm", "ring"],
            "choose one of direct, staged, linear",
        ),
        (&["plan", "why", "sum", "--bytes", "1"], "choose one of reduce-scatter, all-gather"),
        (&["plan", "why", "gather", "--bytes", "1X"], "'1X' is no size"),
        (&cost, "line 2: unknown key 'speed'; choose one of latency_us, gbytes_per_s"),
    ];
    for (arguments, what) in cases {
        assert_refused(arguments, what);
    }
    let end = run(&[]);
    assert_eq!((end.code, end.lines.len()), (2, 1), "{end:#?}");
    assert!(end.lines[0].contains(
        "a command is needed: bench, tune, plan, selftest, graph, pagerank, hits, train, factor"
    ));
}

#[test]
fn wrong_input_is_said_once_under_mpirun() {
    if let Some(reason) = no_mpi() {
        return println!("skipped: {reason}");
    }
    let graph = graph();
    let cases: [(&[&str], &str); 6] = [
        (&["pagerank", "no-such-file"], "rankwise: no-such-file: cannot open"),
        (&["pagerank", &graph, "--alpha", "1"], "rankwise: alpha = 1: allowed is"),
        (&["bench", "--nonsense"], "rankwise: unexpected argument '--nonsense' found"),
        (&["selftest", "--ranks", "3"], "rankwise: --ranks 3 under a launcher with 2 processes"),
        (&["fault", "--kind", "agree", "--rank", "1"], "rankwise: rank 1: trouble on purpose"),
        (&["plan", "show", "gather", "--algorithm", "x"], "rankwise: gather has no algorithm 'x'"),
    ];
    for (arguments, what) in cases {
        let end = ended(&mut rankwise(true, 2, arguments));
        assert_eq!((end.code, end.lines.len()), (2, 1), "{arguments:?}: {end:#?}");
        assert!(end.lines[0].starts_with(what), "{what}: {}", end.lines[0]);
    }
}

#[test]
fn json_has_the_keys_that_scripts_read() {
    let graph = graph();
    let keys = [
        "vertices",
        "edges",
        "iterations",
        "residual",
        "ns_per_edge",
        "seconds",
        "peak_rss_bytes",
        "top",
    ];
    let document = json_of(&["pagerank", &graph, "--ranks", "2", "--top", "2"]);
    assert_keys(&document, &keys);
    assert_keys(&document["seconds"], &["load", "partition", "iterate", "write"]);
    assert_eq!((&document["vertices"], &document["edges"]), (&6.into(), &10.into()));
    assert_eq!(document["top"].as_array().map(Vec::len), Some(2));
    assert_keys(&document["top"][0], &["node", "rank"]);
    assert_eq!(document["top"][0]["node"], 4);

    let bench = ["bench", "--ranks", "2", "--sizes", "64:256", "--iterations", "2"];
    let document = json_of(&bench);
    let rows = document["results"].as_array().expect("a list");
    let keys = [
        "op",
        "bytes",
        "dtype",
        "ranks",
        "nodes",
        "algorithm",
        "time_us",
        "native_us",
        "limit_us",
        "ratio",
        "algbw_gbps",
        "busbw_gbps",
        "verified",
    ];
    for row in rows {
        assert_keys(row, &keys);
        assert_eq!((&row["verified"], &row["ranks"]), (&true.into(), &2.into()), "{row}");
        assert!(row["ratio"].is_null() && row["time_us"].as_f64().is_some_and(|t| t > 0.0));
    }
    for op in ["reduce_scatter", "all_gather", "all_reduce", "broadcast", "all_to_all", "barrier"] {
        assert!(rows.iter().any(|row| row["op"] == op), "no {op}");
    }

    // What the order and the comparison of calls cost, each in one run.
    for other in ["fastest", "unchecked"] {
        let document = json_of(&[&bench[..], &["all-reduce", "--against", other]].concat());
        let rows = document["results"].as_array().expect("a list");
        assert_eq!(rows.len(), 4, "two sizes, two kinds of buffers");
        for row in rows {
            assert!(row["verified"] == true && row["native_us"].is_null(), "{row}");
            assert!(row["against_us"].as_f64().is_some_and(|t| t > 0.0), "{row}");
            assert!(row["ratio"].as_f64().is_some_and(|r| r > 0.0), "{row}");
        }
    }

    let document = json_of(&["selftest", "--quick", "--ranks", "3"]);
    assert_keys(&document, &["ranks", "nodes", "passed", "failed", "algorithms", "failures"]);
    assert_eq!((&document["ranks"], &document["failed"]), (&3.into(), &0.into()));
}

#[test]
fn plans_are_shown_proved_predicted_and_explained() {
    let show = run(&["plan", "show", "all-gather", "--algorithm", "ring"]);
    let picture = include_str!("data/plans/all_gather-ring-4.txt");
    let head = "all_gather/ring: neighbours only, least bytes; long vectors\n";
    assert_eq!(show.code, 0, "{show:#?}");
    // The stored picture has longer shards; rounds, ranks and partners are the same.
    assert!(show.stdout.starts_with(head), "{show:#?}");
    let rounds = |text: &str| text.lines().filter(|l| l.starts_with("round ")).count();
    assert_eq!(rounds(&show.stdout), rounds(picture));

    let document = json_of(&["plan", "check", "all-reduce", "--max-ranks", "5"]);
    let proved = document["proved"].as_array().expect("a list");
    assert_eq!(proved.len(), rows_of("all_reduce"));
    assert!(proved.iter().all(|row| row["cases"].as_u64().is_some_and(|cases| cases > 20)));

    let cost = [
        "plan",
        "cost",
        "reduce-scatter",
        "--bytes",
        "1M",
        "--nodes",
        "4",
        "--ranks-per-node",
        "2",
    ];
    let document = json_of(&cost);
    assert_eq!((&document["ranks"], &document["nodes"]), (&8.into(), &4.into()));
    let results = document["results"].as_array().expect("a list");
    let times: Vec<f64> = results.iter().filter_map(|row| row["time_us"].as_f64()).collect();
    assert!(times.len() > 3 && times.is_sorted() && times[0] > 0.0, "{document}");
    let least = |row: &Value| row["bytes_between_nodes_per_node"].as_u64();
    // Of 1 MiB each of 4 nodes sends three quarters at least.
    assert!(results.iter().all(|row| least(row) >= Some(786_432)), "{document}");
    assert!(results.iter().any(|row| least(row) == Some(786_432)), "{document}");

    let why = ["plan", "why", "all-reduce", "--bytes", "1M", "--ranks", "4"];
    let plain = json_of(&why);
    assert_eq!(plain["algorithm"], "staged");
    assert_eq!(plain["passed_over"][0]["algorithm"], "direct");
    assert_eq!(plain["passed_over"][0]["reason"], "needs an input in node-shared memory");
    assert_eq!(json_of(&[&why[..], &["--shared"]].concat())["algorithm"], "direct");
    let nodes = json_of(&[&why[..], &["--ranks-per-node", "2"]].concat());
    assert_eq!(nodes["algorithm"], "hierarchical_ordered", "nodes of two are aligned");
    let fastest = ["--ranks-per-node", "2", "--order", "fastest"];
    assert_eq!(json_of(&[&why[..], &fastest].concat())["algorithm"], "hierarchical");
}

fn rows_of(collective: &str) -> usize {
    rankwise::plan::table::all().iter().filter(|row| row.collective.name() == collective).count()
}

#[test]
fn a_graph_has_the_same_ranks_to_the_last_bit_on_any_ranks_threads_and_transport() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let graph = repository("tests/data/debian-core.txt");
    let ranked = |name: &str, mut command: Command| {
        let output = folder.path().join(format!("{name}.csv"));
        command.args(["pagerank", path(&graph), "--output", path(&output)]);
        let end = ended(&mut command);
        assert_eq!(end.code, 0, "{name}: {end:#?}");
        let bytes = std::fs::read(&output).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(bytes.starts_with(b"node,rank\n"));
        bytes
    };
    let first = ranked("one", rankwise(false, 1, &[]));
    for ranks in 2..=4 {
        let name = format!("{ranks} threads");
        assert_eq!(ranked(&name, rankwise(false, ranks, &[])), first, "{name}");
    }
    for workers in ["1", "3"] {
        let name = format!("2 ranks of {workers} workers");
        assert_eq!(ranked(&name, rankwise(false, 2, &["--threads", workers])), first, "{name}");
    }
    let name = "4 ranks on 2 nodes";
    assert_eq!(ranked(name, rankwise(false, 4, &["--ranks-per-node", "2"])), first, "{name}");
    if let Some(reason) = no_mpi() {
        return println!("under mpirun: skipped: {reason}");
    }
    for ranks in [2, 3] {
        let name = format!("{ranks} processes");
        assert_eq!(ranked(&name, rankwise(true, ranks, &[])), first, "{name}");
    }
}

#[test]
fn help_and_version_are_no_failure() {
    for arguments in [&["--help"][..], &["--version"], &["plan", "cost", "--help"]] {
        let end = run(arguments);
        assert_eq!((end.code, end.stderr.as_str()), (0, ""), "{end:#?}");
        assert!(end.stdout.contains("rankwise"), "{end:#?}");
        assert!(!end.stdout.contains("  fault "), "the hidden command is shown: {end:#?}");
    }
}
