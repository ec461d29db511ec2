//! `rankwise bench`: collectives against the MPI library's own, and against memory.
//!
//! How it measures is told in `measure`. Bandwidths follow nccl-tests. Beside the times stand
//! whether they are a measurement of the machine, and whether its cores behave as whole ones.

mod page;

use std::io::Write as _;
use std::path::PathBuf;

use clap::ValueEnum;
use serde::Serialize;

use super::Session;
use super::size::size;
use crate::communicator::{Communicator, Settings};
use crate::element::{DType, Element};
use crate::error::{Error, Result};
use crate::files;
use crate::measure::{self, Case, Thing, machine};
use crate::plan::Collective;
use crate::plan::table;
use crate::select::{Native as Library, Order};
use crate::transport::Native;
use crate::with_element_type;

/// Measure collectives: time, bandwidth, the native call and the memory limit.
#[derive(Debug, clap::Args)]
pub(super) struct Bench {
    /// What to measure [default: all]
    #[arg(value_enum)]
    operations: Vec<Operation>,
    /// Smallest and largest size of the whole vector in bytes
    #[arg(long, default_value = "8:64M", value_name = "FROM:TO", value_parser = sizes)]
    sizes: (usize, usize),
    /// Each size is the one before times this
    #[arg(long, default_value = "4", value_name = "K")]
    factor: usize,
    /// Element type
    #[arg(long, default_value = "f32", value_parser = dtype)]
    dtype: DType,
    /// What to compare with
    #[arg(long, value_enum)]
    against: Option<Against>,
    /// Where the caller's buffers are
    #[arg(long, value_enum, default_value = "both")]
    buffers: Buffers,
    /// An algorithm by name, instead of the one that would be chosen
    #[arg(long, value_name = "NAME")]
    algorithm: Option<String>,
    /// Bytes of a vector that go through the workspace at a time, where buffers are plain
    #[arg(long, value_name = "BYTES", value_parser = size)]
    piece: Option<usize>,
    /// Iterations a size [default: as many as take about a second, 10 to 500]
    #[arg(long, value_name = "N")]
    iterations: Option<usize>,
    /// Also write the results as comma-separated values
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Also write the results as a page with curves
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Operation {
    ReduceScatter,
    AllGather,
    AllReduce,
    Broadcast,
    AllToAll,
    Barrier,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Against {
    /// The same collective of the MPI library (16-bit sums: converted to f32 and back)
    Native,
    /// The nonblocking collective of the MPI library and a wait (reduce_scatter:
    /// MPI_Ireduce_scatter)
    NativeImmediate,
    /// The same call in the fastest order: what the canonical order costs
    Fastest,
    /// The same call whose ranks compare nothing: what the comparison costs
    Unchecked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Buffers {
    /// Node-shared memory
    Shared,
    /// Ordinary slices
    Plain,
    /// One after the other
    Both,
}

impl Operation {
    fn collective(self) -> Collective {
        match self {
            Operation::ReduceScatter => Collective::ReduceScatter,
            Operation::AllGather => Collective::AllGather,
            Operation::AllReduce => Collective::AllReduce,
            Operation::Broadcast => Collective::Broadcast { root: 0 },
            Operation::AllToAll => Collective::AllToAll,
            Operation::Barrier => Collective::Barrier,
        }
    }

    /// Bus bandwidth over algorithm bandwidth, after nccl-tests.
    fn bus_factor(self, ranks: usize) -> f64 {
        let p = ranks as f64;
        match self {
            Operation::ReduceScatter | Operation::AllGather | Operation::AllToAll => (p - 1.0) / p,
            Operation::AllReduce => 2.0 * (p - 1.0) / p,
            Operation::Broadcast => 1.0,
            Operation::Barrier => 0.0,
        }
    }
}

/// Two whole cores do not slow each other down by more.
const SIBLINGS: f64 = 1.3;

/// One line of the result.
#[derive(Debug, Serialize)]
struct Row {
    op: &'static str,
    bytes: usize,
    dtype: &'static str,
    ranks: usize,
    nodes: usize,
    buffers: &'static str,
    algorithm: String,
    time_us: f64,
    p10_us: f64,
    p99_us: f64,
    native_us: Option<f64>,
    /// `MPI_Reduce_scatter` with counts, which some libraries implement better than `_block`.
    native_counts_us: Option<f64>,
    /// What else `--against` names: the same call with other settings, or the nonblocking native.
    against_us: Option<f64>,
    limit_us: f64,
    ratio: Option<f64>,
    algbw_gbps: f64,
    busbw_gbps: f64,
    iterations: usize,
    verified: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    results: Vec<Row>,
    native: Option<String>,
    oversubscribed: bool,
    /// Whether the times say something about the machine.
    measurement: bool,
    /// If not, why not.
    reason: Option<String>,
    /// Time of computing beside another rank over that alone: 1 on whole cores.
    slowdown_in_company: Option<f64>,
}

impl Bench {
    pub(super) fn run(&self, session: Session<'_>) -> Result<()> {
        let c = session.communicator;
        let needs_mpi =
            self.is_against(Against::Native) || self.is_against(Against::NativeImmediate);
        if needs_mpi && c.native().is_none() {
            return Err(agreed(Error::input(
                "--against native needs MPI: start it with mpirun, or leave --against out",
            )));
        }
        if self.factor < 2 {
            return Err(agreed(Error::input("--factor: at least 2 is needed")));
        }
        let other = match self.against {
            Some(Against::Fastest) => {
                Some(c.with_settings(Settings { order: Order::Fastest, ..*c.settings() })?)
            }
            Some(Against::Unchecked) => {
                Some(c.with_settings(Settings { compares: false, ..*c.settings() })?)
            }
            Some(Against::Native | Against::NativeImmediate) | None => None,
        };
        let reason = machine::noise(c)?;
        let slowdown_in_company = machine::slowdown_in_company(c)?;
        if session.speaks_to_people() {
            self.print_head(c, reason.as_deref(), slowdown_in_company);
        }
        let calls: Vec<&Communicator> = std::iter::once(c).chain(other.as_ref()).collect();
        let mut results = Vec::new();
        let all = Operation::value_variants();
        let operations = if self.operations.is_empty() { all } else { &self.operations };
        for &operation in operations {
            for &bytes in &self.sizes_of(operation) {
                for shared in [true, false] {
                    let other = if shared { Buffers::Plain } else { Buffers::Shared };
                    if self.buffers == other || (operation == Operation::Barrier && !shared) {
                        continue;
                    }
                    let row = with_element_type!(self.dtype, T => {
                        self.measure::<T>(&calls, operation, bytes, shared)?
                    });
                    if session.speaks_to_people() {
                        print_row(&row);
                    }
                    results.push(row);
                }
            }
        }
        let wrong = results.iter().filter(|row| !row.verified).count();
        let native = c.native().map(Native::version);
        let oversubscribed = c.is_oversubscribed();
        let measurement = reason.is_none();
        let report =
            Report { results, native, oversubscribed, measurement, reason, slowdown_in_company };
        let written = if session.speaks() { self.write_files(&report) } else { Ok(()) };
        c.agree(written).map_err(|error| Error { rank: None, ..error })?;
        session.print_json(&report)?;
        if wrong > 0 {
            return Err(agreed(Error::internal(format!("{wrong} results are wrong"))));
        }
        Ok(())
    }

    fn is_against(&self, what: Against) -> bool {
        self.against == Some(what)
    }

    fn write_files(&self, report: &Report) -> Result<()> {
        if let Some(path) = &self.csv {
            write_csv(path, &report.results)?;
        }
        if let Some(path) = &self.html {
            let text = page::html(report);
            files::write_atomically(path, |file| file.write_all(text.as_bytes()))?;
        }
        Ok(())
    }

    fn sizes_of(&self, operation: Operation) -> Vec<usize> {
        if operation == Operation::Barrier {
            return vec![0];
        }
        let (from, to) = self.sizes;
        std::iter::successors(Some(from), |size| size.checked_mul(self.factor))
            .take_while(|&size| size <= to)
            .collect()
    }

    fn print_head(&self, c: &Communicator, noise: Option<&str>, slowdown: Option<f64>) {
        if let Some(native) = c.native() {
            println!("# native: {}", native.version());
        }
        println!("# {} ranks on {} nodes, {}", c.ranks(), c.topology().nodes(), self.dtype);
        if let Some(noise) = noise {
            println!("# no measurement of the machine: {noise}");
        }
        if let Some(slowdown) = slowdown.filter(|&slowdown| slowdown > SIBLINGS) {
            println!(
                "# two cores behave as siblings: together each takes {slowdown:.2} times as long"
            );
        }
        println!(
            "{:<15}{:>11}{:>8} {:<12}{:>11}{:>11}{:>11}{:>11}{:>11}{:>8}{:>9}{:>9}  ok",
            "op",
            "bytes",
            "buffers",
            "algorithm",
            "time µs",
            "p99 µs",
            match self.against {
                Some(Against::Fastest) => "fastest µs",
                Some(Against::Unchecked) => "uncheck. µs",
                Some(Against::NativeImmediate) => "immed. µs",
                Some(Against::Native) | None => "native µs",
            },
            "counts µs",
            "limit µs",
            "ratio",
            "algbw",
            "busbw"
        );
    }

    /// One line: the call on the first communicator, beside that on the second if there is one.
    fn measure<T: Element>(
        &self,
        calls: &[&Communicator],
        operation: Operation,
        bytes: usize,
        shared: bool,
    ) -> Result<Row> {
        let c = calls[0];
        let (collective, ranks) = (operation.collective(), c.ranks());
        let piece = self.piece.unwrap_or(c.settings().piece_bytes);
        let problem = measure::problem::<T>(collective, bytes, ranks, piece);
        let algorithm = match self.algorithm.as_deref() {
            None => None,
            Some(name) => Some(match Library::find(name) {
                Some(native) => native.name(),
                None => {
                    let row = table::find(collective, name).map_err(agreed)?;
                    row.fits(&problem, c.topology(), shared, shared).map_err(agreed)?;
                    row.name
                }
            }),
        };
        let named: Vec<_> = calls.iter().map(|&c| (c, algorithm)).collect();
        let mut case = Case::<T>::of_calls(c, problem, &named, shared)?;
        let native = self.is_against(Against::Native);
        let has_counts = native && operation == Operation::ReduceScatter && case.has_native();
        let mut things = vec![Thing::Call(0), Thing::Limit];
        things.extend((calls.len() > 1).then_some(Thing::Call(1)));
        things.extend(native.then_some(Thing::Native));
        let immediate = self.is_against(Against::NativeImmediate);
        // A barrier is measured by its blocking call alone.
        things.extend(
            (immediate && operation != Operation::Barrier).then_some(Thing::NativeImmediate),
        );
        things.extend(has_counts.then_some(Thing::NativeCounts));
        let iterations = self.iterations.unwrap_or_else(|| case.usual_iterations()).max(1);
        let times = case.measure(&things, iterations)?;
        let of = |thing: Thing| {
            things.iter().zip(&times).find(|(t, _)| **t == thing).map(|(_, times)| times.median)
        };
        let verified = case.verify(0)?;
        let time = times[0].median;
        let (native, against) =
            (of(Thing::Native), of(Thing::Call(1)).or(of(Thing::NativeImmediate)));
        let bytes = if collective == Collective::Barrier { 0 } else { case.bytes() };
        let algbw = if time > 0.0 { bytes as f64 / time / 1e3 } else { 0.0 };
        Ok(Row {
            op: collective.name(),
            bytes,
            dtype: T::DTYPE.name(),
            ranks,
            nodes: c.topology().nodes(),
            buffers: if shared { "shared" } else { "plain" },
            algorithm: case.algorithm(0)?,
            time_us: time,
            p10_us: times[0].p10,
            p99_us: times[0].p99,
            native_us: native,
            native_counts_us: of(Thing::NativeCounts),
            against_us: against,
            limit_us: of(Thing::Limit).unwrap_or(0.0),
            ratio: native.or(against).map(|other| other / time),
            algbw_gbps: algbw,
            busbw_gbps: algbw * operation.bus_factor(ranks),
            iterations,
            verified,
        })
    }
}

/// An error that every rank finds alike.
fn agreed(error: Error) -> Error {
    Error { agreed: true, ..error }
}

/// One line a result, with the keys of the JSON document as the head.
fn write_csv(path: &std::path::Path, rows: &[Row]) -> Result<()> {
    let text = |x: Option<f64>| x.map_or(String::new(), |x| x.to_string());
    let done = files::write_atomically(path, |file| {
        writeln!(
            file,
            "op,bytes,dtype,ranks,nodes,buffers,algorithm,time_us,p10_us,p99_us,native_us,\
             native_counts_us,against_us,limit_us,ratio,algbw_gbps,busbw_gbps,iterations,verified"
        )?;
        for row in rows {
            let Row { op, bytes, dtype, ranks, nodes, buffers, algorithm, .. } = row;
            let Row { time_us, p10_us, p99_us, limit_us, iterations, verified, .. } = row;
            let (native, counts) = (text(row.native_us), text(row.native_counts_us));
            let against = text(row.against_us);
            let (ratio, algbw, busbw) = (text(row.ratio), row.algbw_gbps, row.busbw_gbps);
            writeln!(
                file,
                "{op},{bytes},{dtype},{ranks},{nodes},{buffers},{algorithm},{time_us},{p10_us},\
                 {p99_us},{native},{counts},{against},{limit_us},{ratio},{algbw},{busbw},\
                 {iterations},{verified}"
            )?;
        }
        Ok(())
    });
    done.map(|_| ())
}

fn print_row(row: &Row) {
    let number = |x: Option<f64>| x.map_or("-".to_string(), |x| format!("{x:.2}"));
    println!(
        "{:<15}{:>11}{:>8} {:<12}{:>11.2}{:>11.2}{:>11}{:>11}{:>11.2}{:>8}{:>9.2}{:>9.2}  {}",
        row.op,
        row.bytes,
        row.buffers,
        row.algorithm,
        row.time_us,
        row.p99_us,
        number(row.native_us.or(row.against_us)),
        number(row.native_counts_us),
        row.limit_us,
        number(row.ratio),
        row.algbw_gbps,
        row.busbw_gbps,
        if row.verified { "yes" } else { "WRONG" }
    );
}

fn dtype(text: &str) -> std::result::Result<DType, String> {
    let names = DType::ALL.map(DType::name).join(", ");
    let found = DType::ALL.into_iter().find(|d| d.name() == text);
    found.ok_or_else(|| format!("one of {names} is needed"))
}

/// `8:64M`, `1K`: sizes with binary suffixes.
fn sizes(text: &str) -> std::result::Result<(usize, usize), String> {
    let (from, to) = text.split_once(':').unwrap_or((text, text));
    let (from, to) = (size(from)?, size(to)?);
    if from == 0 || from > to {
        return Err("the first size must be above 0 and not above the second".into());
    }
    Ok((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_binary_suffixes_and_refuse_nonsense() {
        assert_eq!(sizes("8:64M"), Ok((8, 64 << 20)));
        assert_eq!(sizes("1K"), Ok((1024, 1024)));
        for wrong in ["", "0", "4:2", "x", "3Q", "-1", "99999999999999999999", "K"] {
            assert!(sizes(wrong).is_err(), "{wrong}");
        }
    }
}
