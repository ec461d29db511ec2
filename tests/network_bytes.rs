//! PageRank on four hosts with two ranks each and links of 1 Gbit/s (`tests/netlab/netlab`): every
//! partition gives the same bits, and its exchange is at the least number of bytes that the
//! partition needs, by our own count and by the counters of the network interfaces.
//!
//! Needs root, Linux, `ip`, `tc`, `unshare` and `mpirun`; otherwise it says why it is skipped. With
//! `--nocapture` it prints the table of bytes.
#![cfg(feature = "mpi")]
#![allow(clippy::print_stdout)] // a skipped test says so, and the table is of interest

#[path = "support/lab.rs"]
mod lab;
mod support;

use lab::{Lab, no_lab};
use serde_json::Value;
use support::{RANKWISE, missing, stdout_of};

const HOSTS: u64 = 4;
const RANKS: &str = "8";
const NODES: u64 = 1 << 15;

/// What `rankwise tune` would say of such hosts: 100 us for a small all_gather, 0.125 GB/s.
const TABLE: &str = "version = 1
rows = [
    { op = \"all_gather\", ranks = 4, ranks_per_node = 1, buffers = \"plain\", dtype_bytes = 4,\
 bytes = 8, bytes_up_to = 16, algorithm = \"ring\", time_us = 100.0 },
    { op = \"all_gather\", ranks = 4, ranks_per_node = 1, buffers = \"plain\", dtype_bytes = 4,\
 bytes = 4194304, bytes_up_to = 8388608, algorithm = \"ring\", time_us = 25266.0 },
]
[measured]
library = \"\"
ranks = 4
nodes = 4
cores = 1
date = \"\"
";

/// Bytes that the interfaces of all hosts have received so far.
fn received(lab: &Lab) -> u64 {
    let one = |host: u64| {
        let file = "/sys/class/net/eth0/statistics/rx_bytes";
        let text = stdout_of(lab.netlab(30).args(["exec", &host.to_string(), "cat", file]));
        text.trim().parse::<u64>().expect("a number of bytes")
    };
    (0..HOSTS).map(one).sum()
}

/// A run to a tolerance: its summary, and what the interfaces received.
fn run(lab: &Lab, partition: &[&str], tolerance: &str) -> (Value, u64) {
    let before = received(lab);
    let mut command = lab.netlab(300);
    command.env("HOSTFILE", lab.path().join("four-hosts"));
    command.args(["run", RANKS, RANKWISE, "pagerank", "kron:15:8", "--stop", "l1"]);
    command.args(["--tol", tolerance, "--json", "--threads", "1"]).args(partition);
    let stdout = stdout_of(&mut command);
    let summary = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}"));
    (summary, received(lab) - before)
}

fn number(summary: &Value, key: &str) -> u64 {
    summary.pointer(key).and_then(Value::as_u64).unwrap_or_else(|| panic!("{key} in {summary}"))
}

#[test]
fn four_hosts_exchange_the_least_bytes_of_each_partition() {
    if let Some(reason) = no_lab().or_else(|| missing(&["tc"]).map(|_| "there is no `tc`".into())) {
        return println!("skipped: {reason}");
    }
    let lab = Lab::up(HOSTS as u32);
    let hosts: String = (0..HOSTS).map(|host| format!("node{host} slots=2\n")).collect();
    std::fs::write(lab.path().join("four-hosts"), hosts).expect("a hostfile");
    for host in 0..HOSTS {
        stdout_of(lab.netlab(30).args(["rate", &host.to_string(), "1000"]));
    }
    println!("partition    iterations   counted    the least  interfaces, bytes an iteration");
    let mut expected: Option<Value> = None;
    let mut counts = Vec::new();
    for partition in ["1d", "1d-needed", "2d:2x4", "2d:4x2", "2d:1x8", "auto"] {
        // Loading and starting cancel in the difference of two runs.
        let (short, short_wire) = run(&lab, &["--partition", partition], "1e-3");
        let (long, long_wire) = run(&lab, &["--partition", partition], "1e-9");
        let of = |key| number(&long, key) - number(&short, key);
        let (steps, counted, wire) =
            (of("/iterations"), of("/bytes_moved/between_nodes"), long_wire - short_wire);
        let least = of("/bytes_moved/lower_bound");
        assert!(steps >= 10, "{steps} iterations");
        println!(
            "{partition:<12} {steps:>10} {:>10} {:>10} {:>10}",
            counted / steps,
            least / steps,
            wire / steps
        );
        assert_eq!(counted, least, "{partition}");
        // Headers, acknowledgements, and what an iteration sends besides values.
        assert!(counted <= wire, "{partition}: {counted} counted, {wire} on the wire");
        assert!(wire <= counted + counted / 4 + steps * 65_536, "{partition}: {counted}, {wire}");
        let same = expected.get_or_insert_with(|| long.clone());
        for key in ["residuals", "top", "iterations"] {
            assert_eq!(long[key], same[key], "{key} of {partition}");
        }
        counts.push(counted / steps);
    }
    assert_eq!(counts[0], 8 * NODES * (HOSTS - 1), "1d sends every value to three hosts");
    assert!(counts[1] < counts[0], "{counts:?}");
    // A measured table says how slow these links are.
    let table = lab.path().join("table.toml");
    std::fs::write(&table, TABLE).expect("a table");
    let table = table.to_str().expect("a path in UTF-8");
    let (auto, _) = run(&lab, &["--table", table], "1e-3");
    println!("auto by a table: {}, {}", auto["partition"]["chosen"], auto["partition"]["reason"]);
    assert_eq!(auto["partition"]["chosen"], "1d-needed");
    let (delta, _) = run(&lab, &["--delta", "0.5"], "1e-9");
    let (moved, least) =
        (number(&delta, "/bytes_moved/between_nodes"), number(&delta, "/bytes_moved/lower_bound"));
    println!("--delta 0.5: {moved} bytes of {least} in {} iterations", delta["iterations"]);
    assert!(moved < least);
}
