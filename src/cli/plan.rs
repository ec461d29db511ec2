//! `rankwise plan`: plans without running them, for ranks that need not exist.
//!
//! `show` prints one, `check` proves all of them, `cost` predicts their time on a machine, `why`
//! tells how the algorithm of a call is chosen. All are pure functions of their options.

mod check;
mod cost;

use serde::Serialize;

use super::{print_json, size::size};
use crate::element::{DType, Op};
use crate::error::{Error, Result};
use crate::launch::Output;
use crate::plan::picture::picture;
use crate::plan::table;
use crate::plan::{Collective, Problem};
use crate::select::{self, Order, Query, Reason, Table};
use crate::sharding::Sharding;
use crate::topology::Topology;

#[derive(Debug, clap::Subcommand)]
pub(super) enum PlanCommand {
    /// Print the plan of every rank
    Show(Show),
    /// Prove algorithms right for a range of rank counts, placements and awkward sizes
    Check(check::Check),
    /// Predict the time of every algorithm on a machine
    Cost(cost::Cost),
    /// Say which algorithm a call would use, and why not another
    Why(Why),
}

/// The ranks that plans are made for, as the global options say it.
#[derive(Clone, Debug)]
pub(super) struct Imagined {
    pub(super) ranks: Option<usize>,
    pub(super) ranks_per_node: Option<usize>,
    pub(super) order: Order,
    pub(super) table: Option<Table>,
}

impl Imagined {
    /// The placement: `--ranks` (or `default`) ranks, on one node unless `--ranks-per-node`.
    fn topology(&self, default: usize) -> Result<Topology> {
        match self.ranks.unwrap_or(default) {
            0 => Err(Error::input("--ranks 0: a plan is for at least 1 rank")),
            ranks if ranks > MOST_RANKS => {
                Err(Error::input(format!("--ranks {ranks}: at most {MOST_RANKS} are planned for")))
            }
            ranks => Ok(match self.ranks_per_node {
                Some(most) => Topology::blocks(ranks, most),
                None => Topology::one_node(ranks),
            }),
        }
    }
}

/// Enough for every machine there is, and few enough for the memory of this one.
const MOST_RANKS: usize = 1 << 20;
/// Up to here the matrix of an all_to_all is small.
const MOST_RANKS_OF_ALL_TO_ALL: usize = 2048;
/// Ranks of `show` and `why`.
const DEFAULT_RANKS: usize = 4;

