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
//! [`SUM_LIMBS`] integers. Own contributions lie in shared memory, where the peers of the node
//! read them during the all-gather; each rank gathers a copy of the whole `c`.
//!
//! # The same bits on any number of ranks and threads
//! A row is summed by one rank in the canonical order of its sources, in four fixed lanes. The
//! residual and the dangling mass are sums over all nodes: blocks of 16 nodes are added up in order
//! (cuts between ranks and threads never split one), and the block sums are added exactly.
//!
//! # Memory traffic of an iteration
//! An edge costs 4 bytes of `sources`, streamed, and 8 bytes of `c`, gathered at random (12 and 8
//! with weights); a node costs 56 bytes, streamed (bounds, scale, x and c, the last two written as
//! well). At 16 edges a node that is 7.5 bytes an edge plus the gather, which decides: about 0.5 ns
//! an edge while `c` fits the last-level cache, several times that beyond.
//!
//! # Reading the result: spider traps
//! Nodes with edges among them and none outside are a spider trap: mass that enters leaves by
//! teleports only, and until then goes round, up to 1/(1−α) ≈ 6.7 times at α = 0.85. The top of
//! the dependency graph of Debian 12 is one: nearly everything depends on `libc6` (the inflow);
//! `libc6` depends on `libgcc-s1` alone and passes on all it has; `libgcc-s1` depends on `libc6`
//! and `gcc-12-base`, half each; `gcc-12-base` depends on nothing. So `libc6` gets α²/2 of its own
//! rank back, 1.57 times what comes from outside; `libgcc-s1` has nearly the rank of `libc6` and
//! `gcc-12-base` nearly half, though few packages name them: they stand behind `libc6`.

use std::ops::Range;

use rayon::prelude::*;

use super::partition::{GRAIN, Partition};
use super::rows::Rows;
use crate::communicator::Communicator;
use crate::element::Op;
use crate::error::{Error, ErrorKind, Result};
use crate::reduce::exact::{ExactSum, LIMBS};
use crate::sharding::Sharding;

/// What is all-reduced in each iteration: two exact sums.
pub const SUM_LIMBS: usize = 2 * LIMBS;

/// The parameters of a run, with the defaults of networkx.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PageRankOptions {
    /// The share of a rank that follows the edges; in [0, 1).
    pub alpha: f64,
    /// Stop when the L1 change of a step is below this times the number of nodes; above 0.
    pub tolerance: f64,
    /// Fail after this many steps; at least 1.
    pub max_iterations: usize,
}

impl Default for PageRankOptions {
    fn default() -> Self {
        PageRankOptions { alpha: 0.85, tolerance: 1e-6, max_iterations: 100 }
    }
}

impl PageRankOptions {
    /// Refuses parameters for which the iteration has no meaning.
    pub fn validate(&self) -> Result<()> {
        if !(0.0..1.0).contains(&self.alpha) {
            return Err(Error::input(format!("alpha = {}: allowed is 0 <= alpha < 1", self.alpha)));
        }
        if !(self.tolerance > 0.0 && self.tolerance.is_finite()) {
            return Err(Error::input(format!(
                "tolerance = {}: allowed is a finite number > 0",
                self.tolerance
            )));
        }
        if self.max_iterations == 0 {
            return Err(Error::input("max-iterations = 0: allowed is 1 or more"));
        }
        Ok(())
    }
}

/// The ranks of the nodes that a rank owns, and how they came about. Always converged: anything
/// else is an error.
#[derive(Clone, PartialEq, Debug)]
pub struct PageRankResult {
    /// The rank of each own node, in node order.
    pub ranks: Vec<f64>,
    /// How many steps were made.
    pub iterations: usize,
    /// The L1 change of the last step, the same on every rank.
    pub residual: f64,
}

