//! A PageRank run from file to file: load, partition, iterate, write.
//!
//! Local trouble (a malformed line, a full disk) becomes the same error on every rank before the
//! next collective, so no rank waits for one that has given up. What can be checked without the
//! graph, such as the options and the name of the output, is checked before it is read.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::columns::Columns;
use super::cost::PartitionReport;
use super::ids::Numbering;
use super::node_values;
use super::open::{Graph, Opened};
use super::options::{Dangling, Distributions, Number, PageRankOptions};
use super::order::Relabel;
use super::output::{self, Format, OwnRanks, TopNode};
use super::pagerank::pagerank;
use super::partition::PartitionOptions;
use super::rows::Duplicates;
use super::traffic::Traffic;
use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::{Error, Result};
use crate::files::{self, FileRecord};
use crate::measure::memory::peak_rss_bytes;

/// What to rank, how, and where the result goes.
#[derive(Clone, PartialEq, Debug)]
pub struct PageRankJob {
    /// A file in any format that `load` knows, or `kron:SCALE…` (see `generator`).
    pub graph: PathBuf,
    /// Edges have the weights that the file gives (third column of an edge list).
    pub weighted: bool,
    /// The columns of a table.
    pub columns: Columns,
    /// Each line is an edge both ways; formats that say so themselves are not changed by it.
    pub undirected: bool,
    /// What repeated edges mean.
    pub duplicates: Duplicates,
    /// Whether nodes are ordered by degree; results are in the order of the ids anyway.
    pub relabel: Relabel,
    /// The parameters of the iteration.
    pub options: PageRankOptions,
    /// A file of node ids and values: where teleports go.
    pub personalization: Option<PathBuf>,
    /// The same: where iteration starts.
    pub start: Option<PathBuf>,
    /// The same: where the rank of dangling nodes goes, with [`Dangling::Given`].
    pub dangling: Option<PathBuf>,
    /// Write the last ranks also when they did not converge. The run fails all the same, and
    /// writes no manifest.
    pub write_anyway: bool,
    /// Where the ranks of all nodes go; `.csv` or `.parquet`.
    pub output: Option<PathBuf>,
    /// The length of the list of the highest ranks.
    pub top: usize,
    /// The command line, for the manifest.
    pub command: String,
}

impl PageRankJob {
    /// A run with the defaults of networkx on a directed graph without weights, no output file,
    /// and the ten highest ranks.
    pub fn new(graph: impl Into<PathBuf>) -> Self {
        PageRankJob {
            graph: graph.into(),
            weighted: false,
            columns: Columns::default(),
            undirected: false,
            duplicates: Duplicates::default(),
            relabel: Relabel::default(),
            options: PageRankOptions::default(),
            personalization: None,
            start: None,
            dangling: None,
            write_anyway: false,
            output: None,
            top: 10,
            command: String::new(),
        }
    }
}

/// The time of each phase on the slowest rank.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Seconds {
    /// Reading and parsing the file, and numbering the nodes.
    pub load: f64,
    /// Moving the edges to their owners, degrees, and the layout of the rows.
    pub partition: f64,
    /// All steps of the iteration.
    pub iterate: f64,
    /// The list of the highest ranks and the output file.
    pub write: f64,
}

/// What a run reports, the same on every rank. The field names are the JSON keys.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct PageRankSummary {
    /// Nodes of the graph.
    pub vertices: u64,
    /// Directed edges of the graph, after `undirected` and `duplicates`.
    pub edges: u64,
    /// Steps until convergence.
    pub iterations: usize,
    /// The L1 change of the last step.
    pub residual: f64,
    /// The change of each step.
    pub residuals: Vec<f64>,
    /// The sum of all changes that had not been sent at the start of the last step, with `delta`.
    pub withheld: f64,
    /// Time of the iteration ÷ steps ÷ directed edges; 0 without any.
    pub ns_per_edge: f64,
    /// The phases.
    pub seconds: Seconds,
    /// The largest resident memory of a process of the job; 0 where the system does not say.
    pub peak_rss_bytes: u64,
    /// The same of the process of each rank.
    pub peak_rss_bytes_by_rank: Vec<u64>,
    /// What the contributions of all iterations took between ranks and nodes.
    pub bytes_moved: Traffic,
    /// How edges and values were distributed, and why.
    pub partition: PartitionReport,
    /// The highest ranks.
    pub top: Vec<TopNode>,
}

