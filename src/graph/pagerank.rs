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
//! [`SUM_LIMBS`] integers. `c` exists once a node (`SharedVector`): there the all-gather is a meet.
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
    /// What the contributions cost.
    pub traffic: Traffic,
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
        return Ok(PageRankResult::default());
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
    let mut state = comm.agree(State::<P>::new(graph, options, given))?;
    let mut contributions = comm.shared_vector::<P::Wire>(&graph.sharding)?;
    state.contribute(contributions.own_mut());
    contributions.gather()?;
    let mut dangling = reduce(comm, [&state.dangling(), &ExactSum::new()])?[0];
    let limit = options.limit(n);
    let started = Instant::now();
    let (mut residual, mut residuals) = (f64::INFINITY, Vec::new());
    let traffic =
        |gathers: usize| Traffic::of_gathers(comm, &graph.sharding, size_of::<P::Wire>(), gathers);
    progress::stage("iterate", None);
    for iteration in 1..=options.max_iterations {
        let (whole, next) = contributions.split();
        let sums = state.step(whole, dangling, next);
        [dangling, residual] = reduce(comm, [&sums.dangling, &sums.residual])?;
        if options.stop == Stop::Max {
            residual = comm.all_reduce_vec(&[sums.largest], Op::Max)?[0];
        }
        residuals.push(residual);
        progress::advance(1);
        if residual < limit {
            let (ranks, seconds) = (state.ranks(), started.elapsed().as_secs_f64());
            return Ok(PageRankResult {
                ranks,
                iterations: iteration,
                residual,
                residuals,
                traffic: traffic(iteration),
                seconds,
                failure: None,
            });
        }
        contributions.gather()?;
    }
    let failure = Some(not_converged("pagerank", options.max_iterations, residual, limit, n));
    Ok(PageRankResult {
        ranks: state.ranks(),
        iterations: options.max_iterations,
        residual,
        residuals,
        traffic: traffic(options.max_iterations + 1),
        seconds: started.elapsed().as_secs_f64(),
        failure,
    })
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

/// The values of two exact sums over all ranks.
fn reduce(comm: &Communicator, sums: [&ExactSum; 2]) -> Result<[f64; 2]> {
    let limbs = comm.all_reduce_vec(&[sums[0].limbs(), sums[1].limbs()].concat(), Op::Sum)?;
    let value = |part: &[i64]| ExactSum::from_limbs(part).value();
    Ok([value(&limbs[..LIMBS]), value(&limbs[LIMBS..])])
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
