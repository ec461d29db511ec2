//! What tests of graph files share: runs on several ranks, ranks of nodes as bits, random numbers.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test binary uses a part of this

use std::path::{Path, PathBuf};

use rankwise::error::Result;
use rankwise::graph::columns::Columns;
use rankwise::graph::convert::{ConvertSummary, GraphInput, convert};
use rankwise::graph::partition::PartitionOptions;
use rankwise::graph::{PageRankJob, PageRankSummary, run};
use rankwise::launch;

/// The numbers of ranks that must give the same bits.
pub const RANKS: [usize; 5] = [1, 2, 3, 4, 7];

/// A file of the tests.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Random numbers, the same in every run.
pub struct Random(pub u64);

impl Random {
    /// A number below `below`.
    pub fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % below
    }
}

/// A job on threads; the summary is the same on every rank.
pub fn run_on(ranks: usize, job: &PageRankJob) -> Result<PageRankSummary> {
    let summaries = launch::threads(ranks, |comm| run(comm, job))?;
    assert!(summaries.iter().all(|summary| *summary == summaries[0]));
    Ok(summaries[0].clone())
}

/// All nodes with the bits of their ranks, in the order of the ids.
pub fn ranks_of(ranks: usize, job: &PageRankJob) -> Vec<(String, u64)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ranks.csv");
    run_on(ranks, &PageRankJob { output: Some(path.clone()), ..job.clone() }).unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    let row = |line: &str| {
        let (node, rank) = line.rsplit_once(',').unwrap();
        (node.to_owned(), rank.parse::<f64>().unwrap().to_bits())
    };
    text.lines().skip(1).map(row).collect()
}

/// The input of a conversion.
pub fn input(graph: &Path, options: PartitionOptions) -> GraphInput {
    GraphInput { graph: graph.into(), options, columns: Columns::default() }
}

/// Converts on threads.
pub fn convert_on(ranks: usize, input: &GraphInput, output: &Path) -> Result<ConvertSummary> {
    let mut all = launch::threads(ranks, |comm| convert(comm, input, output))?;
    all.iter_mut().for_each(|summary| summary.seconds = 0.0);
    assert!(all.iter().all(|summary| *summary == all[0]));
    Ok(all[0].clone())
}