/// Runs a job. Collective.
pub fn run(comm: &Communicator, job: &PageRankJob) -> Result<PageRankSummary> {
    comm.agree(job.options.validate())?;
    comm.agree(match comm.rank() {
        0 => check_output(job.output.as_deref(), &job.graph),
        _ => Ok(()),
    })?;
    let mut clock = Clock::new();
    let asked = PartitionOptions {
        weighted: job.weighted,
        undirected: job.undirected,
        duplicates: job.duplicates,
        relabel: job.relabel,
    };
    let opened = Opened::open(comm, &job.graph, asked, &job.columns)?;
    let given = comm.agree(distributions(job, opened.numbering()))?;
    let load_seconds = clock.lap();
    let Graph { numbering, partition: graph, .. } = opened.partition(comm, asked)?;
    let partition_seconds = clock.lap();
    let result = pagerank(comm, &graph, &job.options, given)?;
    let partition_seconds = partition_seconds + clock.lap() - result.seconds;
    let iterate_seconds = result.seconds;
    let order = graph.order.as_ref();
    let own = OwnRanks { ranks: &result.ranks, sharding: &graph.sharding, order };
    let top = output::top(comm, own, &numbering, job.top)?;
    let wanted = result.failure.is_none() || job.write_anyway;
    let single = job.options.number == Number::F32;
    let written = match &job.output {
        Some(path) if wanted => output::write(comm, &[("rank", own)], &numbering, path, single)?,
        _ => Vec::new(),
    };
    if let Some(failure) = result.failure {
        return Err(failure);
    }
    let laps = [load_seconds, partition_seconds, iterate_seconds, clock.lap()];
    let laps = comm.all_reduce_vec(&laps, Op::Max)?;
    let seconds = Seconds { load: laps[0], partition: laps[1], iterate: laps[2], write: laps[3] };
    let memory = comm.all_gather_vec(&[peak_rss_bytes()])?.0;
    let edge_steps = result.iterations as f64 * graph.edges as f64;
    let summary = PageRankSummary {
        vertices: numbering.len() as u64,
        edges: graph.edges,
        iterations: result.iterations,
        residual: result.residual,
        residuals: result.residuals,
        withheld: result.withheld,
        ns_per_edge: if edge_steps > 0.0 { seconds.iterate * 1e9 / edge_steps } else { 0.0 },
        seconds,
        peak_rss_bytes: memory.iter().copied().max().unwrap_or(0),
        peak_rss_bytes_by_rank: memory,
        bytes_moved: result.traffic,
        partition: result.partition,
        top,
    };
    finish(comm, job.output.as_deref(), &job.command, &written, &summary)?;
    Ok(summary)
}

/// Writes the manifest of a run, on the rank that wrote its files. Collective.
pub(super) fn finish(
    comm: &Communicator,
    output: Option<&Path>,
    command: &str,
    written: &[FileRecord],
    summary: &impl Serialize,
) -> Result<()> {
    comm.agree(match output {
        Some(path) if !written.is_empty() => {
            files::manifest(path, command, comm.ranks(), written, summary).map(|_| ())
        }
        _ => Ok(()),
    })
}

/// Refuses an output that cannot be written before hours are spent on its contents, and removes
/// the manifest of an earlier run.
pub(super) fn check_output(output: Option<&Path>, graph: &Path) -> Result<()> {
    let Some(path) = output else {
        return Ok(());
    };
    Format::of(path)?;
    files::check_folder(path)?;
    let real = |path: &Path| path.canonicalize().ok();
    if real(path).is_some_and(|output| Some(output) == real(graph)) {
        return Err(Error::input(format!(
            "{}: is the graph itself; the output would replace it",
            path.display()
        )));
    }
    files::remove_manifest(path)
}

/// The distributions that the job names files for.
fn distributions(job: &PageRankJob, numbering: &Numbering) -> Result<Distributions> {
    if (job.options.dangling == Dangling::Given) != job.dangling.is_some() {
        return Err(Error::input("dangling: a file goes with the rule that reads it"));
    }
    let read = |path: &Option<PathBuf>| {
        path.as_ref().map(|path| node_values::read(path, numbering)).transpose()
    };
    Ok(Distributions {
        personalization: read(&job.personalization)?,
        start: read(&job.start)?,
        dangling: read(&job.dangling)?,
    })
}

/// A stop watch for phases.
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn new() -> Self {
        Clock(Instant::now())
    }

    /// The seconds since the last lap.
    pub(super) fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let seconds = now.duration_since(self.0).as_secs_f64();
        self.0 = now;
        seconds
    }
}
