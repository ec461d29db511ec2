//! One step of the iteration for the nodes that a rank owns.
//!
//! The gather of the contributions (`reduce::gather`) is the cost; everything else is streamed and
//! touched once, in blocks of [`GRAIN`] nodes. Blocks never cross a cut between ranks or threads,
//! so the sum over a block has the same bits everywhere, and block sums are added exactly.

use std::ops::Range;

use rayon::prelude::*;

use super::options::{Dangling, Distributions, PageRankOptions};
use super::partition::{GRAIN, Partition};
use super::rows::Rows;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::reduce::blocked::{BlockedRows, Csr};
use crate::reduce::exact::ExactSum;
use crate::reduce::gather::{GatherRows, LANES, Precision, Real};
use crate::sharding::Sharding;

const _: () = assert!(GRAIN == LANES, "a block of sums is a block of the gathers");

/// A distribution over the own nodes.
#[derive(Clone, Debug)]
enum Spread {
    /// The same for all.
    Even(f64),
    /// Of each own node.
    Each(Vec<f64>),
}

impl Spread {
    fn new(values: Option<&Vec<f64>>, graph: &Partition) -> Self {
        let own = graph.rows.range.clone();
        match (values, &graph.order) {
            (None, _) => Spread::Even(1.0 / graph.sharding.n() as f64),
            (Some(values), None) => Spread::Each(values[own].to_vec()),
            (Some(values), Some(order)) => {
                Spread::Each(order.node_at[own].iter().map(|&v| values[v as usize]).collect())
            }
        }
    }

    #[inline]
    fn at(&self, i: usize) -> f64 {
        match self {
            Spread::Even(value) => *value,
            Spread::Each(values) => values[i],
        }
    }
}

/// The own part of the iteration.
#[derive(Debug)]
pub(super) struct State<P: Precision> {
    rows: Layout<P>,
    /// The sums of the own rows, where others compute them.
    outside: Vec<P::Sum>,
    /// The rank of each own node.
    x: Vec<P::Sum>,
    /// α/W of each own node, 0 for dangling ones.
    scale: Vec<P::Sum>,
    /// The own nodes cut into tasks; positions relative to the first own node.
    tasks: Sharding,
    alpha: f64,
    teleport: Spread,
    /// Where the rank of dangling nodes goes; `None` where teleports go.
    dangling: Option<Spread>,
}

/// Sums over the own nodes after a step.
#[derive(Clone, Debug)]
pub(super) struct StepSums {
    /// The rank of dangling nodes.
    pub dangling: ExactSum,
    /// The L1 change.
    pub residual: ExactSum,
    /// The largest change.
    pub largest: f64,
}

impl StepSums {
    fn new() -> Self {
        StepSums { dangling: ExactSum::new(), residual: ExactSum::new(), largest: 0.0 }
    }

    fn merge(mut self, other: Self) -> Self {
        self.dangling.merge(&other.dangling);
        self.residual.merge(&other.residual);
        self.largest = self.largest.max(other.largest);
        self
    }
}

/// The slices of the own nodes that a task works on.
struct Task<'s, P: Precision> {
    nodes: Range<usize>,
    x: &'s mut [P::Sum],
    contributions: &'s mut [P::Wire],
}

impl<P: Precision> State<P> {
    /// The start of the iteration; `given` are normalised. With `outside`, the sums of the own rows
    /// are computed elsewhere, and written to [`State::outside_mut`] before each step.
    pub(super) fn new(
        graph: &Partition,
        options: &PageRankOptions,
        given: &Distributions,
        outside: bool,
    ) -> Result<Self> {
        let rows = match outside {
            true => Layout::Outside(graph.rows.range.len()),
            false => Layout::new(&graph.rows, graph.sharding.n())?,
        };
        let start = Spread::new(given.start.as_ref(), graph);
        let scale = scale::<P>(graph, options.alpha)?;
        let dangling = match options.dangling {
            Dangling::Follow => None,
            Dangling::Ignore => Some(Spread::Even(0.0)),
            Dangling::Uniform => Some(Spread::new(None, graph)),
            Dangling::Given => Some(Spread::new(given.dangling.as_ref(), graph)),
        };
        Ok(State {
            x: (0..scale.len()).map(|i| P::Sum::from_f64(start.at(i))).collect(),
            tasks: rows.tasks(),
            outside: vec![P::Sum::default(); if outside { scale.len() } else { 0 }],
            rows,
            scale,
            alpha: options.alpha,
            teleport: Spread::new(given.personalization.as_ref(), graph),
            dangling,
        })
    }

    /// The ranks of the own nodes.
    pub(super) fn ranks(&self) -> Vec<f64> {
        self.x.iter().map(|x| x.to_f64()).collect()
    }

    /// The ranks of the own nodes as they are, and their factors.
    pub(super) fn own(&self) -> (&[P::Sum], &[P::Sum]) {
        (&self.x, &self.scale)
    }