/// Ranks the nodes of a partitioned graph. Collective.
pub fn pagerank(
    comm: &Communicator,
    graph: &Partition,
    options: &PageRankOptions,
) -> Result<PageRankResult> {
    comm.agree(options.validate())?;
    let n = graph.sharding.n();
    if n == 0 {
        return Ok(PageRankResult { ranks: vec![], iterations: 0, residual: 0.0 });
    }
    let mut state = State::new(graph, options.alpha);
    // Peers read the own contributions where they are; shared buffers have one size on all ranks.
    let own = 0..graph.sharding.count(comm.rank());
    let mut own_contributions = comm.shared::<f64>(graph.sharding.max_count())?;
    let mut contributions = comm.shared::<f64>(n)?;
    let gather = comm.prepare_all_gather::<f64>(&graph.sharding)?;
    state.contribute(&mut own_contributions.as_mut_slice()[own.clone()]);
    let mut dangling = reduce(comm, [&state.dangling(), &ExactSum::new()])?[0];
    let limit = n as f64 * options.tolerance;
    let mut residual = f64::INFINITY;
    for iteration in 1..=options.max_iterations {
        gather.run(own_contributions.part(own.clone()), &mut contributions)?;
        let next = &mut own_contributions.as_mut_slice()[own.clone()];
        let sums = state.step(&graph.rows, contributions.as_slice(), dangling, next);
        [dangling, residual] = reduce(comm, [&sums.dangling, &sums.residual])?;
        if residual < limit {
            let ranks = state.x;
            return Ok(PageRankResult { ranks, iterations: iteration, residual });
        }
    }
    let error = Error::new(
        ErrorKind::Failed,
        format!(
            "pagerank did not converge within {} iterations: the last step changed the ranks by \
             {residual:e}, and it takes less than {limit:e} ({n} nodes times the tolerance {:e}) \
             to stop; allow more iterations or a larger tolerance",
            options.max_iterations, options.tolerance
        ),
    );
    // The residual has the same bits everywhere, and so has the error.
    Err(Error { agreed: true, ..error })
}

/// The values of two exact sums over all ranks.
fn reduce(comm: &Communicator, sums: [&ExactSum; 2]) -> Result<[f64; 2]> {
    let limbs = comm.all_reduce_vec(&[sums[0].limbs(), sums[1].limbs()].concat(), Op::Sum)?;
    let value = |part: &[i64]| ExactSum::from_limbs(part).value();
    Ok([value(&limbs[..LIMBS]), value(&limbs[LIMBS..])])
}

/// The own part of the iteration.
struct State {
    /// The rank of each own node.
    x: Vec<f64>,
    /// α/W of each own node, 0 for dangling ones.
    scale: Vec<f64>,
    /// The own nodes cut into tasks; positions relative to the first own node.
    tasks: Sharding,
    alpha: f64,
    /// 1/n, the teleport distribution.
    p: f64,
}

/// Sums over the own nodes after a step.
struct StepSums {
    dangling: ExactSum,
    residual: ExactSum,
}

/// The slices of the own nodes that a task works on.
struct Task<'s> {
    rows: Range<usize>,
    x: &'s mut [f64],
    contributions: &'s mut [f64],
    scale: &'s [f64],
}

impl State {
    fn new(graph: &Partition, alpha: f64) -> Self {
        let p = 1.0 / graph.sharding.n() as f64;
        let scale: Vec<f64> =
            graph.out_weights.iter().map(|&w| if w == 0.0 { 0.0 } else { alpha / w }).collect();
        let x = vec![p; scale.len()];
        State { x, scale, tasks: tasks(&graph.rows), alpha, p }
    }

    /// The rank of the own dangling nodes.
    fn dangling(&self) -> ExactSum {
        let mut sum = ExactSum::new();
        for (x, scale) in self.x.chunks(GRAIN).zip(self.scale.chunks(GRAIN)) {
            sum.add(x.iter().zip(scale).map(|(x, &s)| if s == 0.0 { *x } else { 0.0 }).sum());
        }
        sum
    }

    /// Computes what flows along each unit of weight out of each own node, x·scale.
    fn contribute(&self, own: &mut [f64]) {
        for ((own, x), scale) in own.iter_mut().zip(&self.x).zip(&self.scale) {
            *own = x * scale;
        }
    }

