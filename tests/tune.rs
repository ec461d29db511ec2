//! `rankwise tune`, the table it saves, and the MPI library as a candidate; `rankwise bench` in its
//! output formats. Times are not looked at.

mod support;

use serde_json::Value;
use support::{RANKWISE, limited, missing, mpirun, stdout_of};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("no JSON document: {e}\n{text}"))
}

fn on_threads(arguments: &[&str]) -> std::process::Command {
    let mut command = limited(120, RANKWISE);
    command.args(["--ranks", "3"]).args(arguments);
    command
}

const ROW: &str = "ranks_per_node = 2, buffers = \"plain\", dtype_bytes = 4, bytes = 64, \
                   bytes_up_to = 4096, time_us = 1.5";

/// A table for two ranks whose rows name these algorithms.
fn table(rows: &[(&str, &str)]) -> String {
    let mut text = "version = 1\nrows = [\n".to_string();
    for (op, algorithm) in rows {
        text += &format!("{{ op = \"{op}\", algorithm = \"{algorithm}\", ranks = 2, {ROW} }},\n");
    }
    text + "]\n[measured]\nlibrary = \"\"\nranks = 2\nnodes = 1\ncores = 2\ndate = \"\"\n"
}

#[test]
fn a_saved_table_is_read_and_decides() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.toml");
    let path = file.to_str().unwrap();
    let tune = ["tune", "--quick", "--largest", "2K", "--output", path, "--json"];
    let report = json(&stdout_of(&mut on_threads(&tune)));
    assert!(report["rows"].as_u64().unwrap() > 20, "{report}");
    assert_eq!(report["measurement"].as_bool(), Some(report["reason"].is_null()));
    let figures = report["figures"].as_array().unwrap();
    let operations =
        ["reduce_scatter", "all_gather", "all_reduce", "broadcast", "all_to_all", "barrier"];
    for op in operations {
        for buffers in ["plain", "shared"] {
            let of = figures.iter().filter(|f| f["op"] == op && f["buffers"] == buffers);
            let sizes: Vec<u64> = of.map(|f| f["bytes"].as_u64().unwrap()).collect();
            // Rounded up to three ranks: 8, 128 and 2 Ki bytes.
            let expected: &[u64] = match (op, buffers) {
                ("barrier", "shared") => &[0],
                ("barrier", _) => &[],
                _ => &[12, 132, 2052],
            };
            assert_eq!(sizes, expected, "{op} {buffers}");
        }
    }
    let timed = |figure: &Value| figure["times_us"].as_object().is_some_and(|t| !t.is_empty());
    assert!(figures.iter().all(timed), "{report}");
    let why = ["plan", "why", "all-gather", "--bytes", "2K", "--shared", "--json", "--table", path];
    let why = json(&stdout_of(&mut on_threads(&why)));
    let reason = why["reason"].as_str().unwrap();
    assert!(reason.starts_with(&format!("table {path} row ")), "{reason}");
    let mut selftest = on_threads(&["selftest", "--quick", "--json", "--table", path]);
    assert_eq!(json(&stdout_of(&mut selftest))["failed"], 0);
}

