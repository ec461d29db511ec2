//! The conformance suite over two hosts, which are network namespaces of this machine
//! (`tests/netlab/netlab`): own host names, own shared memory, TCP between them.
//!
//! Needs root, Linux, `ip`, `unshare` and `mpirun`; otherwise a test says why it is skipped.
#![cfg(feature = "mpi")]
#![allow(clippy::print_stdout)] // a skipped test says so

#[path = "support/lab.rs"]
mod lab;
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use lab::{Lab, no_lab};
use support::{RANKWISE, assert_selftest_passes, stdout_of};

macro_rules! lab_or_skip {
    ($nodes:expr) => {
        match no_lab() {
            None => Lab::up($nodes),
            Some(reason) => return println!("skipped: {reason}"),
        }
    };
}

#[test]
fn selftest_passes_on_two_nodes_of_equal_and_unequal_size() {
    let lab = lab_or_skip!(2);
    for ranks in [4, 3] {
        let ranks_text = ranks.to_string();
        let mut run = lab.netlab(240);
        run.args(["run", &ranks_text, RANKWISE, "selftest", "--json", "--background"]);
        assert_selftest_passes(&mut run, ranks, 2); // the hostfile has two slots a node
    }
}

#[test]
fn the_lab_is_two_hosts_and_leaves_nothing_behind() {
    let lab = lab_or_skip!(2);
    let hosts = stdout_of(lab.netlab(60).args(["run", "3", "hostname"]));
    let mut hosts: Vec<&str> = hosts.lines().collect();
    hosts.sort_unstable();
    assert_eq!(hosts, ["node0", "node0", "node1"]);

    let second = lab.netlab(30).args(["up", "1"]).output().expect("netlab starts");
    assert_eq!(second.status.code(), Some(2), "a lab in use was taken over");

    let inits = ["node0.pid", "node1.pid", "head.pid"].map(|file| {
        let text = std::fs::read_to_string(lab.path().join(file)).expect("a pid file");
        PathBuf::from(format!("/proc/{}", text.trim()))
    });
    assert!(inits.iter().all(|process| process.exists()));
    let folder = lab.path();
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        let _lab = lab;
        std::panic::resume_unwind(Box::new("a test that fails"));
    }));
    assert!(panicked.is_err());
    assert!(!folder.exists(), "{} is still there", folder.display());
    assert!(inits.iter().all(|process| !process.exists()), "a process of the lab still runs");
}

/// Two hosts on a slow link: the reduction of a bucket goes on during the backward pass and the
/// gathering during the next forward pass, which a timeline shows; the result is the same without.
#[test]
fn training_hides_its_communication_behind_computation_on_a_slow_link() {
    let lab = lab_or_skip!(2);
    for node in ["0", "1"] {
        stdout_of(lab.netlab(30).args(["rate", node, "200"]));
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let config = folder.join("config.toml");
    let text = "owner computes its shard and shares the sum. ".repeat(200);
    std::fs::write(folder.join("text.txt"), text).expect("a text");
    let settings = "[model]\nkind = \"gpt\"\nlayers = 4\nwidth = 64\nheads = 4\ncontext = 64\n\
                    [data]\ntext = [\"text.txt\"]\n\
                    [training]\nsteps = 10\nmicro_batches = 4\nevaluate_examples = 4\n\
                    [schedule]\nlr = 1e-3\n[buffers]\nbucket_elements = 20000\n";
    std::fs::write(&config, settings).expect("a configuration");
    let train = |more: &[&str]| -> serde_json::Value {
        let mut run = lab.netlab(240);
        run.args(["run", "2", RANKWISE, "train", "--json", "--record"]);
        run.arg(folder.join("trace.json")).arg(&config).args(more);
        serde_json::from_str(&stdout_of(&mut run)).expect("a summary")
    };
    let (overlapped, one_after_the_other) = (train(&[]), train(&["--no-overlap"]));
    assert_eq!(overlapped["parameters_hash"], one_after_the_other["parameters_hash"]);
    let hidden = |summary: &serde_json::Value| summary["communication_hidden"].as_f64();
    assert_eq!(hidden(&one_after_the_other), Some(0.0));
    let share = hidden(&overlapped).expect("a share");
    println!("{:.0} % of the communication hidden", share * 100.0);
    assert!(share > 0.4, "{share}: on this link, most of the communication fits the computation");
}
