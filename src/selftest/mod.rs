//! The conformance suite: every collective × algorithm × element type × awkward size, on the ranks
//! it is given, with values that depend on rank and index.
//!
//! It is a part of the library because it is also `rankwise selftest` on a user's cluster. Each
//! case is run by a named algorithm and compared with plain arithmetic on small whole numbers,
//! which every element type holds exactly, so results must be equal to the last bit. Outputs are
//! filled with a mark before, inputs are compared after.

mod groups;

use std::sync::Arc;

use half::{bf16, f16};

use crate::communicator::Communicator;
use crate::element::{DType, Element, Op};
use crate::error::Result;
use crate::plan::table::{self, Algorithm};
use crate::plan::{Collective, Problem};
use crate::sharding::Sharding;
use crate::transport::memory::{SharedBuffer, Sink, Source};
use crate::with_element_type;

/// How much to test.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extent {
    /// Three element types and the smaller sizes only.
    pub quick: bool,
    /// The background communicator too, which the job must have been started for.
    pub background: bool,
}

/// What the suite found.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Outcome {
    /// Ranks that took part.
    pub ranks: usize,
    /// Nodes they live on.
    pub nodes: usize,
    /// Cases with the right result on all ranks.
    pub passed: u64,
    /// Cases with a wrong result on some rank.
    pub failed: u64,
    /// Algorithms that ran, as `collective/algorithm`.
    pub algorithms: Vec<String>,
    /// The first wrong results, in words.
    pub failures: Vec<String>,
}

/// Failures that are put into words.
const MOST_WORDS: usize = 10;
/// What outputs hold before: no case has it as a result everywhere.
const MARK: u8 = 123;

/// Runs the suite. Collective. Wrong results are in the outcome; an error means that a collective
/// itself failed.
pub fn run(communicator: &Communicator, extent: Extent) -> Result<Outcome> {
    let topology = communicator.topology();
    let mut suite = Suite {
        communicator,
        extent,
        outcome: Outcome { ranks: topology.ranks(), nodes: topology.nodes(), ..Outcome::default() },
    };
    for row in table::all() {
        suite.algorithm(row)?;
    }
    let (count, wrong) = groups::run(communicator, extent.background)?;
    suite.settle(count, wrong)?;
    Ok(suite.outcome)
}

struct Suite<'a> {
    communicator: &'a Communicator,
    extent: Extent,
    outcome: Outcome,
}

