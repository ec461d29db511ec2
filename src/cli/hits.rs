//! `rankwise hits`: hubs and authorities of a graph.

use std::path::PathBuf;

use super::graph_input::{Input, RelabelName};
use super::graph_report::{Report, print_top, print_written};
use super::{Session, progress};
use crate::error::Result;
use crate::graph::hits::{HitsJob, HitsSummary, run};
use crate::graph::scheme::Partitioning;

/// Score the nodes of a graph as hubs and authorities, as the power iteration of networkx does.
///
/// A good authority is named by good hubs, and a good hub names good authorities. Both scores add
/// up to 1. GRAPH is in any format that `pagerank` reads. The result has the same bits on any
/// number of ranks.
#[derive(Debug, clap::Args)]
pub(super) struct Hits {
    #[command(flatten)]
    input: Input,
    /// Stop when the hub scores change by less than this in sum (their maximum is 1)
    #[arg(long, default_value = "1e-8")]
    tol: f64,
    /// Fail when that takes more steps than this
    #[arg(long, default_value = "100", value_name = "N")]
    max_iter: usize,
    /// Order nodes by degree inside, which is faster unless ids are already local
    #[arg(long, value_enum, default_value = "auto")]
    relabel: RelabelName,
    /// How values move between the nodes of a cluster, which changes no bit of the result: 1d (all
    /// of them), 1d-needed (those that edges read), or auto
    #[arg(long, default_value = "auto", value_name = "PARTITION")]
    partition: Partitioning,
    /// Print the K best hubs and authorities
    #[arg(long, default_value = "10", value_name = "K")]
    top: usize,
    /// Write node, hub and authority of all nodes to FILE (.csv, .parquet or .npy), and
    /// FILE.manifest.json last
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Hits {
    pub(super) fn run(&self, session: Session<'_>) -> Result<()> {
        let job = HitsJob {
            input: self.input.input(self.relabel.relabel()),
            tolerance: self.tol,
            max_iterations: self.max_iter,
            partition: self.partition,
            output: self.output.clone(),
            top: self.top,
            command: std::env::args().collect::<Vec<_>>().join(" "),
        };
        let summary = progress::shown(session, || run(session.communicator, &job))?;
        if session.speaks_to_people() {
            self.print(&summary, session);
        }
        session.print_json(&summary)
    }

    fn print(&self, summary: &HitsSummary, session: Session<'_>) {
        print_top("hub", &summary.hubs);
        print_top("authority", &summary.authorities);
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
        print_written(&self.output);
    }
}
