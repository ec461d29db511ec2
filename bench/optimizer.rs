//! The whole of a sharded optimizer step: reduce_scatter, AdamW, all_gather; and its share of the
//! memory bandwidth.
//!
//! ```text
//! cargo bench --bench optimizer -- [millions of parameters] [steps] [ranks] [words of a way]
//! mpirun -n 2 --bind-to core target/release/deps/optimizer-… [millions] [steps]
//! ```
//!
//! Prints a line for each way to store and to step: nanoseconds a parameter of the slowest rank,
//! the bytes a parameter that the module of `optimizer::distributed` states, the bandwidth that
//! makes, and the bandwidth of a plain loop over the arrays of the fused step beside it: every rank
//! at once, in the same kinds of memory. `bench/peers/ddp.py` measures PyTorch at the same size in
//! the same session.

#![allow(clippy::print_stdout)] // the result is a table

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use rankwise::communicator::Communicator;
use rankwise::element::Op;
use rankwise::error::Result;
use rankwise::launch::{self, Options as Job};
use rankwise::optimizer::distributed::{
    DistributedOptimizer, Options, Passes, Precision, StepInput,
};
use rankwise::optimizer::hyper::Rule;
use rankwise::optimizer::parameter::{GradientSink, Parameter};
use rankwise::reduce::simd::vectorised;
use rankwise::sharding::Sharding;
use rankwise::transport::huge_pages::HugePages;

/// As in the program: large buffers lie in huge pages.
#[global_allocator]
static ALLOCATOR: HugePages = HugePages;

/// Parameters are tensors of this many elements, so that buckets become ready one after another.
const TENSOR: usize = 1 << 20;
/// Runs of the plain loop.
const PLAIN_LOOPS: usize = 9;

fn main() -> ExitCode {
    let numbers: Vec<usize> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let at = |place: usize, or: usize| numbers.get(place).copied().unwrap_or(or);
    let (millions, steps, ranks) = (at(0, 50), at(1, 10).max(1), numbers.get(2).copied());
    let words = std::env::args().skip(1).filter(|a| a.parse::<usize>().is_err());
    let wanted: Vec<String> = words.filter(|a| !a.starts_with("--")).collect();
    let job = match Job::detect(Some(ranks.unwrap_or(2))) {
        Ok(job) => job,
        Err(error) => return launch::refuse(&error, None, Default::default()),
    };
    launch::run(&job, |comm| measure(comm, millions * 1_000_000, steps, &wanted))
}

/// One way to store and to step.
struct Way {
    name: &'static str,
    precision: Precision,
    narrow_gradients: bool,
    passes: Passes,
    clip: bool,
    /// Bytes a parameter of its owner, without the gradients of the ranks: see `distributed`.
    bytes: f64,
}

const WAYS: [Way; 9] = {
    const fn way(name: &'static str, passes: Passes, clip: bool, bytes: f64) -> Way {
        let precision = Precision::F32;
        Way { name, precision, narrow_gradients: false, passes, clip, bytes }
    }
    let bf16 = Precision::Bf16;
    [
        way("f32 separate, clipped", Passes::Separate, true, 36.0),
        way("f32 folded, clipped", Passes::Folded, true, 32.0),
        way("f32 fused, clipped", Passes::Fused, true, 24.0),
        way("f32 fused", Passes::Fused, false, 24.0),
        Way { precision: bf16, ..way("bf16 separate, clipped", Passes::Separate, true, 38.0) },
        Way { precision: bf16, ..way("bf16 folded, clipped", Passes::Folded, true, 34.0) },
        Way { precision: bf16, ..way("bf16 fused, clipped", Passes::Fused, true, 26.0) },
        Way { precision: bf16, ..way("bf16 fused", Passes::Fused, false, 26.0) },
        Way {
            precision: bf16,
            narrow_gradients: true,
            ..way("bf16 gradients, fused", Passes::Fused, false, 26.0)
        },
    ]
};

fn measure(comm: &Communicator, parameters: usize, steps: usize, wanted: &[String]) -> Result<()> {
    if comm.rank() == 0 {
        println!("{} M parameters, {} ranks", parameters / 1_000_000, comm.ranks());
        println!("{:<24} {:>9} {:>7} {:>8} {:>8} {:>6}", "way", "ns", "bytes", "GB/s", "plain", "");
    }
    let asked = |way: &&Way| wanted.iter().all(|word| way.name.contains(word.as_str()));
    for way in WAYS.iter().filter(asked) {
        let seconds = time_of(comm, way, parameters, steps)?;
        let gradient = if way.narrow_gradients { 2.0 } else { 4.0 };
        // An owned parameter: its state, and a gradient of each rank, read twice to clip by the
        // norm. The f32 copy of 16-bit parameters for the computation is written past the caches.
        let twice = way.clip && way.passes == Passes::Fused;
        let gradients = gradient * comm.ranks() as f64 * if twice { 2.0 } else { 1.0 };
        let wide = if way.precision == Precision::F32 { 0.0 } else { 4.0 };
        let owned = way.bytes + gradients + wide;
        let bytes = owned * parameters as f64;
        let plain = plain_bandwidth(comm, parameters)?;
        if comm.rank() == 0 {
            let (ns, speed) = (seconds * 1e9 / parameters as f64, bytes / seconds / 1e9);
            println!(
                "{:<24} {ns:>9.3} {owned:>7.0} {speed:>8.1} {plain:>8.1} {:>5.0}%",
                way.name,
                100.0 * speed / plain
            );
        }
    }
    Ok(())
}

