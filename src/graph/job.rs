//! A PageRank run from file to file: load, partition, iterate, write.

use std::path::PathBuf;

use serde::Serialize;

use super::columns::Columns;
use super::convert::GraphInput;
use super::cost::PartitionReport;
use super::frame::Frame;
pub use super::frame::Seconds;
use super::ids::Numbering;
use super::node_values;
use super::open::Graph;
use super::options::{Dangling, Distributions, Number, PageRankOptions};
use super::order::Relabel;
use super::output::{self, OwnRanks, TopNode};
use super::pagerank::pagerank;
use super::partition::PartitionOptions;
use super::rows::Duplicates;
use super::traffic::Traffic;
use crate::communicator::Communicator;
use crate::error::{Error, Result};
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

    /// The graph, and what its lines mean.
    pub(super) fn input(&self) -> GraphInput {
        let options = PartitionOptions {
            weighted: self.weighted,
            undirected: self.undirected,
            duplicates: self.duplicates,
            relabel: self.relabel,
        };
        GraphInput { graph: self.graph.clone(), options, columns: self.columns.clone() }
    }
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
    let mut frame = Frame::start(comm, &job.graph, job.output.as_deref(), job.options.validate())?;
    let (graph, given) = frame.load(&job.input(), |numbering| distributions(job, numbering))?;
    let Graph { numbering, partition: graph, .. } = graph;
    let result = pagerank(comm, &graph, &job.options, given)?;
    frame.computed(result.seconds);
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
    let seconds = frame.seconds()?;
    let memory = comm.all_gather_vec(&[peak_rss_bytes()])?.0;
    let summary = PageRankSummary {
        vertices: numbering.len() as u64,
        edges: graph.edges,
        iterations: result.iterations,
        residual: result.residual,
        residuals: result.residuals,
        withheld: result.withheld,
        ns_per_edge: seconds.ns_per_edge(result.iterations, graph.edges),
        seconds,
        peak_rss_bytes: memory.iter().copied().max().unwrap_or(0),
        peak_rss_bytes_by_rank: memory,
        bytes_moved: result.traffic,
        partition: result.partition,
        top,
    };
    frame.finish(&job.command, &written, &summary)?;
    Ok(summary)
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