impl Suite<'_> {
    /// All cases of one row of the table that fit these ranks.
    fn algorithm(&mut self, row: &'static Algorithm) -> Result<()> {
        let (mut wrong, mut count) = (Vec::new(), 0);
        let dtypes: &[DType] =
            if self.extent.quick { &[DType::F32, DType::Bf16, DType::I64] } else { &DType::ALL };
        for problem in self.problems(row) {
            for &dtype in dtypes {
                with_element_type!(dtype, T => {
                    self.cases::<T>(row, &problem, &mut wrong, &mut count)?;
                });
            }
        }
        if count > 0 {
            self.outcome.algorithms.push(format!("{}/{}", row.collective.name(), row.name));
        }
        self.settle(count, wrong)
    }

    /// Adds up the wrong results of all ranks; a case counts as failed once a rank. The words of
    /// all ranks are gathered, because rank 0 prints them.
    fn settle(&mut self, count: u64, wrong: Vec<String>) -> Result<()> {
        let total = self.communicator.all_reduce_vec(&[wrong.len() as u64], Op::Sum)?[0];
        let failed = total.min(count);
        self.outcome.passed += count - failed;
        self.outcome.failed += failed;
        if total == 0 {
            return Ok(());
        }
        let line = |text: String| format!("{text}\n");
        let own: String = wrong.into_iter().take(MOST_WORDS).map(line).collect();
        let own: Vec<u32> = own.chars().map(u32::from).collect();
        let all: String = self
            .communicator
            .all_gather_vec(&own)?
            .0
            .into_iter()
            .filter_map(char::from_u32)
            .collect();
        let room = MOST_WORDS.saturating_sub(self.outcome.failures.len());
        self.outcome.failures.extend(all.lines().take(room).map(str::to_string));
        Ok(())
    }

    /// Problems of awkward sizes and shardings for a collective.
    fn problems(&self, row: &Algorithm) -> Vec<Problem> {
        let p = self.communicator.ranks();
        let mut sizes = vec![0, 1, p.saturating_sub(1), p, p + 1, 3 * p + 2, 1000];
        if !self.extent.quick {
            sizes.push(20_011);
        }
        sizes.sort_unstable();
        sizes.dedup();
        let mut roots = vec![0, p / 2, p - 1];
        roots.dedup();
        let mut problems = Vec::new();
        for &n in &sizes {
            for sharding in self.shardings(row.collective, n) {
                let piece = if n > 100 { 256 } else { 3 };
                let base = Problem { piece, ..Problem::new(row.collective, sharding) };
                match row.collective {
                    Collective::AllToAll => problems.extend(self.all_to_alls(n, piece)),
                    Collective::Broadcast { .. } => problems.extend(roots.iter().map(|&root| {
                        Problem { collective: Collective::Broadcast { root }, ..base.clone() }
                    })),
                    Collective::Gather { .. } => problems.extend(roots.iter().map(|&root| {
                        Problem { collective: Collective::Gather { root }, ..base.clone() }
                    })),
                    Collective::Scatter { .. } => problems.extend(roots.iter().map(|&root| {
                        Problem { collective: Collective::Scatter { root }, ..base.clone() }
                    })),
                    _ => problems.push(base),
                }
            }
        }
        let in_place: Vec<Problem> = problems
            .iter()
            .filter(|problem| row.in_place && problem.sharding.n() % 2 == 1)
            .map(|problem| Problem { in_place: true, ..problem.clone() })
            .collect();
        problems.extend(in_place);
        problems
    }

    fn shardings(&self, collective: Collective, n: usize) -> Vec<Sharding> {
        let p = self.communicator.ranks();
        let even = Sharding::even(n, p);
        let fixed = matches!(collective, Collective::AllReduce | Collective::Broadcast { .. });
        if fixed || matches!(collective, Collective::Barrier | Collective::AllToAll) || p == 1 {
            return vec![even];
        }
        // Everything on one rank; and shares that leave every third rank empty.
        let mut one = vec![0; p];
        one[p / 2] = n;
        let holes: Vec<u64> = (0..p as u64).map(|r| r % 3).collect();
        vec![even, Sharding::from_counts(&one), Sharding::weighted(n, &holes)]
    }

    fn all_to_alls(&self, n: usize, piece: usize) -> Vec<Problem> {
        let p = self.communicator.ranks();
        let equal: Arc<[usize]> = vec![n / p + 1; p * p].into();
        let uneven: Arc<[usize]> =
            (0..p * p).map(|i| if i % 3 == 0 { 0 } else { (i * 7 + n) % 11 }).collect();
        [equal, uneven].map(|m| Problem { piece, ..Problem::all_to_all(p, m) }).into()
    }

    /// One problem in one type: every operator and every kind of buffer that makes sense.
    fn cases<T: Element>(
        &self,
        row: &'static Algorithm,
        problem: &Problem,
        wrong: &mut Vec<String>,
        count: &mut u64,
    ) -> Result<()> {
        let n = problem.sharding.n();
        let ops: Vec<Option<Op>> = match row.collective.reduces() {
            false => vec![None],
            true if n == 1000 || self.extent.quick => vec![Some(Op::Sum), Some(Op::Average)],
            true => Op::ALL.map(Some).to_vec(),
        };
        let topology = self.communicator.topology();
        for shared in [[false; 2], [true; 2]] {
            if row.fits(problem, topology, shared[0], shared[1]).is_err() {
                continue;
            }
            for &op in &ops {
                *count += 1;
                if let Some(text) = self.case::<T>(row, problem, op, shared[0])? {
                    wrong.push(text);
                }
            }
        }
        Ok(())
    }

    /// Runs one case; a wrong result in words.
    fn case<T: Element>(
        &self,
        row: &'static Algorithm,
        problem: &Problem,
        op: Option<Op>,
        shared: bool,
    ) -> Result<Option<String>> {
        let rank = self.communicator.rank();
        let expected = Expected { problem, op };
        let input: Vec<T> = expected.input(rank);
        let (input_len, output_len) = (problem.input_len(rank), problem.output_len(rank));
        let mut output = vec![T::from_small(MARK); output_len.max(input_len)];
        let start = problem.overlap(rank);
        match start {
            Some(start) if input_len < output_len => {
                output[start..start + input_len].copy_from_slice(&input);
            }
            Some(_) => output.copy_from_slice(&input),
            None => output.truncate(output_len),
        }
        if problem.collective.root() == Some(rank) && input_len == 0 {
            output = expected.output(rank); // the root of a broadcast has it already
        }
        let unchanged =
            self.run_case(row, problem, op, &input, &mut output, shared)? || problem.in_place;
        #[cfg(test)]
        tests::spoil(&mut output);
        let own = match start {
            Some(start) if input_len > output_len => &output[start..start + output_len],
            _ => &output[..],
        };
        let right: Vec<T> = expected.output(rank);
        let Some(what) = difference(own, &right, unchanged) else { return Ok(None) };
        Ok(Some(format!(
            "rank {rank}: {}/{} {} n = {} shards {:?} op {:?} shared {shared} in place {}: {what}",
            row.collective.name(),
            row.name,
            T::DTYPE,
            problem.sharding.n(),
            (0..problem.ranks()).map(|r| problem.sharding.count(r)).collect::<Vec<_>>(),
            op.map(Op::name),
            problem.in_place,
        )))
    }

    /// Runs the collective over plain or shared buffers. Whether the input is as it was.
    fn run_case<T: Element>(
        &self,
        row: &'static Algorithm,
        problem: &Problem,
        op: Option<Op>,
        input: &[T],
        output: &mut [T],
        shared: bool,
    ) -> Result<bool> {
        let (c, name) = (self.communicator, Some(row.name));
        if !shared {
            let before = input.to_vec();
            c.run_algorithm(problem, name, op, Source::from(input), Sink::from(output))?;
            return Ok(input == before);
        }
        let most = (0..problem.ranks())
            .map(|r| problem.input_len(r).max(problem.output_len(r)))
            .max()
            .unwrap_or(0);
        let mut theirs: SharedBuffer<T> = c.shared(most)?;
        let mut ours: SharedBuffer<T> = c.shared(most)?;
        theirs[..input.len()].copy_from_slice(input);
        ours[..output.len()].copy_from_slice(output);
        let (from, into) = (theirs.part(0..input.len()), ours.part_mut(0..output.len()));
        c.run_algorithm(problem, name, op, from, into)?;
        output.copy_from_slice(&ours[..output.len()]);
        Ok(theirs[..input.len()] == *input)
    }
}

