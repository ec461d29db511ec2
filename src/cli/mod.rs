//! The command line: one file a command, and the options that all of them share.

#![allow(clippy::print_stdout)] // commands print their results

mod bench;
mod factor;
mod fault;
mod graph;
mod graph_input;
mod graph_report;
mod hits;
mod pagerank;
mod plan;
mod progress;
mod selftest;
mod size;
mod train;
mod tune;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use crate::communicator::{Communicator, Settings};
use crate::error::{Error, Result};
use crate::launch::{self, Launch, Output};
use crate::select::{Order, Table};

/// Rank-aware collectives over MPI, and applications on top of them.
///
/// Under `mpirun` or `srun` every process is a rank. Without a launcher, `--ranks N` runs N ranks
/// as threads of one process, with the same results.
#[derive(Debug, Parser)]
#[command(name = "rankwise", version, about, long_about, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// Ranks as threads of this process; a launcher decides by itself [default: 1]
    #[arg(long, global = true, value_name = "N")]
    ranks: Option<usize>,
    /// Worker threads inside each rank [default: the cores of the node, shared evenly]
    #[arg(long, global = true, value_name = "T")]
    threads: Option<usize>,
    /// Print one JSON document on stdout, and nothing else there
    #[arg(long, global = true)]
    json: bool,
    /// Print results and errors only
    #[arg(long, global = true)]
    quiet: bool,
    /// After this long a wait for another rank is an error
    #[arg(long, global = true, value_name = "SECS", default_value = "600")]
    timeout: f64,
    /// How contributions are combined: canonical gives the same bits on every placement
    #[arg(long, global = true, value_enum, default_value = "canonical")]
    order: OrderName,
    /// Pretend that a node has at most K ranks, to try algorithms for several nodes on one
    #[arg(long, global = true, value_name = "K")]
    ranks_per_node: Option<usize>,
    /// Choose algorithms by this table of `rankwise tune` [default: RANKWISE_TABLE; no file is
    /// read that is named by neither]
    #[arg(long, global = true, value_name = "FILE")]
    table: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OrderName {
    /// Folded in rank order
    Canonical,
    /// Whatever is fastest
    Fastest,
}

// Commands are described by the comments on their own types: one here would hide theirs.
#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Bench),
    Tune(tune::Tune),
    /// Print, prove and predict the plans of collectives
    #[command(subcommand)]
    Plan(plan::PlanCommand),
    Selftest(selftest::Selftest),
    /// Make, convert and describe graphs
    #[command(subcommand)]
    Graph(graph::GraphCommand),
    Pagerank(pagerank::Pagerank),
    Hits(hits::Hits),
    Train(train::Train),
    Factor(factor::Factor),
    /// Fail on purpose
    #[command(hide = true)]
    Fault(fault::Fault),
}

/// What every command gets beside its own options.
#[derive(Clone, Copy, Debug)]
struct Session<'a> {
    communicator: &'a Communicator,
    output: Output,
}

impl Session<'_> {
    /// Whether this rank prints.
    fn speaks(&self) -> bool {
        self.communicator.rank() == 0
    }

    /// Whether it prints for people.
    fn speaks_to_people(&self) -> bool {
        self.speaks() && !self.output.json
    }

    /// Prints the one JSON document of a command.
    fn print_json(&self, value: &impl serde::Serialize) -> Result<()> {
        if self.speaks() && self.output.json {
            print_json(value)?;
        }
        Ok(())
    }
}

fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::internal(format!("cannot write JSON: {e}")))?;
    println!("{text}");
    Ok(())
}

/// The whole program.
pub fn main() -> ExitCode {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let wants_json = arguments.iter().any(|a| a == "--json");
    let early = Output { json: wants_json, quiet: false };
    // Under a launcher every process reads the same command line; one of them speaks.
    let place = Launch::detect(None).ok();
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, place.as_ref(), early),
    };
    match start(cli) {
        Ok(code) => code,
        Err(error) => launch::refuse(&error, place.as_ref(), early),
    }
}

