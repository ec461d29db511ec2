//! `rankwise pagerank`: ranks the nodes of a graph.

use std::path::PathBuf;

use clap::ValueEnum;

use super::Session;
use crate::error::Result;
use crate::graph::pagerank::PageRankOptions;
use crate::graph::rows::Duplicates;
use crate::graph::{self, PageRankJob, PageRankSummary};

/// Ranks the nodes of a graph as `networkx.pagerank` does, on all ranks of the job.
///
/// GRAPH is a text edge list, plain or gzip: two node ids a line, separated by tabs, spaces or
/// commas; lines that start with # or % are comments. Ids are numbers if all of them are,
/// otherwise names. The result has the same bits on any number of ranks.
#[derive(Debug, clap::Args)]
pub(super) struct Pagerank {
    /// Edge list
    graph: PathBuf,
    /// Share of a rank that follows the edges; 0 <= ALPHA < 1
    #[arg(long, default_value = "0.85")]
    alpha: f64,
    /// Stop when a step changes the ranks by less than TOL times the number of nodes (L1)
    #[arg(long, default_value = "1e-6")]
    tol: f64,
    /// Fail when that takes more steps than this
    #[arg(long, default_value = "100", value_name = "N")]
    max_iter: usize,
    /// The third column is the weight of the edge (otherwise it is ignored)
    #[arg(long)]
    weights: bool,
    /// Each line is an edge both ways
    #[arg(long)]
    undirected: bool,
    /// What repeated edges mean
    #[arg(long, value_enum, default_value = "sum")]
    duplicates: DuplicatesName,
    /// Print the K highest ranks
    #[arg(long, default_value = "10", value_name = "K")]
    top: usize,
    /// Write node and rank of all nodes to FILE (.csv or .parquet), and FILE.manifest.json last
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DuplicatesName {
    /// Their weights add up, as in a networkx multigraph
    Sum,
    /// They are one edge, as in a networkx graph
    Merge,
}

impl Pagerank {
    pub(super) fn run(&self, session: Session<'_>) -> Result<()> {
        let job = PageRankJob {
            graph: self.graph.clone(),
            weighted: self.weights,
            undirected: self.undirected,
            duplicates: match self.duplicates {
                DuplicatesName::Sum => Duplicates::Sum,
                DuplicatesName::Merge => Duplicates::Merge,
            },
            options: PageRankOptions {
                alpha: self.alpha,
                tolerance: self.tol,
                max_iterations: self.max_iter,
            },
            output: self.output.clone(),
            top: self.top,
            command: std::env::args().collect::<Vec<_>>().join(" "),
        };
        let summary = graph::run(session.communicator, &job)?;
        if session.speaks_to_people() {
            self.print(&summary, session);
        }
        session.print_json(&summary)
    }

    fn print(&self, summary: &PageRankSummary, session: Session<'_>) {
        let name = |node: &serde_json::Value| match node {
            serde_json::Value::String(name) => name.clone(),
            other => other.to_string(),
        };
        let nodes: Vec<String> = summary.top.iter().map(|top| name(&top.node)).collect();
        let width = nodes.iter().map(|node| node.chars().count()).max().unwrap_or(0).max(4);
        if !nodes.is_empty() {
            println!("{:>5}  {:<width$}  rank", "", "node");
        }
        for (i, (node, top)) in nodes.iter().zip(&summary.top).enumerate() {
            println!("{:>5}  {node:<width$}  {}", i + 1, top.rank);
        }
        if session.output.quiet {
            return;
        }
        let s = summary.seconds;
        println!(
            "{} nodes, {} edges; converged after {} iterations (last change {:.3e})",
            summary.vertices, summary.edges, summary.iterations, summary.residual
        );
        println!(
            "{} ranks; load {:.3} s, partition {:.3} s, iterate {:.4} s ({:.2} ns an edge), write \
             {:.3} s; peak memory {:.1} MiB a process",
            session.communicator.ranks(),
            s.load,
            s.partition,
            s.iterate,
            summary.ns_per_edge,
            s.write,
            summary.peak_rss_bytes as f64 / f64::from(1 << 20)
        );
        if let Some(path) = &self.output {
            println!("wrote {}", path.display());
        }
    }
}
