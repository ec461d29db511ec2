//! `rankwise pagerank`: ranks the nodes of a graph.

mod page;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::graph_input::{Input, RelabelName};
use super::graph_report::{Report, node_name, print_top, print_written};
use super::{Session, progress};
use crate::error::Result;
use crate::files;
use crate::graph::options::{Dangling, Number, PageRankOptions, Scale, Stop};
use crate::graph::personalized::{self, SourcesSummary};
use crate::graph::scheme::Partitioning;
use crate::graph::{self, PageRankJob, PageRankSummary};

/// Rank the nodes of a graph as `networkx.pagerank` does, on all ranks of the job.
///
/// GRAPH is a text edge list: two node ids a line, separated by tabs, spaces or commas; lines that
/// start with # or % are comments. Ids are numbers if all of them are, otherwise names. Or it is a
/// matrix that starts with %%MatrixMarket (coordinate pattern|real|integer general|symmetric), a
/// METIS graph (.graph, .metis), a serialized graph of the GAP benchmarks (.sg, .wsg), a BVGraph
/// (.graph with .properties beside it), or a file that `rankwise graph convert` wrote (.rwg). In
/// these, nodes without edges count as nodes; Matrix Market and METIS count nodes from 1, GAP and
/// BVGraph from 0. Text may be packed with gzip or zstd. Or it is a Parquet table (.parquet) with
/// ids in two columns, integers or text. Or it is kron:SCALE[:EDGE_FACTOR[:SEED]] or
/// uniform:SCALE[...], a random graph of 2^SCALE nodes. The result has the same bits on any number
/// of ranks.
///
/// Files of node values (--personalization, --nstart, --dangling) have a node id and a number >= 0
/// a line; nodes that are not named have 0, and the values need not add up to 1.
#[derive(Debug, clap::Args)]
pub(super) struct Pagerank {
    #[command(flatten)]
    input: Input,
    /// Share of a rank that follows the edges; 0 <= ALPHA < 1
    #[arg(long, default_value = "0.85")]
    alpha: f64,
    /// How small a change ends the iteration; see --stop
    #[arg(long, default_value = "1e-6")]
    tol: f64,
    /// Which change is compared with TOL
    #[arg(long, value_enum, default_value = "networkx")]
    stop: StopName,
    /// Fail when that takes more steps than this
    #[arg(long, default_value = "100", value_name = "N")]
    max_iter: usize,
    /// Types of ranks and sums, and of what is sent
    #[arg(long, value_enum, default_value = "f64")]
    precision: NumberName,
    /// What the ranks add up to
    #[arg(long, value_enum, default_value = "sum1")]
    scale: ScaleName,
    /// Where the rank of nodes without outgoing weight goes: follow (where teleports go), uniform,
    /// ignore (nowhere: ranks add up to less), or a file of node values
    #[arg(long, default_value = "follow", value_name = "RULE|FILE")]
    dangling: String,
    /// Where teleports go: a file of node values [default: all nodes alike]
    #[arg(long, value_name = "FILE")]
    personalization: Option<PathBuf>,
    /// Where the iteration starts: a file of node values [default: all nodes alike]
    #[arg(long, value_name = "FILE")]
    nstart: Option<PathBuf>,
    /// Order nodes by degree inside, which is faster unless ids are already local
    #[arg(long, value_enum, default_value = "auto")]
    relabel: RelabelName,
    /// How edges and values lie on the ranks, which changes no bit of the result: 1d (edges by
    /// target, all values to every node of the cluster), 1d-needed (only the values that its edges
    /// read), 2d or 2d:RxC (ranks in R rows and C columns, edges by target and source), or auto
    /// (the cheapest by the sizes and the --table of `rankwise tune`)
    #[arg(long, default_value = "auto", value_name = "PARTITION", conflicts_with = "sources")]
    partition: Partitioning,
    /// Do not send the rank of a node again until it has changed by this share of what TOL allows
    /// each node; 0 < SHARE < 1. The result is a little different, and within TOL all the same
    #[arg(long, value_name = "SHARE", conflicts_with = "sources")]
    delta: Option<f64>,
    /// Without convergence write the last ranks to the output, without a manifest, and fail
    #[arg(long, requires = "output")]
    write_anyway: bool,
    /// Print the K highest ranks
    #[arg(long, default_value = "10", value_name = "K")]
    top: usize,
    /// Write node and rank of all nodes to FILE (.csv, .parquet or .npy), and FILE.manifest.json
    /// last; with --sources, source, node and rank of the K highest of each source
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// One ranking for each of these nodes, with all teleports to it: ids between commas, or a file
    /// with one id a line
    #[arg(
        long,
        value_name = "A,B,…|FILE",
        conflicts_with_all = ["personalization", "nstart", "write_anyway", "report"]
    )]
    sources: Option<String>,
    /// Write a page with the convergence and the highest ranks to FILE
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StopName {
    /// The sum of all changes, with TOL times the number of nodes
    Networkx,
    /// The sum of all changes
    L1,
    /// The largest change of a node
    Max,
    /// An upper bound of the sum of all errors
    Bound,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum NumberName {
    /// 64 bits
    F64,
    /// 32 bits
    F32,
    /// 32 bits for what is sent, 64 for ranks and sums
    Mixed,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ScaleName {
    /// 1
    Sum1,
    /// The number of nodes
    Sumn,
}

impl Pagerank {
    fn options(&self) -> PageRankOptions {
        PageRankOptions {
            alpha: self.alpha,
            tolerance: self.tol,
            max_iterations: self.max_iter,
            number: match self.precision {
                NumberName::F64 => Number::F64,
                NumberName::F32 => Number::F32,
                NumberName::Mixed => Number::Mixed,
            },
            dangling: match self.dangling.as_str() {
                "follow" => Dangling::Follow,
                "uniform" => Dangling::Uniform,
                "ignore" => Dangling::Ignore,
                _ => Dangling::Given,
            },
            stop: match self.stop {
                StopName::Networkx => Stop::Networkx,
                StopName::L1 => Stop::L1,
                StopName::Max => Stop::Max,
                StopName::Bound => Stop::Bound,
            },
            scale: match self.scale {
                ScaleName::Sum1 => Scale::One,
                ScaleName::Sumn => Scale::Nodes,
            },
            partition: self.partition,
            delta: self.delta,
        }
    }

    pub(super) fn run(&self, session: Session<'_>) -> Result<()> {
        let options = self.options();
        let input = self.input.input(self.relabel.relabel());
        let job = PageRankJob {
            graph: input.graph,
            weighted: input.options.weighted,
            columns: input.columns,
            undirected: input.options.undirected,
            duplicates: input.options.duplicates,
            relabel: input.options.relabel,
            dangling: (options.dangling == Dangling::Given).then(|| (&self.dangling).into()),
            options,
            personalization: self.personalization.clone(),
            start: self.nstart.clone(),
            write_anyway: self.write_anyway,
            output: self.output.clone(),
            top: self.top,
            command: std::env::args().collect::<Vec<_>>().join(" "),
        };
        let comm = session.communicator;
        if let Some(sources) = &self.sources {
            let sources = comm.agree(personalized::parse_sources(sources))?;
            let work = || personalized::run(comm, &job, &sources);
            let summary = progress::shown(session, work)?;
            if session.speaks_to_people() {
                self.print_sources(&summary, session);
            }
            return session.print_json(&summary);
        }
        if let Some(path) = &self.report {
            comm.agree(files::check_folder(path))?;
        }
        let summary = progress::shown(session, || graph::run(comm, &job))?;
        if let Some(path) = &self.report {
            comm.agree(if session.speaks() {
                self.write_page(path, &summary, comm.ranks(), &job)
            } else {
                Ok(())
            })?;
        }
        if session.speaks_to_people() {
            self.print(&summary, session);
        }
        session.print_json(&summary)
    }

    fn write_page(
        &self,
        path: &Path,
        summary: &PageRankSummary,
        ranks: usize,
        job: &PageRankJob,
    ) -> Result<()> {
        let limit = job.options.limit(summary.vertices as usize);
        let graph = self.input.graph.display().to_string();
        let page = page::html(&graph, summary, ranks, limit);
        files::write_atomically(path, |writer| writer.write_all(page.as_bytes())).map(|_| ())
    }

    fn print_sources(&self, summary: &SourcesSummary, session: Session<'_>) {
        for source in &summary.sources {
            println!(
                "source {} ({} iterations, last change {:.3e})",
                node_name(&source.source),
                source.iterations,
                source.residual
            );
            print_top("rank", &source.top);
        }
        if session.output.quiet {
            return;
        }
        let report = Report {
            headline: format!(
                "{} nodes, {} edges, {} sources",
                summary.vertices,
                summary.edges,
                summary.sources.len()
            ),
            seconds: &summary.seconds,
            cost: format!("{:.2} ns an edge and source", summary.ns_per_edge),
            peak_rss_bytes: summary.peak_rss_bytes,
        };
        report.print(session);
        print_written(&self.output);
    }

    fn print(&self, summary: &PageRankSummary, session: Session<'_>) {
        print_top("rank", &summary.top);
        if session.output.quiet {
            return;
        }
        let report = Report {
            headline: format!(
                "{} nodes, {} edges; converged after {} iterations (last change {:.3e})",
                summary.vertices, summary.edges, summary.iterations, summary.residual
            ),
            seconds: &summary.seconds,
            cost: format!("{:.2} ns an edge", summary.ns_per_edge),
            peak_rss_bytes: summary.peak_rss_bytes,
        };
        report.print(session);
        print_partition(summary, session.communicator.topology().nodes());
        print_written(self.output.iter().chain(&self.report));
    }
}

/// What was distributed how, and what moved between nodes of the cluster.
fn print_partition(summary: &PageRankSummary, nodes: usize) {
    let PageRankSummary { partition, bytes_moved, .. } = summary;
    println!(
        "partition {} ({}); edges a rank: {} to {}, mean {:.0}",
        partition.chosen,
        partition.reason,
        partition.edges_min,
        partition.edges_max,
        partition.edges_mean
    );
    if nodes > 1 {
        println!(
            "received between {nodes} nodes: {} bytes; the least of this partition: {} bytes",
            bytes_moved.between_nodes, bytes_moved.lower_bound
        );
    }
}
