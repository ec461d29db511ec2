//! `rankwise graph`: makes, converts and describes graphs.

use std::path::PathBuf;

use super::graph_input::{Input, RelabelName};
use super::{Session, progress};
use crate::error::{Error, Result};
use crate::graph::convert::{ConvertSummary, convert, describe};
use crate::graph::generator::Generator;
use crate::graph::info::{Degrees, GraphInfo, PartitionInfo, Parts};
use crate::graph::order::Relabel;

#[derive(Debug, clap::Subcommand)]
pub(super) enum GraphCommand {
    Generate(Generate),
    Convert(Convert),
    Info(Info),
}

/// Write a random graph, the same on any number of ranks.
///
/// SPEC is kron:SCALE[:EDGE_FACTOR[:SEED]] (R-MAT with the parameters of Graph500) or uniform:SCALE
/// [...], with 2^SCALE nodes and EDGE_FACTOR edges a node (default 16) before they are merged. An
/// edge list has only the nodes that some edge names; .rwg and .mtx have all.
#[derive(Debug, clap::Args)]
pub(super) struct Generate {
    #[command(flatten)]
    input: Input,
    /// File to write: .rwg, .txt, .tsv, .el, .csv or .mtx; text also with .gz or .zst after it
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Order nodes by degree in a .rwg file
    #[arg(long, value_enum, default_value = "auto")]
    relabel: RelabelName,
}

/// Write a graph in another format, which follows from the name of OUTPUT.
///
/// OUTPUT ends in .rwg (binary: mapped instead of parsed, and shared by the ranks of a node), in
/// .txt, .tsv, .el or .csv (edge list) or in .mtx (Matrix Market); text also with .gz or .zst after
/// it. What edges mean (--weights, --undirected, --duplicates) is applied and then fixed in the
/// file. Edges are written by target, then source, so the bytes are the same on any ranks.
#[derive(Debug, clap::Args)]
pub(super) struct Convert {
    #[command(flatten)]
    input: Input,
    /// File to write
    output: PathBuf,
    /// Order nodes by degree in a .rwg file
    #[arg(long, value_enum, default_value = "auto")]
    relabel: RelabelName,
}

/// Describe a graph: counts, degrees, balance of its ranges of nodes, and bytes of an exchange.
#[derive(Debug, clap::Args)]
pub(super) struct Info {
    #[command(flatten)]
    input: Input,
    /// Numbers of ranks to look at [default: with --nodes the ranks of this job, if there are
    /// several, otherwise 2,4,8,16,64]
    #[arg(long, value_name = "P,…", value_delimiter = ',')]
    parts: Vec<usize>,
    /// On how many nodes of a cluster these ranks lie [default: one rank a node]
    #[arg(long, value_name = "M")]
    nodes: Option<usize>,
}

impl GraphCommand {
    pub(super) fn run(&self, session: Session<'_>) -> Result<()> {
        match self {
            GraphCommand::Generate(command) => command.run(session),
            GraphCommand::Convert(command) => command.run(session),
            GraphCommand::Info(command) => command.run(session),
        }
    }
}

impl Generate {
    fn run(&self, session: Session<'_>) -> Result<()> {
        match self.input.graph.to_str().and_then(Generator::parse) {
            Some(generator) => generator?,
            None => {
                return Err(Error::input(format!(
                    "{}: no random graph; expected kron:SCALE[:EDGE_FACTOR[:SEED]] or uniform:…",
                    self.input.graph.display()
                )));
            }
        };
        let input = self.input.input(self.relabel.relabel());
        let work = || convert(session.communicator, &input, &self.output);
        let summary = progress::shown(session, work)?;
        print(session, &summary, &self.output)
    }
}

impl Convert {
    fn run(&self, session: Session<'_>) -> Result<()> {
        let input = self.input.input(self.relabel.relabel());
        let work = || convert(session.communicator, &input, &self.output);
        let summary = progress::shown(session, work)?;
        print(session, &summary, &self.output)
    }
}

