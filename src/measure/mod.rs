//! Measuring collectives: one implementation for `bench` and `tune`.
//!
//! What is compared alternates inside one process, so that all of it sees the same machine.
//! Sources are rewritten before each call, else caches flatter the result. Everything is called
//! twice and the second call is timed (16 calls in a row up to 4 KiB, where the clock is too coarse
//! for one). A time is the maximum over ranks; over iterations, the median and percentiles.
//! Sizes are bytes of the whole vector.

mod limit;
pub mod machine;
pub mod memory;

use std::time::Instant;

use crate::communicator::{AnyCall, Communicator};
use crate::element::{DType, Element, Op};
use crate::error::Result;
use crate::plan::{Collective, Problem};
use crate::reduce;
use crate::select::bytes_of;
use crate::sharding::Sharding;
use crate::transport::Mode;
use crate::transport::memory::{SharedBuffer, Sink, Source};
use limit::Limit;

/// Up to here one call is too short for the clock.
const BATCHED_BYTES: usize = 4096;
/// Calls in a row then.
const BATCH: usize = 16;
/// Iterations that only warm caches and page tables.
const WARM_UP: usize = 2;

/// Something that is timed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Thing {
    /// A prepared call of ours, by its number.
    Call(usize),
    /// The bare collective of the MPI library; for reduce_scatter `MPI_Reduce_scatter_block`. Sums
    /// of 16-bit floats, which MPI does not know, are converted to f32 and back.
    Native,
    /// `MPI_Reduce_scatter` with counts.
    NativeCounts,
    /// The nonblocking collective of the MPI library and a wait; for reduce_scatter
    /// `MPI_Ireduce_scatter`.
    NativeImmediate,
    /// The same bytes on private memory.
    Limit,
}

/// The times of a thing in µs, each the maximum over ranks.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Times {
    /// One in ten iterations is faster.
    pub p10: f64,
    /// Half of them are.
    pub median: f64,
    /// All but one in a hundred are.
    pub p99: f64,
}

impl Times {
    fn over_ranks(c: &Communicator, times: &[f64]) -> Result<Self> {
        let mut slowest = c.all_reduce_vec(times, Op::Max)?;
        slowest.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let index = (slowest.len() * percent / 100).min(slowest.len().saturating_sub(1));
            slowest.get(index).copied().unwrap_or(0.0)
        };
        Ok(Times { p10: at(10), median: at(50), p99: at(99) })
    }
}

/// The problem of `bytes` in all, with whole elements and as many for every rank, so that the
/// library's own calls can do the same; `piece` bytes go through the workspace at a time.
pub fn problem<T: Element>(
    collective: Collective,
    bytes: usize,
    ranks: usize,
    piece: usize,
) -> Problem {
    let each = bytes.div_ceil(size_of::<T>() * ranks) * usize::from(bytes > 0);
    let problem = match collective {
        Collective::AllToAll => Problem::all_to_all(ranks, vec![each; ranks * ranks].into()),
        _ => Problem::new(collective, Sharding::even(each * ranks, ranks)),
    };
    Problem { piece: (piece / size_of::<T>()).max(1), ..problem }
}

/// The buffers and calls of one line.
#[derive(Debug)]
pub struct Case<'a, T: Element> {
    c: &'a Communicator,
    problem: Problem,
    calls: Vec<AnyCall<T>>,
    shared: bool,
    input: Vec<T>,
    output: Vec<T>,
    shared_input: Option<SharedBuffer<T>>,
    shared_output: Option<SharedBuffer<T>>,
    native_output: Vec<T>,
    /// Input and output of a native call in f32, for 16-bit floats.
    wide: [Vec<f32>; 2],
    limit: Limit<T>,
    counts: Vec<usize>,
}