    /// Where the sums of the own rows go, if they come from outside.
    pub(super) fn outside_mut(&mut self) -> &mut [P::Sum] {
        &mut self.outside
    }

    /// The rank of the own dangling nodes.
    pub(super) fn dangling(&self) -> ExactSum {
        let mut sum = ExactSum::new();
        let is_dangling = |s: &P::Sum| *s == P::Sum::default();
        for (x, scale) in self.x.chunks(GRAIN).zip(self.scale.chunks(GRAIN)) {
            let x = x.iter().zip(scale);
            sum.add(x.map(|(x, s)| if is_dangling(s) { x.to_f64() } else { 0.0 }).sum());
        }
        sum
    }

    /// Computes what flows along each unit of weight out of each own node, x·scale.
    pub(super) fn contribute(&self, own: &mut [P::Wire]) {
        for ((own, &x), &scale) in own.iter_mut().zip(&self.x).zip(&self.scale) {
            *own = P::narrow(x * scale);
        }
    }

    /// One step: from the `contributions` of all nodes and the `dangling` mass before it, the
    /// ranks after it and the own contributions to the `next` step.
    pub(super) fn step(
        &mut self,
        contributions: &[P::Wire],
        dangling: f64,
        next: &mut [P::Wire],
    ) -> StepSums {
        let mut work = Vec::with_capacity(self.tasks.ranks());
        let mut all = std::mem::take(&mut self.x);
        let (mut x, mut c) = (&mut all[..], next);
        for task in 0..self.tasks.ranks() {
            let nodes = self.tasks.range(task);
            let (own_x, own_c);
            (own_x, x) = x.split_at_mut(nodes.len());
            (own_c, c) = c.split_at_mut(nodes.len());
            work.push(Task { nodes, x: own_x, contributions: own_c });
        }
        let sums = work
            .into_par_iter()
            .map(|task| self.run(contributions, dangling, task))
            .reduce(StepSums::new, StepSums::merge);
        self.x = all;
        sums
    }

    /// What the nodes from `at` on get beside the contributions of their sources.
    #[inline]
    fn base(&self, at: usize, count: usize, dangling: f64) -> [P::Sum; LANES] {
        let value = |i: usize| {
            let p = self.teleport.at(i);
            let d = self.dangling.as_ref().map_or(p, |spread| spread.at(i));
            P::Sum::from_f64(self.alpha * dangling * d + (1.0 - self.alpha) * p)
        };
        if matches!(self.teleport, Spread::Even(_))
            && matches!(self.dangling, None | Some(Spread::Even(_)))
        {
            return [value(at); LANES];
        }
        std::array::from_fn(|i| if i < count { value(at + i) } else { P::Sum::default() })
    }

    /// The step for the nodes of a task.
    fn run(&self, contributions: &[P::Wire], dangling: f64, task: Task<'_, P>) -> StepSums {
        let mut sums = StepSums::new();
        let mut row_sums = [P::Sum::default(); LANES];
        let first = task.nodes.start;
        let mut all_sums = Vec::new();
        if let Layout::Blocked(rows) = &self.rows {
            let height = rows.height();
            all_sums.resize(task.nodes.len(), P::Sum::default());
            let windows = first / height..task.nodes.end.div_ceil(height);
            rows.sums(windows, contributions, &mut all_sums);
        }
        let blocks = task.x.chunks_mut(GRAIN).zip(task.contributions.chunks_mut(GRAIN));
        for (i, (x, next)) in blocks.enumerate() {
            let at = first + i * GRAIN;
            let base = self.base(at, x.len(), dangling);
            let scale = &self.scale[at..at + x.len()];
            match &self.rows {
                Layout::Whole(rows) => rows.sums(at / GRAIN, contributions, &mut row_sums),
                Layout::Blocked(_) => {
                    row_sums[..x.len()].copy_from_slice(&all_sums[i * GRAIN..][..x.len()]);
                }
                Layout::Outside(_) => {
                    row_sums[..x.len()].copy_from_slice(&self.outside[at..][..x.len()]);
                }
            }
            let (mut dangling, mut residual) = (0.0, 0.0);
            for i in 0..x.len() {
                let new = row_sums[i] + base[i];
                let change = (new - x[i]).to_f64().abs();
                residual += change;
                sums.largest = sums.largest.max(change);
                dangling += if scale[i] == P::Sum::default() { new.to_f64() } else { 0.0 };
                x[i] = new;
                next[i] = P::narrow(new * scale[i]);
            }
            if dangling != 0.0 {
                sums.dangling.add(dangling);
            }
            sums.residual.add(residual);
        }
        sums
    }
}

