//! Calls that are prepared once and run many times.
//!
//! Preparing plans the call, checks the plan and reserves workspace; running it only moves data.
//! A call can also be started and advanced step by step, so that it overlaps with other work.

use std::marker::PhantomData;
use std::panic::Location;

use super::Communicator;
use super::choice::Ready;
use super::pending::{Lent, Pending};
use super::widen;
use crate::element::{DType, Element, Op};
use crate::error::{Error, Result};
use crate::plan::{Collective, Problem};
use crate::sharding::Sharding;
use crate::transport::frame::Buffers;
use crate::transport::memory::{Located, Sink, Source};

/// A call without its buffers.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Call {
    pub(super) problem: Problem,
    pub(super) dtype: DType,
    pub(super) op: Option<Op>,
    pub(super) algorithm: Option<&'static str>,
    /// Whether it runs in one go, so that a blocking call of the MPI library may serve it.
    pub(super) may_block: bool,
}

impl Call {
    pub(super) fn new<T: Element>(problem: Problem, op: Option<Op>) -> Self {
        Call { problem, dtype: T::DTYPE, op, algorithm: None, may_block: true }
    }

    /// Compares the buffers of the caller with the problem.
    pub(super) fn check_lengths(&self, rank: usize, input: usize, output: usize) -> Result<()> {
        let problem = &self.problem;
        let expected = (problem.input_len(rank), problem.output_len(rank));
        if (input, output) == expected {
            return Ok(());
        }
        Err(Error::input(format!(
            "{}: the input has {input} elements and the output {output}; with {} ranks and {} \
             elements in all, this rank needs {} and {}",
            problem.collective.name(),
            problem.ranks(),
            problem.sharding.n(),
            expected.0,
            expected.1,
        ))
        .on_rank(rank))
    }

    /// Compares the buffer of a call in place with the problem.
    pub(super) fn check_whole(&self, rank: usize, len: usize) -> Result<()> {
        let needed = self.problem.input_len(rank).max(self.problem.output_len(rank));
        if len == needed {
            return Ok(());
        }
        let name = self.problem.collective.name();
        let what =
            format!("{name} in place: the buffer has {len} elements; this rank needs {needed}");
        Err(Error::input(what).on_rank(rank))
    }

    /// Input and output of a call in place: one is the whole buffer, the other lies in it.
    pub(super) fn in_place<'a, T: Element>(
        &self,
        rank: usize,
        whole: Sink<'a, T>,
    ) -> (Buffers<'a>, [Located; 2]) {
        let (input, output) = (self.problem.input_len(rank), self.problem.output_len(rank));
        let start = self.problem.overlap(rank).unwrap_or(0);
        let bytes = size_of::<T>();
        let inner =
            Located { key: whole.located.key, offset: whole.located.offset + start * bytes };
        let data: &mut [u8] = bytemuck::cast_slice_mut(whole.data);
        if input < output {
            let range = start * bytes..(start + input) * bytes;
            (Buffers::input_in_output(data, range), [inner, whole.located])
        } else {
            let range = start * bytes..(start + output) * bytes;
            (Buffers::output_in_input(data, range), [whole.located, inner])
        }
    }
}

impl Communicator {
    /// Runs a call over the caller's buffers.
    pub(super) fn run<T: Element>(
        &self,
        call: &Call,
        input: Source<'_, T>,
        output: Sink<'_, T>,
        site: &'static Location<'static>,
    ) -> Result<()> {
        call.check_lengths(self.rank(), input.data.len(), output.data.len())?;
        let ready =
            self.prepared(call, [input.located, output.located].map(|l| l.key != 0), site)?;
        self.run_ready(call, &ready, (input, output), site)
    }

    fn run_ready<T: Element>(
        &self,
        call: &Call,
        ready: &Ready,
        (input, output): (Source<'_, T>, Sink<'_, T>),
        site: &'static Location<'static>,
    ) -> Result<()> {
        if ready.widens {
            return widen::run(self, call, input, output, site);
        }
        if let Some(native) = ready.native {
            return self.run_native(call, native, &ready.prepared, (input, output), site);
        }
        let located = [input.located, output.located];
        let (input, output) =
            (bytemuck::cast_slice(input.data), bytemuck::cast_slice_mut(output.data));
        self.context().run(&ready.prepared, Buffers::separate(input, output), located, site)
    }

    /// Runs a call in place: `whole` is the longer of input and output, and the other lies in it.
    pub(super) fn run_in_place<T: Element>(
        &self,
        call: &Call,
        whole: Sink<'_, T>,
        site: &'static Location<'static>,
    ) -> Result<()> {
        call.check_whole(self.rank(), whole.data.len())?;
        let ready = self.prepared(call, [whole.located.key != 0; 2], site)?;
        if ready.widens {
            return widen::run_in_place(self, call, whole, site);
        }
        let (buffers, located) = call.in_place(self.rank(), whole);
        self.context().run(&ready.prepared, buffers, located, site)
    }
}

/// A prepared call of one kind, for each mix of plain and shared buffers.
#[derive(Debug)]
struct Handle<T: Element> {
    communicator: Communicator,
    call: Call,
    variants: [std::cell::OnceCell<Ready>; 4],
    /// The same for calls that are started, which must not block.
    stepwise: [std::cell::OnceCell<Ready>; 4],
    of: PhantomData<T>,
}

impl<T: Element> Handle<T> {
    fn new(communicator: &Communicator, call: Call) -> Self {
        let (variants, stepwise) = Default::default();
        Handle { communicator: communicator.clone(), call, variants, stepwise, of: PhantomData }
    }

