//! The collectives, one call each.
//!
//! `n` is the length of the whole vector; shards without a given [`Sharding`] are the even ones,
//! whose sizes differ by at most one. Buffers are plain slices or `SharedBuffer`s; all ranks pass
//! the same kind. Every method here is collective.

use std::panic::Location;
use std::sync::Arc;

use super::Communicator;
use super::call::Call;
use crate::element::{Element, Op};
use crate::error::{Error, Result};
use crate::plan::{Collective, Problem};
use crate::sharding::Sharding;
use crate::transport::memory::{Sink, Source};

impl Communicator {
    /// Combines the `input`s of all ranks, and gives each rank its even shard of the result.
    #[track_caller]
    pub fn reduce_scatter<'a, T: Element>(
        &self,
        input: impl Into<Source<'a, T>>,
        output: impl Into<Sink<'a, T>>,
        op: Op,
    ) -> Result<()> {
        let input = input.into();
        let sharding = Sharding::even(input.data.len(), self.ranks());
        self.reduce_scatter_by(&sharding, input, output, op)
    }

    /// [`Communicator::reduce_scatter`] with given shards.
    #[track_caller]
    pub fn reduce_scatter_by<'a, T: Element>(
        &self,
        sharding: &Sharding,
        input: impl Into<Source<'a, T>>,
        output: impl Into<Sink<'a, T>>,
        op: Op,
    ) -> Result<()> {
        let call = self.call::<T>(Collective::ReduceScatter, sharding, Some(op))?;
        self.run(&call, input.into(), output.into(), Location::caller())
    }

    /// [`Communicator::reduce_scatter`] into a vector of its own.
    #[track_caller]
    pub fn reduce_scatter_vec<T: Element>(&self, input: &[T], op: Op) -> Result<Vec<T>> {
        let count = Sharding::even(input.len(), self.ranks()).count(self.rank());
        let mut output = vec![T::default(); count];
        self.reduce_scatter(input, &mut output, op)?;
        Ok(output)
    }

    /// [`Communicator::reduce_scatter_by`] where the result replaces the own shard of `buffer`;
    /// the rest of it holds garbage afterwards.
    #[track_caller]
    pub fn reduce_scatter_in_place<'a, T: Element>(
        &self,
        sharding: &Sharding,
        buffer: impl Into<Sink<'a, T>>,
        op: Op,
    ) -> Result<()> {
        let mut call = self.call::<T>(Collective::ReduceScatter, sharding, Some(op))?;
        call.problem.in_place = true;
        self.run_in_place(&call, buffer.into(), Location::caller())
    }

    /// Gives all ranks the even shards of all ranks, in rank order.
    #[track_caller]
    pub fn all_gather<'a, T: Element>(
        &self,
        input: impl Into<Source<'a, T>>,
        output: impl Into<Sink<'a, T>>,
    ) -> Result<()> {
        let output = output.into();
        let sharding = Sharding::even(output.data.len(), self.ranks());
        self.all_gather_by(&sharding, input, output)
    }

    /// [`Communicator::all_gather`] with given shards.
    #[track_caller]
    pub fn all_gather_by<'a, T: Element>(
        &self,
        sharding: &Sharding,
        input: impl Into<Source<'a, T>>,
        output: impl Into<Sink<'a, T>>,
    ) -> Result<()> {
        let call = self.call::<T>(Collective::AllGather, sharding, None)?;
        self.run(&call, input.into(), output.into(), Location::caller())
    }

    /// [`Communicator::all_gather_by`] where the own shard of `buffer` is the contribution.
    #[track_caller]
    pub fn all_gather_in_place<'a, T: Element>(
        &self,
        sharding: &Sharding,
        buffer: impl Into<Sink<'a, T>>,
    ) -> Result<()> {
        let mut call = self.call::<T>(Collective::AllGather, sharding, None)?;
        call.problem.in_place = true;
        self.run_in_place(&call, buffer.into(), Location::caller())
    }

    /// Gathers parts whose lengths the other ranks do not know: they are gathered first. Returns
    /// the whole and who contributed which part of it.
    #[track_caller]
    pub fn all_gather_vec<T: Element>(&self, part: &[T]) -> Result<(Vec<T>, Sharding)> {
        let mut lengths = vec![0u64; self.ranks()];
        self.all_gather(&[part.len() as u64], &mut lengths)?;
        let counts: Vec<usize> = lengths.into_iter().map(|n| n as usize).collect();
        let sharding = Sharding::from_counts(&counts);
        let mut whole = vec![T::default(); sharding.n()];
        self.all_gather_by(&sharding, part, &mut whole)?;
        Ok((whole, sharding))
    }

    /// Combines the `input`s of all ranks, and gives all of them the result.
    #[track_caller]
    pub fn all_reduce<'a, T: Element>(
        &self,
        input: impl Into<Source<'a, T>>,
        output: impl Into<Sink<'a, T>>,
        op: Op,
    ) -> Result<()> {
        let input = input.into();
        let sharding = Sharding::even(input.data.len(), self.ranks());
        let call = self.call::<T>(Collective::AllReduce, &sharding, Some(op))?;
        self.run(&call, input, output.into(), Location::caller())
    }

    /// [`Communicator::all_reduce`] into a vector of its own.
    #[track_caller]
    pub fn all_reduce_vec<T: Element>(&self, input: &[T], op: Op) -> Result<Vec<T>> {
        let mut output = vec![T::default(); input.len()];
        self.all_reduce(input, &mut output, op)?;
        Ok(output)
    }

    /// [`Communicator::all_reduce`] where the result replaces the contribution.
    #[track_caller]
    pub fn all_reduce_in_place<'a, T: Element>(
        &self,
        buffer: impl Into<Sink<'a, T>>,
        op: Op,
    ) -> Result<()> {
        let buffer = buffer.into();
        let sharding = Sharding::even(buffer.data.len(), self.ranks());
        let mut call = self.call::<T>(Collective::AllReduce, &sharding, Some(op))?;
        call.problem.in_place = true;
        self.run_in_place(&call, buffer, Location::caller())
    }

    /// Gives all ranks the `buffer` of the root.
    #[track_caller]
    pub fn broadcast<'a, T: Element>(
        &self,
        buffer: impl Into<Sink<'a, T>>,
        root: usize,
    ) -> Result<()> {
        let buffer = buffer.into();
        let sharding = Sharding::even(buffer.data.len(), self.ranks());
        let call = self.call::<T>(Collective::Broadcast { root }, &sharding, None)?;
        self.run(&call, Source::from(&[]), buffer, Location::caller())
    }

    /// Gives the root the shards of all ranks; `output` is empty elsewhere.
    #[track_caller]
    pub fn gather<'a, T: Element>(
        &self,
        sharding: &Sharding,
        input: impl Into<Source<'a, T>>,
        output: impl Into<Sink<'a, T>>,
        root: usize,
    ) -> Result<()> {
        let call = self.call::<T>(Collective::Gather { root }, sharding, None)?;
        self.run(&call, input.into(), output.into(), Location::caller())
    }

    /// Gives each rank its shard of the root's `input`, which is empty elsewhere.
    #[track_caller]
    pub fn scatter<'a, T: Element>(
        &self,
        sharding: &Sharding,
        input: impl Into<Source<'a, T>>,
        output: impl Into<Sink<'a, T>>,
        root: usize,
    ) -> Result<()> {
        let call = self.call::<T>(Collective::Scatter { root }, sharding, None)?;
        self.run(&call, input.into(), output.into(), Location::caller())
    }

    /// Sends block `r` of `input` to rank `r`; all blocks have the same length.
    #[track_caller]
    pub fn all_to_all<'a, T: Element>(
        &self,
        input: impl Into<Source<'a, T>>,
        output: impl Into<Sink<'a, T>>,
    ) -> Result<()> {
        let input = input.into();
        let call = self.all_to_all_even::<T>(input.data.len())?;
        self.run(&call, input, output.into(), Location::caller())
    }

    /// Sends the first `counts_to[0]` elements of `input` to rank 0, the next `counts_to[1]` to
    /// rank 1, and so on. Returns what came from all ranks, in rank order, and how many elements
    /// from each. The counts are gathered first, so receivers need not know them.
    #[track_caller]
    pub fn all_to_all_vec<T: Element>(
        &self,
        input: &[T],
        counts_to: &[usize],
    ) -> Result<(Vec<T>, Vec<usize>)> {
        let ranks = self.ranks();
        if counts_to.len() != ranks || counts_to.iter().sum::<usize>() != input.len() {
            return Err(Error::input(format!(
                "all_to_all: {} counts with the sum {} for {ranks} ranks and {} elements",
                counts_to.len(),
                counts_to.iter().sum::<usize>(),
                input.len()
            )));
        }
        let row: Vec<u64> = counts_to.iter().map(|&c| c as u64).collect();
        let mut matrix = vec![0u64; ranks * ranks];
        self.all_gather(&row, &mut matrix)?;
        let call = self.all_to_all_call::<T>(matrix.into_iter().map(|c| c as usize).collect());
        let from: Vec<usize> =
            (0..ranks).map(|other| call.problem.count(other, self.rank())).collect();
        let mut output = vec![T::default(); from.iter().sum()];
        self.run(&call, Source::from(input), Sink::from(&mut output), Location::caller())?;
        Ok((output, from))
    }

    /// [`Communicator::all_to_all_vec`] where all ranks know all counts: `counts[a * ranks + b]`
    /// elements go from rank `a` to rank `b`. Nothing but them is sent.
    #[track_caller]
    pub fn all_to_all_by<'a, T: Element>(
        &self,
        counts: &Arc<[usize]>,
        input: impl Into<Source<'a, T>>,
        output: impl Into<Sink<'a, T>>,
    ) -> Result<()> {
        let ranks = self.ranks();
        if counts.len() != ranks * ranks {
            return Err(Error::input(format!(
                "all_to_all: {} counts; {ranks} ranks have {} pairs",
                counts.len(),
                ranks * ranks
            )));
        }
        let call = self.all_to_all_call::<T>(counts.clone());
        self.run(&call, input.into(), output.into(), Location::caller())
    }

    /// The call that exchanges blocks of one length, of `n` elements a rank in all.
    pub(super) fn all_to_all_even<T: Element>(&self, n: usize) -> Result<Call> {
        let ranks = self.ranks();
        if !n.is_multiple_of(ranks) {
            return Err(Error::input(format!(
                "all_to_all: {n} elements are no equal blocks for {ranks} ranks; use all_to_all_vec"
            )));
        }
        Ok(self.all_to_all_call::<T>(vec![n / ranks; ranks * ranks].into()))
    }

    fn all_to_all_call<T: Element>(&self, counts: Arc<[usize]>) -> Call {
        let piece = self.problem::<T>(Collective::Barrier, &Sharding::even(0, self.ranks())).piece;
        let problem = Problem { piece, ..Problem::all_to_all(self.ranks(), counts) };
        Call::new::<T>(problem, None)
    }

    /// Returns when all ranks have come.
    #[track_caller]
    pub fn barrier(&self) -> Result<()> {
        let sharding = Sharding::even(0, self.ranks());
        let call = self.call::<u64>(Collective::Barrier, &sharding, None)?;
        self.run::<u64>(&call, Source::from(&[]), Sink::from(&mut []), Location::caller())
    }

    /// Runs a problem by a named algorithm: for tests, measurements and tuning.
    #[doc(hidden)]
    #[track_caller]
    pub fn run_algorithm<'a, T: Element>(
        &self,
        problem: &Problem,
        algorithm: Option<&'static str>,
        op: Option<Op>,
        input: impl Into<Source<'a, T>>,
        output: impl Into<Sink<'a, T>>,
    ) -> Result<()> {
        let call = Call { algorithm, ..Call::new::<T>(problem.clone(), op) };
        if problem.in_place {
            self.run_in_place(&call, output.into(), Location::caller())
        } else {
            self.run(&call, input.into(), output.into(), Location::caller())
        }
    }
}
