//! `rankwise bench`: collectives against the MPI library's own, and against memory.
//!
//! How it measures: ours, the native call and the memory limit alternate inside one process, so
//! that all see the same machine. Sources are rewritten before each call, else caches flatter the
//! result. Each is called twice and the second call is timed (16 calls in a row up to 4 KiB, where
//! the clock is too coarse for one). A time is the median over iterations of the maximum over
//! ranks. Sizes are bytes of the whole vector; bandwidths follow nccl-tests.

use std::time::Instant;

use clap::ValueEnum;
use serde::Serialize;

use super::Session;
use super::memory_limit::Limit;
use super::size::size;
use crate::communicator::{AnyCall, Communicator};
use crate::element::{DType, Element, Op};
use crate::error::{Error, Result};
use crate::plan::table;
use crate::plan::{Collective, Problem};
use crate::sharding::Sharding;
use crate::transport::Native;
use crate::transport::memory::{Sink, Source};
use crate::with_element_type;

/// Measures collectives: time, bandwidth, the native call and the memory limit.
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

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Against {
    /// The same collective of the MPI library
    Native,
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
    native_us: Option<f64>,
    /// `MPI_Reduce_scatter` with counts, which some libraries implement better than `_block`.
    native_counts_us: Option<f64>,
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
}

impl Bench {
    pub(super) fn run(&self, session: Session<'_>) -> Result<()> {
        let c = session.communicator;
        if self.against.is_some() && c.native().is_none() {
            return Err(agreed(Error::input(
                "--against native needs MPI: start it with mpirun, or leave --against out",
            )));
        }
        if self.factor < 2 {
            return Err(agreed(Error::input("--factor: at least 2 is needed")));
        }
        if session.speaks_to_people() {
            self.print_head(c);
        }
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
                        self.measure::<T>(c, operation, bytes, shared)?
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
        session.print_json(&Report { results, native, oversubscribed })?;
        if wrong > 0 {
            return Err(agreed(Error::internal(format!("{wrong} results are wrong"))));
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

    fn print_head(&self, c: &Communicator) {
        if let Some(native) = c.native() {
            println!("# native: {}", native.version());
        }
        println!("# {} ranks on {} nodes, {}", c.ranks(), c.topology().nodes(), self.dtype);
        if c.is_oversubscribed() {
            println!("# ranks share cores: these times are no measurement of the machine");
        }
        println!(
            "{:<15}{:>11}{:>8} {:<12}{:>11}{:>11}{:>11}{:>11}{:>8}{:>9}{:>9}  ok",
            "op",
            "bytes",
            "buffers",
            "algorithm",
            "time µs",
            "native µs",
            "counts µs",
            "limit µs",
            "ratio",
            "algbw",
            "busbw"
        );
    }

    fn measure<T: Element>(
        &self,
        c: &Communicator,
        operation: Operation,
        bytes: usize,
        shared: bool,
    ) -> Result<Row> {
        let (collective, ranks) = (operation.collective(), c.ranks());
        // Whole elements for every rank, so that the native calls can do the same.
        let each = bytes.div_ceil(size_of::<T>() * ranks) * usize::from(bytes > 0);
        let n = each * ranks;
        let piece = self.piece.unwrap_or(c.settings().piece_bytes) / size_of::<T>();
        let problem = match collective {
            Collective::AllToAll => Problem::all_to_all(ranks, vec![each; ranks * ranks].into()),
            _ => Problem::new(collective, Sharding::even(n, ranks)),
        };
        let problem = Problem { piece: piece.max(1), ..problem };
        let algorithm = match &self.algorithm {
            Some(name) => Some(table::find(collective, name).map_err(agreed)?.name),
            None => None,
        };
        if let Some(name) = algorithm {
            let row = table::find(collective, name)?;
            row.fits(&problem, c.topology(), shared, shared).map_err(agreed)?;
        }
        let mut case = Case::<T>::new(c, problem, algorithm, shared)?;
        let batch = if n * size_of::<T>() <= 4096 { 16 } else { 1 };
        let iterations = self.iterations.unwrap_or_else(|| {
            (400_000_000 / (n * size_of::<T>() * ranks + 800_000)).clamp(10, 500)
        });
        let mut times = Times::default();
        for i in 0..iterations + 2 {
            let now = case.iterate(i, batch, self.against.is_some())?;
            if i >= 2 {
                times.push(now); // the first two warm caches and page tables
            }
        }
        let verified = case.verify()?;
        let [time, native, counts, limit] = times.medians(c)?;
        let seconds = time / 1e6;
        let algbw = if seconds > 0.0 { (n * size_of::<T>()) as f64 / seconds / 1e9 } else { 0.0 };
        let compared = self.against.is_some() && case.has_native();
        let has_counts = compared && operation == Operation::ReduceScatter;
        Ok(Row {
            op: collective.name(),
            bytes: n * size_of::<T>(),
            dtype: T::DTYPE.name(),
            ranks,
            nodes: c.topology().nodes(),
            buffers: if shared { "shared" } else { "plain" },
            algorithm: case.call.algorithm(shared, shared)?.to_string(),
            time_us: time,
            native_us: compared.then_some(native),
            native_counts_us: has_counts.then_some(counts),
            limit_us: limit,
            ratio: compared.then_some(native / time),
            algbw_gbps: algbw,
            busbw_gbps: algbw * operation.bus_factor(ranks),
            iterations,
            verified,
        })
    }
}

/// The buffers and calls of one line.
struct Case<'a, T: Element> {
    c: &'a Communicator,
    problem: Problem,
    call: AnyCall<T>,
    shared: bool,
    input: Vec<T>,
    output: Vec<T>,
    shared_input: Option<crate::transport::memory::SharedBuffer<T>>,
    shared_output: Option<crate::transport::memory::SharedBuffer<T>>,
    native_output: Vec<T>,
    limit: Limit<T>,
    counts: Vec<usize>,
}

impl<'a, T: Element> Case<'a, T> {
    fn new(
        c: &'a Communicator,
        problem: Problem,
        algorithm: Option<&'static str>,
        shared: bool,
    ) -> Result<Self> {
        let (rank, ranks) = (c.rank(), c.ranks());
        let op = problem.collective.reduces().then_some(Op::Sum);
        let (input, output) = (problem.input_len(rank), problem.output_len(rank));
        let n = match problem.collective {
            Collective::AllToAll => input,
            _ => problem.sharding.n(),
        };
        let call = c.prepare_any::<T>(&problem, algorithm, op);
        let (shared_input, shared_output) = match shared {
            true => (Some(c.shared(input)?), Some(c.shared(output)?)),
            false => (None, None),
        };
        Ok(Case {
            c,
            call,
            shared,
            input: vec![T::default(); input],
            output: vec![T::default(); output],
            shared_input,
            shared_output,
            native_output: vec![T::default(); output],
            limit: Limit::new(problem.collective, n, ranks),
            counts: (0..ranks).map(|r| problem.sharding.count(r)).collect(),
            problem,
        })
    }

