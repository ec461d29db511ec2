//! `rankwise plan cost`: what a collective would cost on a machine, by every algorithm that fits.
//!
//! The machine is the default model of `plan::cost`, or `key = value` lines of a file.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Imagined, collective, dtype, print_json, size, sized};
use crate::element::DType;
use crate::error::{Error, Result};
use crate::launch::Output;
use crate::plan::Collective;
use crate::plan::cost::{self, Machine};
use crate::plan::table::{self, Algorithm};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Cost {
    /// The collective, such as reduce-scatter
    #[arg(value_parser = collective)]
    collective: Collective,
    /// Bytes of the whole vector
    #[arg(long, value_name = "SIZE", value_parser = size)]
    bytes: usize,
    /// Nodes, with --ranks-per-node ranks each [default: as many as --ranks needs]
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,
    /// Element type
    #[arg(long, default_value = "f32", value_parser = dtype)]
    dtype: DType,
    /// One algorithm only
    #[arg(long, value_name = "NAME")]
    algorithm: Option<String>,
    /// A file of lines KEY = VALUE that describe the machine [default: a common cluster node]
    #[arg(long, value_name = "FILE")]
    machine: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Predicted {
    algorithm: &'static str,
    time_us: f64,
    bytes_between_nodes_per_node: usize,
    rounds: usize,
    replayed: bool,
    shared: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    collective: &'static str,
    bytes: usize,
    dtype: &'static str,
    ranks: usize,
    nodes: usize,
    results: Vec<Predicted>,
}

impl Cost {
    pub(super) fn run(&self, imagined: &Imagined, output: Output) -> Result<()> {
        let topology = self.placed(imagined)?.topology(super::DEFAULT_RANKS)?;
        let problem = sized(self.collective, self.bytes, self.dtype, &topology)?;
        let machine = match &self.machine {
            Some(path) => read_machine(path)?,
            None => Machine::default(),
        };
        let rows: Vec<&Algorithm> = match &self.algorithm {
            Some(name) => {
                let row = table::find(self.collective, name)?;
                row.fits(&problem, &topology, true, true)?;
                vec![row]
            }
            None => table::of(self.collective)
                .filter(|row| row.fits(&problem, &topology, true, true).is_ok())
                .collect(),
        };
        let predict = |row: &Algorithm| {
            let cost = cost::cost(&problem, &topology, row, &machine, self.dtype.bytes());
            Predicted {
                algorithm: row.name,
                time_us: cost.time_us,
                bytes_between_nodes_per_node: cost.bytes_between_nodes_per_node,
                rounds: cost.rounds,
                replayed: cost.replayed,
                shared: row.needs.shared_input || row.needs.shared_output,
            }
        };
        let mut results: Vec<Predicted> = rows.into_iter().map(predict).collect();
        results.sort_by(|a, b| a.time_us.total_cmp(&b.time_us));
        let report = Report {
            collective: self.collective.name(),
            bytes: self.bytes,
            dtype: self.dtype.name(),
            ranks: topology.ranks(),
            nodes: topology.nodes(),
            results,
        };
        if output.json {
            return print_json(&report);
        }
        print(&report);
        Ok(())
    }

    /// `--nodes` and `--ranks-per-node` give the number of ranks.
    fn placed(&self, imagined: &Imagined) -> Result<Imagined> {
        let Some(nodes) = self.nodes else { return Ok(imagined.clone()) };
        let each = imagined.ranks_per_node.unwrap_or(1);
        let ranks = nodes
            .checked_mul(each)
            .filter(|&ranks| ranks > 0)
            .ok_or_else(|| Error::input(format!("--nodes {nodes}: at least 1 node is needed")))?;
        match imagined.ranks {
            Some(given) if given != ranks => Err(Error::input(format!(
                "--ranks {given} contradicts {nodes} nodes of {each}; leave one of them out"
            ))),
            _ => {
                Ok(Imagined { ranks: Some(ranks), ranks_per_node: Some(each), ..imagined.clone() })
            }
        }
    }
}

#[allow(clippy::print_stdout)] // the result
fn print(report: &Report) {
    println!(
        "{} of {} bytes ({}) on {} ranks, {} nodes",
        report.collective, report.bytes, report.dtype, report.ranks, report.nodes
    );
    println!("{:<20}{:>14}{:>18}{:>9}  notes", "algorithm", "time µs", "bytes/node out", "rounds");
    for row in &report.results {
        let shared = row.shared.then_some("needs shared buffers");
        let sampled = (!row.replayed).then_some("a few ranks stand for all");
        let notes: Vec<&str> = shared.into_iter().chain(sampled).collect();
        println!(
            "{:<20}{:>14.1}{:>18}{:>9}  {}",
            row.algorithm,
            row.time_us,
            row.bytes_between_nodes_per_node,
            row.rounds,
            notes.join(", ")
        );
    }
}

fn read_machine(path: &Path) -> Result<Machine> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, "read", &e))?;
    parse_machine(path, &text)
}