    /// One step: from the `contributions` of all nodes and the `dangling` mass before it, the
    /// ranks after it and the own contributions to the `next` step.
    fn step(
        &mut self,
        rows: &Rows,
        contributions: &[f64],
        dangling: f64,
        next: &mut [f64],
    ) -> StepSums {
        let base = self.alpha * dangling * self.p + (1.0 - self.alpha) * self.p;
        let mut work = Vec::with_capacity(self.tasks.ranks());
        let (mut x, mut c) = (&mut self.x[..], next);
        for task in 0..self.tasks.ranks() {
            let range = self.tasks.range(task);
            let (own_x, own_c);
            (own_x, x) = x.split_at_mut(range.len());
            (own_c, c) = c.split_at_mut(range.len());
            let scale = &self.scale[range.clone()];
            work.push(Task { rows: range, x: own_x, contributions: own_c, scale });
        }
        let empty = || StepSums { dangling: ExactSum::new(), residual: ExactSum::new() };
        work.into_par_iter().map(|task| step_task(rows, contributions, base, task)).reduce(
            empty,
            |mut a, b| {
                a.dangling.merge(&b.dangling);
                a.residual.merge(&b.residual);
                a
            },
        )
    }
}

/// The step for the rows of a task: everything that is streamed is touched once.
fn step_task(rows: &Rows, contributions: &[f64], base: f64, task: Task<'_>) -> StepSums {
    let mut sums = StepSums { dangling: ExactSum::new(), residual: ExactSum::new() };
    let offsets = &rows.offsets[task.rows.start..=task.rows.end];
    for start in (0..task.x.len()).step_by(GRAIN) {
        let (mut dangling, mut residual) = (0.0, 0.0);
        for i in start..(start + GRAIN).min(task.x.len()) {
            let row = offsets[i]..offsets[i + 1];
            let sources = &rows.sources[row.clone()];
            let sum = if rows.weights.is_empty() {
                row_sum(sources, contributions)
            } else {
                weighted_row_sum(sources, &rows.weights[row], contributions)
            };
            let new = sum + base;
            residual += (new - task.x[i]).abs();
            if task.scale[i] == 0.0 {
                dangling += new;
            }
            task.x[i] = new;
            task.contributions[i] = new * task.scale[i];
        }
        sums.dangling.add(dangling);
        sums.residual.add(residual);
    }
    sums
}

/// The sum of `c[source]` in four lanes, which keeps four gathers in flight.
#[inline]
fn row_sum(sources: &[u32], c: &[f64]) -> f64 {
    let (quads, rest) = sources.as_chunks::<4>();
    let mut lanes = [0.0; 4];
    for quad in quads {
        for (lane, &source) in lanes.iter_mut().zip(quad) {
            *lane += c[source as usize];
        }
    }
    for (lane, &source) in lanes.iter_mut().zip(rest) {
        *lane += c[source as usize];
    }
    (lanes[0] + lanes[1]) + (lanes[2] + lanes[3])
}

/// The sum of `weight · c[source]`, in the lanes of [`row_sum`].
#[inline]
fn weighted_row_sum(sources: &[u32], weights: &[f64], c: &[f64]) -> f64 {
    let mut lanes = [0.0; 4];
    for (sources, weights) in sources.chunks(4).zip(weights.chunks(4)) {
        for ((lane, &source), &weight) in lanes.iter_mut().zip(sources).zip(weights) {
            *lane += weight * c[source as usize];
        }
    }
    (lanes[0] + lanes[1]) + (lanes[2] + lanes[3])
}

/// Cuts rows into tasks of about 2¹⁶ edges, at multiples of the grain.
fn tasks(rows: &Rows) -> Sharding {
    let prefix: Vec<u64> =
        rows.offsets.iter().enumerate().map(|(i, &o)| (o + 4 * i) as u64).collect();
    let cost = prefix.last().copied().unwrap_or(0);
    Sharding::balanced(&prefix, (cost >> 16) as usize + 1, GRAIN)
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