fn print(session: Session<'_>, summary: &ConvertSummary, output: &std::path::Path) -> Result<()> {
    if session.speaks_to_people() && !session.output.quiet {
        println!(
            "wrote {}: {} nodes, {} edges, {} bytes in {:.2} s",
            output.display(),
            summary.vertices,
            summary.edges,
            summary.bytes,
            summary.seconds
        );
        if summary.lost_vertices > 0 {
            println!(
                "{} nodes without edges are not in it: an edge list cannot hold them",
                summary.lost_vertices
            );
        }
    }
    session.print_json(summary)
}

impl Info {
    /// Some numbers of ranks that the nodes can have, or the number of nodes.
    fn usual_parts(&self) -> Vec<usize> {
        let nodes = self.nodes.unwrap_or(1);
        let enough = [2, 4, 8, 16, 64].into_iter().filter(|&ranks| ranks >= nodes);
        let enough: Vec<usize> = enough.collect();
        if enough.is_empty() { vec![nodes] } else { enough }
    }

    fn run(&self, session: Session<'_>) -> Result<()> {
        let input = self.input.input(Relabel::Auto);
        let comm = session.communicator;
        let ranks = match &self.parts[..] {
            [] if self.nodes.is_some() && comm.ranks() > 1 => vec![comm.ranks()],
            [] => self.usual_parts(),
            parts => parts.to_vec(),
        };
        let parts = Parts { ranks: &ranks, nodes: self.nodes, table: comm.settings().table };
        let work = || describe(comm, &input, &parts);
        let Some(info) = progress::shown(session, work)? else {
            return Ok(());
        };
        if session.speaks_to_people() {
            print_info(&info);
        }
        session.print_json(&info)
    }
}

fn print_info(info: &GraphInfo) {
    let flag = |set: bool, yes, no| if set { yes } else { no };
    println!(
        "{} nodes ({} ids), {} edges, {}, {}",
        info.vertices,
        info.ids,
        info.edges,
        flag(info.undirected, "undirected: each edge both ways", "directed"),
        flag(info.weighted, "weighted", "without weights")
    );
    println!(
        "{} dangling, {} isolated, {} self-loops, {} repeated edges",
        info.dangling, info.isolated, info.self_loops, info.duplicate_edges
    );
    for (name, degrees) in [("in", &info.in_degree), ("out", &info.out_degree)] {
        print_degrees(name, degrees);
    }
    println!();
    println!(
        "{:>6} {:>6} {:>13} {:>13} {:>13} {:>9} {:>17} {:>13}",
        "ranks",
        "nodes",
        "least edges",
        "mean edges",
        "most edges",
        "÷ mean",
        "all-gather bytes",
        "needed bytes"
    );
    for part in &info.partitions {
        println!(
            "{:>6} {:>6} {:>13} {:>13.0} {:>13} {:>9.3} {:>17} {:>13}",
            part.ranks,
            part.nodes,
            part.least_edges,
            part.mean_edges,
            part.most_edges,
            part.imbalance,
            part.all_gather_bytes,
            part.needed_bytes
        );
    }
    println!("bytes: received by all ranks together in an iteration, 8 a value");
    for part in info.partitions.iter().filter(|part| part.nodes > 1) {
        print_choices(part);
    }
}

/// What each partition would move between the nodes of a cluster.
fn print_choices(part: &PartitionInfo) {
    println!();
    println!("{} ranks on {} nodes: {}, {}", part.ranks, part.nodes, part.chosen, part.reason);
    println!(
        "{:>14} {:>20} {:>20} {:>9} {:>12}",
        "partition", "bytes between nodes", "busiest node bytes", "messages", "estimate us"
    );
    for choice in &part.choices {
        println!(
            "{:>14} {:>20} {:>20} {:>9} {:>12.1}",
            choice.partition,
            choice.bytes_between_nodes,
            choice.busiest_node_bytes,
            choice.messages,
            choice.time_us
        );
    }
}

fn print_degrees(name: &str, degrees: &Degrees) {
    let classes = degrees.classes.iter().filter(|class| class.nodes > 0).map(|class| {
        if class.from == class.to {
            format!("{}: {}", class.from, class.nodes)
        } else {
            format!("{}-{}: {}", class.from, class.to, class.nodes)
        }
    });
    let classes: Vec<String> = classes.collect();
    println!(
        "{name}-degree: {} to {}, mean {:.2}; nodes by degree: {}",
        degrees.min,
        degrees.max,
        degrees.mean,
        classes.join(", ")
    );
}