#[test]
fn a_table_for_other_ranks_is_passed_over_and_a_malformed_one_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.toml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, table(&[("all_reduce", "pairwise")])).unwrap();
    let why = ["plan", "why", "all-reduce", "--bytes", "64", "--json", "--table", path];
    let why = json(&stdout_of(&mut on_threads(&why)));
    assert_eq!(why["algorithm"], "flat");
    let reason = why["reason"].as_str().unwrap();
    assert!(reason.ends_with("no row for all_reduce, 3 ranks, 3 a node"), "{reason}");
    std::fs::write(&file, table(&[("all_reduce", "pairwise"), ("barrier", "x")])).unwrap();
    for arguments in [["selftest", "--quick"], ["bench", "barrier"]] {
        let mut command = on_threads(&arguments);
        let output = command.env("RANKWISE_TABLE", path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("t.toml line 4: barrier has no algorithm 'x'"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn bench_writes_json_csv_and_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let csv = folder.path().join("b.csv");
    let mut command = on_threads(&["bench", "reduce-scatter", "all-gather", "--json"]);
    command.args(["--sizes", "12:192", "--iterations", "5", "--csv"]).arg(&csv);
    let html = folder.path().join("b.html");
    command.arg("--html").arg(&html);
    let report = json(&stdout_of(&mut command));
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 2 * 3 * 2, "{report}");
    for row in results {
        assert_eq!(row["verified"], true);
        let time = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("no {key} in {row}"));
        assert!(time("p10_us") <= time("time_us") && time("time_us") <= time("p99_us"), "{row}");
    }
    assert_eq!(report["measurement"].as_bool(), Some(report["reason"].is_null()));
    assert!(report["slowdown_in_company"].as_f64().unwrap() > 0.0);
    let text = std::fs::read_to_string(&csv).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 1 + results.len(), "{text}");
    let columns = lines[0].split(',').count();
    assert!(lines.iter().all(|line| line.split(',').count() == columns), "{text}");
    assert!(lines[1].starts_with("reduce_scatter,12,f32,3,1,shared,staged,"), "{text}");
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    // Time and bandwidth for each operation, and a line of the table for each result.
    assert_eq!(page.matches("<svg").count(), 2 * 2);
    assert_eq!(page.matches("<tr><td>").count(), results.len());
    assert!(!page.contains("NaN") && !page.contains("http"), "{page}");
}

