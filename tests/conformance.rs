//! The conformance suite (`rankwise selftest`) everywhere this machine can run it: on threads, on
//! pretended nodes, and under `mpirun`. Two real hosts are in `multi_node.rs`.
#![allow(clippy::print_stdout)] // a skipped test says so

mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};

use rankwise::communicator::Settings;
use rankwise::launch;
use rankwise::selftest::{self, Extent, Outcome};
use support::{assert_selftest_passes, no_mpi, rankwise};

/// The suites run one after another: ranks that wait for each other slow each other's suites down
/// more than the cores are worth.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the suite on threads; every rank must have seen the same outcome.
fn on_threads(nodes: &[usize], extent: Extent) -> Outcome {
    let _alone = alone();
    let outcomes = launch::threads_on_nodes(nodes, Settings::default(), |communicator| {
        selftest::run(communicator, extent)
    });
    let outcomes = outcomes.expect("no collective fails");
    let first = outcomes[0].clone();
    for outcome in &outcomes {
        assert_eq!(outcome.failures, first.failures);
        assert_eq!((outcome.passed, outcome.failed), (first.passed, first.failed));
    }
    assert_eq!(first.failed, 0, "{first:#?}");
    assert_eq!(first.ranks, nodes.len());
    first
}

fn whole_suite_on_threads(ranks: usize) {
    let outcome = on_threads(&vec![0; ranks], Extent { quick: false, background: true });
    assert!(outcome.passed > 10_000, "only {} cases", outcome.passed);
    // On one node everything fits, but for what needs a power of two.
    let missing = if ranks.is_power_of_two() { 0 } else { 4 };
    let rows = rankwise::plan::table::all().len();
    assert_eq!(outcome.algorithms.len() + missing, rows, "{:?}", outcome.algorithms);
}

// One test a number of ranks, so that a failure names it.
#[test]
fn the_whole_suite_passes_on_1_thread() {
    whole_suite_on_threads(1);
}

#[test]
fn the_whole_suite_passes_on_2_threads() {
    whole_suite_on_threads(2);
}

#[test]
fn the_whole_suite_passes_on_3_threads() {
    whole_suite_on_threads(3);
}

#[test]
fn the_whole_suite_passes_on_4_threads() {
    whole_suite_on_threads(4);
}

#[test]
fn the_whole_suite_passes_on_7_threads() {
    whole_suite_on_threads(7);
}

#[test]
fn the_suite_passes_on_pretended_nodes() {
    for nodes in [
        vec![0, 0, 0, 1, 1, 1, 2],
        vec![0, 1, 2, 0, 1, 2, 0],
        vec![0, 0, 1, 1],
        vec![0, 1, 2, 3, 4],
        vec![0, 1],
    ] {
        let outcome = on_threads(&nodes, Extent { quick: true, background: true });
        assert_eq!(outcome.nodes, 1 + nodes.iter().max().expect("some node"));
        let has = |name: &str| outcome.algorithms.iter().any(|a| a == name);
        assert!(has("all_reduce/hierarchical") && has("reduce_scatter/hierarchical_direct"));
        assert!(!has("all_reduce/direct"), "nodes do not share memory");
    }
}

fn suite_on_processes(ranks: usize, nodes: u64, arguments: &[&str]) {
    if let Some(reason) = no_mpi() {
        return println!("skipped: {reason}");
    }
    let _alone = alone();
    let arguments = [&["selftest", "--json"], arguments].concat();
    assert_selftest_passes(&mut rankwise(true, ranks, &arguments), ranks as u64, nodes);
}

#[test]
fn the_suite_passes_under_mpirun() {
    for ranks in [1, 2, 3, 7] {
        suite_on_processes(ranks, 1, &["--quick", "--background"]);
    }
}

#[test]
fn the_whole_suite_passes_on_4_processes() {
    suite_on_processes(4, 1, &[]);
}

#[test]
fn the_suite_passes_under_mpirun_on_pretended_nodes() {
    suite_on_processes(5, 3, &["--quick", "--ranks-per-node", "2"]);
}
