//! `rankwise tune`, the table it saves, and the MPI library as a candidate; `rankwise bench` in its
//! output formats. Times are not looked at.

mod support;

use serde_json::Value;
use support::{RANKWISE, limited, missing, mpirun, stdout_of};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("no JSON document: {e}\n{text}"))
}

fn on_threads(arguments: &[&str]) -> std::process::Command {
    let mut command = limited(60, RANKWISE);
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
    let tune = ["tune", "--quick", "--largest", "4K", "--output", path, "--json"];
    let report = json(&stdout_of(&mut on_threads(&tune)));
    assert!(report["rows"].as_u64().unwrap() > 20, "{report}");
    assert_eq!(report["measurement"].as_bool(), Some(report["reason"].is_null()));
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
    for (op, algorithm) in rows {
        assert!(candidates.contains(&format!("{op}/{algorithm}").into()), "{report}");
    }
    assert!(std::fs::read_to_string(&output).unwrap().contains("library = \""));
}