impl PlanCommand {
    pub(super) fn run(&self, imagined: &Imagined, output: Output) -> Result<()> {
        match self {
            PlanCommand::Show(command) => command.run(imagined, output),
            PlanCommand::Check(command) => command.run(imagined, output),
            PlanCommand::Cost(command) => command.run(imagined, output),
            PlanCommand::Why(command) => command.run(imagined, output),
        }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Show {
    /// The collective, such as all-gather
    #[arg(value_parser = collective)]
    collective: Collective,
    /// The algorithm
    #[arg(long, value_name = "NAME")]
    algorithm: String,
    /// Elements of the whole vector (all-to-all: between each pair of ranks) [default: the ranks]
    #[arg(short, long, value_name = "ELEMENTS")]
    n: Option<usize>,
    /// The root, where there is one
    #[arg(long, default_value = "0", value_name = "RANK")]
    root: usize,
}

#[derive(Debug, Serialize)]
struct Shown<'a> {
    collective: &'a str,
    algorithm: &'a str,
    ranks: usize,
    nodes: usize,
    n: usize,
    picture: String,
}

impl Show {
    #[allow(clippy::print_stdout)] // the result
    fn run(&self, imagined: &Imagined, output: Output) -> Result<()> {
        const MOST: usize = 1024;
        let topology = imagined.topology(DEFAULT_RANKS)?;
        let ranks = topology.ranks();
        if ranks > MOST {
            return Err(Error::input(format!(
                "--ranks {ranks}: a picture of more than {MOST} ranks helps nobody"
            )));
        }
        let row = table::find(self.collective, &self.algorithm)?;
        let collective = with_root(self.collective, self.root, ranks)?;
        let n = self.n.unwrap_or(if collective == Collective::AllToAll { 1 } else { ranks });
        let problem = problem(collective, n, &topology)?;
        row.fits(&problem, &topology, true, true)?;
        let picture = picture(&row.plans(&problem, &topology));
        if output.json {
            return print_json(&Shown {
                collective: collective.name(),
                algorithm: row.name,
                ranks,
                nodes: topology.nodes(),
                n,
                picture,
            });
        }
        print!("{}/{}: {}\n{picture}", collective.name(), row.name, row.summary);
        Ok(())
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Why {
    /// The collective, such as all-reduce
    #[arg(value_parser = collective)]
    collective: Collective,
    /// Bytes of the whole vector
    #[arg(long, value_name = "SIZE", value_parser = size)]
    bytes: usize,
    /// Element type
    #[arg(long, default_value = "f32", value_parser = dtype)]
    dtype: DType,
    /// The caller's buffers are in node-shared memory
    #[arg(long)]
    shared: bool,
}

#[derive(Debug, Serialize)]
struct Choice {
    collective: &'static str,
    algorithm: &'static str,
    ranks: usize,
    nodes: usize,
    bytes: usize,
    dtype: &'static str,
    shared: bool,
    reason: String,
    passed_over: Vec<PassedOver>,
}

#[derive(Debug, Serialize)]
struct PassedOver {
    algorithm: &'static str,
    reason: String,
}

impl Why {
    #[allow(clippy::print_stdout)] // the result
    fn run(&self, imagined: &Imagined, output: Output) -> Result<()> {
        let topology = imagined.topology(DEFAULT_RANKS)?;
        let problem = sized(self.collective, self.bytes, self.dtype, &topology)?;
        let (shared, order) = ([self.shared; 2], imagined.order);
        let query = Query {
            problem: &problem,
            dtype: self.dtype,
            op: self.collective.reduces().then_some(Op::Sum),
            topology: &topology,
            shared,
            order,
            // As it would be under mpirun.
            native: cfg!(feature = "mpi"),
        };
        let choice = select::choose(&query, imagined.table.as_ref())?;
        let measured = matches!(choice.reason, Reason::Measured { .. });
        let mut passed_over = Vec::new();
        for (row, reason) in select::weigh(&problem, self.dtype, &topology, shared, order) {
            let Some(reason) = reason.filter(|_| !measured) else { break };
            // The name is on the line already, and the advice is for people who asked for it.
            let reason = reason.message.split("; ").next().unwrap_or("");
            let reason = reason.split_once(' ').map_or(reason, |(_, reason)| reason).to_string();
            passed_over.push(PassedOver { algorithm: row.name, reason });
        }
        let (chosen, reason) = (choice.chosen, choice.reason.to_string());
        if output.json {
            return print_json(&Choice {
                collective: self.collective.name(),
                algorithm: chosen.name(),
                ranks: topology.ranks(),
                nodes: topology.nodes(),
                bytes: self.bytes,
                dtype: self.dtype.name(),
                shared: self.shared,
                reason,
                passed_over,
            });
        }
        println!(
            "{}/{}: {}\n{} ranks on {} nodes, {} bytes of {}, {} buffers, {} order",
            self.collective.name(),
            chosen.name(),
            chosen.summary(),
            topology.ranks(),
            topology.nodes(),
            self.bytes,
            self.dtype,
            if self.shared { "shared" } else { "plain" },
            if order == Order::Canonical { "canonical" } else { "fastest" },
        );
        println!("  {reason}");
        for PassedOver { algorithm, reason } in &passed_over {
            println!("  not {algorithm}: {reason}");
        }
        Ok(())
    }
}

/// The collective with this root, if it has one.
fn with_root(collective: Collective, root: usize, ranks: usize) -> Result<Collective> {
    if root >= ranks {
        return Err(Error::input(format!("--root {root}: below {ranks}, the number of ranks")));
    }
    Ok(match collective {
        Collective::Broadcast { .. } => Collective::Broadcast { root },
        Collective::Gather { .. } => Collective::Gather { root },
        Collective::Scatter { .. } => Collective::Scatter { root },
        other => other,
    })
}

/// A problem of `n` elements in all; `n` between each pair of ranks for an all_to_all.
fn problem(collective: Collective, n: usize, topology: &Topology) -> Result<Problem> {
    let ranks = topology.ranks();
    match collective {
        Collective::AllToAll if ranks > MOST_RANKS_OF_ALL_TO_ALL => Err(Error::input(format!(
            "all_to_all with {ranks} ranks: its counts are planned for at most \
             {MOST_RANKS_OF_ALL_TO_ALL}"
        ))),
        Collective::AllToAll => Ok(Problem::all_to_all(ranks, vec![n; ranks * ranks].into())),
        Collective::Barrier => Ok(Problem::new(collective, Sharding::even(0, ranks))),
        _ => Ok(Problem::new(collective, Sharding::even(n, ranks))),
    }
}

/// A problem of `bytes` in all, staged through pieces as a communicator does it. An all_to_all
/// spreads them over its messages.
fn sized(
    collective: Collective,
    bytes: usize,
    dtype: DType,
    topology: &Topology,
) -> Result<Problem> {
    let n = match collective {
        Collective::AllToAll => bytes.div_ceil(dtype.bytes() * topology.ranks()),
        _ => bytes.div_ceil(dtype.bytes()),
    };
    let piece = crate::communicator::Settings::default().piece_bytes / dtype.bytes();
    Ok(Problem { piece, ..problem(collective, n, topology)? })
}

/// A collective by its name, with - or _.
fn collective(text: &str) -> std::result::Result<Collective, String> {
    let wanted = text.replace('-', "_");
    Collective::ALL.into_iter().find(|c| c.name() == wanted).ok_or_else(|| {
        let names = Collective::ALL.map(|c| c.name().replace('_', "-")).join(", ");
        format!("choose one of {names}")
    })
}

/// An element type by its name.
fn dtype(text: &str) -> std::result::Result<DType, String> {
    let found = DType::ALL.into_iter().find(|d| d.name() == text);
    found.ok_or_else(|| format!("choose one of {}", DType::ALL.map(DType::name).join(", ")))
}
