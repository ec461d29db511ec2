//! PageRank with the semantics of `networkx.pagerank` (its SciPy version).
//!
//! # Equation
//! ```text
//! x'ᵥ = α·( Σ_{u→v} xᵤ·w(u,v)/W(u)  +  D·pᵥ )  +  (1−α)·pᵥ
//! W(u) = Σ_v w(u,v)      D = Σ xᵤ over the dangling u, those with W(u) = 0      pᵥ = x⁰ᵥ = 1/n
//! ```
//! Dangling mass goes where teleports go, so the ranks always sum to 1. Self-loops are ordinary
//! edges. Repeated edges add their weights (see `rows::Duplicates`). Iteration stops as soon as
//! `Σ|x'ᵥ − xᵥ| < n·tolerance`, strictly, and gives `x'`; after `max_iterations` steps without
//! that, the run fails and says how far it came. Mind the factor n, kept for compatibility: two
//! distributions are never further apart than 2, so with the default tolerance of 10⁻⁶ a graph of
//! two million nodes stops after one step.
//!
//! # Why pull
//! The owner of v adds up the contributions `cᵤ = xᵤ·α/W(u)` of its in-neighbours: one writer a
//! node, no atomics, and the all-gather of `c` is the only traffic of an iteration besides
//! [`SUM_LIMBS`] integers. `c` exists once a host (`SharedVector`): there the all-gather is a meet.
//! Between hosts the values that are read can move alone, or ranks can share rows (`scheme`).
//!
//! # The same bits on any number of ranks and threads
//! A row is summed by one rank, in an order that follows from the graph alone (`order`,
//! `reduce::gather`). The residual and the dangling mass are sums over all nodes: see `step`.
//!
//! # Memory traffic of an iteration
//! An edge costs 4 bytes of indices, streamed, and one gathered element of `c`; a node costs four
//! elements, streamed (rank read and written, scale read, contribution written). At 16 edges a node
//! that is 5 to 6 bytes an edge plus the gather, which decides; see `reduce::gather`.
//!
//! # Reading the result: spider traps
//! Nodes with edges among them and none outside are a spider trap: mass that enters leaves by
//! teleports only, and until then goes round, up to 1/(1−α) ≈ 6.7 times at α = 0.85. The top of
//! the dependency graph of Debian 12 is one: nearly everything depends on `libc6` (the inflow);
//! `libc6` depends on `libgcc-s1` alone and passes on all it has; `libgcc-s1` depends on `libc6`
//! and `gcc-12-base`, half each; `gcc-12-base` depends on nothing. So `libc6` gets α²/2 of its own
//! rank back, 1.57 times what comes from outside; `libgcc-s1` has nearly the rank of `libc6` and
//! `gcc-12-base` nearly half, though few packages name them: they stand behind `libc6`.

use std::time::Instant;

use super::cost::PartitionReport;
use super::delta::Withheld;
use super::exchange::Exchange;
use super::options::{Distributions, Number, PageRankOptions, Scale, Stop};
use super::partition::Partition;
use super::progress;
use super::step::State;
use super::traffic::Traffic;
use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::{Error, ErrorKind, Result};
use crate::reduce::exact::{ExactSum, LIMBS};
use crate::reduce::gather::{Double, Mixed, Precision, Single};

/// What is all-reduced in each iteration: two exact sums.
pub const SUM_LIMBS: usize = 2 * LIMBS;

/// The ranks of the nodes that a rank owns, and how they came about.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct PageRankResult {
    /// The rank of each own node, by place.
    pub ranks: Vec<f64>,
    /// How many steps were made.
    pub iterations: usize,
    /// The change of the last step, the same on every rank: the largest with [`Stop::Max`], else
    /// the sum of all.
    pub residual: f64,
    /// The change of each step; the last is `residual`.
    pub residuals: Vec<f64>,
    /// Σ|xᵤ − x̃ᵤ| at the start of the last step, where readers did not know the last changes of
    /// some nodes (see `delta`); 0 without it.
    pub withheld: f64,
    /// What the contributions cost.
    pub traffic: Traffic,
    /// How edges and values were distributed.
    pub partition: PartitionReport,
    /// The time of the steps on this rank, without laying out the rows before them.
    pub seconds: f64,
    /// Why the ranks are not what was asked for, if they are not; the same on every rank.
    pub failure: Option<Error>,
}

/// Ranks the nodes of a partitioned graph. Collective.
pub fn pagerank(
    comm: &Communicator,
    graph: &Partition,
    options: &PageRankOptions,
    given: Distributions,
) -> Result<PageRankResult> {
    comm.agree(options.validate())?;
    let n = graph.sharding.n();
    if n == 0 {
        let (chosen, reason) = ("1d".to_string(), "no nodes".to_string());
        let partition = PartitionReport { chosen, reason, ..PartitionReport::default() };
        return Ok(PageRankResult { partition, ..PageRankResult::default() });
    }
    let given = comm.agree(given.normalised(n))?;
    let mut result = match options.number {
        Number::F64 => iterate::<Double>(comm, graph, options, &given)?,
        Number::F32 => iterate::<Single>(comm, graph, options, &given)?,
        Number::Mixed => iterate::<Mixed>(comm, graph, options, &given)?,
    };
    if options.scale == Scale::Nodes {
        result.ranks.iter_mut().for_each(|rank| *rank *= n as f64);
    }
    Ok(result)
}

