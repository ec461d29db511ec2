//! Checkpoints through the public interface: a job that is killed by the system at a random
//! moment, again and again, always finds a complete checkpoint and goes on from it.
//!
//! The test runs itself again as a child, which saves as fast as it can until it is killed.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rankwise::communicator::Communicator;
use rankwise::error::Result;
use rankwise::launch;
use rankwise::optimizer::checkpoint::{self, Piece, PieceMut, TensorInfo, Which};

const FOLDER: &str = "RANKWISE_TEST_CHECKPOINTS";
/// Large enough that a good part of the time goes into writing values.
const ELEMENTS: usize = 50_000;

fn tensors() -> [TensorInfo; 2] {
    ["parameter/w", "exp_avg/w"].map(|name| TensorInfo::new(name, &[ELEMENTS / 8, 8]))
}

fn value(step: u64, tensor: usize, element: usize) -> f32 {
    f32::from_bits((step as u32).wrapping_mul(0x9e37_79b9) ^ (2 * element + tensor) as u32)
}

fn range(comm: &Communicator) -> std::ops::Range<usize> {
    rankwise::sharding::Sharding::even(ELEMENTS, comm.ranks()).range(comm.rank())
}

/// Loads the latest checkpoint, compares every bit, and returns its step.
fn resume(comm: &Communicator, folder: &Path) -> Result<u64> {
    load(comm, folder, Which::Latest)
}

fn load(comm: &Communicator, folder: &Path, which: Which) -> Result<u64> {
    let range = range(comm);
    let mut values = [vec![0.0; range.len()], vec![0.0; range.len()]];
    let [first, second] = &mut values;
    let first = PieceMut { tensor: 0, start: range.start, values: first };
    let second = PieceMut { tensor: 1, start: range.start, values: second };
    let requests = &mut [first, second];
    let loaded = checkpoint::load(comm, folder, which, &tensors(), requests)?;
    assert!(loaded.refused.is_empty(), "{:?}", loaded.refused);
    assert_eq!(loaded.state["step"], loaded.step);
    for (tensor, values) in values.iter().enumerate() {
        for (element, found) in range.clone().zip(values) {
            assert_eq!(found.to_bits(), value(loaded.step, tensor, element).to_bits());
        }
    }
    Ok(loaded.step)
}

fn save(comm: &Communicator, folder: &Path, step: u64) -> Result<()> {
    let values = [0, 1].map(|t| range(comm).map(|i| value(step, t, i)).collect::<Vec<f32>>());
    let start = range(comm).start;
    let pieces = [0, 1].map(|tensor| Piece { tensor, start, values: &values[tensor] });
    let state = serde_json::json!({ "step": step });
    checkpoint::save(comm, folder, step, &tensors(), &pieces, &state, 2).map(|_| ())
}

/// The latest step by the names of the folders.
fn newest(folder: &Path) -> u64 {
    let names = std::fs::read_dir(folder).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_prefix("step-")?.parse().ok()).max().unwrap_or(0)
}

#[test]
fn a_job_killed_at_random_moments_always_goes_on() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let folder = Path::new(&folder);
        let endless = launch::threads(2, |comm| {
            let first = resume(comm, folder)?;
            (first + 1..).try_for_each(|step| save(comm, folder, step))
        });
        return endless.map(|_| ()).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    launch::threads(3, |comm| save(comm, folder.path(), 1)).unwrap();
    let (mut last, mut unfinished) = (1, 0);
    for round in 0..40u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_job_killed_at_random_moments_always_goes_on"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // It has started once it has saved something; then it saves without a pause.
        let started = Instant::now();
        while newest(folder.path()) <= last {
            assert!(started.elapsed() < Duration::from_secs(60), "the child saves nothing");
            sleep(Duration::from_millis(1));
        }
        sleep(Duration::from_micros(round.wrapping_mul(7919 * 7919) % 25_000));
        child.kill().unwrap();
        child.wait().unwrap();
        let names = std::fs::read_dir(folder.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        unfinished += names.filter(|name| name.ends_with(".part")).count();
        let ranks = 1 + round as usize % 5;
        let step = launch::threads(ranks, |comm| {
            for step in checkpoint::steps(comm, folder.path())? {
                assert_eq!(load(comm, folder.path(), Which::Step(step))?, step);
            }
            resume(comm, folder.path())
        });
        let step = step.unwrap()[0];
        assert!(step >= last, "round {round}: step {last} was there, now {step} is the latest");
        last = step;
    }
    // Else the kills missed what they were meant to hit.
    assert!(last > 10 && unfinished > 10, "step {last}, {unfinished} unfinished saves");
}
