//! Plans inside plans: an inner plan keeps its steps, and its ranks and buffers get new names.
//!
//! A buffer of the inner plan may lie in several places of the outer one, one after another (a
//! [`Place`]); local steps are cut where a place has a seam. Messages are not cut, because the two
//! sides may have different seams: an algorithm whose messages cross one cannot be embedded there.
//! Cost: O(steps log seams).

use super::{Builder, copy};
use crate::plan::{Buffer, Collective, Operand, Plan, Problem, Slice, Step};
use crate::topology::Topology;

/// Where a buffer of an inner plan lies in the outer plan: slices one after another.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// The slices, none of them empty, each with its start in the inner buffer.
    segments: Vec<(usize, Slice)>,
}

impl Place {
    /// The slices one after another.
    pub fn concat(slices: impl IntoIterator<Item = Slice>) -> Self {
        let mut start = 0;
        let mut segments = Vec::new();
        for slice in slices.into_iter().filter(|slice| slice.len > 0) {
            segments.push((start, slice));
            start += slice.len;
        }
        Place { segments }
    }

    /// One slice.
    pub fn at(slice: Slice) -> Self {
        Place::concat([slice])
    }

    /// The longest slice without a seam from inner element `index`, `len` elements at most.
    fn find(&self, index: usize, len: usize) -> Slice {
        let segment = self.segments.partition_point(|(start, _)| *start <= index) - 1;
        let (start, slice) = self.segments[segment];
        slice.part(index - start..(index - start + len).min(slice.len))
    }
}

/// How the names of an inner plan translate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Names<'a> {
    /// The outer rank of each inner rank.
    pub ranks: &'a [usize],
    /// Where the inner input lies, on every rank alike.
    pub input: Place,
    /// Where the inner output lies, on every rank alike.
    pub output: Place,
    /// Where the inner workspace starts in the outer one.
    pub scratch: usize,
    /// Whether a result of the inner plan is final, so that its `last` reductions are so too.
    pub complete: bool,
}

impl Names<'_> {
    /// The outer slice of the inner elements from `done` on, up to the next seam.
    fn find(&self, slice: Slice, done: usize) -> Slice {
        let (index, len) = (slice.start + done, slice.len - done);
        match slice.buffer {
            Buffer::Input => self.input.find(index, len),
            Buffer::Output => self.output.find(index, len),
            Buffer::Scratch => Slice::workspace(self.scratch + index, len),
        }
    }

    fn whole(&self, slice: Slice) -> Slice {
        let found = self.find(slice, 0);
        assert_eq!(found.len, slice.len, "an embedded message crosses a seam at {slice}");
        found
    }

    /// Appends the translation of a step.
    fn translate(&self, step: &Step, steps: &mut Vec<Step>) {
        let rank = |inner: usize| self.ranks[inner];
        let mut done = 0;
        match step {
            Step::Send { to, from } => {
                steps.push(Step::Send { to: rank(*to), from: self.whole(*from) });
            }
            Step::Receive { from, into } => {
                steps.push(Step::Receive { from: rank(*from), into: self.whole(*into) });
            }
            Step::Copy { from, into } => {
                while done < into.len {
                    let [from, into] = cut([self.find(*from, done), self.find(*into, done)]);
                    done += into.len;
                    if from != into {
                        steps.push(copy(from, into));
                    }
                }
            }
            Step::Pull { peer, from, into } => {
                while done < into.len {
                    let [from, into] = cut([self.find(*from, done), self.find(*into, done)]);
                    done += into.len;
                    steps.push(Step::Pull { peer: rank(*peer), from, into });
                }
            }
            Step::Reduce { sources, into, last } => {
                while done < into.len {
                    let mut into = self.find(*into, done);
                    let mut operands: Vec<Operand> = sources
                        .iter()
                        .map(|o| Operand { rank: rank(o.rank), slice: self.find(o.slice, done) })
                        .collect();
                    into.len = operands.iter().map(|o| o.slice.len).fold(into.len, usize::min);
                    operands.iter_mut().for_each(|o| o.slice.len = into.len);
                    done += into.len;
                    let last = *last && self.complete;
                    steps.push(Step::Reduce { sources: operands, into, last });
                }
            }
        }
    }
}

/// Both slices, shortened to the length of the shorter.
fn cut(slices: [Slice; 2]) -> [Slice; 2] {
    let len = slices[0].len.min(slices[1].len);
    slices.map(|slice| Slice { len, ..slice })
}

/// Appends the rounds of `inner` to `plan` under their new names.
pub fn embed(plan: &mut Plan, inner: &Plan, names: &Names<'_>) {
    plan.scratch = plan.scratch.max(names.scratch + inner.scratch);
    for round in &inner.rounds {
        let mut steps = Vec::with_capacity(round.steps.len());
        round.steps.iter().for_each(|step| names.translate(step, &mut steps));
        match round.meet {
            true => plan.meet(steps),
            false => plan.round(steps),
        }
    }
}

/// An all_reduce or a broadcast in two halves that share `Output`: `first` leaves its own shard
/// there on each rank, and `all_gather` spreads the shards in place.
fn in_output(
    problem: &Problem,
    topology: &Topology,
    rank: usize,
    (first, collective, input): (Builder, Collective, Slice),
    all_gather: Builder,
) -> Plan {
    let ranks: Vec<usize> = (0..problem.ranks()).collect();
    let own = Place::at(Slice::output(problem.sharding.range(rank)));
    let whole = Place::at(Slice::output(0..problem.sharding.n()));
    let mut plan = Plan::new(rank);
    let scatter = Problem { collective, ..problem.clone() };
    let inner = first(&scatter, topology, rank);
    let (input, scratch, complete) = (Place::at(input), 0, true);
    let names = Names { ranks: &ranks, input, output: own.clone(), scratch, complete };
    embed(&mut plan, &inner, &names);
    let gather = Problem { collective: Collective::AllGather, in_place: true, ..problem.clone() };
    let inner = all_gather(&gather, topology, rank);
    embed(&mut plan, &inner, &Names { input: own, output: whole, ..names });
    plan
}

/// An all_reduce as a reduce_scatter followed by an all_gather.
pub fn two_halves(
    problem: &Problem,
    topology: &Topology,
    rank: usize,
    reduce_scatter: Builder,
    all_gather: Builder,
) -> Plan {
    let input = Slice::input(0..problem.sharding.n());
    let first = (reduce_scatter, Collective::ReduceScatter, input);
    in_output(problem, topology, rank, first, all_gather)
}

/// A broadcast as a scatter followed by an all_gather (van de Geijn).
pub fn spread(
    problem: &Problem,
    topology: &Topology,
    rank: usize,
    scatter: Builder,
    all_gather: Builder,
) -> Plan {
    let root = problem.collective.root().unwrap_or(0);
    let input = Slice::output(0..problem.sharding.n());
    let first = (scatter, Collective::Scatter { root }, input);
    in_output(problem, topology, rank, first, all_gather)
}