    fn value(&self, rank: usize, index: usize, iteration: usize) -> T {
        T::from_small(((rank * 7 + index + iteration) % 5) as u8)
    }

    /// Writes the sources anew: ours, and the native one (the same slice unless shared).
    fn rewrite(&mut self, iteration: usize) {
        let rank = self.c.rank();
        let mut input = std::mem::take(&mut self.input);
        for (i, x) in input.iter_mut().enumerate() {
            *x = self.value(rank, i, iteration);
        }
        self.input = input;
        if let Some(buffer) = &mut self.shared_input {
            buffer.copy_from_slice(&self.input);
        }
        if self.problem.collective.root() == Some(rank) {
            let mut output = std::mem::take(&mut self.output);
            for (i, x) in output.iter_mut().enumerate() {
                *x = self.value(rank, i, iteration);
            }
            self.native_output.copy_from_slice(&output);
            self.output = output;
            if let Some(buffer) = &mut self.shared_output {
                buffer.copy_from_slice(&self.output);
            }
        }
    }

    /// Times one call of each kind, in µs: ours, native, native with counts, limit.
    fn iterate(&mut self, iteration: usize, batch: usize, against: bool) -> Result<[f64; 4]> {
        let native = against && self.has_native();
        let counts = native && self.problem.collective.same_kind(Collective::ReduceScatter);
        let mut times = [0.0; 4];
        for second in [false, true] {
            for (which, time) in times.iter_mut().enumerate() {
                if (which == 1 && !native) || (which == 2 && !counts) {
                    continue;
                }
                if which == 3 {
                    self.limit.rewrite(T::from_small(1));
                } else {
                    self.rewrite(iteration);
                }
                self.c.barrier()?;
                let start = Instant::now();
                for _ in 0..batch {
                    match which {
                        0 => self.ours()?,
                        1 => self.native()?,
                        2 => self.native_counts()?,
                        _ => self.limit.run(),
                    }
                }
                let elapsed = start.elapsed().as_secs_f64() * 1e6 / batch as f64;
                if second {
                    *time = elapsed;
                }
            }
        }
        Ok(times)
    }