/// The median over steps of the time of the slowest rank.
fn time_of(comm: &Communicator, way: &Way, parameters: usize, steps: usize) -> Result<f64> {
    let tensors = (0..parameters).step_by(TENSOR);
    let tensors: Vec<Parameter> = tensors
        .map(|start| Parameter::new(format!("tensor.{start}"), &[TENSOR.min(parameters - start)]))
        .collect();
    let options = Options {
        precision: way.precision,
        narrow_gradients: way.narrow_gradients,
        passes: way.passes,
        // The step alone is measured: all gradients are there when it begins.
        overlap: false,
        ..Options::default()
    };
    let rule = Rule::default();
    let mut optimizer = DistributedOptimizer::new(comm, tensors, comm.ranks(), options)?;
    let count = optimizer.parameters().len();
    let mut times = Vec::new();
    for step in 0..steps + 2 {
        let (_, gradients) = optimizer.split();
        for tensor in (0..count).rev() {
            let values = gradients.gradient(tensor).iter_mut().enumerate();
            values.for_each(|(i, g)| *g = ((i * 7 + step) % 13) as f32 / 13.0 - 0.5);
            gradients.ready(tensor)?;
        }
        optimizer.end_micro_batch()?;
        let scalars = vec![rule.scalars(step as u64 + 1, 1e-3, 1.0); count];
        let (factor, clip) = (1.0 / comm.ranks() as f64, way.clip.then_some(1.0));
        comm.barrier()?;
        let start = Instant::now();
        let report = optimizer.step(&StepInput { scalars: &scalars, factor, clip })?;
        optimizer.synchronise()?;
        comm.barrier()?;
        times.push(start.elapsed().as_secs_f64());
        assert!(report.stepped, "step {step}: {report:?}");
    }
    times.drain(..2);
    median_of_slowest(comm, &times)
}

/// The median over repetitions of the time of the slowest rank.
fn median_of_slowest(comm: &Communicator, times: &[f64]) -> Result<f64> {
    let mut slowest = comm.all_reduce_vec(times, Op::Max)?;
    slowest.sort_by(f64::total_cmp);
    Ok(slowest[slowest.len() / 2])
}

/// Bandwidth in GB/s of all ranks together, each with a loop that does next to nothing to what the
/// step of one pass moves, in the same kind of memory: of each owned parameter, a gradient of every
/// rank is read where that rank wrote it, the parameter that the node shares is changed in place,
/// and so are two arrays of the rank itself.
fn plain_bandwidth(comm: &Communicator, parameters: usize) -> Result<f64> {
    let ranks = comm.ranks();
    let mut p = comm.in_place_vector::<f32>(&Sharding::even(parameters, ranks))?;
    let mut all = comm.in_place_vector::<f32>(&Sharding::even(parameters * ranks, ranks))?;
    all.open()?;
    all.own_mut().fill(0.5);
    all.close()?;
    let own = Sharding::even(parameters, ranks).range(comm.rank());
    let (mut m, mut v) = (vec![1f32; own.len()], vec![2f32; own.len()]);
    let mut times = Vec::new();
    p.open()?;
    for _ in 0..PLAIN_LOOPS {
        comm.barrier()?;
        let start = Instant::now();
        let (p, gradients) = (p.own_mut(), black_box(all.whole()));
        let of = |rank: usize| &gradients[rank * parameters..][own.clone()];
        vectorised(
            #[inline(always)]
            || match ranks {
                1 => plain_loop([of(0)], p, &mut m, &mut v),
                2 => plain_loop([of(0), of(1)], p, &mut m, &mut v),
                _ => plain_loop([of(0), of(1), of(2), of(ranks - 1)], p, &mut m, &mut v),
            },
        );
        comm.barrier()?;
        times.push(start.elapsed().as_secs_f64());
        black_box((p, &mut m, &mut v));
    }
    let seconds = median_of_slowest(comm, &times)?;
    Ok((24 + 4 * ranks.min(4)) as f64 * parameters as f64 / seconds / 1e9)
}

#[inline(always)]
fn plain_loop<const K: usize>(g: [&[f32]; K], p: &mut [f32], m: &mut [f32], v: &mut [f32]) {
    let n = p.len();
    let (g, m, v) = (g.map(|g| &g[..n]), &mut m[..n], &mut v[..n]);
    for i in 0..n {
        let sum = g.iter().fold(0.0, |sum, g| sum + g[i]);
        (p[i], m[i], v[i]) = (p[i] + sum, m[i] + sum, v[i] + sum);
    }
}