/// What a case starts from, and the result it must have.
struct Expected<'a> {
    problem: &'a Problem,
    op: Option<Op>,
}

impl Expected<'_> {
    /// The contribution of `rank` at an index of its input.
    fn contribution(&self, rank: usize, index: usize) -> u8 {
        match self.op {
            Some(Op::Product) => 1 + u8::from((rank + index).is_multiple_of(4)),
            Some(_) => ((rank * 7 + index * 3 + 1) % 5) as u8,
            None => ((rank * 31 + index) % 251) as u8,
        }
    }

    fn input<T: Element>(&self, rank: usize) -> Vec<T> {
        let len = self.problem.input_len(rank);
        (0..len).map(|i| T::from_small(self.contribution(rank, i))).collect()
    }

    /// The reduction at an index of the whole vector.
    fn reduced<T: Element>(&self, op: Op, index: usize) -> T {
        let p = self.problem.ranks();
        let values = (0..p).map(|rank| f64::from(self.contribution(rank, index)));
        let value = match op {
            Op::Sum | Op::Average => values.sum(),
            Op::Product => values.product(),
            Op::Min => values.fold(f64::INFINITY, f64::min),
            Op::Max => values.fold(f64::NEG_INFINITY, f64::max),
        };
        rounded(value, if op == Op::Average { p as f64 } else { 1.0 })
    }

    fn output<T: Element>(&self, rank: usize) -> Vec<T> {
        let Problem { collective, sharding, .. } = self.problem;
        let of = |owner: usize, i: usize| T::from_small(self.contribution(owner, i));
        let shard = |owner: usize| (0..sharding.count(owner)).map(move |i| of(owner, i));
        let op = self.op.unwrap_or(Op::Sum);
        match *collective {
            Collective::ReduceScatter => {
                sharding.range(rank).map(|i| self.reduced(op, i)).collect()
            }
            Collective::AllReduce => (0..sharding.n()).map(|i| self.reduced(op, i)).collect(),
            Collective::AllGather => (0..sharding.ranks()).flat_map(shard).collect(),
            Collective::Gather { root } if root == rank => {
                (0..sharding.ranks()).flat_map(shard).collect()
            }
            Collective::Gather { .. } | Collective::Barrier => Vec::new(),
            Collective::Broadcast { root } => (0..sharding.n()).map(|i| of(root, i)).collect(),
            Collective::Scatter { root } => sharding.range(rank).map(|i| of(root, i)).collect(),
            Collective::AllToAll => (0..sharding.ranks())
                .flat_map(|from| self.problem.sent(from, rank).map(move |i| of(from, i)))
                .collect(),
        }
    }
}

