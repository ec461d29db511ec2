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
        run.args(["run", &ranks_text, RANKWISE, "selftest", "--json"]);
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