/// α/W of each own node, 0 for dangling ones.
pub(super) fn scale<P: Precision>(graph: &Partition, alpha: f64) -> Result<Vec<P::Sum>> {
    let factor = |&w: &f64| P::Sum::from_f64(if w == 0.0 { 0.0 } else { alpha / w });
    let scale: Vec<P::Sum> = graph.out_weights.iter().map(factor).collect();
    // A factor that vanishes would turn a node into a dangling one.
    let lost = |(s, w): (&P::Sum, &f64)| {
        let s = s.to_f64();
        *w != 0.0 && alpha > 0.0 && !(s > 0.0 && s.is_finite())
    };
    let infinite = |w: &f64| !P::Sum::from_f64(*w).to_f64().is_finite();
    if scale.iter().zip(&graph.out_weights).any(lost) || graph.rows.weights.iter().any(infinite) {
        return Err(Error::input(
            "a weight is beyond the range of 32-bit numbers; scale all weights, or use 64 bits",
        ));
    }
    Ok(scale)
}

/// The incoming edges, laid out for the sums over them.
#[derive(Debug)]
enum Layout<P: Precision> {
    /// Row after row: the contributions of all nodes fit in the caches.
    Whole(GatherRows<P>),
    /// By blocks of sources: they do not.
    Blocked(BlockedRows<P>),
    /// Not here: so many rows are summed elsewhere (see `grid`).
    Outside(usize),
}

impl<P: Precision> Layout<P> {
    fn new(rows: &Rows, n: usize) -> Result<Self> {
        // The number of nodes decides, so all ranks take the same way, with the same bits.
        if !BlockedRows::<P>::pays(n) {
            return gather_rows(rows, n).map(Layout::Whole);
        }
        let Rows { offsets, sources, weights, .. } = rows;
        let built = BlockedRows::build(n, Csr { offsets, sources, weights });
        built.map(Layout::Blocked).map_err(|_| leaves())
    }

    /// Cuts the own nodes into tasks: whole blocks of gathers, or, since every task walks through
    /// all blocks of sources, as few windows as keep the threads busy.
    fn tasks(&self) -> Sharding {
        match self {
            Layout::Whole(rows) => tasks(rows),
            Layout::Outside(rows) => {
                let prefix: Vec<u64> = (0..=rows.div_ceil(GRAIN) as u64).collect();
                cut(&prefix, rows / (1 << 14) + 1, GRAIN, *rows)
            }
            Layout::Blocked(rows) => {
                let threads = rayon::current_num_threads();
                let many = if threads == 1 { 1 } else { 3 * threads };
                let many = many.clamp(1, rows.windows().max(1));
                cut(&rows.prefix(), many, rows.height(), rows.rows())
            }
        }
    }
}

fn leaves() -> Error {
    Error::internal("an edge leaves the nodes of the graph")
}

/// The incoming edges in the layout of the gathers.
pub(super) fn gather_rows<P: Precision>(rows: &Rows, n: usize) -> Result<GatherRows<P>> {
    let lengths: Vec<u32> = rows.offsets.windows(2).map(|row| (row[1] - row[0]) as u32).collect();
    let weighted = !rows.weights.is_empty();
    let built = GatherRows::build(n, &lengths, weighted, |row, sources, weights| {
        let row = rows.offsets[row]..rows.offsets[row + 1];
        sources.extend_from_slice(&rows.sources[row.clone()]);
        if weighted {
            weights.extend_from_slice(&rows.weights[row]);
        }
    });
    built.map_err(|_| leaves())
}

/// Cuts rows into tasks of about 2¹⁶ edges, at multiples of the grain.
pub(super) fn tasks<P: Precision>(rows: &GatherRows<P>) -> Sharding {
    let prefix: Vec<u64> =
        rows.prefix().into_iter().zip(0..).map(|(at, block)| at + 64 * block).collect();
    let cost = prefix.last().copied().unwrap_or(0);
    cut(&prefix, (cost >> 16) as usize + 1, GRAIN, rows.rows())
}

/// Cuts `rows` into tasks of equal costs, at multiples of `grain` of them.
fn cut(prefix: &[u64], tasks: usize, grain: usize, rows: usize) -> Sharding {
    let cuts = Sharding::balanced(prefix, tasks, 1);
    let ends = (0..cuts.ranks()).map(|task| (cuts.range(task).end * grain).min(rows));
    let counts: Vec<usize> =
        ends.scan(0, |start, end| Some(end - std::mem::replace(start, end))).collect();
    Sharding::from_counts(&counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::rows::{Duplicates, key};
    use crate::reduce::gather::Double;

    #[test]
    fn tasks_are_whole_blocks() {
        let keys: Vec<u64> = (0..300_000u32).map(|i| key(i % 777, i * 7919 % 5003)).collect();
        let rows = Rows::build(0..5003, &keys, &[], Duplicates::Sum);
        let tasks = Layout::<Double>::new(&rows, 5003).unwrap().tasks();
        assert_eq!((tasks.n(), tasks.ranks()), (5003, 5));
        for task in 0..5 {
            assert_eq!(tasks.range(task).start % GRAIN, 0);
            assert!(tasks.count(task) > 900);
        }
    }
}