/// How a result differs from the right one, in words; `None` if it does not.
fn difference<T: Element>(own: &[T], right: &[T], input_unchanged: bool) -> Option<String> {
    if own.len() != right.len() {
        return Some(format!("{} elements and should be {}", own.len(), right.len()));
    }
    let differing = own.iter().zip(right).position(|(a, b)| a.to_f64() != b.to_f64());
    match differing {
        Some(i) => Some(format!("element {i} is {:?} and should be {:?}", own[i], right[i])),
        None if !input_unchanged => Some("the input was changed".to_string()),
        None => None,
    }
}

/// `value / divisor` as the type computes it: one division in f32 or f64, one rounding; integers
/// towards zero.
fn rounded<T: Element>(value: f64, divisor: f64) -> T {
    let single = value as f32 / divisor as f32;
    let mut result = [T::default()];
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut result);
    let whole = (value / divisor).trunc();
    match T::DTYPE {
        DType::F64 => bytes.copy_from_slice(&(value / divisor).to_ne_bytes()),
        DType::F32 => bytes.copy_from_slice(&single.to_ne_bytes()),
        DType::Bf16 => bytes.copy_from_slice(&bf16::from_f32(single).to_bits().to_ne_bytes()),
        DType::F16 => bytes.copy_from_slice(&f16::from_f32(single).to_bits().to_ne_bytes()),
        DType::I32 => bytes.copy_from_slice(&(whole as i32).to_ne_bytes()),
        DType::I64 => bytes.copy_from_slice(&(whole as i64).to_ne_bytes()),
        DType::U32 => bytes.copy_from_slice(&(whole as u32).to_ne_bytes()),
        DType::U64 => bytes.copy_from_slice(&(whole as u64).to_ne_bytes()),
    }
    result[0]
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::launch;

    #[test]
    fn every_kind_of_wrong_result_is_seen() {
        assert_eq!(difference(&[1.0f32, 2.0], &[1.0, 2.0], true), None);
        let cases: [(&[f32], bool, &str); 5] = [
            (&[1.0, 3.0], true, "element 1 is 3.0 and should be 2.0"),
            (&[f32::NAN, 2.0], true, "element 0 is NaN and should be 1.0"),
            (&[1.0], true, "1 elements and should be 2"),
            (&[1.0, 2.0, 3.0], true, "3 elements and should be 2"),
            (&[1.0, 2.0], false, "the input was changed"),
        ];
        for (own, unchanged, words) in cases {
            assert_eq!(difference(own, &[1.0, 2.0], unchanged).as_deref(), Some(words));
        }
    }

    thread_local! {
        /// Whether this rank spoils the results of its collectives.
        static SPOILS: Cell<bool> = const { Cell::new(false) };
    }

    /// Plants a wrong result, if this rank does so.
    pub(super) fn spoil<T: Element>(output: &mut [T]) {
        if let Some(last) = output.last_mut().filter(|_| SPOILS.get()) {
            *last = T::from_small(MARK + 1);
        }
    }

    #[test]
    fn a_wrong_result_on_one_rank_is_reported_on_all_of_them_in_its_words() {
        let outcomes = launch::threads(3, |communicator| {
            SPOILS.set(communicator.rank() == 1);
            let outcome = Outcome::default();
            let mut suite =
                Suite { communicator, extent: Extent { quick: true, background: false }, outcome };
            suite.algorithm(table::find(Collective::AllGather, "ring")?)?;
            Ok(suite.outcome)
        });
        for outcome in outcomes.unwrap() {
            // Right are only the cases without elements.
            assert!(outcome.failed > 50 && outcome.passed > 0, "{outcome:?}");
            assert_eq!(outcome.failures.len(), MOST_WORDS);
            for words in outcome.failures {
                assert!(words.starts_with("rank 1: all_gather/ring "), "{words}");
                assert!(words.contains(" is 124") && words.contains("should be "), "{words}");
            }
        }
    }
}