/// `key = value` lines over the default machine; `#` starts a comment.
fn parse_machine(path: &Path, text: &str) -> Result<Machine> {
    let mut machine = Machine::default();
    for (i, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or("").trim();
        let wrong = |what: String| Error::line(path, i as u64 + 1, what);
        if line.is_empty() {
            continue;
        }
        let (key, value) =
            line.split_once('=').ok_or_else(|| wrong(format!("'{line}': expected KEY = VALUE")))?;
        let (key, value) = (key.trim(), value.trim());
        let mut fields = fields(&mut machine);
        let names = fields.each_ref().map(|(name, _)| *name).join(", ");
        let field = fields.iter_mut().find(|(name, _)| *name == key);
        let (_, field) =
            field.ok_or_else(|| wrong(format!("unknown key '{key}'; choose one of {names}")))?;
        let number = value.parse::<f64>().ok().filter(|x| x.is_finite() && *x >= 0.0);
        let number = number.filter(|x| *x > 0.0 || !key.ends_with("_s"));
        **field = number.ok_or_else(|| {
            wrong(format!("{key} = '{value}': a number is needed, and a bandwidth is above 0"))
        })?;
    }
    Ok(machine)
}

/// The names in a file are those of the fields.
fn fields(machine: &mut Machine) -> [(&'static str, &mut f64); 7] {
    [
        ("latency_us", &mut machine.latency_us),
        ("gbytes_per_s", &mut machine.gbytes_per_s),
        ("node_latency_us", &mut machine.node_latency_us),
        ("node_gbytes_per_s", &mut machine.node_gbytes_per_s),
        ("reduce_gbytes_per_s", &mut machine.reduce_gbytes_per_s),
        ("memory_gbytes_per_s", &mut machine.memory_gbytes_per_s),
        ("meet_us", &mut machine.meet_us),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_files_change_fields_and_name_wrong_lines() {
        let path = Path::new("machine.txt");
        let text = "# slow network\n\nlatency_us = 30\ngbytes_per_s=1.25 # 10 Gbit/s\n";
        let machine = parse_machine(path, text).unwrap();
        let expected = Machine { latency_us: 30.0, gbytes_per_s: 1.25, ..Machine::default() };
        assert_eq!(machine, expected);
        for (text, what) in [
            (
                "meet_us = 0\nspeed = 3",
                "machine.txt line 2: unknown key 'speed'; choose one of lat",
            ),
            ("latency_us", "line 1: 'latency_us': expected KEY = VALUE"),
            ("latency_us = fast", "line 1: latency_us = 'fast': a number is needed"),
            ("latency_us = -1", "line 1: latency_us = '-1'"),
            ("gbytes_per_s = 0", "line 1: gbytes_per_s = '0'"),
            ("gbytes_per_s = inf", "line 1: gbytes_per_s = 'inf'"),
        ] {
            let error = parse_machine(path, text).unwrap_err();
            assert!(error.message.contains(what), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
