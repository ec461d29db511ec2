//! HITS: hubs and authorities (Kleinberg 1999), with the semantics of `networkx.hits` by power
//! iteration.
//!
//! # Equation
//! ```text
//! aᵥ = Σ_{u→v} w(u,v)·hᵤ      hᵤ = Σ_{u→v} w(u,v)·aᵥ      both ÷ their maximum      h⁰ = 1/n
//! ```
//! Iteration stops when `Σ|h'ᵤ − hᵤ| < tolerance`, strictly; then both are scaled to add up to 1.
//! networkx itself takes the singular vectors of a sparse solver by default; its `_hits_python` is
//! this iteration. Where the largest singular value is not single (such as in two equal components)
//! the limit depends on the start, and so do results of different programs.
//!
//! # Distribution
//! The owner of a node adds up its in-edges for its authority and its out-edges for its hub: two
//! gathers an edge and two all-gathers a step, of all values or of those that are read (`scheme`;
//! one dimension only, since every node's edges are summed both ways). A row is summed in its
//! canonical order by one rank, maxima know no order, and sums over nodes are exact sums of blocks:
//! the same bits on any number of ranks and threads. Memory: the edges twice, 8 to 24 bytes an
//! edge, and 48 bytes a node.

use std::path::PathBuf;
use std::time::Instant;

use rayon::prelude::*;
use serde::Serialize;

use super::convert::GraphInput;
use super::cost::{self, PartitionReport, Sizes};
use super::exchange::{Values, sources};
use super::frame::{Frame, Seconds};
use super::open::Graph;
use super::output::{self, OwnRanks, TopNode};
use super::pagerank::not_converged;
use super::partition::{GRAIN, Partition, out_rows};
use super::progress;
use super::rows::Rows;
use super::scheme::{Partitioning, Scheme};
use super::step::gather_rows;
use super::traffic::Traffic;
use crate::communicator::{Communicator, Resend};
use crate::element::Op;
use crate::error::{Error, Result};
use crate::measure::memory::peak_rss_bytes;
use crate::reduce::exact::{ExactSum, LIMBS};
use crate::reduce::gather::{Double, GatherRows, LANES};

/// What to score, how, and where the result goes.
#[derive(Clone, PartialEq, Debug)]
pub struct HitsJob {
    /// The graph.
    pub input: GraphInput,
    /// The change of a step below which iteration stops; above 0.
    pub tolerance: f64,
    /// Give up after this many steps; at least 1.
    pub max_iterations: usize,
    /// How values move; no grid.
    pub partition: Partitioning,
    /// Where the scores of all nodes go; `.csv`, `.parquet` or `.npy`.
    pub output: Option<PathBuf>,
    /// The length of the lists of the best hubs and authorities.
    pub top: usize,
    /// The command line, for the manifest.
    pub command: String,
}

/// What a run reports, the same on every rank. The field names are the JSON keys.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct HitsSummary {
    /// Nodes of the graph.
    pub vertices: u64,
    /// Directed edges of the graph.
    pub edges: u64,
    /// Steps until convergence.
    pub iterations: usize,
    /// The change of the last step.
    pub residual: f64,
    /// The change of each step.
    pub residuals: Vec<f64>,
    /// Time of the iteration ÷ steps ÷ directed edges; 0 without any.
    pub ns_per_edge: f64,
    /// The phases.
    pub seconds: Seconds,
    /// The largest resident memory of a process of the job.
    pub peak_rss_bytes: u64,
    /// What the vectors of all iterations took between ranks and nodes.
    pub bytes_moved: Traffic,
    /// How edges and values were distributed, and why.
    pub partition: PartitionReport,
    /// The best hubs.
    pub hubs: Vec<TopNode>,
    /// The best authorities.
    pub authorities: Vec<TopNode>,
}

/// The scores of the own nodes.
#[derive(Clone, Default, PartialEq, Debug)]
struct Scores {
    hubs: Vec<f64>,
    authorities: Vec<f64>,
    residuals: Vec<f64>,
    seconds: f64,
    traffic: Traffic,
    partition: PartitionReport,
}

/// Runs a job. Collective.
pub fn run(comm: &Communicator, job: &HitsJob) -> Result<HitsSummary> {
    let input = &job.input;
    let mut frame = Frame::start(comm, &input.graph, job.output.as_deref(), validate(job))?;
    let (graph, ()) = frame.load(input, |_| Ok(()))?;
    let Graph { numbering, partition: graph, .. } = graph;
    let scores = iterate(comm, &graph, job, input.options.weighted)?;
    frame.computed(scores.seconds);
    let own = |ranks| OwnRanks { ranks, sharding: &graph.sharding, order: graph.order.as_ref() };
    let (hubs, authorities) = (own(&scores.hubs), own(&scores.authorities));
    let top = [hubs, authorities].map(|own| output::top(comm, own, &numbering, job.top));
    let [top_hubs, top_authorities] = top;
    let columns = [("hub", hubs), ("authority", authorities)];
    let written = match &job.output {
        Some(path) => output::write(comm, &columns, &numbering, path, false)?,
        None => Vec::new(),
    };
    let seconds = frame.seconds()?;
    let iterations = scores.residuals.len();
    let summary = HitsSummary {
        vertices: numbering.len() as u64,
        edges: graph.edges,
        iterations,
        residual: scores.residuals.last().copied().unwrap_or(0.0),
        residuals: scores.residuals,
        ns_per_edge: seconds.ns_per_edge(iterations, graph.edges),
        seconds,
        peak_rss_bytes: comm.all_reduce_vec(&[peak_rss_bytes()], Op::Max)?[0],
        bytes_moved: scores.traffic,
        partition: scores.partition,
        hubs: top_hubs?,
        authorities: top_authorities?,
    };
    frame.finish(&job.command, &written, &summary)?;
    Ok(summary)
}

