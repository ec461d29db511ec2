//! A save that is cut off at any point between two changes of the disk leaves a complete
//! checkpoint, with the values of the last save that had returned or of the one cut off.
//!
//! The process really ends there, without any cleaning up: the test runs itself again as a child
//! that aborts at the n-th such point, for n = 1, 2, … until the child gets through.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};

use super::tests::{load_salted, save_salted};
use super::{Which, folders, steps};
use crate::launch;

const THIS: &str =
    "optimizer::checkpoint::crash_tests::a_save_cut_off_anywhere_leaves_a_complete_one";
const CHILD: &str = "RANKWISE_TEST_CRASH_AT";
const FOLDER: &str = "RANKWISE_TEST_CRASH_FOLDER";

/// Points until the process ends: more than there are, but in the child.
static LEFT: AtomicI64 = AtomicI64::new(i64::MAX);

pub(super) fn crash_point() {
    if LEFT.fetch_sub(1, Ordering::SeqCst) == 1 {
        std::process::abort();
    }
}

/// (step, salt): on, on, and the same step again; the first one removes a leftover, too.
const SAVES: [(u64, u64); 3] = [(20, 2), (30, 3), (30, 4)];

fn child(folder: &Path, crash_at: i64) {
    LEFT.store(crash_at, Ordering::SeqCst);
    for (step, salt) in SAVES {
        launch::threads(2, |comm| save_salted(comm, &folder.join("run"), step, salt, 1)).unwrap();
        fs::write(folder.join("done"), salt.to_string()).unwrap();
    }
}

#[test]
fn a_save_cut_off_anywhere_leaves_a_complete_one() {
    if let Some(crash_at) = std::env::var(CHILD).ok().and_then(|n| n.parse().ok()) {
        return child(Path::new(&std::env::var_os(FOLDER).unwrap()), crash_at);
    }
    let first = tempfile::tempdir().unwrap();
    launch::threads(3, |comm| save_salted(comm, first.path(), 10, 1, 1)).unwrap();
    let first = first.path().join("step-00000010");
    let mut seen = Vec::new();
    for crash_at in 1.. {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        for name in ["step-00000010", "step-00000015.part"] {
            fs::create_dir_all(run.join(name)).unwrap();
        }
        for file in fs::read_dir(&first).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), run.join("step-00000010").join(file.file_name())).unwrap();
        }
        fs::write(run.join("step-00000015.part/rank-00000.safetensors"), "half").unwrap();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", THIS])
            .env(CHILD, crash_at.to_string())
            .env(FOLDER, folder.path())
            .output()
            .unwrap();
        let done = fs::read_to_string(folder.path().join("done"));
        let done = done.map_or(1, |salt| salt.parse::<u64>().unwrap());
        let loaded = launch::threads(1 + crash_at as usize % 4, |comm| {
            let checkpoint = load_salted(comm, &run, Which::Latest, 9)?;
            assert!(checkpoint.refused.is_empty(), "{:?}", checkpoint.refused);
            // Nothing half removed looks complete.
            for step in steps(comm, &run)? {
                let older = load_salted(comm, &run, Which::Step(step), 9)?;
                assert!(older.refused.is_empty(), "{:?}", older.refused);
            }
            Ok(checkpoint.state["salt"].as_u64().unwrap())
        });
        let salt = loaded.unwrap_or_else(|error| panic!("point {crash_at}: {error}"))[0];
        assert!(salt == done || salt == done + 1, "point {crash_at}: {salt}, {done} was done");
        // The next save works, and removes what was left.
        launch::threads(2, |comm| save_salted(comm, &run, 40, 5, 1)).unwrap();
        let listing = folders::list(&run).unwrap();
        assert!(listing.parts.is_empty() && listing.complete.len() == 1, "{listing:?}");
        if output.status.success() {
            assert_eq!((done, salt), (4, 4));
            // Each save was cut off before and after it had become complete.
            assert!(crash_at > 60, "{crash_at} points");
            for pair in [(1, 1), (1, 2), (2, 2), (2, 3), (3, 3), (3, 4)] {
                assert!(seen.contains(&pair), "{pair:?}");
            }
            return;
        }
        seen.push((done, salt));
    }
}