impl<'a, T: Element> Case<'a, T> {
    /// Buffers in node-shared memory or not, and one prepared call for each algorithm; `None` is
    /// the one that would be chosen. Collective.
    pub fn new(
        c: &'a Communicator,
        problem: Problem,
        algorithms: &[Option<&'static str>],
        shared: bool,
    ) -> Result<Self> {
        let calls: Vec<_> = algorithms.iter().map(|&name| (c, name)).collect();
        Case::of_calls(c, problem, &calls, shared)
    }

    /// [`Case::new`] where each call may be one of a communicator with other settings.
    pub fn of_calls(
        c: &'a Communicator,
        problem: Problem,
        calls: &[(&Communicator, Option<&'static str>)],
        shared: bool,
    ) -> Result<Self> {
        let (rank, ranks) = (c.rank(), c.ranks());
        let op = problem.collective.reduces().then_some(Op::Sum);
        let (input, output) = (problem.input_len(rank), problem.output_len(rank));
        let n = match problem.collective {
            Collective::AllToAll => input,
            _ => problem.sharding.n(),
        };
        let calls = calls.iter().map(|(c, name)| c.prepare_any::<T>(&problem, *name, op)).collect();
        let half = T::DTYPE.is_half() && problem.collective.reduces();
        let wide = |n: usize| vec![0.0; if half { n } else { 0 }];
        let (shared_input, shared_output) = match shared {
            true => (Some(c.shared(input)?), Some(c.shared(output)?)),
            false => (None, None),
        };
        Ok(Case {
            c,
            calls,
            shared,
            input: vec![T::default(); input],
            output: vec![T::default(); output],
            shared_input,
            shared_output,
            native_output: vec![T::default(); output],
            wide: [wide(input), wide(output)],
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

    /// The algorithm of a prepared call. Collective on first use.
    pub fn algorithm(&self, call: usize) -> Result<String> {
        Ok(self.calls[call].algorithm(self.shared, self.shared)?.to_string())
    }

    /// Bytes of the whole vector.
    pub fn bytes(&self) -> usize {
        bytes_of(&self.problem, T::DTYPE)
    }

    /// As many iterations as take about a second, 10 to 500.
    pub fn usual_iterations(&self) -> usize {
        (400_000_000 / (self.bytes() * self.c.ranks() + 800_000)).clamp(10, 500)
    }

    /// Measures things in turn, all in each iteration. Collective.
    pub fn measure(&mut self, things: &[Thing], iterations: usize) -> Result<Vec<Times>> {
        let batch = if self.bytes() <= BATCHED_BYTES { BATCH } else { 1 };
        let mut times = vec![Vec::with_capacity(iterations); things.len()];
        for i in 0..iterations + WARM_UP {
            for second in [false, true] {
                for (&thing, times) in things.iter().zip(&mut times) {
                    let elapsed = self.time(thing, i, batch)?;
                    if second && i >= WARM_UP {
                        times.push(elapsed);
                    }
                }
            }
        }
        times.iter().map(|times| Times::over_ranks(self.c, times)).collect()
    }

    /// The time of one call, in µs.
    fn time(&mut self, thing: Thing, iteration: usize, batch: usize) -> Result<f64> {
        match thing {
            Thing::Limit => self.limit.rewrite(T::from_small(1)),
            _ => self.rewrite(iteration),
        }
        self.c.barrier()?;
        let start = Instant::now();
        for _ in 0..batch {
            match thing {
                Thing::Call(call) => self.ours(call)?,
                Thing::Native => self.native(Mode::Blocking)?,
                Thing::NativeImmediate => self.native(Mode::Immediate)?,
                Thing::NativeCounts => self.native_counts(Mode::Blocking)?,
                Thing::Limit => self.limit.run(),
            }
        }
        Ok(start.elapsed().as_secs_f64() * 1e6 / batch as f64)
    }

    fn ours(&mut self, call: usize) -> Result<()> {
        let input: Source<'_, T> = match &self.shared_input {
            Some(buffer) => buffer.into(),
            None => (&self.input).into(),
        };
        let output: Sink<'_, T> = match &mut self.shared_output {
            Some(buffer) => buffer.into(),
            None => (&mut self.output).into(),
        };
        self.calls[call].run(input, output)
    }

    /// Whether the MPI library has this collective for these elements.
    pub fn has_native(&self) -> bool {
        self.c.native().is_some() && !self.is_converted()
    }

    /// Whether the library's call needs elements converted to f32.
    fn is_converted(&self) -> bool {
        T::DTYPE.is_half() && self.problem.collective.reduces()
    }

    fn native(&mut self, mode: Mode) -> Result<()> {
        let Some(native) = self.c.native() else { return Ok(()) };
        let scatters = self.problem.collective == Collective::ReduceScatter;
        if scatters && mode == Mode::Immediate && !self.is_converted() {
            return self.native_counts(mode);
        }
        if self.is_converted() {
            let [wide_input, wide_output] = &mut self.wide;
            reduce::widen(&self.input, wide_input);
            let (i, o) = (bytemuck::cast_slice(wide_input), bytemuck::cast_slice_mut(wide_output));
            match self.problem.collective {
                Collective::ReduceScatter if mode == Mode::Blocking => {
                    native.reduce_scatter_block(i, o, DType::F32, Op::Sum)
                }
                Collective::ReduceScatter => {
                    native.reduce_scatter(i, o, &self.counts, DType::F32, Op::Sum, mode)
                }
                _ => native.all_reduce(i, o, DType::F32, Op::Sum, mode),
            }?;
            reduce::narrow(wide_output, &mut self.native_output);
            return Ok(());
        }
        let (i, o) =
            (bytemuck::cast_slice(&self.input), bytemuck::cast_slice_mut(&mut self.native_output));
        match self.problem.collective {
            Collective::ReduceScatter => native.reduce_scatter_block(i, o, T::DTYPE, Op::Sum),
            Collective::AllGather => native.all_gather(i, o, T::DTYPE, mode),
            Collective::AllReduce => native.all_reduce(i, o, T::DTYPE, Op::Sum, mode),
            Collective::Broadcast { root } => native.broadcast(o, root, T::DTYPE, mode),
            Collective::AllToAll => native.all_to_all(i, o, T::DTYPE, mode),
            Collective::Barrier => native.barrier(),
            Collective::Gather { .. } | Collective::Scatter { .. } => Ok(()),
        }
    }

    fn native_counts(&mut self, mode: Mode) -> Result<()> {
        let Some(native) = self.c.native() else { return Ok(()) };
        let output = bytemuck::cast_slice_mut(&mut self.native_output);
        let input = bytemuck::cast_slice(&self.input);
        native.reduce_scatter(input, output, &self.counts, T::DTYPE, Op::Sum, mode)
    }

    /// Runs once more on known values and compares every element, on all ranks.
    pub fn verify(&mut self, call: usize) -> Result<bool> {
        const ITERATION: usize = 3;
        self.rewrite(ITERATION);
        self.ours(call)?;
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
        Ok(self.c.all_reduce_vec(&[u64::from(fine)], Op::Min)?[0] == 1)
    }
}