#[test]
fn the_library_serves_what_the_table_gives_it() {
    if let Some(program) = missing(&["mpirun"]) {
        println!("skipped: {program} is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.toml");
    let rows = [
        ("reduce_scatter", "native_counts"),
        ("all_gather", "native"),
        ("all_reduce", "native"),
        ("broadcast", "native"),
        ("all_to_all", "native"),
    ];
    std::fs::write(&file, table(&rows)).unwrap();
    let mut bench = mpirun(60);
    bench.args(["-n", "2", RANKWISE, "bench", "--json", "--sizes", "64:64", "--iterations", "4"]);
    bench.args(["--buffers", "plain", "--against", "native", "--table"]).arg(&file);
    let report = json(&stdout_of(&mut bench));
    for (op, algorithm) in rows {
        let mut results = report["results"].as_array().unwrap().iter();
        let row = results.find(|row| row["op"] == op).unwrap_or_else(|| panic!("{report}"));
        assert_eq!((&row["algorithm"], &row["verified"]), (&algorithm.into(), &true.into()));
    }
    let output = folder.path().join("tuned.toml");
    let mut tune = mpirun(60);
    tune.args(["-n", "2", RANKWISE, "tune", "--quick", "--largest", "64", "--json", "--output"]);
    let report = json(&stdout_of(tune.arg(&output)));
    let candidates = report["candidates"].as_array().unwrap();
    let immediate = rows.map(|(op, _)| (op, "native_immediate"));
    for (op, algorithm) in rows.into_iter().chain(immediate) {
        assert!(candidates.contains(&format!("{op}/{algorithm}").into()), "{report}");
    }
    // The library's calls are measured at every size and for both kinds of buffers.
    for figure in report["figures"].as_array().unwrap() {
        let times = figure["times_us"].as_object().unwrap();
        assert!(times.contains_key("native"), "{figure}");
        assert!(times.contains_key("native_immediate") || figure["op"] == "barrier", "{figure}");
    }
    assert!(std::fs::read_to_string(&output).unwrap().contains("library = \""));
}

/// What a machine might measure: its library wins for plain buffers from 8 MiB on.
#[test]
fn the_library_serves_large_plain_buffers_where_the_table_says_that_it_wins() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.toml");
    let path = file.to_str().unwrap();
    let operations = [
        ("reduce_scatter", "native_immediate"),
        ("all_gather", "native"),
        ("all_reduce", "native_immediate"),
        ("broadcast", "native"),
        ("all_to_all", "native_immediate"),
    ];
    let mut text = "version = 1\nrows = [\n".to_string();
    for (op, native) in operations {
        for (mib, algorithm, runner_up) in [(4, "staged", native), (64, native, "staged")] {
            text += &format!(
                "{{ op = \"{op}\", ranks = 2, ranks_per_node = 2, buffers = \"plain\", \
                 dtype_bytes = 4, bytes = {0}, bytes_up_to = {0}, algorithm = \"{algorithm}\", \
                 time_us = 10.0, runner_up = \"{runner_up}\", runner_up_us = 20.0 }},\n",
                mib << 20
            );
        }
    }
    text += "]\n[measured]\nlibrary = \"\"\nranks = 2\nnodes = 1\ncores = 2\ndate = \"\"\n";
    std::fs::write(&file, text).unwrap();
    let why = |op: &str, bytes: &str, more: &[&str]| {
        let mut command = limited(60, RANKWISE);
        command.args(["--ranks", "2", "--json", "plan", "why", &op.replace('_', "-")]);
        let why = json(&stdout_of(command.args(["--bytes", bytes]).args(more)));
        let text = |key: &str| why[key].as_str().unwrap().to_string();
        (text("algorithm"), text("reason"))
    };
    let mpi = cfg!(feature = "mpi");
    for (i, (op, native)) in operations.into_iter().enumerate() {
        let named = ["--table", path];
        let (algorithm, reason) = why(op, "8M", &named);
        if mpi {
            let row = format!("table {path} row {}: measured 10 us, next staged 20 us", 2 * i + 2);
            assert_eq!((algorithm.as_str(), reason), (native, row));
        } else {
            assert_eq!(algorithm, "staged", "{reason}");
        }
        let row = format!("table {path} row {}: ", 2 * i + 1);
        let (algorithm, reason) = why(op, "4M", &named);
        assert!(algorithm == "staged" && reason.starts_with(&row), "{op}: {algorithm}, {reason}");
        let (algorithm, reason) = why(op, "8M", &["--shared", "--table", path]);
        assert!(!algorithm.starts_with("native") && reason.contains("no row for"), "{reason}");
        let (algorithm, reason) = why(op, "8M", &[]);
        assert_eq!((algorithm.as_str(), reason.as_str()), ("staged", "default: no table"));
    }
    if let Some(reason) = support::no_mpi() {
        return println!("under mpirun: skipped: {reason}");
    }
    for table in [true, false] {
        let mut bench = mpirun(120);
        bench.args(["-n", "2", RANKWISE, "bench", "--json", "--sizes", "4M:8M", "--factor", "2"]);
        bench.args(["--iterations", "1", "--buffers", "plain"]);
        if table {
            bench.args(["--table", path]);
        }
        let report = json(&stdout_of(&mut bench));
        for (op, native) in operations {
            let rows = report["results"].as_array().unwrap().iter().filter(|row| row["op"] == op);
            let ran: Vec<(u64, &str, bool)> = rows
                .map(|row| {
                    let algorithm = row["algorithm"].as_str().unwrap();
                    (row["bytes"].as_u64().unwrap() >> 20, algorithm, row["verified"] == true)
                })
                .collect();
            let large = if table { native } else { "staged" };
            assert_eq!(ran, [(4, "staged", true), (8, large, true)], "{op}");
        }
    }
}

#[test]
fn bench_names_the_nonblocking_calls_of_the_library() {
    if let Some(reason) = support::no_mpi() {
        return println!("skipped: {reason}");
    }
    let mut bench = mpirun(60);
    bench.args(["-n", "2", RANKWISE, "bench", "--json", "--sizes", "24:24", "--iterations", "4"]);
    bench.args(["reduce-scatter", "all-gather", "all-reduce", "broadcast", "all-to-all"]);
    bench.args(["--algorithm", "native_immediate", "--against", "native-immediate"]);
    let report = json(&stdout_of(&mut bench));
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 5 * 2);
    for row in results {
        assert_eq!(
            (&row["algorithm"], &row["verified"]),
            (&"native_immediate".into(), &true.into())
        );
        assert!(row["against_us"].as_f64().unwrap() > 0.0 && row["native_us"].is_null(), "{row}");
    }
}