    fn variant(
        &self,
        shared: [bool; 2],
        may_block: bool,
        site: &'static Location<'static>,
    ) -> Result<&Ready> {
        let cells = if may_block { &self.variants } else { &self.stepwise };
        let cell = &cells[usize::from(shared[0]) + 2 * usize::from(shared[1])];
        if let Some(ready) = cell.get() {
            return Ok(ready);
        }
        let call = Call { may_block, ..self.call.clone() };
        let ready = self.communicator.prepared(&call, shared, site)?;
        Ok(cell.get_or_init(|| ready))
    }

    fn run(
        &self,
        input: Source<'_, T>,
        output: Sink<'_, T>,
        site: &'static Location<'static>,
    ) -> Result<()> {
        let rank = self.communicator.rank();
        self.call.check_lengths(rank, input.data.len(), output.data.len())?;
        let located = [input.located, output.located];
        let ready = self.variant(located.map(|l| l.key != 0), true, site)?;
        self.communicator.run_ready(&self.call, ready, (input, output), site)
    }

    fn start<I: Lent<T>, O: Lent<T>>(
        &self,
        input: I,
        output: O,
        site: &'static Location<'static>,
    ) -> Result<Pending<T, I, O>> {
        Pending::start(
            &self.communicator,
            &self.call,
            |shared| Ok(self.variant(shared, false, site)?.clone()),
            (input, output),
            site,
        )
    }
}

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<T: Element> {
            handle: Handle<T>,
        }

        impl<T: Element> $name<T> {
            /// Runs it. Collective.
            #[track_caller]
            pub fn run<'a>(
                &self,
                input: impl Into<Source<'a, T>>,
                output: impl Into<Sink<'a, T>>,
            ) -> Result<()> {
                self.handle.run(input.into(), output.into(), Location::caller())
            }

            /// Starts it, and owns its buffers until it is waited for. Several calls may be under
            /// way at once; all ranks start them in the same order. Collective.
            #[track_caller]
            pub fn start<I: Lent<T>, O: Lent<T>>(
                &self,
                input: I,
                output: O,
            ) -> Result<Pending<T, I, O>> {
                self.handle.start(input, output, Location::caller())
            }

            /// The algorithm that runs for these kinds of buffers. Collective on first use.
            #[track_caller]
            pub fn algorithm(&self, shared_input: bool, shared_output: bool) -> Result<&str> {
                let site = Location::caller();
                let ready = self.handle.variant([shared_input, shared_output], true, site)?;
                let name = &ready.prepared.name;
                Ok(name.split_once('/').map_or(name.as_str(), |(_, algorithm)| algorithm))
            }

            /// Who owns which part of the whole vector.
            pub fn sharding(&self) -> &Sharding {
                &self.handle.call.problem.sharding
            }
        }
    };
}

handle! {
    /// A prepared reduce_scatter: input the whole vector, output the own shard.
    ReduceScatter
}
handle! {
    /// A prepared all_gather: input the own shard, output the whole vector.
    AllGather
}
handle! {
    /// A prepared all_reduce: input and output the whole vector.
    AllReduce
}

handle! {
    /// A prepared call of any problem, for measurements.
    #[doc(hidden)]
    AnyCall
}

impl Communicator {
    /// Prepares a problem, by a named algorithm if one is given. Collective.
    #[doc(hidden)]
    pub fn prepare_any<T: Element>(
        &self,
        problem: &Problem,
        algorithm: Option<&'static str>,
        op: Option<Op>,
    ) -> AnyCall<T> {
        let call = Call { algorithm, ..Call::new::<T>(problem.clone(), op) };
        AnyCall { handle: Handle::new(self, call) }
    }

    /// Prepares a reduce_scatter over `sharding`. Collective.
    pub fn prepare_reduce_scatter<T: Element>(
        &self,
        sharding: &Sharding,
        op: Op,
    ) -> Result<ReduceScatter<T>> {
        let call = self.call::<T>(Collective::ReduceScatter, sharding, Some(op))?;
        Ok(ReduceScatter { handle: Handle::new(self, call) })
    }

    /// Prepares an all_gather over `sharding`. Collective.
    pub fn prepare_all_gather<T: Element>(&self, sharding: &Sharding) -> Result<AllGather<T>> {
        let call = self.call::<T>(Collective::AllGather, sharding, None)?;
        Ok(AllGather { handle: Handle::new(self, call) })
    }

    /// Prepares an all_reduce of `n` elements. Collective.
    pub fn prepare_all_reduce<T: Element>(&self, n: usize, op: Op) -> Result<AllReduce<T>> {
        let sharding = Sharding::even(n, self.ranks());
        let call = self.call::<T>(Collective::AllReduce, &sharding, Some(op))?;
        Ok(AllReduce { handle: Handle::new(self, call) })
    }

    /// A call over `sharding`, which must be one of this communicator's ranks.
    pub(super) fn call<T: Element>(
        &self,
        collective: Collective,
        sharding: &Sharding,
        op: Option<Op>,
    ) -> Result<Call> {
        if sharding.ranks() != self.ranks() {
            return Err(Error::input(format!(
                "{}: the sharding is for {} ranks, the communicator has {}",
                collective.name(),
                sharding.ranks(),
                self.ranks()
            )));
        }
        if collective.root().is_some_and(|root| root >= self.ranks()) {
            return Err(Error::input(format!(
                "{}: the root must be below {}, the number of ranks; it is {}",
                collective.name(),
                self.ranks(),
                collective.root().unwrap_or(0)
            )));
        }
        Ok(Call::new::<T>(self.problem::<T>(collective, sharding), op))
    }
}