    fn ours(&mut self) -> Result<()> {
        let input: Source<'_, T> = match &self.shared_input {
            Some(buffer) => buffer.into(),
            None => (&self.input).into(),
        };
        let output: Sink<'_, T> = match &mut self.shared_output {
            Some(buffer) => buffer.into(),
            None => (&mut self.output).into(),
        };
        self.call.run(input, output)
    }

    fn has_native(&self) -> bool {
        let half = T::DTYPE.is_half() && self.problem.collective.reduces();
        self.c.native().is_some() && !half
    }

    fn native(&mut self) -> Result<()> {
        let Some(native) = self.c.native() else { return Ok(()) };
        let (i, o) =
            (bytemuck::cast_slice(&self.input), bytemuck::cast_slice_mut(&mut self.native_output));
        match self.problem.collective {
            Collective::ReduceScatter => native.reduce_scatter_block(i, o, T::DTYPE, Op::Sum),
            Collective::AllGather => native.all_gather(i, o, T::DTYPE),
            Collective::AllReduce => native.all_reduce(i, o, T::DTYPE, Op::Sum),
            Collective::Broadcast { root } => native.broadcast(o, root, T::DTYPE),
            Collective::AllToAll => native.all_to_all(i, o, T::DTYPE),
            Collective::Barrier => native.barrier(),
            Collective::Gather { .. } | Collective::Scatter { .. } => Ok(()),
        }
    }

    fn native_counts(&mut self) -> Result<()> {
        let Some(native) = self.c.native() else { return Ok(()) };
        let output = bytemuck::cast_slice_mut(&mut self.native_output);
        let input = bytemuck::cast_slice(&self.input);
        native.reduce_scatter(input, output, &self.counts, T::DTYPE, Op::Sum)
    }

    /// Runs once more on known values and compares every element, on all ranks.
    fn verify(&mut self) -> Result<bool> {
        const ITERATION: usize = 3;
        self.rewrite(ITERATION);
        self.ours()?;
        let (rank, ranks) = (self.c.rank(), self.c.ranks());
        let output: &[T] = self.shared_output.as_ref().map_or(&self.output, |b| b.as_slice());
        let sharding = &self.problem.sharding;
        let sum = |i: usize| {
            let all = (0..ranks).map(|r| self.value(r, i, ITERATION).to_f64());
            all.sum::<f64>()
        };
        let right = |i: usize| match self.problem.collective {
            Collective::ReduceScatter => sum(sharding.range(rank).start + i),
            Collective::AllReduce => sum(i),
            Collective::AllToAll => {
                let each = output.len() / ranks;
                self.value(i / each, rank * each + i % each, ITERATION).to_f64()
            }
            Collective::Broadcast { root } => self.value(root, i, ITERATION).to_f64(),
            _ => {
                let owner = sharding.owner(i).unwrap_or(0);
                self.value(owner, i - sharding.range(owner).start, ITERATION).to_f64()
            }
        };
        let exact = !(T::DTYPE.is_half() && self.problem.collective.reduces() && ranks > 32);
        let fine = output.iter().enumerate().all(|(i, x)| !exact || x.to_f64() == right(i));
        debug_assert_eq!(self.shared, self.shared_input.is_some());
        Ok(self.c.all_reduce_vec(&[u64::from(fine)], Op::Min)?[0] == 1)
    }
}

/// Times of all iterations, by kind.
#[derive(Default)]
struct Times {
    all: [Vec<f64>; 4],
}

impl Times {
    fn push(&mut self, now: [f64; 4]) {
        for (times, time) in self.all.iter_mut().zip(now) {
            times.push(time);
        }
    }

    /// Maximum over ranks, then median over iterations.
    fn medians(&self, c: &Communicator) -> Result<[f64; 4]> {
        let mut medians = [0.0; 4];
        for (median, times) in medians.iter_mut().zip(&self.all) {
            let mut slowest = c.all_reduce_vec(times, Op::Max)?;
            slowest.sort_by(f64::total_cmp);
            *median = slowest.get(slowest.len() / 2).copied().unwrap_or(0.0);
        }
        Ok(medians)
    }
}

/// An error that every rank finds alike.
fn agreed(error: Error) -> Error {
    Error { agreed: true, ..error }
}

fn print_row(row: &Row) {
    let number = |x: Option<f64>| x.map_or("-".to_string(), |x| format!("{x:.2}"));
    println!(
        "{:<15}{:>11}{:>8} {:<12}{:>11.2}{:>11}{:>11}{:>11.2}{:>8}{:>9.2}{:>9.2}  {}",
        row.op,
        row.bytes,
        row.buffers,
        row.algorithm,
        row.time_us,
        number(row.native_us),
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