fn validate(job: &HitsJob) -> Result<()> {
    if !(job.tolerance > 0.0 && job.tolerance.is_finite()) {
        let what = format!("tolerance = {}: allowed is a finite number > 0", job.tolerance);
        return Err(Error::input(what));
    }
    if job.max_iterations == 0 {
        return Err(Error::input("max-iterations = 0: allowed is 1 or more"));
    }
    if matches!(job.partition, Partitioning::Grid(_) | Partitioning::AnyGrid) {
        return Err(Error::input("hits has no grids; choose partition 1d, 1d-needed or auto"));
    }
    Ok(())
}

fn iterate(
    comm: &Communicator,
    graph: &Partition,
    job: &HitsJob,
    weighted: bool,
) -> Result<Scores> {
    let n = graph.sharding.n();
    if n == 0 {
        return Ok(Scores::default());
    }
    let out = out_rows(comm, &graph.rows, &graph.sharding, weighted)?;
    // Rows are not cut, so `auto` chooses among the partitions of one dimension.
    let sizes = Sizes { wire: 8, sum: 8, grain: GRAIN, cuttable: false };
    let decision = cost::decide(comm, graph, job.partition, sizes, true)?;
    let values = |rows: &Rows| {
        let reads = (decision.scheme == Scheme::Needed).then(|| sources(rows, n));
        Values::<f64>::new(comm, &graph.sharding, reads.as_deref(), Resend::All)
    };
    let [mut all_hubs, mut all_authorities] = [values(&graph.rows)?, values(&out)?];
    let into = comm.agree(gather_rows::<Double>(&graph.rows, n))?;
    let out = comm.agree(gather_rows::<Double>(&out, n))?;
    let (hubs, authorities) = (&mut all_hubs.vector, &mut all_authorities.vector);
    hubs.own_mut().fill(1.0 / n as f64);
    hubs.gather()?;
    let own = graph.sharding.range(comm.rank());
    let mut last = vec![1.0 / n as f64; own.len()];
    let mut residuals = Vec::new();
    let started = Instant::now();
    progress::stage("iterate", None);
    for _ in 0..job.max_iterations {
        sums(&into, hubs.whole(), authorities.own_mut());
        authorities.gather()?;
        let next = hubs.own_mut();
        sums(&out, authorities.whole(), next);
        let own_authorities = &authorities.whole()[own.clone()];
        let mine = [largest(next), largest(own_authorities)];
        let most = comm.all_reduce_vec(&mine, Op::Max)?;
        check_scale(most[0], most[1])?;
        // Multiplied as networkx does, not divided.
        let scale = 1.0 / most[0];
        next.iter_mut().for_each(|hub| *hub *= scale);
        let residual = exact(comm, &distance(next, &last))?;
        last.copy_from_slice(next);
        residuals.push(residual);
        progress::advance(1);
        if residual < job.tolerance {
            let scale = 1.0 / most[1];
            let authorities = own_authorities.iter().map(|a| a * scale).collect();
            let seconds = started.elapsed().as_secs_f64();
            let [a, b] = [&all_hubs, &all_authorities].map(|v| v.own_traffic(residuals.len()));
            let traffic = Traffic::of_parts(comm, std::array::from_fn(|i| a[i] + b[i]))?;
            let partition = decision.report;
            let scores = Scores { hubs: last, authorities, residuals, seconds, traffic, partition };
            return normalised(comm, scores);
        }
        hubs.gather()?;
    }
    let residual = residuals.last().copied().unwrap_or(f64::INFINITY);
    Err(not_converged("hits", job.max_iterations, residual, job.tolerance, n))
}

fn check_scale(hubs: f64, authorities: f64) -> Result<()> {
    if hubs.is_normal() && authorities.is_normal() && (1.0 / hubs).is_normal() {
        return Ok(());
    }
    // The maxima are the same on every rank, and so is the error.
    let error = Error::input(format!(
        "hits: the largest hub is {hubs:e} and the largest authority {authorities:e}; it takes an \
         edge with a weight above 0, and weights within the range of floating-point numbers"
    ));
    Err(Error { agreed: true, ..error })
}

/// The sums of all rows.
fn sums(rows: &GatherRows<Double>, table: &[f64], into: &mut [f64]) {
    into.par_chunks_mut(64 * LANES).enumerate().for_each(|(chunk, into)| {
        let mut block = [0.0; LANES];
        for (i, into) in into.chunks_mut(LANES).enumerate() {
            rows.sums(chunk * 64 + i, table, &mut block);
            into.copy_from_slice(&block[..into.len()]);
        }
    });
}

fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// The L1 distance, by blocks that no border between ranks cuts.
fn distance(a: &[f64], b: &[f64]) -> ExactSum {
    let mut sum = ExactSum::new();
    for (a, b) in a.chunks(GRAIN).zip(b.chunks(GRAIN)) {
        sum.add(a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum());
    }
    sum
}

fn exact(comm: &Communicator, sum: &ExactSum) -> Result<f64> {
    let limbs: Vec<i64> = comm.all_reduce_vec(&sum.limbs(), Op::Sum)?;
    debug_assert_eq!(limbs.len(), LIMBS);
    Ok(ExactSum::from_limbs(&limbs).value())
}

/// Both scaled to add up to 1.
fn normalised(comm: &Communicator, mut scores: Scores) -> Result<Scores> {
    for values in [&mut scores.hubs, &mut scores.authorities] {
        let zeros = vec![0.0; values.len()];
        // No value is below 0, so this is their sum.
        let scale = 1.0 / exact(comm, &distance(values, &zeros))?;
        values.iter_mut().for_each(|value| *value *= scale);
    }
    Ok(scores)
}