/// Help and version go to stdout with code 0; a wrong command line is the user's input.
fn usage(error: &clap::Error, place: Option<&Launch>, output: Output) -> ExitCode {
    if !error.use_stderr() {
        if place.is_none_or(Launch::is_first) {
            // A closed pipe is no failure of `--help`.
            let _ = error.print();
        }
        return ExitCode::SUCCESS;
    }
    launch::refuse(&Error::input(usage_line(error)), place, output)
}

/// What clap says over several lines, as one: without its usage, with where to find that.
fn usage_line(error: &clap::Error) -> String {
    const HINT: &str = "see rankwise --help";
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return format!("a command is needed: {}; {HINT}", commands(&Cli::command()));
    }
    let rendered = error.render().to_string();
    if error.kind() == clap::error::ErrorKind::InvalidSubcommand {
        let first = rendered.trim_start_matches("error: ").lines().next().unwrap_or("").trim();
        let root = Cli::command();
        let usage = |name: &str| rendered.contains(&format!("Usage: rankwise {name} "));
        let inner = root.get_subcommands().find(|command| usage(command.get_name()));
        return format!("{first}; choose one of {}; {HINT}", commands(inner.unwrap_or(&root)));
    }
    let lines = rendered.trim_start_matches("error: ").lines().map(str::trim);
    let mut text = String::new();
    for line in lines.take_while(|line| !line.starts_with("Usage:")) {
        let joint = match line {
            "" => continue,
            _ if line.starts_with("For more information") => continue,
            _ if text.is_empty() => "",
            _ if line.starts_with("tip: ") => "; ",
            _ => " ",
        };
        text = text + joint + line;
    }
    format!("{text}; {HINT}")
}

/// The names of the commands that a command has.
fn commands(command: &clap::Command) -> String {
    let names = command.get_subcommands().filter(|c| !c.is_hide_set()).map(|c| c.get_name());
    names.filter(|&name| name != "help").collect::<Vec<_>>().join(", ")
}

fn start(cli: Cli) -> Result<ExitCode> {
    let Global { ranks, threads, json, quiet, timeout, order, ranks_per_node, table } = cli.global;
    let table = launch::table(table);
    if threads == Some(0) {
        return Err(Error::input("--threads 0: a rank has at least 1 thread"));
    }
    if ranks_per_node == Some(0) {
        return Err(Error::input("--ranks-per-node 0: a node has at least 1 rank"));
    }
    let timeout =
        Duration::try_from_secs_f64(timeout).ok().filter(|t| !t.is_zero()).ok_or_else(|| {
            Error::input(format!("--timeout {timeout}: a number of seconds above 0 is needed"))
        })?;
    let order = match order {
        OrderName::Canonical => Order::Canonical,
        OrderName::Fastest => Order::Fastest,
    };
    let settings = Settings { timeout, order, ranks_per_node, ..Settings::default() };
    let output = Output { json, quiet };
    // Plans are looked at without ranks, once for the job, and for any number of them.
    if let Command::Plan(command) = &cli.command {
        if Launch::detect(None)?.is_first() {
            let table = table.as_deref().map(Table::load).transpose()?;
            let imagined = plan::Imagined { ranks, ranks_per_node, order, table };
            command.run(&imagined, output)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let launch = Launch::detect(ranks)?;
    let background = matches!(&cli.command, Command::Selftest(selftest) if selftest.background);
    let options = launch::Options { launch, settings, threads, output, background };
    Ok(launch::run(&options, |communicator| {
        let tuned = table.as_deref().map(|path| communicator.with_table(path)).transpose()?;
        let communicator = tuned.as_ref().unwrap_or(communicator);
        let session = Session { communicator, output };
        let done = match &cli.command {
            Command::Bench(command) => command.run(session),
            Command::Tune(command) => command.run(session),
            Command::Selftest(command) => command.run(session),
            Command::Graph(command) => command.run(session),
            Command::Pagerank(command) => command.run(session),
            Command::Train(command) => command.run(session),
            Command::Hits(command) => command.run(session),
            Command::Factor(command) => command.run(session),
            Command::Fault(command) => command.run(session),
            Command::Plan(_) => Ok(()),
        };
        // A rank that ends early is named by those that still call something.
        done.and_then(|()| communicator.end())
    }))
}