fn iterate<P: Precision>(
    comm: &Communicator,
    graph: &Partition,
    options: &PageRankOptions,
    given: &Distributions,
) -> Result<PageRankResult> {
    let n = graph.sharding.n();
    let mut exchange = Exchange::<P>::new(comm, graph, options)?;
    let outside = exchange.tile.is_some();
    let mut state = comm.agree(State::<P>::new(graph, options, given, outside))?;
    state.contribute(exchange.contributions.vector.own_mut());
    exchange.contributions.vector.gather()?;
    let mut dangling = reduce(comm, &[&state.dangling(), &ExactSum::new()])?[0];
    let limit = options.limit(n);
    let threshold = options.delta.map(|fraction| fraction * limit / n as f64);
    let mut kept = threshold.map(|threshold| Withheld::<P>::new(state.own().0, threshold));
    let mut result = PageRankResult { residual: f64::INFINITY, ..PageRankResult::default() };
    let mut unknown = 0.0;
    let started = Instant::now();
    progress::stage("iterate", None);
    for iteration in 1..=options.max_iterations {
        if let Some(tile) = &mut exchange.tile {
            tile.sums(exchange.contributions.vector.whole(), state.outside_mut())?;
        }
        let (whole, next) = exchange.contributions.vector.split();
        let sums = state.step(whole, dangling, next);
        let mut all = vec![&sums.dangling, &sums.residual];
        let withheld = kept.as_mut().map(|kept| kept.withhold(state.own(), next));
        all.extend(&withheld);
        let values = reduce(comm, &all)?;
        (dangling, result.residual) = (values[0], values[1]);
        // What the readers did not know in this step; the next one starts from other values.
        result.withheld = std::mem::replace(&mut unknown, values.get(2).copied().unwrap_or(0.0));
        if options.stop == Stop::Max {
            result.residual = comm.all_reduce_vec(&[sums.largest], Op::Max)?[0];
        }
        result.residuals.push(result.residual);
        result.iterations = iteration;
        progress::advance(1);
        if result.residual + result.withheld < limit {
            return finish(comm, &state, &exchange, result, started, iteration);
        }
        exchange.contributions.vector.gather()?;
    }
    let change = result.residual + result.withheld;
    result.failure = Some(not_converged("pagerank", options.max_iterations, change, limit, n));
    finish(comm, &state, &exchange, result, started, options.max_iterations + 1)
}

/// Adds what is known at the end. Collective.
fn finish<P: Precision>(
    comm: &Communicator,
    state: &State<P>,
    exchange: &Exchange<P>,
    result: PageRankResult,
    started: Instant,
    gathers: usize,
) -> Result<PageRankResult> {
    let (ranks, seconds) = (state.ranks(), started.elapsed().as_secs_f64());
    let traffic = exchange.traffic(comm, gathers, result.iterations)?;
    let partition = exchange.report.clone();
    Ok(PageRankResult { ranks, seconds, traffic, partition, ..result })
}

/// The error of a run whose last step changed too much. The residual has the same bits everywhere,
/// and so has the error.
pub(super) fn not_converged(
    what: &str,
    iterations: usize,
    residual: f64,
    limit: f64,
    n: usize,
) -> Error {
    let error = Error::new(
        ErrorKind::Failed,
        format!(
            "{what} did not converge within {iterations} iterations: the last step changed the \
             ranks by {residual:e}, and it takes less than {limit:e} ({n} nodes) to stop; allow \
             more iterations or a larger tolerance",
        ),
    );
    Error { agreed: true, ..error }
}

/// The values of exact sums over all ranks.
fn reduce(comm: &Communicator, sums: &[&ExactSum]) -> Result<Vec<f64>> {
    let limbs: Vec<i64> = sums.iter().flat_map(|sum| sum.limbs()).collect();
    let limbs = comm.all_reduce_vec(&limbs, Op::Sum)?;
    Ok(limbs.chunks(LIMBS).map(|part| ExactSum::from_limbs(part).value()).collect())
}

/// The L1 distance between `ranks` and one more step from them, computed serially by pushing along
/// `edges` (source, target, weight; repeated edges add up), which shares no code with the kernel.
///
/// A converged result is below α times its residual, up to rounding: a check that costs one step,
/// not a second run.
pub fn check_residual(edges: &[(u32, u32, f64)], ranks: &[f64], alpha: f64) -> f64 {
    let n = ranks.len();
    let mut out_weights = vec![0.0; n];
    edges.iter().for_each(|&(from, _, weight)| out_weights[from as usize] += weight);
    let dangling: f64 =
        ranks.iter().zip(&out_weights).filter(|(_, w)| **w == 0.0).map(|(rank, _)| rank).sum();
    let mut next = vec![(alpha * dangling + 1.0 - alpha) / n as f64; n];
    for &(from, to, weight) in edges.iter().filter(|edge| edge.2 > 0.0) {
        let from = from as usize;
        next[to as usize] += alpha * ranks[from] * weight / out_weights[from];
    }
    next.iter().zip(ranks).map(|(next, rank)| (next - rank).abs()).sum()
}

#[cfg(test)]
#[path = "pagerank_tests.rs"]
mod tests;
